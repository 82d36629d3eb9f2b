//! What `/proc` says of processes: who is whose child, and whether one is still the same and alive.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open},
};

/// A process, told from a later one with the same id by when it started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Process {
    /// Its id.
    pub pid: u32,
    started: u64,
}

struct Stat {
    state: char,
    parent: u32,
    started: u64,
}

impl Process {
    /// Whether it still runs; a zombie does not.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        stat(self.pid).is_some_and(|stat| stat.started == self.started && !matches!(stat.state, 'Z' | 'X'))
    }

    /// Kills it at once (SIGKILL).
    ///
    /// # Errors
    ///
    /// If it is gone.
    pub fn kill(&self) -> Result<()> {
        Ok(kill_process(self.id()?, Signal::KILL)?)
    }

    /// Returns once it has ended. It need not be a child of this process.
    ///
    /// # Errors
    ///
    /// If it is still there after half a minute.
    pub async fn gone(self) -> Result<()> {
        tokio::task::spawn_blocking(move || self.wait()).await?
    }

    fn wait(self) -> Result<()> {
        let limit = Timespec { tv_sec: 30, tv_nsec: 0 };
        // The descriptor of a process becomes readable when the process ends. Asking for the start time after opening it makes
        // sure that it is the right process.
        let Ok(descriptor) = pidfd_open(self.id()?, PidfdFlags::empty()) else {
            return Ok(());
        };
        if !self.is_alive() {
            return Ok(());
        }
        ensure!(
            poll(&mut [PollFd::new(&descriptor, PollFlags::IN)], Some(&limit))? == 1,
            "process {} lives on",
            self.pid
        );
        Ok(())
    }

    fn id(&self) -> Result<Pid> {
        i32::try_from(self.pid)
            .ok()
            .and_then(Pid::from_raw)
            .context("a process id is a positive number")
    }
}

/// The living children of a process.
///
/// # Errors
///
/// If `/proc` cannot be read.
pub fn children_of(parent: u32) -> Result<Vec<Process>> {
    let mut children = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        // A process that ended since the directory was read is no child any more.
        if let Some(stat) = stat(pid).filter(|stat| stat.parent == parent && stat.state != 'Z') {
            children.push(Process {
                pid,
                started: stat.started,
            });
        }
    }
    Ok(children)
}

fn stat(pid: u32) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in brackets, may hold anything, brackets and blanks included.
    let (_, after_name) = text.rsplit_once(") ")?;
    let fields: Vec<&str> = after_name.split(' ').collect();
    Some(Stat {
        state: fields.first()?.chars().next()?,
        parent: fields.get(1)?.parse().ok()?,
        started: fields.get(19)?.parse().ok()?,
    })
}
