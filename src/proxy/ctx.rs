//! The context of one request, from its first phase to its log line.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::HeaderValue;
use pingora_proxy::Session;

use super::access::Counted;
use super::flow::Flow;
use super::mirror::Copying;
use super::peer::Wire;
use crate::facts::{Head, Scheme, Subject};
use crate::front::conn::{Connection, stream_refusal};
use crate::front::guard::Refusal;
use crate::policy::Encoder;
use crate::rejection::Rejection;
use crate::routes::{PathCaptures, Route, Table};
use crate::telemetry::metrics::Failure;
use crate::telemetry::trace::Attempt;
use crate::telemetry::{Telemetry, TraceContext};
use crate::upstream::{Lease, Pool, RetryPermit};

/// How long the phases of the last attempt took.
#[derive(Debug, Default)]
pub(crate) struct Timings {
    /// Opening the connection, TLS included; `None` for one that was kept.
    pub(crate) connect: Option<Duration>,
    /// From the request being sent to the head of the answer.
    pub(crate) head: Option<Duration>,
}

/// What a request carries through its phases. Nothing is allocated before routing but its id.
pub(crate) struct Ctx {
    pub(crate) telemetry: Arc<Telemetry>,
    pub(crate) connection: Option<Arc<Connection>>,
    pub(crate) begun: Instant,
    pub(crate) request_id: RequestId,
    pub(crate) trace: TraceContext,
    pub(crate) parent_span: Option<[u8; 8]>,
    /// Of the attempt under way, where the request is traced.
    pub(crate) attempt_trace: Option<TraceContext>,
    pub(crate) attempt_spans: Vec<Attempt>,
    pub(crate) client: IpAddr,
    /// How the client asked, by the word of a trusted peer.
    pub(crate) scheme: Option<Scheme>,
    /// The peer's forwarding headers are believed.
    pub(crate) trusted: bool,
    /// Only until a route is found.
    pub(crate) table: Option<Arc<Table>>,
    pub(crate) revision: Option<Arc<str>>,
    /// As it is matched, once it is known.
    pub(crate) host: Option<Box<str>>,
    /// Where normalising changed what was sent.
    pub(crate) path: Option<Box<str>>,
    pub(crate) route: Option<Arc<Route>>,
    pub(crate) captures: PathCaptures,
    /// Who asks, once that is proven.
    pub(crate) subject: Option<Arc<Subject>>,
    /// By the token in `Authorization`.
    pub(crate) bearer: bool,
    pub(crate) limits: Counted,
    pub(crate) preflight: bool,
    /// Compresses the body of the answer.
    pub(crate) encoder: Option<Box<Encoder>>,
    /// Stands in the place of the upstream's body, which is thrown away.
    pub(crate) page: Option<Bytes>,
    pub(crate) replaced: bool,
    pub(crate) pool: Option<Arc<Pool>>,
    /// What a CA asks to see (ACME, HTTP-01).
    pub(crate) proof: Option<String>,
    /// Where the name is served over https only.
    pub(crate) to_https: Option<HeaderValue>,
    /// `Strict-Transport-Security` of the name, over https.
    pub(crate) hsts: Option<HeaderValue>,
    pub(crate) share_cookie: Option<HeaderValue>,
    pub(crate) sticky_cookie: Option<HeaderValue>,
    pub(crate) lease: Option<Lease>,
    pub(crate) retry: Option<RetryPermit>,
    /// The last attempt ended before it had a connection.
    pub(crate) connect_failed: bool,
    pub(crate) tried: Vec<SocketAddr>,
    pub(crate) attempts: u8,
    /// How often all connections were in use.
    pub(crate) waits: u8,
    pub(crate) endpoint: Option<SocketAddr>,
    pub(crate) reused: bool,
    pub(crate) attempt_begun: Option<Instant>,
    pub(crate) sent: Option<Instant>,
    pub(crate) timings: Timings,
    pub(crate) rejection: Option<Rejection>,
    /// Status of the answer, for requests whose session is gone when they are recorded.
    pub(crate) status: u16,
    pub(crate) body_in: u64,
    pub(crate) body_out: u64,
    pub(crate) upgraded: bool,
    /// See `upgrade`.
    pub(crate) held_body: bool,
    pub(crate) http2: bool,
    pub(crate) flow: Arc<Flow>,
    pub(crate) mirror: Option<Box<Copying>>,
    pub(crate) recorded: bool,
    /// The connection of the attempt under way.
    pub(crate) wire: Option<Arc<Wire>>,
    /// Method and path, for the line of a request that is dropped half-way: its session is gone by then.
    pub(crate) told: Option<(http::Method, Box<str>)>,
}

/// 128 random bits in hex, unique without being coordinated; or what somebody trusted has given.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct RequestId {
    text: [u8; RequestId::MAX],
    length: u8,
}

impl RequestId {
    const MAX: usize = 64;

