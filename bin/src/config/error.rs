//! Errors of a configuration: the key, where it is set, and the reason.

use std::fmt;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ConfigError {
    /// The dotted key (`server.listen`); empty if a whole source cannot be read.
    pub(crate) key: String,
    /// The source of the value: a file, an environment variable, or none.
    pub(crate) source: String,
    /// The reason. It never repeats the value of a secret.
    pub(crate) reason: String,
}

/// All errors of a configuration; never empty.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) struct ConfigErrors(pub(crate) Vec<ConfigError>);

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        write!(f, "{} ({})", self.reason, self.source)
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = if self.0.len() == 1 { "" } else { "s" };
        write!(f, "the configuration has {} error{plural}:", self.0.len())?;
        for error in &self.0 {
            write!(f, "\n  {error}")?;
        }
        Ok(())
    }
}
