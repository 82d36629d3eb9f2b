//! The one task of a bridge: it reads, writes and runs the timers until the stream ends.
//!
//! On every way out, the task drops the io, fails everything that waits, and cancels `done`, in
//! this order. A server that closes its input may have written responses before, so the task reads
//! a little longer.

use std::{convert::Infallible, io, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::{Instant, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    framing::{Frame, Framer, LineExcerpt},
    truncated_line,
};
use crate::{
    dropped::{DropCounts, DropReason},
    jsonrpc::{Envelope, MessageError},
    legacy::{self, StateMachine},
    state::BridgeState,
};

/// The time for reading from a server that has closed its input.
const FINAL_READ_TIMEOUT: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(crate) struct LinkTask {
    pub(crate) state: Arc<BridgeState>,
    pub(crate) drop_counts: DropCounts,
    pub(crate) max_line: usize,
    /// Ends the task from outside.
    pub(crate) closing: CancellationToken,
    /// Cancelled by the task at its end.
    pub(crate) done: CancellationToken,
}

/// Ends the state machine with the task, even after a panic or when the runtime shuts down.
struct EndGuard(Arc<BridgeState>, CancellationToken);

impl LinkTask {
    /// Runs until the stream ends.
    pub(crate) async fn run(self, io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) {
        // Declared before the halves of the io and therefore dropped after them.
        let _guard = EndGuard(Arc::clone(&self.state), self.done.clone());
        let (from_server, to_server) = tokio::io::split(io);
        tokio::select! {
            biased;
            () = self.closing.cancelled() => tracing::debug!("bridge closed"),
            result = self.run_io(from_server, to_server) => match result {
                Ok(()) => tracing::debug!("MCP server closed its output"),
                Err(error) => tracing::warn!(%error, "stream to the MCP server failed"),
            },
        }
    }

    async fn run_io(&self, from_server: impl AsyncRead + Unpin, to_server: impl AsyncWrite + Unpin) -> io::Result<()> {
        let reading = self.read(from_server);
        tokio::pin!(reading);
        let write_error = tokio::select! {
            result = &mut reading => return result,
            Err(error) = self.write(to_server) => error,
            never = self.run_timers() => match never {},
        };
        self.state.step(StateMachine::close_write);
        // The write error is the cause, whatever the reading returns.
        let _ = timeout(FINAL_READ_TIMEOUT, reading).await;
        Err(write_error)
    }

    async fn read(&self, mut from_server: impl AsyncRead + Unpin) -> io::Result<()> {
        let mut framer = Framer::new(self.max_line);
        loop {
            let read = from_server.read_buf(framer.buffer()).await;
            while let Some(frame) = framer.next() {
                match frame {
                    Frame::Line(line) => self.receive(&line),
                    Frame::TooLong(excerpt) => self.line_too_long(&excerpt),
                }
            }
            if matches!(read, Ok(0) | Err(_)) {
                if framer.is_within_line() {
                    self.drop_counts.count(DropReason::InvalidJson);
                }
                return read.map(|_| ());
            }
        }
    }

    fn receive(&self, line: &[u8]) {
        if line.trim_ascii().is_empty() {
            return;
        }
        match Envelope::parse(line) {
            Ok(message) => self.state.step(|machine| machine.receive(Instant::now(), message)),
            Err(MessageError::NotUtf8 | MessageError::NotJson) => self.drop_counts.count(DropReason::InvalidJson),
            Err(MessageError::NotJsonRpc(_)) => self.drop_counts.count(DropReason::InvalidMessage),
            Err(MessageError::Batch) => {
                let accepted = legacy::split_batch(line).is_ok_and(|messages| {
                    self.state
                        .step(|machine| machine.receive_batch(Instant::now(), messages))
                });
                if !accepted {
                    self.drop_counts.count(DropReason::InvalidMessage);
                }
            }
        }
    }

    /// Drops a line that is too long; the client that waits for it gets an error.
    fn line_too_long(&self, excerpt: &LineExcerpt) {
        self.drop_counts.count(DropReason::LineTooLong);
        if let Some(number) = truncated_line::answered_request(excerpt) {
            self.state
                .step(|machine| machine.response_too_long(Instant::now(), number));
        }
    }

    async fn write(&self, mut to_server: impl AsyncWrite + Unpin) -> io::Result<Infallible> {
        loop {
            while let Some(lines) = self.state.step(|machine| machine.outbox.take()) {
                let written = to_server.write(&lines).await?;
                if written == 0 {
                    return Err(io::ErrorKind::WriteZero.into());
                }
                self.state.step(|machine| machine.outbox.mark_written());
                to_server.write_all(&lines[written..]).await?;
            }
            to_server.flush().await?;
            self.state.output().await;
        }
    }

    async fn run_timers(&self) -> Infallible {
        loop {
            let next = self.state.step(|machine| {
                machine.run_timers(Instant::now());
                machine.next_deadline()
            });
            let deadline = async {
                match next {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = deadline => {}
                () = self.state.earlier_deadline() => {}
            }
        }
    }
}

impl Drop for EndGuard {
    fn drop(&mut self) {
        self.0.step(|machine| machine.end(Instant::now()));
        self.1.cancel();
    }
}
