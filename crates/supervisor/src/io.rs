//! The child's standard streams, safe to hold.
//!
//! A bare pipe has two pitfalls. An open writing end keeps the child from ever seeing the end of
//! its input, so a stop could not close stdin; here that end lives in a cell that the child's task
//! can empty at any time. And a process that left the child's group may keep the other end of
//! stdout open after the child is gone, so that a reader waits forever; here reading ends once the
//! group is gone and the rest in the pipe has been read.

use std::future::Future;
use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use rustix::io::Errno;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::unix::pipe;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// Maximum capacity of a pipe without privileges (`/proc/sys/fs/pipe-max-size`). A dead group
/// cannot have left more; further bytes come from a process that left the group.
const MAX_PIPE_REMAINDER: usize = 1024 * 1024;

/// A child's stdout to read and its stdin to write.
///
/// Reads return the end of the stream once the child and its group are gone and all their output
/// has been read. Writes fail with [`ErrorKind::BrokenPipe`] once the child is being stopped or has
/// closed its stdin. Shutting it down, or dropping it, closes the child's stdin. Reads and writes
/// are as cancel safe as those of the pipes beneath: a dropped read has consumed nothing, and
/// `write_all` is not cancel safe.
#[derive(Debug)]
pub struct ChildIo {
    stdin: Arc<Stdin>,
    closed: Pin<Box<WaitForCancellationFutureOwned>>,
    stdout: OutputPipe,
}

/// The writing end of the child's stdin. Both the holder of the [`ChildIo`] and the task that stops
/// the child can close it.
#[derive(Debug)]
pub(crate) struct Stdin {
    /// `None` once closed. Locked only inside one poll or one close.
    pipe: Mutex<Option<pipe::Sender>>,
    /// Cancelled after `pipe` was emptied, to wake a writer that waits for space in the pipe.
    closed: CancellationToken,
}

/// The reading end of the child's stdout or stderr.
#[derive(Debug)]
pub(crate) struct OutputPipe {
    pipe: pipe::Receiver,
    gone: Pin<Box<WaitForCancellationFutureOwned>>,
    /// Bytes that may still be read once the group is gone.
    remainder: usize,
}

impl ChildIo {
    pub(crate) fn new(stdin: Arc<Stdin>, stdout: OutputPipe) -> Self {
        let closed = Box::pin(stdin.closed.clone().cancelled_owned());
        Self { stdin, closed, stdout }
    }
}

impl Drop for ChildIo {
    fn drop(&mut self) {
        self.stdin.close();
    }
}

impl AsyncRead for ChildIo {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stdout).poll_read(cx, buf)
    }
}

impl AsyncWrite for ChildIo {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.closed.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(ErrorKind::BrokenPipe.into()));
        }
        let mut pipe = self.stdin.pipe.lock().unwrap_or_else(PoisonError::into_inner);
        match pipe.as_mut() {
            Some(pipe) => Pin::new(pipe).poll_write(cx, buf),
            None => Poll::Ready(Err(ErrorKind::BrokenPipe.into())),
        }
    }

    /// Does nothing: a pipe has no buffer on this side.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stdin.close();
        Poll::Ready(Ok(()))
    }
}

impl Stdin {
    pub(crate) fn new(pipe: pipe::Sender) -> Self {
        Self {
            pipe: Mutex::new(Some(pipe)),
            closed: CancellationToken::new(),
        }
    }

    /// Closes the pipe, so that the child reads the end of its input. Idempotent.
    pub(crate) fn close(&self) {
        let pipe = self.pipe.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(pipe);
        self.closed.cancel();
    }
}

impl OutputPipe {
    /// `gone` fires once the child and its group are dead.
    pub(crate) fn new(pipe: pipe::Receiver, gone: CancellationToken) -> Self {
        Self {
            pipe,
            gone: Box::pin(gone.cancelled_owned()),
            remainder: MAX_PIPE_REMAINDER,
        }
    }

