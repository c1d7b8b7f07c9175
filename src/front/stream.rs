//! The stream handed to Pingora: bytes of the client that passed the guard, with every wait bounded.
//!
//! HTTP/1: the guard releases one request at a time. Bytes behind the end of a request wait here until the proxy asks for
//! the next head, so pipelined requests are never seen early and a wrong length can not smuggle one in. A head that is
//! refused is replaced by `REFUSED`, a harmless request that runs through the proxy's one way of answering; the reason
//! lies in the connection.
//! HTTP/2: frames are counted as they pass; a breach ends the connection.

use std::future::Future;
use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;
use tokio_util::io::poll_read_buf;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::conn::Connection;
use super::guard::Refusal;
use super::guard::h1::{Guard, Verdict};
use super::guard::h2::Watch;
use super::io::Digests;
use super::patience::Patience;
use super::timer::Timer;
use crate::rejection::Code;

mod write;

/// Stands in for a head that was refused. Its answer is written by the proxy and ends the connection.
const REFUSED: &[u8] = b"GET /refused HTTP/1.1\r\nHost: refused.invalid\r\nConnection: close\r\n\r\n";

/// Ends the body that `proxy::upgrade` gives an upgrade request.
const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// How much is read ahead of what may be released.
const READ_AHEAD: usize = 16 << 10;

/// A connection that is idle for this long holds no buffers; a busy one keeps them from request to request.
const TRIM: Duration = Duration::from_secs(1);

/// When draining, how long an idle connection is kept for a request that is already on its way.
pub(super) const DRAIN_LINGER: Duration = Duration::from_secs(1);

/// How long input is read and thrown away before closing (RFC 9112 9.6).
const LINGER: Duration = Duration::from_secs(1);

/// When draining, how long an HTTP/2 connection without streams may take to say goodbye.
const GOODBYE: Duration = Duration::from_secs(2);

pub(crate) enum Protocol {
    H1(Box<Guard>),
    H2(Box<Watch>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Between requests, nothing of a head has come.
    Idle,
    /// Part of a head has come; since when.
    Head(Instant),
    /// A head was released; its body, or nothing more, follows.
    Body,
    /// The request is whole; what comes now belongs to the next one.
    Whole,
    /// Refused: nothing more is read.
    Refused,
    /// Not HTTP any more.
    Tunnel,
}

/// A client's bytes, guarded. `S` is a TCP or TLS stream.
pub(crate) struct EdgeStream<S> {
    io: S,
    connection: Arc<Connection>,
    patience: Patience,
    protocol: Protocol,
    state: State,
    input: BytesMut,
    /// Gathered, not sent yet (HTTP/1).
    output: BytesMut,
    /// Bytes at the front of `input` (or of `REFUSED`) that the proxy may read.
    released: usize,
    refused_sent: usize,
    pub(super) digests: OnceLock<Digests>,
    read_timer: Timer,
    write_timer: Timer,
    /// Since when the current read, or write, waits for the client.
    waiting: Option<Instant>,
    write_waiting: Option<Instant>,
    draining: Pin<Box<WaitForCancellationFutureOwned>>,
    drain_noticed: Option<Instant>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> EdgeStream<S> {
    /// `input` holds bytes that were read already to find out the protocol.
    pub(crate) fn new(
        io: S,
        connection: Arc<Connection>,
        protocol: Protocol,
        patience: Patience,
        input: BytesMut,
        draining: CancellationToken,
    ) -> EdgeStream<S> {
        EdgeStream {
            io,
            connection,
            patience,
            protocol,
            state: State::Idle,
            input,
            output: BytesMut::new(),
            released: 0,
            refused_sent: 0,
            digests: OnceLock::new(),
            read_timer: Timer::default(),
            write_timer: Timer::default(),
            waiting: None,
            write_waiting: None,
            draining: Box::pin(draining.cancelled_owned()),
            drain_noticed: None,
        }
    }

    pub(crate) fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }

    pub(crate) fn io(&self) -> &S {
        &self.io
    }

    pub(crate) fn is_h2(&self) -> bool {
        matches!(self.protocol, Protocol::H2(_))
    }

    fn refuse(&mut self, code: Code, cause: &'static str) {
        self.connection.refuse(Refusal { code, cause });
        self.state = State::Refused;
        self.released = 0;
        self.input.clear();
    }

    /// Hands out released bytes.
    fn hand_out(&mut self, out: &mut ReadBuf<'_>) {
        let n = self.released.min(out.remaining());
        if let Some(bytes) = self.input.get(..n) {
            out.put_slice(bytes);
        }
        self.input.advance(n);
        self.released -= n;
        self.connection.bytes_in.fetch_add(n as u64, Ordering::Relaxed);
    }

