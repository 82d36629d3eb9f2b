//! The choice of private users for children: requested, by default where they work, or none.

use std::ffi::OsString;
use std::io;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use super::file_rules::{certificates, file_of_argument};
use super::probe;
use super::user_pool::{DEFAULT_RANGE, LOCKS, UserPool};
use super::user_trial::{self, Obstacle, UserNeeds};
use super::{ChildUsers, Isolation};

/// The program of the children that are to come.
#[derive(Debug)]
pub(crate) struct ExpectedProgram<'a> {
    /// Its path, or the reason that there is none.
    pub(crate) path: Result<PathBuf, String>,
    pub(crate) args: &'a [OsString],
    pub(crate) variables: Vec<(OsString, OsString)>,
}

/// The result for the report: `None` if there is nothing to report.
type Choice = Option<Result<UserPool, String>>;

/// Finds out whether children get private users. `parent` is that of their directories.
pub(super) fn choose(
    isolation: &Isolation,
    parent: &Path,
    program: Option<&ExpectedProgram<'_>>,
) -> io::Result<Choice> {
    match (&isolation.users, program) {
        (ChildUsers::Off, _) | (ChildUsers::Auto, None) => Ok(None),
        (ChildUsers::Range(range), _) => Ok(Some(match probe::other_users() {
            Ok(()) => of_range(range, UserNeeds::default())?,
            Err(reason) => Err(reason.to_owned()),
        })),
        // A broker without the rights has nothing to report: it was not asked.
        (ChildUsers::Auto, Some(_)) if probe::other_users().is_err() => Ok(None),
        (ChildUsers::Auto, Some(program)) => match &program.path {
            Ok(path) => {
                let needs = needs(isolation, parent, path, program);
                let choice = of_range(&DEFAULT_RANGE, needs)?;
                Ok(Some(choice))
            }
            Err(reason) => Ok(Some(Err(format!("the program cannot be tried: {reason}")))),
        },
    }
}

fn of_range(range: &RangeInclusive<u32>, needs: UserNeeds) -> io::Result<Result<UserPool, String>> {
    Ok(match user_trial::try_as(*range.start(), needs)? {
        Ok(()) => UserPool::new(range.clone(), Path::new(LOCKS)).map_err(|error| error.to_string()),
        Err(Obstacle::Switch(error)) => Err(format!("cannot become user {}: {error}", range.start())),
        Err(Obstacle::Path(path)) => Err(format!(
            "other users have no access to {}; permit it, or set isolation.users to off",
            path.display()
        )),
    })
}

fn needs(isolation: &Isolation, parent: &Path, path: &Path, program: &ExpectedProgram<'_>) -> UserNeeds {
    let mut needs = UserNeeds::default();
    needs.execute(path);
    if isolation.own_directory {
        needs.pass(parent);
    }
    for file in program.args.iter().filter_map(file_of_argument) {
        needs.read(file);
    }
    let certificates = certificates(program.variables.iter().map(|(name, value)| (name, value)));
    for path in certificates.iter().chain(&isolation.readable) {
        needs.read(path);
    }
    for path in &isolation.writable {
        needs.write(path);
    }
    needs
}
