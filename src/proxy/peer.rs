//! From a lease to Pingora's peer: how to connect, and which idle connections may be used again.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, Hasher};
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, LazyLock, PoisonError, RwLock};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use pingora_core::connectors::l4::Connect;
use pingora_core::protocols::l4::socket::SocketAddr as PeerAddr;
use pingora_core::protocols::l4::stream::Stream;
use pingora_core::protocols::raw_connect::ProxyDigest;
use pingora_core::protocols::{Digest, GetProxyDigest};
use pingora_core::upstreams::peer::{ALPN, HttpPeer};
use pingora_core::utils::tls::{CertKey, WrappedX509, parse_x509};
use pingora_error::{Error, ErrorType, Result};
use pingora_http::ResponseHeader;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::flow::Flow;
use crate::config::Protocol;
use crate::proxy_protocol;
use crate::routes::Timeouts;
use crate::upstream::{ConnectionGuard, Endpoint, Lease, Transport};

/// One open connection to an endpoint: counted while it is open, and within reach of a request's clock.
#[derive(Debug)]
pub(crate) struct Wire {
    socket: OwnedFd,
    _counted: ConnectionGuard,
}

impl Wire {
    /// The wire under a connection that Pingora hands to a request.
    pub(crate) fn of(digest: &Digest) -> Option<Arc<Wire>> {
        digest.proxy_digest.as_ref()?.user_data.as_ref()?.downcast_ref::<Arc<Wire>>().cloned()
    }

    /// Bytes have come that nobody has fetched.
    pub(crate) fn has_unread(&self) -> bool {
        rustix::io::ioctl_fionread(&self.socket).is_ok_and(|bytes| bytes > 0)
    }

    /// Breaks the connection: whoever reads from it or writes to it fails.
    pub(crate) fn break_off(&self) {
        let _ = rustix::net::shutdown(&self.socket, rustix::net::Shutdown::Both);
    }
}

/// Opens connections to one endpoint.
#[derive(Debug)]
struct Dialer {
    endpoint: Arc<Endpoint>,
    timeout: Duration,
    /// `connections.max`, and the period that a new connection belongs to.
    most: u32,
    period: u64,
    /// How long to wait there for a connection that is about to be free.
    pause: Duration,
    /// The PROXY header that goes first.
    header: Option<Box<[u8]>>,
}

/// The endpoint has all the connections it may have. One of them is about to be free: every request holds a place.
pub(super) const AT_LIMIT: ErrorType = ErrorType::Custom("ConnectionLimit");

/// How long a connection with a PROXY header waits for the next request of its client.
const ANNOUNCED_IDLE: Duration = Duration::from_secs(5);

/// From the first look for a free connection to the second; each later one comes a millisecond later than the one before.
const AT_LIMIT_PAUSE: Duration = Duration::from_millis(2);

#[async_trait]
impl Connect for Dialer {
    async fn connect(&self, address: &PeerAddr) -> Result<Stream> {
        let Some(address) = address.as_inet() else {
            return Err(Error::explain(ErrorType::InternalError, "not an internet address"));
        };
        let Some(counted) = self.endpoint.connection_opened(self.most, self.period) else {
            tokio::time::sleep(self.pause).await;
            return Err(Error::explain(AT_LIMIT, "every connection is taken"));
        };
        let socket = match tokio::time::timeout(self.timeout, TcpStream::connect(address)).await {
            Ok(Ok(socket)) => socket,
            Ok(Err(error)) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
                return Err(Error::because(ErrorType::ConnectRefused, "connecting", error));
            }
            Ok(Err(error)) => return Err(Error::because(ErrorType::ConnectError, "connecting", error)),
            Err(elapsed) => return Err(Error::because(ErrorType::ConnectTimedout, "connecting", elapsed)),
        };
        let mut socket = socket;
        if let Some(header) = &self.header {
            let sent = tokio::time::timeout(self.timeout, socket.write_all(header)).await;
            sent.map_err(|elapsed| Error::because(ErrorType::ConnectTimedout, "sending the PROXY header", elapsed))?
                .map_err(|error| Error::because(ErrorType::ConnectError, "sending the PROXY header", error))?;
        }
        let handle = socket
            .as_fd()
            .try_clone_to_owned()
            .map_err(|error| Error::because(ErrorType::ConnectError, "out of descriptors", error))?;
        let wire = Arc::new(Wire { socket: handle, _counted: counted });
        let mut stream = Stream::from(socket);
        let head = ResponseHeader::build(200, Some(0))?;
        stream.set_proxy_digest(ProxyDigest::new(Box::new(head), Some(Box::new(wire))));
        Ok(stream)
    }
}

/// Certificates in the form Pingora wants them, made once for each transport.
#[derive(Default)]
pub(crate) struct TlsMaterial(RwLock<HashMap<u64, Prepared>>);

#[derive(Clone)]
struct Prepared {
    ca: Option<Arc<[WrappedX509]>>,
    client: Option<Arc<CertKey>>,
}

/// Transports kept prepared. Changes of documents make new ones; the old are forgotten all at once.
const PREPARED_MAX: usize = 1024;