    /// Asks the guard about what is buffered. True when there is something to hand out or the state changed.
    fn inspect(&mut self) -> bool {
        let Protocol::H1(guard) = &mut self.protocol else { return false };
        if self.connection.is_tunnel() && self.state != State::Tunnel {
            guard.tunnel();
            self.state = State::Tunnel;
        }
        match self.state {
            State::Tunnel => {
                self.released = self.input.len();
                return self.released > 0;
            }
            State::Refused => return true,
            State::Whole => {
                if !self.connection.take_turn() {
                    return false;
                }
                guard.next_request();
                self.state = State::Idle;
                self.waiting = None;
            }
            State::Idle => {
                self.connection.take_turn();
            }
            State::Head(_) | State::Body => {}
        }
        match guard.inspect(&self.input) {
            Verdict::Incomplete => {
                if self.state == State::Idle && !self.input.is_empty() {
                    self.state = State::Head(Instant::now());
                }
                false
            }
            Verdict::Release(n) => {
                self.released = n.min(self.input.len());
                if self.state != State::Body {
                    self.connection.requests.fetch_add(1, Ordering::Relaxed);
                    let skip = guard.to_origin_form(self.input.get_mut(..n).unwrap_or_default());
                    self.input.advance(skip);
                    self.released -= skip;
                }
                self.state = State::Body;
                self.released > 0
            }
            Verdict::RequestEnd => {
                self.state = State::Whole;
                true
            }
            Verdict::Refuse(refusal) => {
                let in_body = self.state == State::Body;
                self.refuse(refusal.code, refusal.cause);
                if in_body {
                    // The head is with the proxy already: its read fails, and it answers by the reason given.
                    self.refused_sent = REFUSED.len();
                }
                true
            }
        }
    }

