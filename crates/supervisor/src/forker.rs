//! The one thread that forks.
//!
//! A child's death signal follows the thread that forked it (see [`death`](crate::death)), so that thread must
//! live at least as long as every child. This one takes orders from a bounded queue and ends only when the
//! supervisor and all the tasks that watch children are gone, since each of them holds a [`Forker`]. It owns
//! nothing that needs to be joined: once the queue is closed it returns.

use std::io;
use std::process::Command;
use std::thread;

use tokio::sync::{mpsc, oneshot};

use crate::death;
use crate::leash::Leash;

/// Orders that may wait for the thread. A fork takes a millisecond or so; whoever comes when the queue is full
/// waits for a place.
const QUEUE: usize = 64;

/// The way to the thread.
#[derive(Clone, Debug)]
pub(crate) struct Forker {
    queue: mpsc::Sender<Fork>,
}

/// Without `Debug`: a command shows its variables.
struct Fork {
    command: Command,
    reply: oneshot::Sender<io::Result<Leash>>,
}

impl Forker {
    /// Starts the thread.
    pub(crate) fn start() -> io::Result<Self> {
        let (queue, mut orders) = mpsc::channel::<Fork>(QUEUE);
        thread::Builder::new().name("forker".to_owned()).spawn(move || {
            while let Some(Fork { mut command, reply }) = orders.blocking_recv() {
                death::with_parent(&mut command);
                let result = command.spawn().and_then(Leash::new);
                // Nobody waits any more if the runtime is gone. The leash then comes back and its drop ends
                // the child.
                let _ = reply.send(result);
            }
        })?;
        Ok(Self { queue })
    }

    /// Starts `command` on the thread.
    pub(crate) async fn fork(&self, command: Command) -> io::Result<Leash> {
        let gone = || io::Error::other("the thread that starts children is gone");
        let (reply, result) = oneshot::channel();
        self.queue.send(Fork { command, reply }).await.map_err(|_| gone())?;
        result.await.map_err(|_| gone())?
    }
}
