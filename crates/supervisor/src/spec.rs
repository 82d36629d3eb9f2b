//! The specification of a child: program, arguments, variables, and strings that are never logged.
//!
//! Secrets travel in the environment, or in a file or pipe that a variable names, and never in the
//! arguments, which every user of the machine can read.

use std::ffi::OsString;
use std::fmt;
use std::sync::Arc;

use secrecy::SecretString;

use crate::error::SpawnError;

/// Specifies one child to spawn.
#[derive(Clone)]
pub struct ChildSpec {
    /// The program: a path, or a name to look up in the child's `PATH`. A relative path is relative
    /// to the working directory of this process, which is not the child's.
    pub program: OsString,
    /// The arguments, passed on unchanged and never read by a shell. The child may read files that
    /// an argument names by an absolute path.
    pub args: Vec<OsString>,
    /// Variables beyond the inherited ones, which they override.
    /// [`Config::delivery`](crate::Config::delivery) says how a value reaches the child.
    pub env: Vec<(String, SecretString)>,
    /// Strings to replace by `[redacted]` wherever the child writes them to its standard error.
    pub secrets: Vec<SecretString>,
    /// Names the child in the log, for example by its session. Not secret.
    pub tag: Arc<str>,
}

impl ChildSpec {
    /// Fails with [`SpawnError::Invalid`] if a variable has an invalid name.
    pub(crate) fn check(&self) -> Result<(), SpawnError> {
        let invalid = |name: &str| name.is_empty() || name.contains(['=', '\0']);
        if self.env.iter().any(|(name, _)| invalid(name)) {
            return Err(SpawnError::Invalid("a variable has an invalid name"));
        }
        Ok(())
    }
}

/// Shows no arguments and no values: only names, and the number of secrets.
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
    fn debug_shows_no_argument_value_or_secret() {
        let shown = format!("{:?}", spec("TOKEN"));
        assert!(shown.contains("TOKEN") && shown.contains("/bin/true"));
        assert!(!shown.contains("-value"), "{shown}");
    }

    #[test]
    fn variable_with_invalid_name_is_rejected() {
        for name in ["", "A=B", "A\0B"] {
            assert!(matches!(spec(name).check(), Err(SpawnError::Invalid(_))), "{name:?}");
        }
    }
}
