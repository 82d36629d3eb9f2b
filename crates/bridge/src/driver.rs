//! The one task of a bridge: it reads, writes and keeps the time until the stream ends.
//!
//! When it is over the io is dropped, whatever waits has its error, and `done` is cancelled, in this order and on every way
//! out. A server that refuses input may have written answers before: they are read for a short while yet.

use std::{convert::Infallible, io, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::{Instant, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    envelope::{Envelope, Malformed},
    faults::{Fault, Faults},
    framing::{Excerpt, Frame, Framer},
    legacy::{self, Legacy},
    overlong,
    shared::Shared,
};

/// How long a server that refuses input is still read.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// What the task works on.
#[derive(Debug)]
pub(crate) struct Driver {
    pub(crate) shared: Arc<Shared>,
    pub(crate) faults: Arc<Faults>,
    pub(crate) max_line: usize,
    /// Ends the task from outside.
    pub(crate) closing: CancellationToken,
    /// Cancelled by the task when all is over.
    pub(crate) done: CancellationToken,
}

/// Ends the machine when the task is over, even by a panic or because the runtime goes away.
struct Finish(Arc<Shared>, CancellationToken);

impl Driver {
    /// Carries the stream until it ends.
    pub(crate) async fn run(self, io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) {
        // Declared before the halves of the io, so dropped after them.
        let _finish = Finish(Arc::clone(&self.shared), self.done.clone());
        let (from_server, to_server) = tokio::io::split(io);
        tokio::select! {
            biased;
            () = self.closing.cancelled() => tracing::debug!("closed"),
            result = self.carry(from_server, to_server) => match result {
                Ok(()) => tracing::debug!("the server has ended its output"),
                Err(error) => tracing::warn!(%error, "the stream to the server has failed"),
            },
        }
    }

    async fn carry(&self, from_server: impl AsyncRead + Unpin, to_server: impl AsyncWrite + Unpin) -> io::Result<()> {
        let reading = self.read(from_server);
        tokio::pin!(reading);
        let refusal = tokio::select! {
            result = &mut reading => return result,
            Err(error) = self.write(to_server) => error,
            never = self.keep_time() => match never {},
        };
        self.shared.step(Legacy::deafen);
        // Whatever the reading comes to, the refusal is the reason.
        let _ = timeout(LAST_WORDS, reading).await;
        Err(refusal)
    }

    async fn read(&self, mut from_server: impl AsyncRead + Unpin) -> io::Result<()> {
        let mut framer = Framer::new(self.max_line);
        loop {
            let read = from_server.read_buf(framer.buffer()).await;
            while let Some(frame) = framer.next() {
                match frame {
                    Frame::Line(line) => self.take(&line),
                    Frame::TooLong(excerpt) => self.overlong(&excerpt),
                }
            }
            if matches!(read, Ok(0) | Err(_)) {
                if framer.is_within_line() {
                    self.faults.count(Fault::LineCutOff);
                }
                return read.map(|_| ());
            }
        }
    }

    fn take(&self, line: &[u8]) {
        if line.trim_ascii().is_empty() {
            return;
        }
        match Envelope::parse(line) {
            Ok(message) => self.shared.step(|machine| machine.take(Instant::now(), message)),
            Err(Malformed::NotUtf8 | Malformed::NotJson) => self.faults.count(Fault::NotJson),
            Err(Malformed::NotJsonRpc(_)) => self.faults.count(Fault::NotJsonRpc),
            Err(Malformed::Batch) => {
                let taken = legacy::split(line)
                    .is_ok_and(|messages| self.shared.step(|machine| machine.take_batch(Instant::now(), messages)));
                if !taken {
                    self.faults.count(Fault::NotJsonRpc);
                }
            }
        }
    }

    /// What is too long is not passed on; the client of an answer learns of it.
    fn overlong(&self, excerpt: &Excerpt) {
        self.faults.count(Fault::LineTooLong);
        if let Some(number) = overlong::answered(excerpt) {
            self.shared.step(|machine| machine.overlong(Instant::now(), number));
        }
    }

    async fn write(&self, mut to_server: impl AsyncWrite + Unpin) -> io::Result<Infallible> {
        loop {
            while let Some(lines) = self.shared.step(|machine| machine.outbox.take()) {
                let written = to_server.write(&lines).await?;
                if written == 0 {
                    return Err(io::ErrorKind::WriteZero.into());
                }
                self.shared.step(|machine| machine.outbox.accepted());
                to_server.write_all(&lines[written..]).await?;
            }
            to_server.flush().await?;
            self.shared.output().await;
        }
    }

    async fn keep_time(&self) -> Infallible {
        loop {
            let next = self.shared.step(|machine| {
                machine.tick(Instant::now());
                machine.next_due()
            });
            let due = async {
                match next {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = due => {}
                () = self.shared.earlier() => {}
            }
        }
    }
}

impl Drop for Finish {
    fn drop(&mut self) {
        self.0.step(|machine| machine.end(Instant::now()));
        self.1.cancel();
    }
}