impl TlsMaterial {
    fn of(&self, transport: &Transport) -> Option<Prepared> {
        let tls = transport.tls.as_ref()?;
        if let Some(prepared) = self.0.read().unwrap_or_else(PoisonError::into_inner).get(&transport.identity) {
            return Some(prepared.clone());
        }
        let ca = tls.ca_der.as_ref().map(|roots| {
            roots.iter().map(|der| WrappedX509::new(der.clone(), parse_x509)).collect::<Arc<[WrappedX509]>>()
        });
        let client = tls.client.as_ref().map(|(chain, key)| Arc::new(CertKey::new(chain.clone(), key.clone())));
        let prepared = Prepared { ca, client };
        let mut all = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= PREPARED_MAX {
            all.clear();
        }
        all.insert(transport.identity, prepared.clone());
        Some(prepared)
    }
}

/// How often an HTTP/2 connection to an upstream is asked whether it lives.
const H2_PING: Duration = Duration::from_secs(10);

/// What about a request matters to its connection.
#[derive(Clone, Copy)]
pub(crate) struct Call {
    /// How often it has waited for a connection already.
    pub(crate) waits: u8,
    /// Who asks, and where it connected to: for a PROXY header.
    pub(crate) client: Option<(SocketAddr, SocketAddr)>,
    pub(crate) bodyless: bool,
    pub(crate) upgrade: bool,
}

/// How the endpoint of a lease is spoken to within the bounds of a route.
pub(crate) fn peer(
    lease: &Lease,
    call: Call,
    timeouts: &Timeouts,
    flow: &Flow,
    material: &TlsMaterial,
) -> Box<HttpPeer> {
    let transport = lease.transport();
    let address = lease.address();
    let server_name = transport.tls.as_ref().map(|tls| tls.server_name.clone()).unwrap_or_default();
    let mut peer = HttpPeer::new(address, transport.tls.is_some(), server_name);
    let announced = transport.announces.zip(call.client);
    let (group, period) = group(transport, address, call.upgrade, announced.map(|(_, (source, _))| source));
    peer.group_key = group;
    let left = flow.left();
    let within = |bound: Duration| left.map_or(bound, |left| bound.min(left.max(Duration::from_millis(1))));
    let options = &mut peer.options;
    options.alpn = match transport.protocol {
        Protocol::H1 => ALPN::H1,
        // WebSocket over HTTP/2 is not bridged.
        Protocol::Auto if call.upgrade => ALPN::H1,
        Protocol::H2 => ALPN::H2,
        Protocol::Auto => ALPN::H2H1,
    };
    options.connection_timeout = Some(within(timeouts.connect));
    options.total_connection_timeout = Some(within(timeouts.connect));
    // An HTTP/1 connection belongs to one request, whose own clock breaks it (`flow`): Pingora's bounds would only arm timers
    // for every read and write. A shared HTTP/2 connection is not broken, so Pingora's bound is what answers in time; it
    // would also run while the body is still on its way, so a body that streams has only the clock.
    let shared = options.alpn != ALPN::H1;
    options.read_timeout = (shared && call.bodyless).then(|| within(timeouts.head.max(timeouts.idle)));
    options.h2_ping_interval = Some(H2_PING);
    // An upstream that takes no more of a body.
    options.write_timeout = (shared || !call.bodyless).then(|| within(timeouts.idle));
    // A connection that names a client waits for that client only, and not for long.
    let idle = transport.connections.idle;
    options.idle_timeout = Some(if announced.is_some() { idle.min(ANNOUNCED_IDLE) } else { idle });
    options.max_h2_streams = usize::try_from(transport.connections.streams).unwrap_or(usize::MAX);
    options.custom_l4 = Some(Arc::new(Dialer {
        endpoint: lease.endpoint().clone(),
        timeout: within(timeouts.connect),
        most: transport.connections.max,
        period,
        pause: AT_LIMIT_PAUSE + Duration::from_millis(u64::from(call.waits)),
        header: announced.map(|(version, pair)| proxy_protocol::write(version, Some(pair)).into()),
    }));
    if let Some(tls) = &transport.tls {
        options.verify_cert = tls.verify;
        options.verify_hostname = tls.verify;
        if let Some(prepared) = material.of(transport) {
            options.ca = prepared.ca;
            peer.client_cert_key = prepared.client;
        }
    }
    Box::new(peer)
}

/// Connections are shared by requests of the same group: same pool and identity, and opened in the same period, so that
/// none is used for longer than its maximum age. Endpoints change periods at different times. With the key comes the period.
fn group(transport: &Transport, address: SocketAddr, upgrade: bool, announced: Option<SocketAddr>) -> (u64, u64) {
    static BASE: LazyLock<Instant> = LazyLock::new(Instant::now);
    static KEYS: LazyLock<ahash::RandomState> = LazyLock::new(ahash::RandomState::new);
    let mut hasher = KEYS.build_hasher();
    transport.identity.hash(&mut hasher);
    address.hash(&mut hasher);
    let spread = hasher.finish();
    let age = u64::try_from(transport.connections.max_age.as_millis()).unwrap_or(u64::MAX).max(1);
    let now = u64::try_from(BASE.elapsed().as_millis()).unwrap_or(0);
    let period = now.wrapping_add(spread % age) / age;
    period.hash(&mut hasher);
    // An HTTP/2 connection is of no use to an upgrade.
    (upgrade && transport.protocol == Protocol::Auto).hash(&mut hasher);
    // A connection that names a client is of no use to another.
    announced.hash(&mut hasher);
    (hasher.finish(), period)
}