    fn poll_read_h1(&mut self, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.connection.take_given_up() {
            return Poll::Ready(Err(ErrorKind::TimedOut.into()));
        }
        loop {
            if self.released > 0 {
                self.hand_out(out);
                return Poll::Ready(Ok(()));
            }
            if self.state == State::Refused {
                return self.poll_refused(out);
            }
            if self.inspect() {
                continue;
            }
            if self.state == State::Whole && self.connection.take_end_body() {
                out.put_slice(LAST_CHUNK);
                return Poll::Ready(Ok(()));
            }
            // Bytes of the next request are here already: nothing to learn from the socket until its turn comes.
            if self.state == State::Whole && !self.input.is_empty() {
                return Poll::Pending;
            }
            if self.input.capacity() - self.input.len() < READ_AHEAD / 4 {
                // A head is mostly small; only bodies are worth more.
                self.input.reserve(if self.state == State::Body { READ_AHEAD } else { READ_AHEAD / 4 });
            }
            match poll_read_buf(Pin::new(&mut self.io), cx, &mut self.input) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Ok(())),
                Poll::Ready(Ok(_)) => self.waiting = None,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    ready!(self.poll_patience(cx));
                    match self.state {
                        State::Head(_) => self.refuse(Code::HeadTimeout, "the head did not arrive in time"),
                        State::Body => {
                            self.connection.refuse(Refusal { code: Code::BodyTimeout, cause: "the body stalled" });
                            return Poll::Ready(Err(ErrorKind::TimedOut.into()));
                        }
                        State::Idle | State::Whole | State::Refused | State::Tunnel => {
                            // Over TLS the client is told that nothing more comes; it need not be waited for.
                            let _ = Pin::new(&mut self.io).poll_shutdown(cx);
                            return Poll::Ready(Ok(()));
                        }
                    }
                }
            }
        }
    }

    /// The stand-in head, then silence until the answer is written. After a refused body the read fails at once.
    fn poll_refused(&mut self, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let rest = REFUSED.get(self.refused_sent..).unwrap_or_default();
        if out.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        if rest.is_empty() {
            return match self.connection.take_turn() {
                // The proxy asks for another head: there is none.
                true => Poll::Ready(Ok(())),
                false if self.refused_in_body() => Poll::Ready(Err(ErrorKind::InvalidData.into())),
                false => Poll::Pending,
            };
        }
        let n = rest.len().min(out.remaining());
        out.put_slice(rest.get(..n).unwrap_or_default());
        self.refused_sent += n;
        self.connection.take_turn();
        Poll::Ready(Ok(()))
    }

    fn refused_in_body(&self) -> bool {
        matches!(&self.protocol, Protocol::H1(guard) if !guard.in_head())
    }

    /// Waits no longer than the state allows. Ready when the wait is over: the state then says what follows.
    fn poll_patience(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let now = Instant::now();
        let since = *self.waiting.get_or_insert(now);
        let deadline = match self.state {
            State::Idle => {
                let first = self.connection.requests.load(Ordering::Relaxed) == 0;
                let bound = since + if first { self.patience.head } else { self.patience.keepalive };
                if self.drain_noticed.is_none() && self.draining.as_mut().poll(cx).is_ready() {
                    self.drain_noticed = Some(now);
                }
                if self.drain_noticed.is_none() && self.input.capacity() + self.output.capacity() > 0 {
                    ready!(self.read_timer.poll(since + TRIM, cx));
                    (self.input, self.output) = (BytesMut::new(), BytesMut::new());
                }
                // A request that is already on its way when draining begins is still answered.
                self.drain_noticed.map_or(bound, |noticed| bound.min(noticed.max(since) + DRAIN_LINGER))
            }
            State::Head(begun) => begun + self.patience.head,
            State::Body => since + self.patience.body,
            State::Whole | State::Refused | State::Tunnel => return Poll::Pending,
        };
        self.read_timer.poll(deadline, cx)
    }

    /// After GOAWAY the library waits for the client's word, also of one that is gone.
    fn poll_goodbye(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.drain_noticed.is_none() {
            ready!(self.draining.as_mut().poll(cx));
            self.drain_noticed = Some(Instant::now());
        }
        loop {
            if self.connection.active() > 0 {
                self.drain_noticed = Some(Instant::now());
            }
            let since = self.drain_noticed.unwrap_or_else(Instant::now);
            ready!(self.read_timer.poll(since + GOODBYE, cx));
            if self.connection.active() == 0 {
                return Poll::Ready(Ok(()));
            }
        }
    }

    fn poll_read_h2(&mut self, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Protocol::H2(watch) = &mut self.protocol else { return Poll::Ready(Err(ErrorKind::Other.into())) };
        let before = out.filled().len();
        if self.input.is_empty() {
            match Pin::new(&mut self.io).poll_read(cx, out) {
                Poll::Ready(result) => result?,
                // Bodies are bounded request by request (`proxy::flow`): one that stalls is no reason to end the others.
                Poll::Pending if watch.preface_seen() => {
                    let Some(since) = watch.head_since() else { return self.poll_goodbye(cx) };
                    ready!(self.read_timer.poll(Instant::from_std(since) + self.patience.head, cx));
                    self.connection.refuse(Refusal { code: Code::HeadTimeout, cause: "the head stood still" });
                    return Poll::Ready(Err(ErrorKind::TimedOut.into()));
                }
                Poll::Pending => {
                    let since = *self.waiting.get_or_insert_with(Instant::now);
                    ready!(self.read_timer.poll(since + self.patience.head, cx));
                    self.connection.refuse(Refusal { code: Code::HeadTimeout, cause: "no HTTP/2 preface in time" });
                    return Poll::Ready(Err(ErrorKind::TimedOut.into()));
                }
            }
        } else {
            let n = self.input.len().min(out.remaining());
            out.put_slice(self.input.get(..n).unwrap_or_default());
            self.input.advance(n);
            if self.input.is_empty() {
                self.input = BytesMut::new();
            }
        }
        let fresh = out.filled().get(before..).unwrap_or_default();
        self.connection.bytes_in.fetch_add(fresh.len() as u64, Ordering::Relaxed);
        if let Err(breach) = watch.feed(fresh, std::time::Instant::now()) {
            self.connection.refuse(Refusal { code: Code::BadRequest, cause: breach.cause() });
            return Poll::Ready(Err(io::Error::new(ErrorKind::InvalidData, breach.cause())));
        }
        self.connection.heads(watch.heads());
        Poll::Ready(Ok(()))
    }

    /// Reads what the client still sends, for a moment, so that closing does not destroy the answer on its way.
    pub(crate) async fn drain_input(&mut self) {
        let mut scratch = [0u8; 4096];
        let reading = async { while let Ok(1..) = tokio::io::AsyncReadExt::read(&mut self.io, &mut scratch).await {} };
        let _ = tokio::time::timeout(LINGER, reading).await;
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for EdgeStream<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let me = &mut *self;
        match me.protocol {
            Protocol::H1(_) => {
                let read = me.poll_read_h1(cx, out);
                // The proxy waits: nothing more joins what was gathered.
                if read.is_pending()
                    && let Poll::Ready(Err(error)) = me.poll_drain(cx)
                {
                    return Poll::Ready(Err(error));
                }
                read
            }
            Protocol::H2(_) => me.poll_read_h2(cx, out),
        }
    }
}
