//! Errors of starting a supervisor or a child.
//!
//! No message contains an argument or a variable of the spec: either may be secret. Some messages
//! contain the child's redacted standard error: they are for the operator's log, not for clients.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io;
use std::time::Duration;

use rustix::io::Errno;

use crate::exit::Exit;
use crate::isolation::MissingLayer;
use crate::setup_error::SetupError;

/// Why a supervisor could not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SupervisorError {
    /// The configuration is invalid.
    #[error("supervisor configuration: {0}")]
    Config(#[from] InvalidConfigError),
    /// Isolation layers that the configuration requires are missing.
    #[error("required isolation layers are not available: {}", list(.0))]
    Isolation(Vec<MissingLayer>),
    /// The probe of the available isolation layers failed.
    #[error("cannot probe the isolation layers of this machine")]
    Probe(#[source] io::Error),
    /// The thread that spawns children could not start.
    #[error("cannot start the thread that spawns children")]
    Thread(#[source] io::Error),
}

/// The invalid fields of a [`Config`](crate::Config); never empty.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct InvalidConfigError(pub Vec<InvalidField>);

/// An invalid field of a [`Config`](crate::Config).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidField {
    /// Its name, as in `isolation.users`.
    pub field: &'static str,
    /// The rule that it breaks.
    pub reason: &'static str,
}

/// Why a child could not be spawned.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SpawnError {
    /// The program, or the interpreter that its first line names, does not exist. Terminal.
    #[error("program {program:?} (or its interpreter) was not found")]
    NotFound {
        /// The program as specified.
        program: OsString,
    },
    /// The program exists, but is not executable by this user or not in an executable format.
    /// Terminal.
    #[error("program {program:?} cannot be executed")]
    NotExecutable {
        /// The program as specified.
        program: OsString,
        /// The kernel's error.
        #[source]
        source: io::Error,
    },
    /// The spec cannot be expressed as a process: a zero byte, or an invalid variable name.
    /// Terminal.
    #[error("invalid child specification: {0}")]
    Invalid(&'static str),
    /// Processes, memory or descriptors are exhausted. Transient: the same spec may work later.
    #[error("not enough system resources to spawn a child")]
    Exhausted(#[source] io::Error),
    /// A required isolation step failed for this child, so its program did not run.
    #[error("child setup failed: {step}")]
    Isolation {
        /// The step that failed.
        step: String,
        /// The kernel's error.
        #[source]
        source: io::Error,
    },
    /// The child was not spawned in time, because the file system of the program or the machine
    /// hangs. Transient: the same spec may work later.
    #[error("the child was not spawned within {0:?}")]
    TooSlow(Duration),
    /// Any other error of the system.
    #[error("cannot spawn the child")]
    Os(#[source] io::Error),
    /// The supervisor is stopping and spawns no more children.
    #[error("the supervisor is stopping")]
    Stopping,
}

impl fmt::Display for InvalidConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, InvalidField { field, reason }) in self.0.iter().enumerate() {
            let separator = if position == 0 { "" } else { "; " };
            write!(f, "{separator}{field} {reason}")?;
        }
        Ok(())
    }
}

impl SpawnError {
    pub(crate) fn from_setup(program: &OsStr, error: SetupError) -> Self {
        match error {
            SetupError::Clone(error) => Self::from_system(error.into()),
            SetupError::Exec(error) => Self::from_exec(program, error.into()),
            SetupError::Step(step, error) => Self::Isolation {
                step: step.to_string(),
                source: error.into(),
            },
        }
    }

    /// Classifies an error of executing the program or of looking it up.
    pub(crate) fn from_exec(program: &OsStr, source: io::Error) -> Self {
        let program = || program.to_owned();
        match source.raw_os_error().map(Errno::from_raw_os_error) {
            Some(Errno::NOENT | Errno::NOTDIR) => Self::NotFound { program: program() },
            Some(Errno::ACCESS | Errno::NOEXEC | Errno::PERM) => Self::NotExecutable {
                program: program(),
                source,
            },
            Some(_) | None => Self::from_system(source),
        }
    }

    /// Classifies an error that does not depend on the program.
    pub(crate) fn from_system(source: io::Error) -> Self {
        match source.raw_os_error().map(Errno::from_raw_os_error) {
            Some(Errno::AGAIN | Errno::NOMEM | Errno::MFILE | Errno::NFILE | Errno::NOSPC) => Self::Exhausted(source),
            Some(_) | None => Self::Os(source),
        }
    }
}

/// Why a spawned child did not become ready.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadyError<E> {
    /// It ended.
    #[error("the child {exit}{}", stderr_suffix(.stderr))]
    Exited {
        /// Its exit.
        exit: Exit,
        /// Its last lines on standard error, redacted.
        stderr: Vec<String>,
    },
    /// It lives, but was not ready in time.
    #[error("the child was not ready within {limit:?}{}", stderr_suffix(.stderr))]
    TooSlow {
        /// The time limit.
        limit: Duration,
        /// Its last lines on standard error, redacted.
        stderr: Vec<String>,
    },
    /// It lives, but the handshake failed.
    #[error("the handshake with the child failed")]
    Failed(#[source] E),
}

fn stderr_suffix(stderr: &[String]) -> String {
    match stderr {
        [] => ", with no output on stderr".to_owned(),
        lines => format!(", stderr: {}", lines.join(" / ")),
    }
}

fn list(missing: &[MissingLayer]) -> String {
    missing
        .iter()
        .map(MissingLayer::to_string)
        .collect::<Vec<_>>()
        .join("; ")
}
