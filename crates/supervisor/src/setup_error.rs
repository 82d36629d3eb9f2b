//! Errors between the creation of a process and the exec of its program.

use std::fmt;

use rustix::io::Errno;

/// Why the program does not run.
#[derive(Clone, Copy, Debug)]
pub(crate) enum SetupError {
    /// The process could not be created.
    Clone(Errno),
    /// A setup step failed.
    Step(SetupStep, Errno),
    /// The program could not be executed.
    Exec(Errno),
}

/// A setup step that can fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SetupStep {
    Session,
    Directory,
    Cgroup,
    Limits,
    Descriptors,
    Capabilities,
    User,
    NoNewPrivileges,
    Landlock,
    SystemCalls,
    DeathSignal,
    /// The check that the parent still lives.
    Parent,
}

impl fmt::Display for SetupStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Session => "creating the session",
            Self::Directory => "entering the working directory",
            Self::Cgroup => "joining the control group",
            Self::Limits => "setting resource limits",
            Self::Descriptors => "setting up descriptors",
            Self::Capabilities => "dropping capabilities",
            Self::User => "switching the user",
            Self::NoNewPrivileges => "setting no_new_privs",
            Self::Landlock => "enforcing Landlock rules",
            Self::SystemCalls => "installing the filter of system calls",
            Self::DeathSignal => "setting the parent-death signal",
            Self::Parent => "checking that the parent lives",
        })
    }
}
