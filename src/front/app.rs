//! From an accepted socket to Pingora: admission, handshake, protocol, then the requests of one connection.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::BytesMut;
use ipnet::IpNet;
use pingora_core::apps::{HttpServerApp, HttpServerOptions, ReusedHttpStream, ServerApp};
use pingora_core::protocols::http::ServerSession;
use pingora_core::protocols::http::v1::server::HttpSession as H1Session;
use pingora_core::protocols::http::v2::server::{H2Options, default_h2_options};
use tokio::io::{AsyncRead, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::LazyConfigAcceptor;
use tokio_util::io::read_buf;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::admission::{Admission, Denied, Permit};
use super::conn::{Active, Connection, ListenerInfo, TlsFacts, with_connection};
use super::guard::h1::Guard;
use super::guard::h2::Watch;
use super::guard::{HeadLimits, Refusal, Sniff, sniff};
use super::h2_head;
use super::io::ClientIo;
use super::patience::Patience;
use super::proxy_header;
use super::stream::{DRAIN_LINGER, EdgeStream, Protocol};
use crate::rejection::Code;
use crate::settings::{HttpVersion, Limits, Listen};
use crate::telemetry::Telemetry;
use crate::telemetry::access::{Durations, Entry};
use crate::telemetry::metrics::{Handshake, Refused};
use crate::tls::{self, Tls, read_client};

/// How long after an HTTP/2 connection its last requests may begin: a runtime that is late by more has other troubles.
const LATE_STREAM_PAUSE: Duration = Duration::from_millis(50);
const LATE_STREAM_LOOKS: u32 = 20;

/// Everything the connections of one listener share.
pub(crate) struct Door<A> {
    pub(crate) info: Arc<ListenerInfo>,
    pub(crate) tls: Option<Tls>,
    /// Who begins every connection with a PROXY header.
    pub(crate) proxies: Vec<IpNet>,
    pub(crate) h1: bool,
    pub(crate) h2: bool,
    pub(crate) limits: Arc<Limits>,
    pub(crate) admission: Arc<Admission>,
    pub(crate) telemetry: Arc<Telemetry>,
    pub(crate) app: Arc<A>,
    pub(crate) connections: TaskTracker,
    pub(crate) draining: CancellationToken,
    pub(crate) shutdown: tokio::sync::watch::Receiver<bool>,
}

impl<A: HttpServerApp + Send + Sync + 'static> Door<A> {
    pub(crate) fn versions(listen: &Listen) -> (bool, bool) {
        (listen.speaks(HttpVersion::H1), listen.speaks(HttpVersion::H2))
    }

    /// A place for a connection, or the reason why it is closed at once.
    pub(crate) fn admit(&self, peer: SocketAddr) -> Option<Permit> {
        let admitted = match self.is_proxy(peer) {
            true => self.admission.admit_unknown(),
            false => self.admission.admit(peer.ip()),
        };
        match admitted {
            Ok(permit) => {
                self.telemetry.metrics.front.accepted.inc();
                Some(permit)
            }
            Err(why) => {
                self.deny(why);
                None
            }
        }
    }

    fn deny(&self, why: Denied) {
        self.telemetry.metrics.front.refused(match why {
            Denied::Connections => Refused::Connections,
            Denied::Address => Refused::ConnectionsPerAddress,
        });
    }

    fn is_proxy(&self, peer: SocketAddr) -> bool {
        let address = peer.ip().to_canonical();
        self.proxies.iter().any(|network| network.contains(&address))
    }

    /// Who connected, by the word of the load balancer in front. `None`: there is no such word, or no room for that client.
    async fn client_of(&self, socket: &mut TcpStream, proxy: SocketAddr, permit: &mut Permit) -> Option<SocketAddr> {
        let reading = tokio::time::timeout(self.limits.handshake_timeout.0, proxy_header::receive(socket));
        let client = match self.unless_draining(reading).await? {
            Ok(Ok(source)) => source.unwrap_or(proxy),
            Ok(Err(error)) => return self.break_off(proxy, &error.to_string()),
            Err(_) => return self.break_off(proxy, "no PROXY header in time"),
        };
        match permit.count(client.ip()) {
            Ok(()) => Some(client),
            Err(why) => {
                self.deny(why);
                None
            }
        }
    }

    fn break_off<T>(&self, proxy: SocketAddr, why: &str) -> Option<T> {
        self.telemetry.metrics.front.refused(Refused::ProxyHeader);
        tracing::debug!(%proxy, listener = %self.info.name, why, "closed: a connection without its PROXY header");
        None
    }

    /// The whole life of one connection.
    pub(crate) async fn serve(self: Arc<Self>, mut socket: TcpStream, mut peer: SocketAddr, permit: &mut Permit) {
        if self.is_proxy(peer) {
            let Some(client) = self.client_of(&mut socket, peer, permit).await else { return };
            peer = client;
        }
        let Ok(local) = socket.local_addr() else { return };
        let Some(listener) = &self.tls else {
            let connection = Arc::new(Connection::new(self.info.clone(), peer, local, None));
            return self.speak_cleartext(socket, connection).await;
        };
        let bound = self.limits.handshake_timeout.0;
        let handshake = async {
            let start = LazyConfigAcceptor::new(rustls::server::Acceptor::default(), socket).await?;
            let server_name = start.client_hello().server_name().map(Box::<str>::from);
            if !listener.demanded(&start.client_hello(), bound * 3 / 4).await {
                self.telemetry.metrics.front.refused(Refused::OnDemand);
            }
            Ok::<_, std::io::Error>(match listener.begin(&start.client_hello()) {
                tls::Handshake::Requests(config, begun) => {
                    Some((server_name, Some(begun), start.into_stream(config).await?))
                }
                tls::Handshake::Challenge(config) => Some((server_name, None, start.into_stream(config).await?)),
                tls::Handshake::Refused => None,
            })
        };
        // On the heap, and gone when it is over: a connection would carry it for the rest of its life.
        let handshake = Box::pin(tokio::time::timeout(bound, handshake));
        let Some(outcome) = self.unless_draining(handshake).await else { return };
        self.telemetry.metrics.front.handshake(match &outcome {
            Ok(Ok(Some(_))) => Handshake::Done,
            Ok(Ok(None) | Err(_)) => Handshake::Failed,
            Err(_) => Handshake::Timeout,
        });
        let (server_name, begun, stream) = match outcome {
            Ok(Ok(Some((server_name, Some(begun), stream)))) => (server_name, begun, stream),
            // The handshake was the answer.
            Ok(Ok(Some((_, None, mut stream)))) => {
                let _ = stream.shutdown().await;
                return;
            }
            Ok(Ok(None)) => return tracing::debug!(%peer, "handshake refused"),
            Ok(Err(error)) => return tracing::debug!(%peer, %error, "handshake failed"),
            Err(_) => return tracing::debug!(%peer, "handshake took too long"),
        };
        let (_, state) = stream.get_ref();
        let h2 = state.alpn_protocol() == Some(b"h2");
        let tls12 = state.protocol_version() == Some(rustls::ProtocolVersion::TLSv1_2);
        let chain = state.peer_certificates().unwrap_or_default();
        let resumed = state.handshake_kind() == Some(rustls::HandshakeKind::Resumed);
        if resumed && !listener.is_still_good(&begun, chain) {
            return tracing::debug!(%peer, "the client's certificate is not good any more");
        }
        let session = listener.session(begun, server_name, tls12, h2).filter(|_| h2 || self.h1);
        let Some(session) = session else {
            return tracing::debug!(%peer, "the client did not agree on a version of HTTP that is spoken here");
        };
        let client = match chain.first().map(read_client).transpose() {
            Ok(client) => client,
            Err(error) => return tracing::debug!(%peer, error, "the client's certificate cannot be read"),
        };
        let facts = TlsFacts {
            version: if tls12 { "TLSv1.2" } else { "TLSv1.3" },
            cipher: state.negotiated_cipher_suite().and_then(|suite| suite.suite().as_str()).unwrap_or(""),
            client,
            session,
        };
        let connection = Arc::new(Connection::new(self.info.clone(), peer, local, Some(facts)));
        self.run(stream, connection, h2, BytesMut::new()).await;
    }

    /// Waits for a client that has said nothing yet; once draining has begun, for a moment only.
    async fn unless_draining<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let over = async {
            self.draining.cancelled().await;
            tokio::time::sleep(DRAIN_LINGER).await;
        };
        tokio::select! {
            biased;
            done = work => Some(done),
            () = over => None,
        }
    }

    /// Cleartext: HTTP/1, or HTTP/2 with prior knowledge where the listener asks for it (RFC 9113 3.3).
    async fn speak_cleartext(&self, mut socket: TcpStream, connection: Arc<Connection>) {
        let mut input = BytesMut::new();
        let mut h2 = self.h2 && !self.h1;
        if self.h2 && self.h1 {
            let sniffing = async {
                loop {
                    match sniff(&input) {
                        Sniff::H2Preface => return Some(true),
                        Sniff::H1 => return Some(false),
                        Sniff::NeedMore => {}
                    }
                    input.reserve(4096);
                    match read_buf(&mut socket, &mut input).await {
                        Ok(n) if n > 0 => {}
                        Ok(_) | Err(_) => return None,
                    }
                }
            };
            match self.unless_draining(tokio::time::timeout(self.limits.head_timeout.0, sniffing)).await {
                Some(Ok(Some(found))) => h2 = found,
                // What came is no whole preface and no line: the guard says so to the client.
                Some(Err(_)) if !input.is_empty() => h2 = false,
                Some(Ok(None) | Err(_)) | None => return,
            }
        }
        self.run(socket, connection, h2, input).await;
    }

    async fn run<S: ClientIo>(&self, io: S, connection: Arc<Connection>, h2: bool, input: BytesMut) {
        let limits = &self.limits;
        let protocol = if h2 {
            Protocol::H2(Box::new(Watch::new(&limits.http2)))
        } else {
            Protocol::H1(Box::new(Guard::new(HeadLimits::from(limits.as_ref()))))
        };
        let patience = Patience::from(limits.as_ref());
        let stream = EdgeStream::new(io, connection.clone(), protocol, patience, input, self.draining.child_token());
        let session = Arc::new(Requests {
            app: self.app.clone(),
            connection: connection.clone(),
            connections: self.connections.clone(),
            options: options(limits),
            h2: h2_options(limits),
        });
        session.process_new(Box::new(stream), &self.shutdown).await;
        // Requests run on tasks of their own, which may not have begun yet.
        let mut looks = 0;
        while connection.lost_heads() > 0 && looks < LATE_STREAM_LOOKS {
            looks += 1;
            tokio::time::sleep(LATE_STREAM_PAUSE).await;
        }
        self.account_for(&connection);
    }
}

