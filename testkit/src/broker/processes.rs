//! Processes in `/proc`: the children of a process, and the end of one.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open},
};

const EXIT_TIMEOUT: Timespec = Timespec { tv_sec: 30, tv_nsec: 0 };

/// A process. Its start time distinguishes it from a later one with the same id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Process {
    pub pid: u32,
    started: u64,
}

struct Stat {
    state: char,
    parent: u32,
    started: u64,
}

impl Process {
    /// A zombie is not alive.
    pub fn is_alive(&self) -> bool {
        stat(self.pid).is_some_and(|stat| stat.started == self.started && !matches!(stat.state, 'Z' | 'X'))
    }

    /// Stops it until [`resume`](Self::resume): it reads nothing, and its pipes fill up.
    pub fn pause(&self) -> Result<()> {
        Ok(kill_process(pid(self.pid)?, Signal::STOP)?)
    }

    pub fn resume(&self) -> Result<()> {
        Ok(kill_process(pid(self.pid)?, Signal::CONT)?)
    }

    pub fn kill(&self) -> Result<()> {
        Ok(kill_process(pid(self.pid)?, Signal::KILL)?)
    }

    /// Waits until it has ended. It need not be a child of this process. Fails after half a minute.
    pub async fn exited(self) -> Result<()> {
        let Ok(descriptor) = pidfd_open(pid(self.pid)?, PidfdFlags::empty()) else {
            return Ok(());
        };
        // The check after the opening ensures that the descriptor belongs to this process.
        if self.is_alive() {
            // A process descriptor becomes readable at the end of its process.
            let wait = move || poll(&mut [PollFd::new(&descriptor, PollFlags::IN)], Some(&EXIT_TIMEOUT));
            let ended = tokio::task::spawn_blocking(wait).await??;
            ensure!(ended == 1, "process {} lives on", self.pid);
        }
        Ok(())
    }
}

pub(super) fn pid(pid: u32) -> Result<Pid> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    pid.context("a process id is a positive number")
}

pub(super) fn children_of(parent: u32) -> Result<Vec<Process>> {
    let mut children = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        // A process that has ended since the directory was read is not a child.
        if let Some(stat) = stat(pid).filter(|stat| stat.parent == parent && stat.state != 'Z') {
            let started = stat.started;
            children.push(Process { pid, started });
        }
    }
    Ok(children)
}

fn stat(pid: u32) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in brackets, may hold brackets and blanks.
    let (_, after_name) = text.rsplit_once(") ")?;
    let fields: Vec<&str> = after_name.split(' ').collect();
    Some(Stat {
        state: fields.first()?.chars().next()?,
        parent: fields.get(1)?.parse().ok()?,
        started: fields.get(19)?.parse().ok()?,
    })
}
