//! What a supervisor is told once, for all of its children.
//!
//! The environment is handed in as a value, never read from the process here, so that a test can give any
//! environment that it likes. Of it only the names on the allow-list are kept.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io;
use std::time::Duration;

use crate::error::{InvalidConfigError, InvalidField};
use crate::isolation::{Isolation, IsolationLimits, IsolationPlan, IsolationReport};

/// The variables that children inherit unless the configuration says otherwise.
///
/// `PATH` finds the program and what it starts; `LANG`, `LC_ALL`, `LC_CTYPE` and `TZ` decide how text and times
/// look; `SSL_CERT_FILE` and `SSL_CERT_DIR` let a child trust the same private certificate authority as its
/// parent. Left out on purpose: proxy variables, which often carry a password, and `HOME`, `TMPDIR` and `XDG_*`,
/// which would let children share state. The first two name the child's own directory instead.
pub const DEFAULT_INHERITED: [&str; 7] = [
    "PATH",
    "LANG",
    "LC_ALL",
    "LC_CTYPE",
    "TZ",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
];

/// Settings of a [`Supervisor`](crate::Supervisor).
#[derive(Clone)]
pub struct Config {
    /// How long a child may take from the order until it is ready; see [`Child::ready`](crate::Child::ready).
    pub start_timeout: Duration,
    /// How long a child may take to end after its stdin was closed and SIGTERM was sent, before SIGKILL.
    pub stop_grace: Duration,
    /// Names of the variables that children inherit from `environment`.
    pub inherit_env: Vec<String>,
    /// The environment to inherit from. Names that are not in `inherit_env` are ignored.
    pub environment: Vec<(OsString, OsString)>,
    /// The longest line of standard error that is kept, in bytes; the rest of a longer one is dropped.
    pub stderr_line_limit: usize,
    /// How many lines of its standard error a child may log, a second on average; ten seconds' worth may come at
    /// once. What is over is counted and not logged. The last lines are kept either way.
    pub stderr_lines_per_second: u32,
    /// What a child may use.
    pub limits: IsolationLimits,
    /// What keeps children apart.
    pub isolation: Isolation,
    /// How the values of an order's variables reach a child, by the name of the variable. One that is not named
    /// here is simply set.
    pub delivery: BTreeMap<String, Delivery>,
}

/// How a value reaches a child.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Delivery {
    /// The variable is the value.
    #[default]
    Environment,
    /// The variable is the path of a file in the child's own directory that has the value, and that only the
    /// child can read. It lasts as long as the child.
    File,
    /// The variable is the number of a descriptor, open for reading, that gives the value once and then ends.
    Descriptor,
}

impl Config {
    /// The defaults (30 s to start, a grace of 5 s, [`DEFAULT_INHERITED`], lines up to 4,096 bytes, 50 of them a
    /// second, and the defaults of [`IsolationLimits`] and [`Isolation`]) over `environment`,
    /// for which the caller usually passes `std::env::vars_os()`.
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
            delivery: BTreeMap::new(),
        }
    }

    /// The variables that every child inherits.
    pub(crate) fn inherited(&self) -> Vec<(OsString, OsString)> {
        self.environment
            .iter()
            .filter(|(name, _)| self.inherit_env.iter().any(|allowed| name == allowed.as_str()))
            .cloned()
            .collect()
    }

    /// Where temporary files go.
    pub(crate) fn temporary(&self) -> Option<&OsStr> {
        let found = self
            .environment
            .iter()
            .find(|(name, value)| name == "TMPDIR" && !value.is_empty());
        found.map(|(_, value)| value.as_os_str())
    }

    /// Whether it makes sense, without a look at the machine: for that there is [`Config::try_isolation`].
    ///
    /// # Errors
    ///
    /// All faults at once.
    pub fn check(&self) -> Result<(), InvalidConfigError> {
        let mut faults = Vec::new();
        let mut refuse = |bad: bool, field, reason| {
            if bad {
                faults.push(InvalidField { field, reason });
            }
        };
        refuse(
            self.stderr_line_limit < 80,
            "stderr_line_limit",
            "must be at least 80 bytes",
        );
        refuse(
            self.stderr_lines_per_second == 0,
            "stderr_lines_per_second",
            "must be at least 1",
        );
        // They become names of files.
        let proper =
            |name: &String| !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        refuse(
            !self.delivery.keys().all(proper),
            "delivery",
            "must name variables by letters, digits and underscores",
        );
        let by_file = self.delivery.values().any(|delivery| *delivery == Delivery::File);
        refuse(
            by_file && !self.isolation.own_directory,
            "delivery",
            "needs a directory for each child where it is by file",
        );
        self.limits.check(&mut refuse);
        self.isolation.check(&mut refuse);
        if faults.is_empty() {
            Ok(())
        } else {
            Err(InvalidConfigError(faults))
        }
    }

    /// Tries what of the isolation is to be had on this machine, as [`Supervisor::new`](crate::Supervisor::new) does, and
    /// leaves nothing behind. The configuration has to make sense.
    ///
    /// # Errors
    ///
    /// If the system refuses a thread or to be asked.
    pub fn try_isolation(&self) -> io::Result<IsolationReport> {
        let plan = IsolationPlan::new(&self.isolation, &self.limits, self.temporary())?;
        Ok(plan.report().clone())
    }
}

/// Without the values of the environment: any of them may be a secret.
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
            .field("delivery", &self.delivery)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment() -> Vec<(OsString, OsString)> {
        [("PATH", "/bin"), ("BROKER_SECRET", "hunter2"), ("TZ", "UTC")]
            .map(|(name, value)| (name.into(), value.into()))
            .to_vec()
    }

    #[test]
    fn only_names_on_the_allow_list_are_inherited() {
        let names: Vec<_> = Config::new(environment())
            .inherited()
            .into_iter()
            .map(|(name, _)| name)
            .collect();
        assert_eq!(names, ["PATH", "TZ"]);
    }

    #[test]
    fn debug_shows_no_value_of_the_environment() {
        assert!(!format!("{:?}", Config::new(environment())).contains("hunter2"));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        type Change = fn(&mut Config);
        let bad: [(Change, &str); 5] = [
            (|config| config.stderr_line_limit = 0, "stderr_line_limit"),
            (|config| config.stderr_lines_per_second = 0, "stderr_lines_per_second"),
            (|config| config.limits.open_files = Some(0), "limits.open_files"),
            (|config| config.isolation.users = Some(0..=10), "isolation.users"),
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
            let faults = config.check().unwrap_err().0;
            assert_eq!(faults.iter().map(|fault| fault.field).collect::<Vec<_>>(), [field]);
        }
        assert_eq!(all.check().unwrap_err().0.len(), bad.len(), "all at once");
    }
}
