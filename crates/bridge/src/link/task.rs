//! The task of a link over a byte stream: it reads and writes until the stream ends.
//!
//! On every way out, the task drops the io before the link. A server that closes its input may have
//! written responses before, so the task reads a little longer. For a server of the modern era, a
//! `Translation` is between the link and the stream.

use std::{convert::Infallible, future, io, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::{Instant, timeout},
};

use super::{
    LinkTask,
    framing::{Frame, Framer},
    translation::Translation,
};
use crate::dropped::DropReason;

/// The time for reading from a server that has closed its input.
const FINAL_READ_TIMEOUT: Duration = Duration::from_secs(1);

/// Runs until the stream ends.
pub(crate) async fn run(
    link: LinkTask,
    io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    translation: Option<Translation>,
) {
    // The halves of the io are dropped before `link`.
    let (from_server, to_server) = tokio::io::split(io);
    tokio::select! {
        biased;
        () = link.closing.cancelled() => tracing::debug!("link to the MCP server closed"),
        result = run_io(&link, translation.as_ref(), from_server, to_server) => match result {
            Ok(()) => tracing::debug!("MCP server closed its output"),
            Err(error) => tracing::warn!(%error, "stream to the MCP server failed"),
        },
    }
}

async fn run_io(
    link: &LinkTask,
    translation: Option<&Translation>,
    from_server: impl AsyncRead + Unpin,
    to_server: impl AsyncWrite + Unpin,
) -> io::Result<()> {
    let reading = read(link, translation, from_server);
    tokio::pin!(reading);
    let timers = async {
        match translation {
            Some(translation) => translation.run_timers().await,
            None => future::pending().await,
        }
    };
    let write_error = tokio::select! {
        result = &mut reading => return result,
        Err(error) = write(link, translation, to_server) => error,
        never = timers => match never {},
    };
    link.inbox
        .shared
        .step(|machine| machine.close_write(Instant::now(), link.inbox.number));
    // The write error is the cause, whatever the reading returns.
    let _ = timeout(FINAL_READ_TIMEOUT, reading).await;
    Err(write_error)
}

async fn read(
    link: &LinkTask,
    translation: Option<&Translation>,
    mut from_server: impl AsyncRead + Unpin,
) -> io::Result<()> {
    let inbox = &link.inbox;
    let mut framer = Framer::new(inbox.config.max_line);
    loop {
        let read = from_server.read_buf(framer.buffer()).await;
        while let Some(frame) = framer.next() {
            match (translation, frame) {
                (Some(translation), frame) => _ = translation.receive(&frame),
                (None, Frame::Line(line)) => inbox.receive(&line),
                (None, Frame::TooLong(excerpt)) => inbox.line_too_long(&excerpt),
            }
        }
        if matches!(read, Ok(0) | Err(_)) {
            if framer.is_within_line() {
                inbox.config.drop_counts.count(DropReason::InvalidJson);
            }
            return read.map(|_| ());
        }
    }
}

async fn write(
    link: &LinkTask,
    translation: Option<&Translation>,
    mut to_server: impl AsyncWrite + Unpin,
) -> io::Result<Infallible> {
    let (shared, number) = (&link.inbox.shared, link.inbox.number);
    loop {
        let take_output = || match translation {
            Some(translation) => translation.take_output(),
            None => shared.step(|machine| machine.take_output(number)),
        };
        while let Some(lines) = take_output() {
            let written = to_server.write(&lines).await?;
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            shared.step(|machine| machine.mark_written(number));
            to_server.write_all(&lines[written..]).await?;
        }
        to_server.flush().await?;
        link.output.notified().await;
    }
}
