//! The one task of a bridge: it reads, writes and runs the timers until the stream ends.
//!
//! On every way out, the task drops the io, fails everything that waits, and cancels `done`, in
//! this order. A server that closes its input may have written responses before, so the task reads
//! a little longer.

use std::{convert::Infallible, io, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::{Instant, timeout, timeout_at},
};
use tokio_util::sync::CancellationToken;

use super::{
    framing::{Frame, Framer, LineExcerpt},
    truncated_line,
};
use crate::{
    config::Config,
    dropped::DropReason,
    jsonrpc::{Envelope, MessageError},
    legacy::{self, StateMachine},
    state::BridgeState,
};

/// The time for reading from a server that has closed its input.
const FINAL_READ_TIMEOUT: Duration = Duration::from_secs(1);

/// The task. Dropping it ends the state machine, also after a panic or when the runtime shuts down.
#[derive(Debug)]
pub(crate) struct LinkTask {
    pub(crate) state: Arc<BridgeState>,
    pub(crate) config: Config,
    /// Ends the task from outside.
    pub(crate) closing: CancellationToken,
    /// Cancelled by the task at its end.
    pub(crate) done: CancellationToken,
}

impl LinkTask {
    /// Runs until the stream ends.
    pub(crate) async fn run(self, io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) {
        // The halves of the io are dropped before `self`.
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
        let mut framer = Framer::new(self.config.max_line);
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
                    self.config.drop_counts.count(DropReason::InvalidJson);
                }
                return read.map(|_| ());
            }
        }
    }

    fn receive(&self, line: &[u8]) {
        if line.trim_ascii().is_empty() {
            return;
        }
        let now = Instant::now();
        let reason = match Envelope::parse(line) {
            Ok(message) => return self.state.step(|machine| machine.receive(now, message)),
            Err(MessageError::Batch) => {
                let batch = legacy::split_batch(line);
                if batch.is_ok_and(|messages| self.state.step(|machine| machine.receive_batch(now, messages))) {
                    return;
                }
                DropReason::InvalidMessage
            }
            Err(MessageError::NotUtf8 | MessageError::NotJson) => DropReason::InvalidJson,
            Err(MessageError::NotJsonRpc(_)) => DropReason::InvalidMessage,
        };
        self.config.drop_counts.count(reason);
    }

    /// Drops a line that is too long; the client that waits for it gets an error.
    fn line_too_long(&self, excerpt: &LineExcerpt) {
        self.config.drop_counts.count(DropReason::LineTooLong);
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
            self.state.output.notified().await;
        }
    }

    async fn run_timers(&self) -> Infallible {
        loop {
            let next = self.state.step(|machine| {
                machine.run_timers(Instant::now());
                machine.next_deadline()
            });
            let earlier = self.state.earlier_deadline.notified();
            match next {
                Some(at) => _ = timeout_at(at, earlier).await,
                None => earlier.await,
            }
        }
    }
}

impl Drop for LinkTask {
    fn drop(&mut self) {
        self.state.step(|machine| machine.end(Instant::now()));
        self.done.cancel();
    }
}
