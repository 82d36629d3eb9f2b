//! The ways in which a supervisor, or a child, fails to start.
//!
//! No message contains an argument or a variable of the order: either may be a secret.

use std::ffi::{OsStr, OsString};
use std::io;

use rustix::io::Errno;

/// Why a supervisor could not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The configuration makes no sense.
    #[error("supervisor configuration: {0}")]
    Config(&'static str),
    /// The thread that forks could not be started.
    #[error("the thread that starts children could not be started")]
    Thread(#[source] io::Error),
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
    #[error("the order is not valid: {0}")]
    Invalid(&'static str),
    /// Processes, memory or descriptors have run out. Passing: the same order may work later.
    #[error("no resources to start a child")]
    Exhausted(#[source] io::Error),
    /// Anything else that the system refused.
    #[error("the child could not be started")]
    Os(#[source] io::Error),
    /// The supervisor is stopping and starts nothing any more.
    #[error("the supervisor is stopping")]
    Stopping,
}

impl SpawnError {
    /// Tells from the error of fork or exec which condition it was.
    pub(crate) fn from_os(program: &OsStr, source: io::Error) -> Self {
        let program = || program.to_owned();
        match source.raw_os_error().map(Errno::from_raw_os_error) {
            Some(Errno::NOENT | Errno::NOTDIR) => Self::NotFound { program: program() },
            Some(Errno::ACCESS | Errno::NOEXEC | Errno::PERM) => Self::NotExecutable {
                program: program(),
                source,
            },
            Some(Errno::AGAIN | Errno::NOMEM | Errno::MFILE | Errno::NFILE) => Self::Exhausted(source),
            // The standard library finds zero bytes before it forks, and has no number for them.
            None if source.kind() == io::ErrorKind::InvalidInput => {
                Self::Invalid("a zero byte in the program, an argument or a variable")
            }
            Some(_) | None => Self::Os(source),
        }
    }
}
