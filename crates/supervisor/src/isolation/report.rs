//! What of the isolation is there, said once.

use std::fmt;

/// Something that keeps children apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Layer {
    /// Nothing that a child starts gains privileges.
    NoNewPrivileges,
    /// Children have no capabilities.
    Capabilities,
    /// FileRules by an allow-list, and no tracing (Landlock).
    Files,
    /// No signals and no connections to abstract sockets out of the child (Landlock, Linux 6.12).
    Scopes,
    /// A working directory of its own.
    Directory,
    /// A user of its own.
    User,
    /// A control group of its own.
    Cgroup,
    /// A limit on the memory of all processes of a child together.
    Memory,
}

/// A layer that was asked for and is not to be had.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MissingLayer {
    /// Which one.
    pub layer: Layer,
    /// Why.
    pub reason: String,
}

/// Which layers every child has, and which were asked for in vain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct IsolationReport {
    /// What every child has.
    pub active: Vec<Layer>,
    /// What was asked for and is not to be had.
    pub missing: Vec<MissingLayer>,
}

impl Layer {
    /// The field of [`Config`](crate::Config) that asks for it.
    pub fn field(self) -> &'static str {
        match self {
            Self::NoNewPrivileges => "isolation.no_new_privileges",
            Self::Capabilities => "isolation.drop_capabilities",
            Self::Files | Self::Scopes => "isolation.landlock",
            Self::Directory => "isolation.directory",
            Self::User => "isolation.users",
            Self::Cgroup => "isolation.cgroup",
            Self::Memory => "limits.memory",
        }
    }
}

impl IsolationReport {
    pub(super) fn has(&self, layer: Layer) -> bool {
        self.active.contains(&layer)
    }

    /// Enters the outcome for a layer that was asked for, and gives back what it brought.
    pub(super) fn enter<T, E: fmt::Display>(&mut self, layer: Layer, outcome: Result<T, E>) -> Option<T> {
        match outcome {
            Ok(value) => {
                self.active.push(layer);
                Some(value)
            }
            Err(reason) => {
                let reason = reason.to_string();
                self.missing.push(MissingLayer { layer, reason });
                None
            }
        }
    }

    /// One line for what there is, and one for each thing that is not.
    pub(crate) fn log(&self) {
        let active: Vec<String> = self.active.iter().map(Layer::to_string).collect();
        tracing::info!(layers = active.join(", "), "children are isolated");
        for MissingLayer { layer, reason } in &self.missing {
            tracing::warn!(%layer, reason, "a layer of the isolation of children is not available");
        }
    }
}

impl fmt::Display for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoNewPrivileges => "no_new_privs",
            Self::Capabilities => "no capabilities",
            Self::Files => "Landlock files",
            Self::Scopes => "Landlock scopes",
            Self::Directory => "own directory",
            Self::User => "own user",
            Self::Cgroup => "own control group",
            Self::Memory => "memory limit",
        })
    }
}

impl fmt::Display for MissingLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.layer, self.reason)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outcome_is_either_active_or_missing_with_its_reason() {
        let mut report = IsolationReport::default();
        assert_eq!(report.enter(Layer::Files, Ok::<_, &str>(7)), Some(7));
        assert_eq!(report.enter(Layer::User, Err::<(), _>("not root")), None);
        assert!(report.has(Layer::Files) && !report.has(Layer::User));
        assert_eq!(report.missing[0].to_string(), "own user: not root");
    }
}
