//! What a supervisor is told once, for all of its children.
//!
//! The environment is handed in as a value, never read from the process here, so that a test can give any
//! environment that it likes. Of it only the names on the allow-list are kept.

use std::ffi::OsString;
use std::fmt;
use std::time::Duration;

use crate::error::StartError;

/// The variables that children inherit unless the configuration says otherwise.
///
/// `PATH` finds the program and what it starts; `HOME` and `TMPDIR` are where programs expect to write;
/// `LANG`, `LC_ALL`, `LC_CTYPE` and `TZ` decide how text and times look; `SSL_CERT_FILE` and `SSL_CERT_DIR`
/// let a child trust the same private certificate authority as its parent. Left out on purpose: proxy
/// variables, which often carry a password, and `XDG_*`, which would let children share state.
pub const DEFAULT_INHERITED: [&str; 9] = [
    "PATH",
    "HOME",
    "LANG",
    "LC_ALL",
    "LC_CTYPE",
    "TZ",
    "TMPDIR",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
];

/// Settings of a [`Supervisor`](crate::Supervisor).
#[derive(Clone)]
pub struct Config {
    /// How long a child may take to end after its stdin was closed and SIGTERM was sent, before SIGKILL.
    pub stop_grace: Duration,
    /// Names of the variables that children inherit from `environment`.
    pub inherit_env: Vec<String>,
    /// The environment to inherit from. Names that are not in `inherit_env` are ignored.
    pub environment: Vec<(OsString, OsString)>,
    /// The longest line of standard error that is kept, in bytes; the rest of a longer one is dropped.
    pub stderr_line_limit: usize,
}

impl Config {
    /// The defaults (a grace of 5 s, [`DEFAULT_INHERITED`], lines up to 4,096 bytes) over `environment`,
    /// for which the caller usually passes `std::env::vars_os()`.
    pub fn new(environment: impl IntoIterator<Item = (OsString, OsString)>) -> Self {
        Self {
            stop_grace: Duration::from_secs(5),
            inherit_env: DEFAULT_INHERITED.map(str::to_owned).to_vec(),
            environment: environment.into_iter().collect(),
            stderr_line_limit: 4096,
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

    pub(crate) fn check(&self) -> Result<(), StartError> {
        if self.stderr_line_limit < 80 {
            return Err(StartError::Config("stderr_line_limit must be at least 80 bytes"));
        }
        Ok(())
    }
}

/// Without the values of the environment: any of them may be a secret.
impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("stop_grace", &self.stop_grace)
            .field("inherit_env", &self.inherit_env)
            .field("stderr_line_limit", &self.stderr_line_limit)
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
    fn a_line_limit_that_would_hide_every_message_is_refused() {
        let config = Config {
            stderr_line_limit: 0,
            ..Config::new([])
        };
        assert!(matches!(config.check(), Err(StartError::Config(_))));
    }
}