impl<A> Door<A> {
    /// What was refused outside of any request is counted and logged like one.
    fn account_for(&self, connection: &Connection) {
        if connection.is_write_stalled() {
            self.telemetry.metrics.front.refused(Refused::WriteIdle);
        }
        if let Some(refusal) = connection.refusal().filter(|_| !connection.is_told()) {
            self.telemetry.metrics.front.refused(match refusal.code {
                Code::HeadTimeout => Refused::Preface,
                _ => Refused::Http2Limit,
            });
            self.tell(connection, refusal, 1);
        } else if connection.lost_heads() > 0 {
            let cause = "HTTP/2 streams that never became requests: malformed, or reset at once";
            self.tell(connection, Refusal { code: Code::BadRequest, cause }, connection.lost_heads());
        }
    }

    /// One line for a connection, whatever the number of refusals: a client must not fill a disk.
    fn tell(&self, connection: &Connection, refusal: Refusal, times: u32) {
        for _ in 0..times {
            self.telemetry.metrics.unrouted().finished(0, Some(refusal.code), Duration::ZERO, 0, 0);
        }
        self.telemetry.access.record(&Entry {
            at: SystemTime::now(),
            request_id: "",
            trace: None,
            route: "",
            revision: "",
            client: Some(connection.ip()),
            listener: &connection.listener.name,
            method: "",
            scheme: "",
            host: "",
            path: "",
            query: None,
            protocol: "HTTP/2",
            status: 0,
            code: Some(refusal.code),
            cause: Some(refusal.cause),
            bytes_in: connection.bytes_in.load(Ordering::Relaxed),
            bytes_out: connection.bytes_out.load(Ordering::Relaxed),
            upstream: None,
            endpoint: None,
            attempts: 0,
            durations: Durations { total: connection.accepted.elapsed(), connect: None, upstream_head: None },
            subject: None,
            tls: connection.tls.as_ref().map(|tls| tls.version),
            reused: false,
            upstream_reused: None,
        });
    }
}

