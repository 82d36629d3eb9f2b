//! What to start: program, arguments, variables, and which strings must never be logged.
//!
//! Secrets travel in the environment and never in the arguments, which every user of the machine can read.

use std::ffi::OsString;
use std::fmt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::Arc;

use secrecy::{ExposeSecret, SecretString};

use crate::error::SpawnError;

/// An order for one child.
#[derive(Clone)]
pub struct Order {
    /// The program: a path, or a name that is looked up in the child's `PATH`.
    pub program: OsString,
    /// Its arguments, passed on as they are; no shell reads them.
    pub args: Vec<OsString>,
    /// Variables beyond the inherited ones. They win over inherited ones of the same name.
    pub env: Vec<(String, SecretString)>,
    /// Strings that are replaced by `[redacted]` wherever the child writes them to its standard error.
    pub secrets: Vec<SecretString>,
    /// Names the child in the log, for example by its session. Not secret.
    pub tag: Arc<str>,
}

impl Order {
    /// The order as a command that is ready to be started, except for what happens between fork and exec.
    ///
    /// # Errors
    ///
    /// [`SpawnError::Invalid`] if a variable has no proper name.
    pub(crate) fn command(&self, inherited: &[(OsString, OsString)]) -> Result<Command, SpawnError> {
        if self
            .env
            .iter()
            .any(|(name, _)| name.is_empty() || name.contains(['=', '\0']))
        {
            return Err(SpawnError::Invalid("a variable without a proper name"));
        }
        let mut command = Command::new(&self.program);
        command
            .args(&self.args)
            .env_clear()
            .envs(inherited.iter().map(|(name, value)| (name, value)))
            .envs(self.env.iter().map(|(name, value)| (name, value.expose_secret())))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0);
        Ok(command)
    }
}

/// Without arguments and values: only names, and how many secrets there are.
impl fmt::Debug for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.env.iter().map(|(name, _)| name.as_str()).collect();
        f.debug_struct("Order")
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

    fn order(name: &str) -> Order {
        Order {
            program: "/bin/true".into(),
            args: vec!["--token=argument-value".into()],
            env: vec![(name.to_owned(), "variable-value".into())],
            secrets: vec!["secret-value".into()],
            tag: "tag".into(),
        }
    }

    #[test]
    fn debug_shows_no_argument_no_value_and_no_secret() {
        let shown = format!("{:?}", order("TOKEN"));
        assert!(shown.contains("TOKEN") && shown.contains("/bin/true"));
        assert!(!shown.contains("-value"), "{shown}");
    }

    #[test]
    fn a_variable_without_a_proper_name_is_refused() {
        for name in ["", "A=B", "A\0B"] {
            assert!(
                matches!(order(name).command(&[]), Err(SpawnError::Invalid(_))),
                "{name:?}"
            );
        }
    }

    #[test]
    fn a_variable_of_the_order_wins_over_an_inherited_one() {
        let command = order("LANG").command(&[("LANG".into(), "C".into())]).unwrap();
        let env: Vec<_> = command.get_envs().collect();
        assert_eq!(env, [("LANG".as_ref(), Some("variable-value".as_ref()))]);
    }
}
