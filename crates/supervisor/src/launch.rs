//! An order made into a command that is ready to be started.
//!
//! Everything that takes memory or can wait is done here, before the fork.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io::{self, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::fs::OFlags;
use rustix::io::Errno;
use secrecy::{ExposeSecret, SecretString};

use crate::before_exec;
use crate::config::Delivery;
use crate::error::SpawnError;
use crate::isolation::{Plan, Room};
use crate::order::Order;
use crate::program;

/// What all children have in common.
pub(crate) struct Launcher {
    pub(crate) plan: Plan,
    /// Variables that every child inherits; may contain secrets.
    pub(crate) inherited: Vec<(OsString, OsString)>,
    /// How the variables of an order that are named here reach the child.
    pub(crate) delivery: BTreeMap<String, Delivery>,
}

/// A command, and what belongs to the child that it starts.
pub(crate) struct Launch {
    pub(crate) command: Command,
    pub(crate) room: Room,
}

impl Launcher {
    /// Prepares the start of a child. Makes system calls that may wait for a disk.
    ///
    /// # Errors
    ///
    /// [`SpawnError::Invalid`], [`SpawnError::NotFound`] and [`SpawnError::NotExecutable`] if the order is at
    /// fault, [`SpawnError::Exhausted`] and [`SpawnError::Os`] if the system is.
    pub(crate) fn prepare(&self, order: &Order) -> Result<Launch, SpawnError> {
        order.check()?;
        let refused = |source| SpawnError::from_os(&order.program, source);
        let room = self.plan.room().map_err(SpawnError::from_system)?;
        let mut variables = self.common_variables(&room);
        let mut kept = Vec::new();
        for (name, value) in &order.env {
            let value = match self.delivery.get(name) {
                None | Some(Delivery::Environment) => value.expose_secret().into(),
                Some(Delivery::File) => file(&room, name, value).map_err(SpawnError::from_system)?,
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
            &order.program,
            variables.get(OsStr::new("PATH")).map(OsString::as_os_str),
        );
        let found = found.map_err(refused)?;
        let named = variables
            .iter()
            .map(|(name, value)| (name.as_os_str(), value.as_os_str()));
        let steps = room.steps(&self.plan, &found, &order.args, named, kept);
        let steps = steps.map_err(SpawnError::from_system)?;

        let mut command = order.command(&found);
        command
            .env_clear()
            .envs(&variables)
            .current_dir(room.path().unwrap_or(Path::new("/")))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        before_exec::take(steps, &mut command);
        Ok(Launch { command, room })
    }

    /// The variables that do not come from the order.
    fn common_variables(&self, room: &Room) -> BTreeMap<OsString, OsString> {
        let own = room.path().into_iter();
        let own = own.flat_map(|path| ["HOME", "TMPDIR"].map(|name| (name.into(), path.into())));
        own.chain(self.inherited.iter().cloned()).collect()
    }
}

/// Hands a secret over in a file; the variable is its path.
fn file(room: &Room, name: &str, value: &SecretString) -> io::Result<OsString> {
    Ok(room.write(name, value.expose_secret().as_bytes())?.into_os_string())
}

/// Hands a secret over in a pipe that holds it and then ends; the variable is the number of its reading end. It
/// can be read once.
fn pipe(value: &SecretString) -> Result<OwnedFd, SpawnError> {
    let (reader, mut writer) = io::pipe().map_err(SpawnError::from_system)?;
    let nonblocking = rustix::fs::fcntl_setfl(&writer, OFlags::NONBLOCK).map_err(io::Error::from);
    let written = nonblocking.and_then(|()| writer.write_all(value.expose_secret().as_bytes()));
    match written {
        Ok(()) => Ok(reader.into()),
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
