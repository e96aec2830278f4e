//! How long a connection may keep an answer waiting.
//!
//! The time-outs of head and body end a sender that stops. This ends a reader that stops: as long as bytes wait to be taken,
//! every `after` at least [`BYTES_MIN`] of them for each second have to go, or the stream fails. Otherwise connections that
//! never read would hold their places until nobody else gets one.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

/// Bytes in a second, below which a reader counts as one that does not read.
pub(super) const BYTES_MIN: u64 = 1024;

/// A stream that fails when the other side does not take what is written.
#[derive(Debug)]
pub(super) struct Patience<S> {
    stream: S,
    after: Duration,
    waiting: Option<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    deadline: Pin<Box<Sleep>>,
    bytes: u64,
}

impl<S> Patience<S> {
    /// Gives up on `stream` when it stands still for `after`.
    pub(super) fn new(stream: S, after: Duration) -> Self {
        Self { stream, after, waiting: None }
    }

    /// What a write to the stream gave: its failure once it has stood still for too long.
    fn judge(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if let Poll::Ready(written) = written {
            if let (Some(waiting), Ok(count)) = (&mut self.waiting, &written) {
                waiting.bytes += *count as u64;
            }
            return Poll::Ready(written);
        }
        let waiting = self.waiting.get_or_insert_with(|| Waiting {
            deadline: Box::pin(tokio::time::sleep(self.after)),
            bytes: 0,
        });
        // Looked at in a loop, so that a new deadline wakes this task too.
        loop {
            ready!(waiting.deadline.as_mut().poll(context));
            if waiting.bytes < self.after.as_secs().max(1).saturating_mul(BYTES_MIN) {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            waiting.bytes = 0;
            waiting.deadline.as_mut().reset(Instant::now() + self.after);
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patience<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patience<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.judge(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.judge(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// Asked for once everything was taken: from then on nothing waits.
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = ready!(Pin::new(&mut self.stream).poll_flush(context));
        self.waiting = None;
        Poll::Ready(flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
