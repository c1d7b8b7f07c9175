//! What is known about one client connection, shared by its stream and its requests.
//!
//! Pingora makes the context of a request from nothing; this reaches it through a task-local (`with_connection`), for
//! HTTP/1 and HTTP/2 alike. Everything here is an atomic or immutable: requests of one HTTP/2 connection run at once.

use std::any::Any;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use http::HeaderValue;

use super::guard::Refusal;
use crate::facts::ClientCertificate;
use crate::tls::Session;

/// Where a connection came in.
#[derive(Debug)]
pub(crate) struct ListenerInfo {
    pub(crate) name: Arc<str>,
    pub(crate) tls: bool,
}

/// What was settled in the TLS handshake.
#[derive(Debug)]
pub(crate) struct TlsFacts {
    pub(crate) version: &'static str,
    pub(crate) cipher: &'static str,
    /// What the client showed, if it was asked.
    pub(crate) client: Option<ClientCertificate>,
    pub(crate) session: Session,
}

/// One client connection.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) listener: Arc<ListenerInfo>,
    /// Who connected, before any trusted proxy is believed; behind a PROXY header, who that names.
    pub(crate) peer: SocketAddr,
    /// Where it was accepted.
    pub(crate) local: SocketAddr,
    pub(crate) tls: Option<TlsFacts>,
    pub(crate) accepted: Instant,
    /// Requests begun on it.
    pub(crate) requests: AtomicU32,
    /// Bytes on the wire above TLS, both ways.
    pub(crate) bytes_in: AtomicU64,
    pub(crate) bytes_out: AtomicU64,
    /// Over HTTP/2: heads that came whole, and requests that they became.
    heads: AtomicU32,
    begun: AtomicU32,
    turn: AtomicU8,
    tunnel: AtomicBool,
    /// Requests under way.
    active: AtomicU32,
    /// When the client last took bytes, in milliseconds of `clock`.
    last_written: AtomicU64,
    end_body: AtomicBool,
    write_stalled: AtomicBool,
    write_waits: AtomicBool,
    given_up: AtomicBool,
    linger: AtomicBool,
    refusal: OnceLock<Refusal>,
    told: AtomicBool,
    ip_text: OnceLock<HeaderValue>,
    kept: OnceLock<Arc<dyn Any + Send + Sync>>,
}

/// Whose turn it is on an HTTP/1 connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// A request is being answered; bytes of the next one wait.
    Answering,
    /// The proxy waits for the next head.
    NextHead,
}

impl Connection {
    pub(crate) fn new(
        listener: Arc<ListenerInfo>,
        peer: SocketAddr,
        local: SocketAddr,
        tls: Option<TlsFacts>,
    ) -> Connection {
        Connection {
            listener,
            peer,
            local,
            tls,
            accepted: Instant::now(),
            requests: AtomicU32::new(0),
            bytes_in: AtomicU64::new(0),
            bytes_out: AtomicU64::new(0),
            heads: AtomicU32::new(0),
            begun: AtomicU32::new(0),
            turn: AtomicU8::new(0),
            tunnel: AtomicBool::new(false),
            active: AtomicU32::new(0),
            last_written: AtomicU64::new(0),
            end_body: AtomicBool::new(false),
            write_stalled: AtomicBool::new(false),
            write_waits: AtomicBool::new(false),
            given_up: AtomicBool::new(false),
            linger: AtomicBool::new(false),
            refusal: OnceLock::new(),
            told: AtomicBool::new(false),
            ip_text: OnceLock::new(),
            kept: OnceLock::new(),
        }
    }

    pub(crate) fn ip(&self) -> IpAddr {
        self.peer.ip().to_canonical()
    }

    /// The address as a header value, written once for all requests.
    pub(crate) fn ip_text(&self) -> &HeaderValue {
        self.ip_text.get_or_init(|| {
            HeaderValue::try_from(self.ip().to_string()).unwrap_or_else(|_| HeaderValue::from_static("unknown"))
        })
    }

    /// What the proxy keeps from one request of this connection to the next.
    pub(crate) fn kept<T: Any + Send + Sync>(&self, make: impl FnOnce() -> T) -> Option<Arc<T>> {
        self.kept.get_or_init(|| Arc::new(make())).clone().downcast().ok()
    }

    /// The proxy is ready for the next head of this HTTP/1 connection.
    pub(crate) fn ask_for_head(&self) {
        self.turn.store(Turn::NextHead as u8, Ordering::Release);
    }

    /// True once for each `ask_for_head`.
    pub(crate) fn take_turn(&self) -> bool {
        self.turn.swap(Turn::Answering as u8, Ordering::AcqRel) == Turn::NextHead as u8
    }

    /// From here on the bytes are not HTTP: the answer was 101.
    pub(crate) fn become_tunnel(&self) {
        self.tunnel.store(true, Ordering::Release);
    }