    pub(crate) fn random() -> RequestId {
        const HEX: &[u8; 16] = b"0123456789abcdef";
        let mut text = [b'0'; RequestId::MAX];
        for (half, mut bits) in text.chunks_exact_mut(16).zip([fastrand::u64(..), fastrand::u64(..)]) {
            for digit in half {
                *digit = HEX.get((bits & 15) as usize).copied().unwrap_or(b'0');
                bits >>= 4;
            }
        }
        RequestId { text, length: 32 }
    }

    /// The id that a trusted peer gives, if it can stand in logs, headers and pages as it is.
    pub(crate) fn given(value: &HeaderValue) -> Option<RequestId> {
        let given = value.as_bytes();
        let legal = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.".contains(byte);
        if given.is_empty() || !given.iter().all(legal) {
            return None;
        }
        let mut text = [0; RequestId::MAX];
        text.get_mut(..given.len())?.copy_from_slice(given);
        Some(RequestId { text, length: u8::try_from(given.len()).ok()? })
    }

    fn bytes(&self) -> &[u8] {
        self.text.get(..usize::from(self.length)).unwrap_or_default()
    }

    pub(crate) fn as_str(&self) -> &str {
        std::str::from_utf8(self.bytes()).unwrap_or_default()
    }

    pub(crate) fn header_value(&self) -> HeaderValue {
        HeaderValue::from_bytes(self.bytes()).unwrap_or_else(|_| HeaderValue::from_static(""))
    }
}

impl Ctx {
    pub(crate) fn new(connection: Option<Arc<Connection>>, telemetry: Arc<Telemetry>) -> Ctx {
        let client = connection.as_ref().map_or(IpAddr::from([0, 0, 0, 0]), |connection| connection.ip());
        Ctx {
            telemetry,
            connection,
            begun: Instant::now(),
            request_id: RequestId::random(),
            trace: TraceContext::begin(false),
            parent_span: None,
            attempt_trace: None,
            attempt_spans: Vec::new(),
            client,
            scheme: None,
            trusted: false,
            table: None,
            revision: None,
            host: None,
            path: None,
            route: None,
            captures: PathCaptures::default(),
            subject: None,
            bearer: false,
            limits: Counted::default(),
            preflight: false,
            encoder: None,
            page: None,
            replaced: false,
            pool: None,
            proof: None,
            to_https: None,
            hsts: None,
            share_cookie: None,
            sticky_cookie: None,
            lease: None,
            retry: None,
            connect_failed: false,
            tried: Vec::new(),
            attempts: 0,
            waits: 0,
            endpoint: None,
            reused: false,
            attempt_begun: None,
            sent: None,
            timings: Timings::default(),
            rejection: None,
            status: 0,
            body_in: 0,
            body_out: 0,
            upgraded: false,
            held_body: false,
            http2: false,
            flow: super::flow::current(),
            mirror: None,
            recorded: false,
            wire: None,
            told: None,
        }
    }

    /// Why the front refused this request. A breach of an HTTP/2 connection belongs to none of its requests.
    pub(crate) fn refusal(&self) -> Option<Refusal> {
        if self.http2 {
            return stream_refusal();
        }
        let connection = self.connection.as_ref()?;
        let refusal = connection.refusal()?;
        connection.tell();
        Some(refusal)
    }

    /// The attempt under way is over: its span is kept, where the request is traced.
    pub(crate) fn attempt_ended(&mut self, status: u16, failure: Option<Failure>) {
        if let (Some(trace), Some(begun), Some(endpoint)) =
            (self.attempt_trace.take(), self.attempt_begun, self.endpoint)
        {
            let began = begun.saturating_duration_since(self.begun);
            let took = begun.elapsed();
            self.attempt_spans.push(Attempt { span_id: trace.span_id, began, took, endpoint, status, failure });
        }
    }

    /// The request as the gateway understood it. Before routing host and path may not be normal yet.
    pub(crate) fn head<'a>(&'a self, session: &'a Session) -> Head<'a> {
        let request = session.req_header();
        let connection = self.connection.as_deref();
        Head {
            method: &request.method,
            scheme: self.scheme.unwrap_or(match connection.is_some_and(|connection| connection.listener.tls) {
                true => Scheme::Https,
                false => Scheme::Http,
            }),
            host: self.host.as_deref().unwrap_or_else(|| asked_host(session)),
            path: self.path.as_deref().unwrap_or_else(|| request.uri.path()),
            query: request.uri.query(),
            headers: &request.headers,
            client: self.client,
            listener: connection.map_or("", |connection| &connection.listener.name),
            sni: connection.and_then(|connection| connection.tls.as_ref()?.session.server_name.as_deref()),
            client_certificate: connection.and_then(|connection| connection.tls.as_ref()?.client.as_ref()),
            request_id: self.request_id.as_str(),
        }
    }
}

/// The host as it was asked for: `:authority`, else `Host`, else of an absolute URI.
pub(crate) fn asked_host(session: &Session) -> &str {
    let request = session.req_header();
    match request.uri.authority() {
        Some(authority) => authority.as_str(),
        None => request.headers.get(http::header::HOST).and_then(|host| host.to_str().ok()).unwrap_or(""),
    }
}
