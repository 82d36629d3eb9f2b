//! Trying, at the start, whether a private user can run the program of children.
//!
//! By default children get private users only if such a user can execute the program, and can
//! access the files and directories that the configuration names. A throw-away thread becomes that
//! user and asks the kernel for each path; credentials belong to a thread.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::thread;

use rustix::fs::{Access, access};
use rustix::io::Errno;

use super::setup;
use crate::dumpable;

/// The longest first line of a script that is read.
const MAX_FIRST_LINE: u64 = 4096;

/// The result of a trial that found an obstacle.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Obstacle {
    /// This process cannot become the user, for example in a user namespace without its number.
    Switch(Errno),
    /// The user has no access to a path.
    Path(PathBuf),
}

/// The paths that a private user has to access.
#[derive(Clone, Debug, Default)]
pub(super) struct UserNeeds(Vec<(PathBuf, Access)>);

impl UserNeeds {
    /// Execution of a program, which may be a script.
    pub(super) fn execute(&mut self, program: &Path) {
        self.0.push((program.to_owned(), Access::EXEC_OK));
        if let Some(interpreter) = interpreter(program) {
            self.0.push((program.to_owned(), Access::READ_OK));
            self.0.push((interpreter, Access::EXEC_OK));
        }
    }

    /// Reading a file or directory. One that does not exist is not needed.
    pub(super) fn read(&mut self, path: &Path) {
        self.add(path, Access::READ_OK);
    }

    /// Changing a file or directory. One that does not exist is not needed.
    pub(super) fn write(&mut self, path: &Path) {
        self.add(path, Access::READ_OK | Access::WRITE_OK);
    }

    /// Passing through a directory.
    pub(super) fn pass(&mut self, directory: &Path) {
        self.0.push((directory.to_owned(), Access::EXEC_OK));
    }

    fn add(&mut self, path: &Path, access: Access) {
        if path.is_dir() {
            self.0.push((path.to_owned(), access | Access::EXEC_OK));
        } else if path.exists() {
            self.0.push((path.to_owned(), access));
        }
    }
}

/// Tries the paths as a user. Fails if the system refuses the thread.
pub(super) fn try_as(user: u32, needs: UserNeeds) -> io::Result<Result<(), Obstacle>> {
    let attempt = move || {
        let switched = setup::switch_user(user).and_then(|()| setup::drop_capabilities());
        switched.map_err(Obstacle::Switch)?;
        let denied = needs
            .0
            .into_iter()
            .find(|(path, wanted)| access(path, *wanted).is_err());
        denied.map_or(Ok(()), |(path, _)| Err(Obstacle::Path(path)))
    };
    dumpable::preserved(|| {
        let trial = thread::Builder::new().name("trial".to_owned()).spawn(attempt)?;
        trial.join().map_err(|_| io::Error::other("the trial panicked"))
    })
}

/// The interpreter that the first line of a script names (execve(2)).
fn interpreter(program: &Path) -> Option<PathBuf> {
    let mut first = Vec::new();
    let file = BufReader::new(File::open(program).ok()?);
    file.take(MAX_FIRST_LINE).read_until(b'\n', &mut first).ok()?;
    let words = first.strip_prefix(b"#!")?;
    let mut words = words.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
    let path = std::ffi::OsString::from_vec(words.next()?.to_vec());
    Some(PathBuf::from(path))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const USER: u32 = 3_100_000;

    #[test]
    fn user_is_tried_with_its_own_rights_and_this_process_keeps_its() {
        let directory = tempfile::tempdir().unwrap();
        let script = directory.path().join("script");
        fs::write(&script, "#! /bin/sh -e\n").unwrap();
        let attempt = |directory_mode, mode| {
            fs::set_permissions(directory.path(), fs::Permissions::from_mode(directory_mode)).unwrap();
            fs::set_permissions(&script, fs::Permissions::from_mode(mode)).unwrap();
            let mut needs = UserNeeds::default();
            needs.execute(&script);
            try_as(USER, needs).unwrap()
        };
        if !rustix::process::geteuid().is_root() {
            assert_eq!(attempt(0o711, 0o755), Err(Obstacle::Switch(Errno::PERM)));
            return;
        }
        assert_eq!(attempt(0o711, 0o755), Ok(()));
        for (directory_mode, mode) in [(0o700, 0o755), (0o711, 0o700), (0o711, 0o711)] {
            let denied = Err(Obstacle::Path(script.clone()));
            assert_eq!(attempt(directory_mode, mode), denied, "{directory_mode:o} {mode:o}");
        }
        assert!(rustix::process::geteuid().is_root());
        assert_eq!(
            rustix::process::dumpable_behavior().unwrap(),
            rustix::process::DumpableBehavior::Dumpable
        );
    }

    #[test]
    fn interpreter_is_that_of_the_first_line() {
        let script = tempfile::NamedTempFile::new().unwrap();
        for (text, expected) in [
            ("#!/usr/bin/env node\n", Some("/usr/bin/env")),
            ("#! /bin/sh\n", Some("/bin/sh")),
            ("#!\n/bin/sh", None),
            ("\x7fELF", None),
            ("", None),
        ] {
            fs::write(script.path(), text).unwrap();
            assert_eq!(interpreter(script.path()), expected.map(PathBuf::from), "{text:?}");
        }
    }
}
