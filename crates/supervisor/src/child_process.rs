//! Ownership of one process that has not been reaped yet.
//!
//! This is the only place that signals a child and the only place that reaps one (what it leaves behind is for
//! [`orphans`]), and it is why no signal can reach a stranger. The argument: the child is the leader of its
//! process group, so the group's number is its pid. A pid is not given to another process, and no other group can
//! take its number, before its process has been reaped. Only [`ChildProcess::reap`] and the drop reap, both take the
//! child_process away, and signals need the child_process.
//!
//! That the child has ended is learned from its pidfd, which becomes readable while the process is still
//! there to be waited for.

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

/// How long a dropped child_process waits for a killed process. Only a process that hangs in the kernel takes so long; it
/// is then left to whoever looks for orphans next.
const REAP_TIMEOUT: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };

/// A process that is ours to signal and to reap.
#[derive(Debug)]
pub(crate) struct ChildProcess {
    group: Pid,
    pidfd: Arc<OwnedFd>,
    no_new_privs: bool,
    reaped: bool,
}

/// Tells when the process has ended. ChildPaths a runtime, which the child_process itself does not.
#[derive(Debug)]
pub(crate) struct ExitWatcher {
    pidfd: AsyncFd<Arc<OwnedFd>>,
}

impl ChildProcess {
    /// Takes a process that [`orphans::start`] has just started, and that leads a group of its own. `marked` is
    /// whether its orphans have the mark that [`orphans`] looks for.
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

    /// A watch over the end of the process.
    #[expect(
        deprecated,
        reason = "the safe constructor is deprecated because a descriptor could be closed under it; an `Arc<OwnedFd>` \
                  that is never replaced cannot; the successor asks for that promise in a block that is denied here"
    )]
    pub(crate) fn exit_watcher(&self) -> io::Result<ExitWatcher> {
        let pidfd = AsyncFd::with_interest(Arc::clone(&self.pidfd), Interest::READABLE)?;
        Ok(ExitWatcher { pidfd })
    }

    /// Asks the whole group to end.
    pub(crate) fn terminate(&self) {
        // The one error there can be is that every member has gone, which is what we want.
        let _ = kill_process_group(self.group, Signal::TERM);
    }

    /// Ends the whole group. As the leader of a session the process itself cannot leave it (setpgid(2)).
    ///
    /// The kernel signals a group under the lock that also admits new members, and a fork that meets a pending
    /// fatal signal fails, so that no member can slip away by forking.
    pub(crate) fn kill(&self) {
        // A pidfd never means another process. That it finds none here can only be if something else in this
        // process has reaped ours, against what the crate asks for; the group's number may be a stranger's then.
        if pidfd_send_signal(&self.pidfd, Signal::KILL) != Err(Errno::SRCH) {
            let _ = kill_process_group(self.group, Signal::KILL);
        }
    }

    /// Reaps the process, which must have ended. After this its number is free.
    ///
    /// # Errors
    ///
    /// If something else in this process has reaped it, which makes its status unknown.
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
        // Reached when the runtime drops the watching task, or when no task took the child over.
        self.kill();
        let mut ended = [PollFd::new(&self.pidfd, PollFlags::IN)];
        if matches!(poll(&mut ended, Some(&REAP_TIMEOUT)), Ok(1)) {
            let _ = orphans::reap(self.group);
        } else {
            orphans::abandon(self.group);
        }
        // What it left behind is killed here and reaped by whoever looks next, or by init.
        orphans::sweep(self.no_new_privs);
    }
}

impl ExitWatcher {
    /// Waits until the process has ended. It is still to be reaped then. Cancel safe.
    pub(crate) async fn wait(&self) {
        loop {
            let Ok(mut ready) = self.pidfd.readable().await else {
                // The runtime is shutting down; this task is about to be dropped, and the child_process with it.
                return std::future::pending().await;
            };
            let look = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
            match waitid(WaitId::PidFd(self.pidfd.get_ref().as_fd()), look) {
                Ok(None) => ready.clear_ready(),
                // An error means that someone else reaped it; it has ended all the same.
                Ok(Some(_)) | Err(_) => return,
            }
        }
    }
}
