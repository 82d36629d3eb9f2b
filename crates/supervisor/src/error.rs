//! The ways in which a supervisor, or a child, fails to start.
//!
//! No message contains an argument or a variable of the order: either may be a secret. What a child said on its
//! standard error is in some, without the secrets of the order: for the operator's log, not for clients.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io;
use std::time::Duration;

use rustix::io::Errno;

use crate::clone_exec::SetupError;
use crate::exit::Exit;
use crate::isolation::MissingLayer;

/// Why a supervisor could not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SupervisorError {
    /// The configuration makes no sense.
    #[error("supervisor configuration: {0}")]
    Config(#[from] InvalidConfigError),
    /// Layers of the isolation are missing, and the configuration requires them.
    #[error("children cannot be isolated as required: {}", list(.0))]
    Isolation(Vec<MissingLayer>),
    /// What the machine has of the isolation could not be found out.
    #[error("the isolation of children could not be tried")]
    Probe(#[source] io::Error),
    /// The thread that forks could not be started.
    #[error("the thread that starts children could not be started")]
    Thread(#[source] io::Error),
}

/// What makes no sense in a [`Config`](crate::Config); never empty.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct InvalidConfigError(pub Vec<InvalidField>);

/// One thing that makes no sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidField {
    /// The field, as in `isolation.users`.
    pub field: &'static str,
    /// What is wrong with it.
    pub reason: &'static str,
}

/// Why a child could not be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SpawnError {
    /// The program, or the interpreter that its first line names, does not exist. Terminal.
    #[error("program {program:?} (or its interpreter) was not found")]
    NotFound {
        /// The program as ordered.
        program: OsString,
    },
    /// The program exists and may not be executed, or is nothing that the kernel can execute. Terminal.
    #[error("program {program:?} cannot be executed")]
    NotExecutable {
        /// The program as ordered.
        program: OsString,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The order cannot be expressed as a process: a zero byte, or a variable without a proper name. Terminal.
    #[error("the spec is not valid: {0}")]
    Invalid(&'static str),
    /// Processes, memory or descriptors have run out. Passing: the same order may work later.
    #[error("no resources to start a child")]
    Exhausted(#[source] io::Error),
    /// The child could not restrict itself as every child must, and was not let run.
    #[error("the child could not be given {step}")]
    Isolation {
        /// What it was to have.
        step: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// It was not started in time. What hangs is the file system that the program lies on, or the machine.
    /// Passing: the same order may work later.
    #[error("the child was not started within {0:?}")]
    TooSlow(Duration),
    /// Anything else that the system refused.
    #[error("the child could not be started")]
    Os(#[source] io::Error),
    /// The supervisor is stopping and starts nothing any more.
    #[error("the supervisor is stopping")]
    Stopping,
}

impl fmt::Display for InvalidConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, InvalidField { field, reason }) in self.0.iter().enumerate() {
            let between = if position == 0 { "" } else { "; " };
            write!(f, "{between}{field} {reason}")?;
        }
        Ok(())
    }
}

impl SpawnError {
    /// Tells from what went wrong in starting a process which condition it was.
    pub(crate) fn from_failure(program: &OsStr, failure: SetupError) -> Self {
        match failure {
            SetupError::Clone(error) => Self::from_system(error.into()),
            SetupError::Exec(error) => Self::from_exec(program, error.into()),
            SetupError::Step(step, error) => Self::Isolation {
                step: step.to_string(),
                source: error.into(),
            },
        }
    }

    /// The same from the error of exec, or of looking for the program.
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

    /// The same for an error that has nothing to do with the program.
    pub(crate) fn from_system(source: io::Error) -> Self {
        match source.raw_os_error().map(Errno::from_raw_os_error) {
            Some(Errno::AGAIN | Errno::NOMEM | Errno::MFILE | Errno::NFILE | Errno::NOSPC) => Self::Exhausted(source),
            Some(_) | None => Self::Os(source),
        }
    }
}

/// Why a child that was started did not become ready.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadyError<E> {
    /// It ended instead.
    #[error("the child {exit}{}", said(.stderr))]
    Exited {
        /// How.
        exit: Exit,
        /// Its last lines on standard error, redacted.
        stderr: Vec<String>,
    },
    /// It lives and was not ready in time.
    #[error("the child was not ready within {limit:?}{}", said(.stderr))]
    TooSlow {
        /// The time that it had.
        limit: Duration,
        /// Its last lines on standard error, redacted.
        stderr: Vec<String>,
    },
    /// It lives, and what was to make it ready failed.
    #[error("the child could not be made ready")]
    Failed(#[source] E),
}

fn said(stderr: &[String]) -> String {
    match stderr {
        [] => ", saying nothing".to_owned(),
        lines => format!(", saying: {}", lines.join(" / ")),
    }
}

fn list(missing: &[MissingLayer]) -> String {
    missing
        .iter()
        .map(MissingLayer::to_string)
        .collect::<Vec<_>>()
        .join("; ")
}