/// The requests of one connection, each run where `conn::current` finds the connection.
struct Requests<A> {
    app: Arc<A>,
    connection: Arc<Connection>,
    connections: TaskTracker,
    options: HttpServerOptions,
    h2: H2Options,
}

#[async_trait]
impl<A: HttpServerApp + Send + Sync + 'static> HttpServerApp for Requests<A> {
    async fn process_new_http(
        self: &Arc<Self>,
        session: ServerSession,
        shutdown: &tokio::sync::watch::Receiver<bool>,
    ) -> Option<ReusedHttpStream> {
        // Pingora runs HTTP/2 requests on tasks of their own: leaving waits for them too.
        let _under_way = (self.connections.token(), Active::new(&self.connection));
        self.connection.ask_for_head();
        let (session, refusal) = match session {
            ServerSession::H1(session) => (ServerSession::H1(await_head(session).await), None),
            ServerSession::H2(mut session) => {
                self.connection.begin_stream();
                let refusal = h2_head::check(session.req_header_mut()).err();
                (ServerSession::H2(session), refusal)
            }
            session => (session, None),
        };
        with_connection(self.connection.clone(), refusal, self.app.process_new_http(session, shutdown)).await
    }

    fn h2_options(&self) -> Option<H2Options> {
        Some(self.h2.clone())
    }

    fn server_options(&self) -> Option<&HttpServerOptions> {
        Some(&self.options)
    }
}

