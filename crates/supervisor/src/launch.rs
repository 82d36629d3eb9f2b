//! An order made into everything that its start takes.
//!
//! Everything that takes memory or can wait is done here, before there is a process.

use std::collections::BTreeMap;
use std::ffi::{CString, OsStr, OsString};
use std::io::{self, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::OFlags;
use rustix::io::Errno;
use secrecy::{ExposeSecret, SecretString};

use crate::clone_exec::ExecImage;
use crate::config::Delivery;
use crate::error::SpawnError;
use crate::isolation::{ChildSetup, IsolationPlan, Sandbox};
use crate::program;
use crate::spec::ChildSpec;

/// What all children have in common.
pub(crate) struct Launcher {
    pub(crate) plan: IsolationPlan,
    /// Variables that every child inherits; may contain secrets.
    pub(crate) inherited: Vec<(OsString, OsString)>,
    /// How the variables of an order that are named here reach the child.
    pub(crate) delivery: BTreeMap<String, Delivery>,
}

/// Everything that the start of a child takes, and what belongs to it.
pub(crate) struct Launch {
    pub(crate) image: ExecImage,
    pub(crate) steps: ChildSetup,
    pub(crate) sandbox: Sandbox,
}

impl Launcher {
    /// Prepares the start of a child. Makes system calls that may wait for a disk.
    ///
    /// # Errors
    ///
    /// [`SpawnError::Invalid`], [`SpawnError::NotFound`] and [`SpawnError::NotExecutable`] if the order is at
    /// fault, [`SpawnError::Exhausted`] and [`SpawnError::Os`] if the system is.
    pub(crate) fn prepare(&self, spec: &ChildSpec) -> Result<Launch, SpawnError> {
        spec.check()?;
        let refused = |source| SpawnError::from_exec(&spec.program, source);
        let sandbox = self.plan.sandbox().map_err(SpawnError::from_system)?;
        let mut variables = self.common_variables(&sandbox);
        let mut kept = Vec::new();
        for (name, value) in &spec.env {
            let value = match self.delivery.get(name) {
                None | Some(Delivery::Environment) => value.expose_secret().into(),
                Some(Delivery::File) => file(&sandbox, name, value).map_err(SpawnError::from_system)?,
                Some(Delivery::Descriptor) => {
                    let pipe = pipe(value)?;
                    let number = pipe.as_raw_fd().to_string();
                    kept.push(pipe);
                    number.into()
                }
            };
            variables.insert(name.into(), value);
        }
        let found = program::find(
            &spec.program,
            variables.get(OsStr::new("PATH")).map(OsString::as_os_str),
        );
        let found = found.map_err(refused)?;
        let named = variables
            .iter()
            .map(|(name, value)| (name.as_os_str(), value.as_os_str()));
        let steps = sandbox.steps(&self.plan, &found, &spec.args, named, kept);
        let steps = steps.map_err(SpawnError::from_system)?;

        // It sees itself called as ordered, and not by the path where it was found.
        let args = [&spec.program].into_iter().chain(&spec.args);
        let image = ExecImage {
            program: c_string(found.as_os_str())?,
            args: args.map(|arg| c_string(arg)).collect::<Result<_, _>>()?,
            env: variables.iter().map(variable).collect::<Result<_, _>>()?,
            directory: c_string(sandbox.path().unwrap_or(Path::new("/")).as_os_str())?,
        };
        Ok(Launch { image, steps, sandbox })
    }

    /// The variables that do not come from the order.
    fn common_variables(&self, sandbox: &Sandbox) -> BTreeMap<OsString, OsString> {
        let own = sandbox.path().into_iter();
        let own = own.flat_map(|path| ["HOME", "TMPDIR"].map(|name| (name.into(), path.into())));
        own.chain(self.inherited.iter().cloned()).collect()
    }
}

fn c_string(string: &OsStr) -> Result<CString, SpawnError> {
    CString::new(string.as_bytes())
        .map_err(|_| SpawnError::Invalid("a zero byte in the program, an argument or a variable"))
}

/// `NAME=value`.
fn variable((name, value): (&OsString, &OsString)) -> Result<CString, SpawnError> {
    c_string(&[name.as_os_str(), value.as_os_str()].join(OsStr::new("=")))
}

/// Hands a secret over in a file; the variable is its path.
fn file(sandbox: &Sandbox, name: &str, value: &SecretString) -> io::Result<OsString> {
    Ok(sandbox.write(name, value.expose_secret().as_bytes())?.into_os_string())
}

/// Hands a secret over in a pipe that holds it and then ends; the variable is the number of its reading end. It
/// can be read once.
fn pipe(value: &SecretString) -> Result<OwnedFd, SpawnError> {
    let (reader, mut writer) = io::pipe().map_err(SpawnError::from_system)?;
    let nonblocking = rustix::fs::fcntl_setfl(&writer, OFlags::NONBLOCK).map_err(io::Error::from);
    let written = nonblocking.and_then(|()| writer.write_all(value.expose_secret().as_bytes()));
    match written {
        // Not where the child's standard streams go, even if this process has none.
        Ok(()) => rustix::io::fcntl_dupfd_cloexec(&reader, 3).map_err(|error| SpawnError::from_system(error.into())),
        Err(error) if Errno::from_io_error(&error) == Some(Errno::AGAIN) => {
            Err(SpawnError::Invalid("a variable that is too long for a pipe"))
        }
        Err(error) => Err(SpawnError::from_system(error)),
    }
}

/// Without the values of the environment.
impl std::fmt::Debug for Launcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<_> = self.inherited.iter().map(|(name, _)| name).collect();
        f.debug_struct("Launcher")
            .field("plan", &self.plan)
            .field("inherited", &names)
            .field("delivery", &self.delivery)
            .finish()
    }
}
