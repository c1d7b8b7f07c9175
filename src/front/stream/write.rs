//! What goes to the client: counted, shown to the watch over HTTP/2, and never waited for without end.

use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

use super::{EdgeStream, Protocol};

/// How much is gathered before it is sent: more than the head and body of most API answers.
const GATHER: usize = 4 << 10;

impl<S: AsyncRead + AsyncWrite + Unpin> EdgeStream<S> {
    fn count_written(&mut self, result: &Poll<io::Result<usize>>) {
        let Poll::Ready(Ok(n)) = result else { return };
        self.connection.bytes_out.fetch_add(*n as u64, Ordering::Relaxed);
        self.connection.written();
        if let Protocol::H2(watch) = &mut self.protocol {
            watch.sent(*n);
        }
    }

    /// Bounds the time a client may refuse to take bytes.
    fn bound_write<T>(&mut self, cx: &mut Context<'_>, result: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        self.connection.write_waits(result.is_pending());
        if result.is_ready() {
            self.write_waiting = None;
            return result;
        }
        let since = *self.write_waiting.get_or_insert_with(Instant::now);
        ready!(self.write_timer.poll(since + self.patience.write, cx));
        self.connection.write_stalled();
        Poll::Ready(Err(ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> EdgeStream<S> {
    /// Writes straight to the socket.
    fn poll_send(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.io).poll_write(cx, bytes);
        self.count_written(&result);
        self.bound_write(cx, result)
    }

    /// Sends what was gathered.
    pub(super) fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.output.is_empty() {
            let output = std::mem::take(&mut self.output);
            let result = self.poll_send(cx, &output);
            self.output = output;
            match ready!(result)? {
                0 => return Poll::Ready(Err(ErrorKind::WriteZero.into())),
                n => self.output.advance(n),
            }
        }
        if self.output.capacity() > GATHER {
            self.output = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }
}

/// The head of an answer waits for the first piece of its body, so that both leave in one call and one segment. It leaves
/// without one when Pingora flushes (behind 1xx, and heads without a length) or has nothing else to do (`poll_read`). The
/// h2 library gathers by itself.
impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for EdgeStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.is_h2() {
            return self.poll_send(cx, bytes);
        }
        if self.output.len() + bytes.len() > GATHER {
            ready!(self.poll_drain(cx))?;
            if bytes.len() >= GATHER {
                return self.poll_send(cx, bytes);
            }
        }
        let is_head = self.output.is_empty() && bytes.starts_with(b"HTTP/1.");
        self.output.extend_from_slice(bytes);
        if !is_head && let Poll::Ready(result) = self.poll_drain(cx) {
            result?;
        }
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let length: usize = slices.iter().map(|slice| slice.len()).sum();
        if !self.is_h2() {
            if self.output.len() + length <= GATHER {
                // A chunk, its size before and its end behind it: Pingora flushes next.
                slices.iter().for_each(|slice| self.output.extend_from_slice(slice));
                return Poll::Ready(Ok(length));
            }
            ready!(self.poll_drain(cx))?;
        }
        let result = Pin::new(&mut self.io).poll_write_vectored(cx, slices);
        self.count_written(&result);
        self.bound_write(cx, result)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(cx))?;
        let result = Pin::new(&mut self.io).poll_flush(cx);
        self.bound_write(cx, result)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(cx))?;
        let result = Pin::new(&mut self.io).poll_shutdown(cx);
        self.bound_write(cx, result)
    }
}
