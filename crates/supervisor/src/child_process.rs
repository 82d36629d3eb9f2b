//! Ownership of one process that has not been reaped yet.
//!
//! Only this module signals or reaps a child ([`orphans`] handles the processes that it leaves
//! behind), so no signal can reach an unrelated process. The argument: the child leads its process
//! group, so the group's number is its pid. The kernel reuses a pid, also as the number of a group,
//! only after its process was reaped. Only [`ChildProcess::reap`] and the drop reap, both consume
//! the [`ChildProcess`], and signals need one.
//!
//! The pidfd of the child becomes readable when it has ended, while it can still be waited for.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitStatus;
use std::sync::Arc;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, pidfd_send_signal, waitid};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::orphans;

/// Maximum time that a drop waits for the killed process. Only a process that hangs in the kernel
/// takes so long; the next sweep of orphans then reaps it.
const REAP_TIMEOUT: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };

/// A process that this program may signal and reap. The drop kills and reaps it.
#[derive(Debug)]
pub(crate) struct ChildProcess {
    group: Pid,
    pidfd: Arc<OwnedFd>,
    no_new_privs: bool,
    reaped: bool,
}

/// Waits for the end of a process. Needs a runtime, unlike [`ChildProcess`].
#[derive(Debug)]
pub(crate) struct ExitWatcher {
    pidfd: AsyncFd<Arc<OwnedFd>>,
}

impl ChildProcess {
    /// Takes over a process that [`orphans::spawn`] has just started and that leads its own group.
    /// `no_new_privs` says whether the process, hence each of its orphans, has that flag set.
    pub(crate) fn new(pid: Pid, pidfd: OwnedFd, no_new_privs: bool) -> Self {
        Self {
            group: pid,
            pidfd: Arc::new(pidfd),
            no_new_privs,
            reaped: false,
        }
    }

    /// The number of the process and of its group.
    pub(crate) fn group(&self) -> Pid {
        self.group
    }

    #[expect(
        deprecated,
        reason = "the safe constructor is deprecated because a descriptor could be closed under it; an `Arc<OwnedFd>` \
                  that is never replaced cannot; the successor asks for that promise in a block that is denied here"
    )]
    pub(crate) fn exit_watcher(&self) -> io::Result<ExitWatcher> {
        let pidfd = AsyncFd::with_interest(Arc::clone(&self.pidfd), Interest::READABLE)?;
        Ok(ExitWatcher { pidfd })
    }

    /// Sends SIGTERM to the whole group.
    pub(crate) fn terminate(&self) {
        // The only possible error is that every member is gone, which is the goal.
        let _ = kill_process_group(self.group, Signal::TERM);
    }

    /// Sends SIGKILL to the whole group. The process leads a session, so it cannot leave the group
    /// (setpgid(2)).
    ///
    /// The kernel signals a group under the lock that also admits new members, and a fork fails if
    /// a fatal signal is pending, so no member can escape by forking.
    pub(crate) fn kill(&self) {
        // A pidfd never refers to another process. ESRCH means that other code in this program has
        // reaped the child, against the contract of this crate, so the group's number may be
        // reused.
        if pidfd_send_signal(&self.pidfd, Signal::KILL) != Err(Errno::SRCH) {
            let _ = kill_process_group(self.group, Signal::KILL);
        }
    }

    /// Reaps the process, which must have ended. Its number is free afterwards.
    /// Fails if other code in this program has reaped it, so its status is unknown.
    pub(crate) fn reap(mut self) -> io::Result<ExitStatus> {
        self.reaped = true;
        orphans::reap(self.group)
    }
}

impl Drop for ChildProcess {
    fn drop(&mut self) {
        if self.reaped {
            return;
        }
        // Reached if the runtime drops the child's task, or if no task took the child over.
        self.kill();
        let mut pidfd = [PollFd::new(&self.pidfd, PollFlags::IN)];
        if matches!(poll(&mut pidfd, Some(&REAP_TIMEOUT)), Ok(1)) {
            let _ = orphans::reap(self.group);
        } else {
            orphans::forget(self.group);
        }
        // Kills the orphans; the next sweep, or init, reaps them.
        orphans::sweep(self.no_new_privs);
    }
}

impl ExitWatcher {
    /// Waits until the process has ended. It is not reaped yet then. Cancel safe.
    pub(crate) async fn wait(&self) {
        loop {
            let Ok(mut ready) = self.pidfd.readable().await else {
                // The runtime is shutting down and is about to drop this task and the process.
                return std::future::pending().await;
            };
            let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
            match waitid(WaitId::PidFd(self.pidfd.get_ref().as_fd()), options) {
                Ok(None) => ready.clear_ready(),
                // An error means that other code reaped it, so it has ended as well.
                Ok(Some(_)) | Err(_) => return,
            }
        }
    }
}