    /// Reads the rest in the pipe. Bypasses the runtime's readiness, which may lag behind the last
    /// output of the child.
    fn read_remainder(&mut self, buf: &mut ReadBuf<'_>) -> io::Result<()> {
        let length = buf.remaining().min(self.remainder);
        let free = &mut buf.initialize_unfilled()[..length];
        loop {
            match rustix::io::read(&self.pipe, &mut *free) {
                Ok(read) => {
                    self.remainder -= read;
                    buf.advance(read);
                    return Ok(());
                }
                // Empty, and no process of the group is left to write: the end.
                Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl AsyncRead for OutputPipe {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.gone.as_mut().poll(cx).is_ready() {
            return Poll::Ready(self.read_remainder(buf));
        }
        Pin::new(&mut self.pipe).poll_read(cx, buf)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    struct Pipes {
        io: ChildIo,
        gone: CancellationToken,
        child_stdin: std::io::PipeReader,
        child_stdout: std::io::PipeWriter,
    }

    fn pipes() -> Pipes {
        let (child_stdin, stdin) = std::io::pipe().unwrap();
        let (stdout, child_stdout) = std::io::pipe().unwrap();
        let gone = CancellationToken::new();
        let stdin = Arc::new(Stdin::new(pipe::Sender::from_owned_fd(stdin.into()).unwrap()));
        let stdout = OutputPipe::new(pipe::Receiver::from_owned_fd(stdout.into()).unwrap(), gone.clone());
        Pipes {
            io: ChildIo::new(stdin, stdout),
            gone,
            child_stdin,
            child_stdout,
        }
    }

    #[tokio::test]
    async fn writer_that_waits_for_space_is_woken_by_the_close() {
        let Pipes {
            mut io,
            child_stdin: _open,
            ..
        } = pipes();
        let stdin = Arc::clone(&io.stdin);
        let writer = async { io.write_all(&vec![0; 4 * MAX_PIPE_REMAINDER]).await };
        let closer = async {
            tokio::task::yield_now().await;
            stdin.close();
        };
        let (written, ()) = tokio::join!(writer, closer);
        assert_eq!(written.unwrap_err().kind(), ErrorKind::BrokenPipe);
        assert_eq!(io.write(b"more").await.unwrap_err().kind(), ErrorKind::BrokenPipe);
    }

    #[tokio::test]
    async fn shutdown_and_drop_each_end_the_input_of_the_child() {
        for shut_down in [true, false] {
            let Pipes {
                mut io,
                mut child_stdin,
                ..
            } = pipes();
            io.write_all(b"last input").await.unwrap();
            let kept = if shut_down {
                io.shutdown().await.unwrap();
                Some(io)
            } else {
                drop(io);
                None
            };
            let mut read = String::new();
            std::io::Read::read_to_string(&mut child_stdin, &mut read).unwrap();
            assert_eq!(read, "last input");
            drop(kept);
        }
    }

    #[tokio::test]
    async fn reading_ends_after_the_remainder_even_if_another_process_holds_the_pipe() {
        let Pipes {
            mut io,
            gone,
            mut child_stdout,
            ..
        } = pipes();
        child_stdout.write_all(b"the last line\n").unwrap();
        gone.cancel();
        let mut read = String::new();
        io.read_to_string(&mut read).await.unwrap();
        assert_eq!(read, "the last line\n");
        drop(child_stdout);
    }

    #[tokio::test]
    async fn waiting_reader_is_woken_when_the_child_is_gone() {
        let Pipes {
            mut io,
            gone,
            child_stdout: _open,
            ..
        } = pipes();
        let mut buf = [0; 8];
        let reader = io.read(&mut buf);
        let ender = async {
            tokio::task::yield_now().await;
            gone.cancel();
        };
        let (read, ()) = tokio::join!(reader, ender);
        assert_eq!(read.unwrap(), 0);
    }

    #[tokio::test]
    async fn process_that_writes_forever_is_not_read_forever() {
        let Pipes {
            mut io,
            gone,
            mut child_stdout,
            ..
        } = pipes();
        gone.cancel();
        let mut total = 0;
        let mut buf = vec![0; 65536];
        loop {
            child_stdout.write_all(&[b'x'; 4096]).unwrap();
            match io.read(&mut buf).await.unwrap() {
                0 => break,
                read => total += read,
            }
            assert!(total <= MAX_PIPE_REMAINDER, "still reading after {total} bytes");
        }
        assert_eq!(total, MAX_PIPE_REMAINDER);
    }
}