/// Waits for a whole head, or for the end, before Pingora's machinery for a request is set up: it takes 20 KiB, which a
/// connection that is only kept alive need not hold.
async fn await_head(session: H1Session) -> H1Session {
    let reuses = session.get_keepalive_reuses_remaining();
    let mut stream = session.into_inner();
    // Reading no bytes returns once some could be read; an error comes again when Pingora reads.
    let _ = std::future::poll_fn(|cx| Pin::new(&mut stream).poll_read(cx, &mut ReadBuf::new(&mut []))).await;
    let mut session = H1Session::new(stream);
    session.set_keepalive_reuses_remaining(reuses);
    session
}

fn options(limits: &Limits) -> HttpServerOptions {
    let mut options = HttpServerOptions::default();
    // Pingora counts the uses after the first.
    options.keepalive_request_limit = Some(limits.requests_per_connection.saturating_sub(1));
    options.h2_idle_timeout = Some(limits.keepalive.0.max(Duration::from_secs(1)));
    options
}

fn h2_options(limits: &Limits) -> H2Options {
    let window = |size: u64| u32::try_from(size.clamp(65_535, (1 << 31) - 1)).unwrap_or(65_535);
    let mut options = default_h2_options();
    options
        .max_concurrent_streams(limits.http2.streams)
        // The library answers 431 beyond this by itself, in silence; the proxy does it at the bound itself, and tells.
        .max_header_list_size(u32::try_from(limits.head.0.saturating_mul(2)).unwrap_or(u32::MAX))
        .initial_window_size(window(limits.http2.stream_window.0))
        .initial_connection_window_size(window(limits.http2.connection_window.0))
        // The watch counts resets of all kinds and tells; the library would end the connection in silence.
        .max_pending_accept_reset_streams(usize::try_from(limits.http2.resets_per_minute).unwrap_or(20))
        .max_concurrent_reset_streams(32)
        .max_send_buffer_size(256 << 10);
    options
}
