//! The thread that reaps orphans that ended while their child still runs.
//!
//! A process can become a child of this process without being started by it: by CLONE_PARENT
//! (clone(2)), or as an orphan of a child that has given up being a subreaper. Its end leaves a
//! zombie, which keeps a number of the machine's, and counts against `limits.processes`, until this
//! process waits for it. The thread looks for such zombies while there are children. It does not
//! touch orphans that run: they end with their child, like all that it started.

use std::convert::Infallible;
use std::io;
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use crate::orphans;

/// The time between two searches.
const INTERVAL: Duration = Duration::from_secs(2);

/// The owner of the thread, which ends when all clones are gone.
#[derive(Clone, Debug)]
pub(crate) struct ZombieReaper {
    /// Has room for one message, which waits while the thread is awake.
    wake: SyncSender<()>,
    /// Interrupts the thread when it is gone.
    _alive: SyncSender<Infallible>,
}

impl ZombieReaper {
    /// Starts the thread. With `no_new_privs`, an orphan must have that flag set.
    pub(crate) fn start(no_new_privs: bool) -> io::Result<Self> {
        let (wake, woken) = sync_channel(1);
        let (alive, gone) = sync_channel(0);
        thread::Builder::new().name("reaper".to_owned()).spawn(move || {
            // Without a child, the thread waits in `recv`. A child that is spawned after the inner
            // loop has left a message.
            while woken.recv().is_ok() {
                while orphans::any_child() {
                    if gone.recv_timeout(INTERVAL) == Err(RecvTimeoutError::Disconnected) {
                        return;
                    }
                    orphans::reap_zombies(no_new_privs);
                }
            }
        })?;
        Ok(Self { wake, _alive: alive })
    }

    /// Tells the thread that a child was spawned.
    pub(crate) fn wake(&self) {
        // An error means that a message waits already.
        let _ = self.wake.try_send(());
    }
}
