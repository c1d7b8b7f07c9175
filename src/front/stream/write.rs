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
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
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

/// Head and body of a small answer are gathered, so that they leave in one call and one segment. Pingora flushes where
/// somebody waits: behind 1xx, heads without a length, pieces of a stream and the end of an answer. The h2 library gathers
/// by itself.
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
        self.output.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if !self.is_h2() {
            let first = slices.iter().find(|slice| !slice.is_empty()).map_or(&[][..], |slice| slice);
            return self.poll_write(cx, first);
        }
        let result = Pin::new(&mut self.io).poll_write_vectored(cx, slices);
        self.count_written(&result);
        self.bound_write(cx, result)
    }

    fn is_write_vectored(&self) -> bool {
        self.is_h2() && self.io.is_write_vectored()
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
