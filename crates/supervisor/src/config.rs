//! The configuration of a supervisor, common to all of its children.
//!
//! The environment is a value of the configuration and is never read from the process here, so
//! tests can pass any environment. Only variables on the allow-list are kept.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use secrecy::ExposeSecret;

use crate::error::{InvalidConfigError, InvalidField, SpawnError};
use crate::isolation::{ExpectedProgram, Isolation, IsolationLimits, IsolationPlan, IsolationReport};
use crate::program;
use crate::spec::ChildSpec;

/// The variables that children inherit by default.
///
/// `PATH` finds the program and the programs that it starts; `LANG`, `LC_ALL`, `LC_CTYPE` and `TZ`
/// set the format of text and times; `SSL_CERT_FILE` and `SSL_CERT_DIR` let a child trust the same
/// private certificate authority as its parent. Deliberately excluded: proxy variables, which often
/// contain a password, and `HOME`, `TMPDIR` and `XDG_*`, which would let children share state.
/// `HOME` and `TMPDIR` name the child's own directory instead.
pub const DEFAULT_INHERITED: [&str; 7] = [
    "PATH",
    "LANG",
    "LC_ALL",
    "LC_CTYPE",
    "TZ",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
];

/// The error of a delivery by file without a directory to write it to.
pub(crate) const FILES_NEED_DIRECTORY: InvalidField = InvalidField {
    field: "delivery",
    reason: "by file needs isolation.own_directory",
};

/// Settings of a [`Supervisor`](crate::Supervisor).
#[derive(Clone)]
pub struct Config {
    /// Maximum time from the spawn until the child is ready; see
    /// [`Child::ready`](crate::Child::ready).
    pub start_timeout: Duration,
    /// Maximum time for a child to end after its stdin was closed and SIGTERM was sent, before
    /// SIGKILL.
    pub stop_grace: Duration,
    /// Names of the variables that children inherit from `environment`.
    pub inherit_env: Vec<String>,
    /// The environment to inherit from. Variables that are not in `inherit_env` are ignored.
    pub environment: Vec<(OsString, OsString)>,
    /// Maximum length of a line of standard error, in bytes; the rest of the line is dropped.
    pub stderr_line_limit: usize,
    /// Lines of standard error that a child may log per second, on average, with bursts of ten
    /// seconds' worth. Further lines are counted and not logged, but the last lines are still kept.
    pub stderr_lines_per_second: u32,
    /// Resource limits of a child.
    pub limits: IsolationLimits,
    /// The isolation of children.
    pub isolation: Isolation,
    /// The children to come, if they are known and alike: the default of [`Isolation::users`] needs
    /// to know their program. None by default.
    pub program: Option<ChildSpec>,
    /// The delivery of a spec's variables, by name. Variables that are not named here are delivered
    /// by [`Delivery::Environment`].
    pub delivery: BTreeMap<String, Delivery>,
}

/// The way in which the value of a variable reaches a child.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Delivery {
    /// The variable contains the value.
    #[default]
    Environment,
    /// The variable contains the path of a file with the value, in the child's own directory, that
    /// only the child can read. The file exists as long as the child.
    File,
    /// The variable contains the number of a readable descriptor that returns the value once and
    /// then ends.
    Descriptor,
}

impl Config {
    /// The defaults (30 s to start, a grace period of 5 s, [`DEFAULT_INHERITED`], lines up to 4,096
    /// bytes, 50 of them a second, and the defaults of [`IsolationLimits`] and [`Isolation`]) with
    /// `environment`, for which the caller usually passes `std::env::vars_os()`.
    pub fn new(environment: impl IntoIterator<Item = (OsString, OsString)>) -> Self {
        Self {
            start_timeout: Duration::from_secs(30),
            stop_grace: Duration::from_secs(5),
            inherit_env: DEFAULT_INHERITED.map(str::to_owned).to_vec(),
            environment: environment.into_iter().collect(),
            stderr_line_limit: 4096,
            stderr_lines_per_second: 50,
            limits: IsolationLimits::default(),
            isolation: Isolation::default(),
            program: None,
            delivery: BTreeMap::new(),
        }
    }

    /// The variables that every child inherits.
    pub(crate) fn inherited(&self) -> Vec<(OsString, OsString)> {
        let mut inherited = self.environment.clone();
        inherited.retain(|(name, _)| self.inherit_env.iter().any(|allowed| name == allowed.as_str()));
        inherited
    }

    /// The directory for temporary files, from the environment.
    pub(crate) fn temporary(&self) -> Option<&OsStr> {
        let mut variables = self.environment.iter();
        let found = variables.find(|(name, value)| name == "TMPDIR" && !value.is_empty());
        found.map(|(_, value)| value.as_os_str())
    }

    pub(crate) fn delivers_files(&self) -> bool {
        self.delivery.values().any(|delivery| *delivery == Delivery::File)
    }