    pub(crate) fn is_tunnel(&self) -> bool {
        self.tunnel.load(Ordering::Acquire)
    }

    pub(crate) fn heads(&self, heads: u32) {
        self.heads.store(heads, Ordering::Relaxed);
    }

    pub(crate) fn begin_stream(&self) {
        self.begun.fetch_add(1, Ordering::Relaxed);
    }

    /// Heads that never became requests.
    pub(crate) fn lost_heads(&self) -> u32 {
        self.heads.load(Ordering::Relaxed).saturating_sub(self.begun.load(Ordering::Relaxed))
    }

    pub(crate) fn active(&self) -> u32 {
        self.active.load(Ordering::Acquire)
    }

    pub(crate) fn written(&self) {
        self.last_written.store(clock(), Ordering::Relaxed);
    }

    pub(crate) fn last_written(&self) -> u64 {
        self.last_written.load(Ordering::Relaxed)
    }

    /// Ends the body that an upgrade request was given (`proxy::upgrade`): the answer was not 101.
    pub(crate) fn end_body(&self) {
        self.end_body.store(true, Ordering::Release);
    }

    /// True once for each `end_body`.
    pub(crate) fn take_end_body(&self) -> bool {
        self.end_body.load(Ordering::Relaxed) && self.end_body.swap(false, Ordering::AcqRel)
    }

    /// Whether bytes wait for the client to take them (HTTP/1).
    pub(crate) fn write_waits(&self, waits: bool) {
        if self.write_waits.load(Ordering::Relaxed) != waits {
            self.write_waits.store(waits, Ordering::Relaxed);
        }
    }

    pub(crate) fn is_write_waiting(&self) -> bool {
        self.write_waits.load(Ordering::Relaxed)
    }

    /// The time of the request under way is over, and its upstream cannot be broken: its next read fails, so that it is
    /// answered.
    pub(crate) fn give_up(&self) {
        self.given_up.store(true, Ordering::Release);
    }

    /// True once for each `give_up`.
    pub(crate) fn take_given_up(&self) -> bool {
        self.given_up.load(Ordering::Relaxed) && self.given_up.swap(false, Ordering::AcqRel)
    }

    /// The client took no byte for too long.
    pub(crate) fn write_stalled(&self) {
        self.write_stalled.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_write_stalled(&self) -> bool {
        self.write_stalled.load(Ordering::Relaxed)
    }

    /// The client may still be sending: read on for a moment before closing, so that it can read the answer (RFC 9112 9.6).
    pub(crate) fn linger(&self) {
        self.linger.store(true, Ordering::Release);
    }

    pub(crate) fn lingers(&self) -> bool {
        self.linger.load(Ordering::Acquire)
    }

    /// The front found the request unfit. The first reason stays; the connection ends with it.
    pub(crate) fn refuse(&self, refusal: Refusal) {
        let _ = self.refusal.set(refusal);
        self.linger();
    }

    /// The refusal stands in the line of a request.
    pub(crate) fn tell(&self) {
        self.told.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_told(&self) -> bool {
        self.told.load(Ordering::Relaxed)
    }

    pub(crate) fn refusal(&self) -> Option<Refusal> {
        self.refusal.get().copied()
    }
}

/// Milliseconds of the kernel's coarse clock, which is exact to a few and costs next to nothing to read: for bounds that
/// somebody checks ten times a second.
pub(crate) fn clock() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::MonotonicCoarse);
    u64::try_from(now.tv_sec).unwrap_or(0) * 1_000 + u64::try_from(now.tv_nsec).unwrap_or(0) / 1_000_000
}

/// A request under way, counted while it lives.
pub(crate) struct Active(Arc<Connection>);

impl Active {
    pub(crate) fn new(connection: &Arc<Connection>) -> Active {
        connection.active.fetch_add(1, Ordering::AcqRel);
        Active(connection.clone())
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        self.0.active.fetch_sub(1, Ordering::AcqRel);
    }
}

/// What a request finds on its task.
struct Here {
    connection: Arc<Connection>,
    /// Why this one stream of an HTTP/2 connection was refused.
    refusal: Option<Refusal>,
}

tokio::task_local! {
    static HERE: Here;
}

/// Runs a request where `current` finds its connection.
pub(crate) async fn with_connection<T>(
    connection: Arc<Connection>,
    refusal: Option<Refusal>,
    work: impl Future<Output = T>,
) -> T {
    HERE.scope(Here { connection, refusal }, work).await
}

/// The connection of the request that runs on this task.
pub(crate) fn current() -> Option<Arc<Connection>> {
    HERE.try_with(|here| here.connection.clone()).ok()
}

/// Why the HTTP/2 request that runs on this task was refused.
pub(crate) fn stream_refusal() -> Option<Refusal> {
    HERE.try_with(|here| here.refusal).ok().flatten()
}
