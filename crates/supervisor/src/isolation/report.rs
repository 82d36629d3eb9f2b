//! The report of available and missing isolation layers.

use std::fmt;

/// An isolation layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Layer {
    /// Children and their descendants gain no privileges.
    NoNewPrivileges,
    /// Children have no capabilities.
    Capabilities,
    /// An allow-list of files, and no tracing of outside processes (Landlock).
    Files,
    /// No signals and no abstract-socket connections to outside processes (Landlock, Linux 6.12).
    Scopes,
    /// An allow-list of TCP ports (Landlock, Linux 6.7).
    Network,
    /// A filter of system calls (seccomp).
    SystemCalls,
    /// A private working directory.
    Directory,
    /// A private user.
    User,
    /// A private control group.
    Cgroup,
    /// A limit on the memory of all processes of a child together.
    Memory,
}

/// A requested layer that is not available.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MissingLayer {
    /// The layer.
    pub layer: Layer,
    /// Why it is missing.
    pub reason: String,
}

/// The available and the missing ones of the requested layers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct IsolationReport {
    /// The layers that every child has.
    pub active: Vec<Layer>,
    /// The requested layers that are not available.
    pub missing: Vec<MissingLayer>,
}

impl Layer {
    /// The field of [`Config`](crate::Config) that requests it.
    pub fn field(self) -> &'static str {
        match self {
            Self::NoNewPrivileges => "isolation.no_new_privileges",
            Self::Capabilities => "isolation.drop_capabilities",
            Self::Files | Self::Scopes => "isolation.landlock",
            Self::Network => "isolation.network",
            Self::SystemCalls => "isolation.seccomp",
            Self::Directory => "isolation.directory",
            Self::User => "isolation.users",
            Self::Cgroup => "isolation.cgroup",
            Self::Memory => "limits.memory",
        }
    }

    /// The warning for operators if it is missing.
    fn warning(self) -> &'static str {
        match self {
            Self::NoNewPrivileges => "no_new_privs is not available: children can gain privileges",
            Self::Capabilities => "capabilities cannot be dropped: children keep those of the broker",
            Self::Files => "Landlock is not available: children run without file isolation",
            Self::Scopes => "Landlock scopes are not available: children can signal other processes",
            Self::Network => "Landlock's TCP rules are not available: children can connect to any port",
            Self::SystemCalls => {
                "seccomp is not available: children can change limits and priorities of other processes"
            }
            Self::Directory => "private directories are not available: children run in /",
            Self::User => "private users are not available: children run as the broker's user",
            Self::Cgroup => "control groups are not available: limits apply to single processes",
            Self::Memory => "the memory limit is not available: the memory of children is not limited",
        }
    }
}

impl IsolationReport {
    pub(crate) fn has(&self, layer: Layer) -> bool {
        self.active.contains(&layer)
    }

    /// Records whether a requested layer is available and returns its value if so.
    pub(super) fn record<T, E: fmt::Display>(&mut self, layer: Layer, probed: Result<T, E>) -> Option<T> {
        match probed {
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

    /// Logs one line for all available layers, and one for each missing layer.
    pub(crate) fn log(&self) {
        let active: Vec<String> = self.active.iter().map(Layer::to_string).collect();
        if active.is_empty() {
            tracing::warn!("children are not isolated: no layer is enabled and available");
        } else {
            tracing::info!(layers = active.join(", "), "children are isolated");
        }
        for MissingLayer { layer, reason } in &self.missing {
            tracing::warn!(%layer, reason, "{}", layer.warning());
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
            Self::Network => "Landlock TCP",
            Self::SystemCalls => "seccomp",
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
    fn layer_is_either_active_or_missing_with_its_reason() {
        let mut report = IsolationReport::default();
        assert_eq!(report.record(Layer::Files, Ok::<_, &str>(7)), Some(7));
        assert_eq!(report.record(Layer::User, Err::<(), _>("not root")), None);
        assert!(report.has(Layer::Files) && !report.has(Layer::User));
        assert_eq!(report.missing[0].to_string(), "own user: not root");
    }
}
