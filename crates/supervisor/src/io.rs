//! The child's standard streams, made safe to hold.
//!
//! A bare pipe has two traps. Whoever holds its writing end keeps the child from ever seeing the end of its
//! input, so a stop could not close stdin; here the end lives in a cell that the watching task can empty at any
//! time. And a process that left the child's group may keep the other end of stdout open after the child is
//! gone, so that a reader waits for ever; here reading ends once the group is gone and what it left in the pipe
//! has been read.

use std::future::Future;
use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use rustix::io::Errno;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::unix::pipe;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// What a pipe can hold at most without privileges (`/proc/sys/fs/pipe-max-size`). A dead group cannot have
/// left more; what comes beyond it is from someone who left the group.
const MAX_PIPE_REMAINDER: usize = 1024 * 1024;

/// A child's stdout to read and its stdin to write.
///
/// Reads give the end of the stream once the child and its group are gone and all that they wrote has been
/// read. Writes fail with [`ErrorKind::BrokenPipe`] once the child is being stopped or has closed its stdin.
/// Shutting it down, or dropping it, closes the child's stdin. Reads and writes are cancel safe as those of the
/// pipes beneath: a read that is dropped has taken nothing, and `write_all` is not.
#[derive(Debug)]
pub struct ChildIo {
    stdin: Arc<Stdin>,
    revoked: Pin<Box<WaitForCancellationFutureOwned>>,
    stdout: OutputPipe,
}

/// The writing end of the child's stdin, which two parties can close: the holder of the [`ChildIo`] and the
/// task that stops the child.
#[derive(Debug)]
pub(crate) struct Stdin {
    /// Full until someone closes it, empty for good afterwards. Locked only inside one poll or one close.
    pipe: Mutex<Option<pipe::Sender>>,
    /// Cancelled after `pipe` was emptied, to wake a writer that waits for room in the pipe.
    revoked: CancellationToken,
}

/// The reading end of the child's stdout or stderr.
#[derive(Debug)]
pub(crate) struct OutputPipe {
    pipe: pipe::Receiver,
    gone: Pin<Box<WaitForCancellationFutureOwned>>,
    /// How much may still be read once the group is gone, in bytes.
    rest: usize,
}

impl ChildIo {
    pub(crate) fn new(stdin: Arc<Stdin>, stdout: OutputPipe) -> Self {
        let revoked = Box::pin(stdin.revoked.clone().cancelled_owned());
        Self { stdin, revoked, stdout }
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
        if self.revoked.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(ErrorKind::BrokenPipe.into()));
        }
        let mut pipe = self.stdin.pipe.lock().unwrap_or_else(PoisonError::into_inner);
        match pipe.as_mut() {
            Some(pipe) => Pin::new(pipe).poll_write(cx, buf),
            None => Poll::Ready(Err(ErrorKind::BrokenPipe.into())),
        }
    }

    /// Nothing to do: a pipe has no buffer on this side.
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
            revoked: CancellationToken::new(),
        }
    }

    /// Closes the pipe, so that the child reads the end of its input. Idempotent.
    pub(crate) fn close(&self) {
        let pipe = self.pipe.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(pipe);
        self.revoked.cancel();
    }
}

impl OutputPipe {
    /// `gone` fires once the child and its group are dead.
    pub(crate) fn new(pipe: pipe::Receiver, gone: CancellationToken) -> Self {
        Self {
            pipe,
            gone: Box::pin(gone.cancelled_owned()),
            rest: MAX_PIPE_REMAINDER,
        }
    }

    /// Reads what is in the pipe. Asks the kernel and not the runtime's readiness, which may not have caught
    /// up with what the child wrote just before it died.
    fn drain(&mut self, buf: &mut ReadBuf<'_>) -> io::Result<()> {
        let space = buf.remaining().min(self.rest);
        let free = &mut buf.initialize_unfilled()[..space];
        loop {
            match rustix::io::read(&self.pipe, &mut *free) {
                Ok(read) => {
                    self.rest -= read;
                    buf.advance(read);
                    return Ok(());
                }
                // Empty, and nobody of ours is left to write: the end.
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
            return Poll::Ready(self.drain(buf));
        }
        Pin::new(&mut self.pipe).poll_read(cx, buf)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    struct Rig {
        io: ChildIo,
        gone: CancellationToken,
        child_stdin: std::io::PipeReader,
        child_stdout: std::io::PipeWriter,
    }

    fn rig() -> Rig {
        let (child_stdin, stdin) = std::io::pipe().unwrap();
        let (stdout, child_stdout) = std::io::pipe().unwrap();
        let gone = CancellationToken::new();
        let stdin = Arc::new(Stdin::new(pipe::Sender::from_owned_fd(stdin.into()).unwrap()));
        let stdout = OutputPipe::new(pipe::Receiver::from_owned_fd(stdout.into()).unwrap(), gone.clone());
        Rig {
            io: ChildIo::new(stdin, stdout),
            gone,
            child_stdin,
            child_stdout,
        }
    }

    #[tokio::test]
    async fn a_writer_that_waits_for_room_is_woken_by_the_revocation() {
        let Rig {
            mut io,
            child_stdin: _open,
            ..
        } = rig();
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
    async fn shutdown_and_drop_each_give_the_child_the_end_of_its_input() {
        for shut_down in [true, false] {
            let Rig {
                mut io,
                mut child_stdin,
                ..
            } = rig();
            io.write_all(b"last words").await.unwrap();
            let kept = if shut_down {
                io.shutdown().await.unwrap();
                Some(io)
            } else {
                drop(io);
                None
            };
            let mut read = String::new();
            std::io::Read::read_to_string(&mut child_stdin, &mut read).unwrap();
            assert_eq!(read, "last words");
            drop(kept);
        }
    }

    #[tokio::test]
    async fn reading_ends_with_what_the_dead_left_even_if_a_stranger_holds_the_pipe() {
        let Rig {
            mut io,
            gone,
            mut child_stdout,
            ..
        } = rig();
        child_stdout.write_all(b"the last line\n").unwrap();
        gone.cancel();
        let mut read = String::new();
        io.read_to_string(&mut read).await.unwrap();
        assert_eq!(read, "the last line\n");
        drop(child_stdout);
    }

    #[tokio::test]
    async fn a_reader_that_waits_is_woken_when_the_child_is_gone() {
        let Rig {
            mut io,
            gone,
            child_stdout: _open,
            ..
        } = rig();
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
    async fn a_stranger_who_writes_for_ever_is_not_read_for_ever() {
        let Rig {
            mut io,
            gone,
            mut child_stdout,
            ..
        } = rig();
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