    /// Validates the configuration by itself. [`Config::try_isolation`] checks the machine.
    ///
    /// # Errors
    ///
    /// All invalid fields at once.
    pub fn check(&self) -> Result<(), InvalidConfigError> {
        let mut invalid = Vec::new();
        let mut check = |bad: bool, field, reason| {
            if bad {
                invalid.push(InvalidField { field, reason });
            }
        };
        let short_lines = self.stderr_line_limit < 80;
        check(short_lines, "stderr_line_limit", "must be at least 80 bytes");
        let no_lines = self.stderr_lines_per_second == 0;
        check(no_lines, "stderr_lines_per_second", "must be at least 1");
        // The names become file names.
        let valid =
            |name: &String| !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        let bad_name = !self.delivery.keys().all(valid);
        check(
            bad_name,
            "delivery",
            "must name variables by letters, digits and underscores",
        );
        let InvalidField { field, reason } = FILES_NEED_DIRECTORY;
        check(self.delivers_files() && !self.isolation.own_directory, field, reason);
        self.limits.check(&mut check);
        self.isolation.check(&mut check);
        if invalid.is_empty() {
            Ok(())
        } else {
            Err(InvalidConfigError(invalid))
        }
    }

    /// Looks up the file that a child of this spec would execute, as
    /// [`Supervisor::find_program`](crate::Supervisor::find_program) does.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn find_program(&self, spec: &ChildSpec) -> Result<PathBuf, SpawnError> {
        program::of(spec, &self.inherited())
    }

    /// Probes which isolation layers this machine supports, as
    /// [`Supervisor::new`](crate::Supervisor::new) does, and leaves nothing behind but the
    /// directory of the locks of private users. The configuration must be valid.
    ///
    /// # Errors
    ///
    /// If the system refuses the probe or its thread.
    pub fn try_isolation(&self) -> io::Result<IsolationReport> {
        Ok(self.plan()?.report)
    }

    /// Probes the isolation layers.
    pub(crate) fn plan(&self) -> io::Result<IsolationPlan> {
        let program = self.program.as_ref().map(|spec| {
            let own = spec.env.iter();
            let own = own.map(|(name, value)| (name.into(), value.expose_secret().into()));
            ExpectedProgram {
                path: self.find_program(spec).map_err(|error| error.to_string()),
                args: &spec.args,
                variables: self.inherited().into_iter().chain(own).collect(),
            }
        });
        IsolationPlan::new(&self.isolation, &self.limits, self.temporary(), program.as_ref())
    }
}

/// Shows no values of the environment: any of them may be secret.
impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("start_timeout", &self.start_timeout)
            .field("stop_grace", &self.stop_grace)
            .field("inherit_env", &self.inherit_env)
            .field("stderr_line_limit", &self.stderr_line_limit)
            .field("stderr_lines_per_second", &self.stderr_lines_per_second)
            .field("limits", &self.limits)
            .field("isolation", &self.isolation)
            .field("program", &self.program)
            .field("delivery", &self.delivery)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isolation::ChildUsers;

    fn environment() -> Vec<(OsString, OsString)> {
        [("PATH", "/bin"), ("BROKER_SECRET", "hunter2"), ("TZ", "UTC")]
            .map(|(name, value)| (name.into(), value.into()))
            .to_vec()
    }

    #[test]
    fn only_allow_listed_variables_are_inherited() {
        let names: Vec<_> = Config::new(environment())
            .inherited()
            .into_iter()
            .map(|(name, _)| name)
            .collect();
        assert_eq!(names, ["PATH", "TZ"]);
    }

    #[test]
    fn debug_shows_no_environment_value() {
        assert!(!format!("{:?}", Config::new(environment())).contains("hunter2"));
    }

    #[test]
    fn invalid_values_are_rejected_all_at_once() {
        type Change = fn(&mut Config);
        let bad: [(Change, &str); 5] = [
            (|config| config.stderr_line_limit = 0, "stderr_line_limit"),
            (|config| config.stderr_lines_per_second = 0, "stderr_lines_per_second"),
            (|config| config.limits.open_files = Some(0), "limits.open_files"),
            (
                |config| config.isolation.users = ChildUsers::Range(0..=10),
                "isolation.users",
            ),
            (
                |config| config.delivery = [("../TOKEN".to_owned(), Delivery::File)].into(),
                "delivery",
            ),
        ];
        let mut all = Config::new([]);
        assert_eq!(all.check(), Ok(()));
        for (change, field) in bad {
            let mut config = Config::new([]);
            change(&mut config);
            change(&mut all);
            let invalid = config.check().unwrap_err().0;
            assert_eq!(invalid.iter().map(|invalid| invalid.field).collect::<Vec<_>>(), [field]);
        }
        assert_eq!(all.check().unwrap_err().0.len(), bad.len(), "all at once");
    }
}
