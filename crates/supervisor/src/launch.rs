//! Turning a spec into everything that its spawn needs.
//!
//! All allocations and blocking calls happen here, before the process exists.

use std::collections::BTreeMap;
use std::ffi::{CString, OsStr, OsString};
use std::io::{self, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use rustix::io::Errno;
use secrecy::{ExposeSecret, SecretString};

use crate::clone_exec::ExecImage;
use crate::config::Delivery;
use crate::error::SpawnError;
use crate::isolation::{ChildSetup, IsolationPlan, Sandbox};
use crate::program;
use crate::spec::ChildSpec;

/// Prepares children: holds the settings that they share.
pub(crate) struct Launcher {
    pub(crate) plan: IsolationPlan,
    /// Variables that every child inherits; may contain secrets.
    pub(crate) inherited: Vec<(OsString, OsString)>,
    /// The delivery of the variables that are named here.
    pub(crate) delivery: BTreeMap<String, Delivery>,
}

/// A child that is ready to be spawned.
pub(crate) struct PreparedChild {
    pub(crate) image: ExecImage,
    pub(crate) setup: ChildSetup,
    pub(crate) sandbox: Sandbox,
}

impl Launcher {
    /// Prepares a child. Makes system calls that may block on a disk.
    ///
    /// # Errors
    ///
    /// [`SpawnError::Invalid`], [`SpawnError::NotFound`] and [`SpawnError::NotExecutable`] if the
    /// spec is at fault, [`SpawnError::Exhausted`] and [`SpawnError::Os`] if the system is.
    pub(crate) fn prepare(&self, spec: &ChildSpec) -> Result<PreparedChild, SpawnError> {
        spec.check()?;
        let sandbox = Sandbox::new(&self.plan).map_err(SpawnError::from_system)?;
        let mut variables = self.common_variables(&sandbox);
        let mut kept = Vec::new();
        for (name, value) in &spec.env {
            let value = match self.delivery.get(name) {
                None | Some(Delivery::Environment) => value.expose_secret().into(),
                Some(Delivery::File) => {
                    let path = sandbox.write(name, value.expose_secret().as_bytes());
                    path.map_err(SpawnError::from_system)?.into_os_string()
                }
                Some(Delivery::Descriptor) => {
                    let pipe = pipe(value)?;
                    let number = pipe.as_raw_fd().to_string();
                    kept.push(pipe);
                    number.into()
                }
            };
            variables.insert(name.into(), value);
        }
        let program = self.find_program(spec)?;
        let setup = sandbox.setup(&self.plan, &program, &spec.args, &variables, kept);
        let setup = setup.map_err(SpawnError::from_system)?;

        // The first argument is the program as specified, not the path where it was found.
        let args = [&spec.program].into_iter().chain(&spec.args);
        let image = ExecImage {
            program: c_string(program.as_os_str())?,
            args: args.map(|arg| c_string(arg)).collect::<Result<_, _>>()?,
            env: variables.iter().map(variable).collect::<Result<_, _>>()?,
            directory: c_string(sandbox.path().unwrap_or(Path::new("/")).as_os_str())?,
        };
        Ok(PreparedChild { image, setup, sandbox })
    }

    /// The file that a child of this spec executes.
    pub(crate) fn find_program(&self, spec: &ChildSpec) -> Result<PathBuf, SpawnError> {
        program::of(spec, &self.inherited)
    }

    /// The variables that do not come from the spec.
    fn common_variables(&self, sandbox: &Sandbox) -> BTreeMap<OsString, OsString> {
        let own = sandbox.path().into_iter();
        let own = own.flat_map(|path| ["HOME", "TMPDIR"].map(|name| (name.into(), path.into())));
        own.chain(self.inherited.iter().cloned()).collect()
    }
}

fn c_string(string: &OsStr) -> Result<CString, SpawnError> {
    CString::new(string.as_bytes())
        .map_err(|_| SpawnError::Invalid("the program, an argument or a variable contains a zero byte"))
}

/// `NAME=value`.
fn variable((name, value): (&OsString, &OsString)) -> Result<CString, SpawnError> {
    c_string(&[name.as_os_str(), value.as_os_str()].join(OsStr::new("=")))
}

/// The reading end of a pipe that contains `value` and then ends. It can be read once.
fn pipe(value: &SecretString) -> Result<OwnedFd, SpawnError> {
    let (reader, mut writer) = io::pipe().map_err(SpawnError::from_system)?;
    let nonblocking = rustix::fs::fcntl_setfl(&writer, OFlags::NONBLOCK).map_err(io::Error::from);
    let written = nonblocking.and_then(|()| writer.write_all(value.expose_secret().as_bytes()));
    match written {
        // Above the numbers of the child's standard streams, even if this process has none.
        Ok(()) => rustix::io::fcntl_dupfd_cloexec(&reader, 3).map_err(|error| SpawnError::from_system(error.into())),
        Err(error) if Errno::from_io_error(&error) == Some(Errno::AGAIN) => {
            Err(SpawnError::Invalid("a variable is too long for a pipe"))
        }
        Err(error) => Err(SpawnError::from_system(error)),
    }
}
