//! What goes to the client: counted, shown to the watch over HTTP/2, and never waited for without end.

use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

use super::{EdgeStream, Protocol};

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

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for EdgeStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.io).poll_write(cx, bytes);
        self.count_written(&result);
        self.bound_write(cx, result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.io).poll_write_vectored(cx, slices);
        self.count_written(&result);
        self.bound_write(cx, result)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.io).poll_flush(cx);
        self.bound_write(cx, result)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.io).poll_shutdown(cx);
        self.bound_write(cx, result)
    }
}
