//! What to start: program, arguments, variables, and which strings must never be logged.
//!
//! Secrets travel in the environment, or by configuration in a file or a pipe that a variable names, and never in
//! the arguments, which every user of the machine can read.

use std::ffi::OsString;
use std::fmt;
use std::sync::Arc;

use secrecy::SecretString;

use crate::error::SpawnError;

/// An order for one child.
#[derive(Clone)]
pub struct ChildSpec {
    /// The program: a path, or a name that is looked up in the child's `PATH`. The child does not work where this
    /// process does, but a relative path is one from here.
    pub program: OsString,
    /// Its arguments, passed on as they are; no shell reads them. The child may read files that an argument names
    /// by its whole path.
    pub args: Vec<OsString>,
    /// Variables beyond the inherited ones. They win over inherited ones of the same name. How a value reaches
    /// the child is for [`Config::delivery`](crate::Config::delivery) to write_line.
    pub env: Vec<(String, SecretString)>,
    /// Strings that are replaced by `[redacted]` wherever the child writes them to its standard error.
    pub secrets: Vec<SecretString>,
    /// Names the child in the log, for example by its session. Not secret.
    pub tag: Arc<str>,
}

impl ChildSpec {
    /// # Errors
    ///
    /// [`SpawnError::Invalid`] if a variable has no proper name.
    pub(crate) fn check(&self) -> Result<(), SpawnError> {
        let improper = |name: &str| name.is_empty() || name.contains(['=', '\0']);
        if self.env.iter().any(|(name, _)| improper(name)) {
            return Err(SpawnError::Invalid("a variable without a proper name"));
        }
        Ok(())
    }
}

/// Without arguments and values: only names, and how many secrets there are.
impl fmt::Debug for ChildSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.env.iter().map(|(name, _)| name.as_str()).collect();
        f.debug_struct("ChildSpec")
            .field("program", &self.program)
            .field("args", &self.args.len())
            .field("env", &names)
            .field("secrets", &self.secrets.len())
            .field("tag", &self.tag)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(name: &str) -> ChildSpec {
        ChildSpec {
            program: "/bin/true".into(),
            args: vec!["--token=argument-value".into()],
            env: vec![(name.to_owned(), "variable-value".into())],
            secrets: vec!["secret-value".into()],
            tag: "tag".into(),
        }
    }

    #[test]
    fn debug_shows_no_argument_no_value_and_no_secret() {
        let shown = format!("{:?}", spec("TOKEN"));
        assert!(shown.contains("TOKEN") && shown.contains("/bin/true"));
        assert!(!shown.contains("-value"), "{shown}");
    }

    #[test]
    fn a_variable_without_a_proper_name_is_refused() {
        for name in ["", "A=B", "A\0B"] {
            assert!(matches!(spec(name).check(), Err(SpawnError::Invalid(_))), "{name:?}");
        }
    }
}
