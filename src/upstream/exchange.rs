//! One whole exchange with an endpoint of a pool: what mirrors and forward authentication need.
//!
//! The body is in memory on both sides, the answer's up to a bound, and one deadline stands over all of it. Connections
//! are kept between exchanges, a few per pool, without tasks: a wire that is not used is not polled.

use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Request, Response, Uri};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use tokio::time::Instant;

use super::dial::dial;
use super::endpoint::ConnectionGuard;
use super::lease::{Lease, Outcome};
use super::pool::{PickError, Pool};
use super::transport::Transport;
use super::wire::Wire;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ExchangeError {
    #[error(transparent)]
    Pick(#[from] PickError),
    #[error("no connection to the endpoint: {0}")]
    Connect(String),
    #[error("the exchange broke off: {0}")]
    Broken(String),
    #[error("no whole answer within {0:?}")]
    Timeout(Duration),
    #[error("the request has no usable target")]
    Target,
}

/// Marks, as an extension, an answer whose body was longer than asked for and is cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Truncated;

/// Connections kept between exchanges of a pool.
#[derive(Default)]
pub(crate) struct Kept(Mutex<Vec<KeptWire>>);

/// More are closed after use.
const KEPT_MAX: usize = 16;

struct KeptWire {
    address: SocketAddr,
    identity: u64,
    born: Instant,
    since: Instant,
    wire: Wire,
    open: ConnectionGuard,
}

/// Sends a request to an endpoint of the pool and reads the whole answer; of its body no more than `answer_max` bytes
/// (then it is marked `Truncated`). An endpoint that cannot be reached is replaced by another one once, within the retry
/// budget. The target may be a path (then `Host` names the host) or an absolute URI.
pub async fn exchange(
    pool: &Arc<Pool>,
    request: Request<Bytes>,
    deadline: Duration,
    answer_max: usize,
) -> Result<Response<Bytes>, ExchangeError> {
    let ends = Instant::now() + deadline;
    let lease = pool.pick(None, &[])?;
    match one(pool, &lease, &request, deadline, ends, answer_max).await {
        Err(ExchangeError::Connect(_)) if Instant::now() < ends => {}
        done => return done,
    }
    let tried = [lease.address()];
    drop(lease);
    let (permit, lease) = (pool.retry_permit(), pool.pick(None, &tried)?);
    if permit.is_none() || lease.address() == tried[0] {
        return Err(ExchangeError::Connect(format!("{} cannot be reached", tried[0])));
    }
    one(pool, &lease, &request, deadline, ends, answer_max).await
}

/// One try, reported to the pool.
async fn one(
    pool: &Pool,
    lease: &Lease,
    request: &Request<Bytes>,
    deadline: Duration,
    ends: Instant,
    answer_max: usize,
) -> Result<Response<Bytes>, ExchangeError> {
    let work = converse(pool, lease, request, answer_max);
    let result = match tokio::time::timeout_at(ends, work).await {
        Ok(result) => result,
        Err(_) => Err(ExchangeError::Timeout(deadline)),
    };
    match &result {
        Ok(response) => lease.report(Outcome::Status(response.status().as_u16())),
        Err(ExchangeError::Connect(_)) => lease.report(Outcome::Connect),
        Err(ExchangeError::Broken(_)) => lease.report(Outcome::Reset),
        Err(ExchangeError::Timeout(_)) => lease.report(Outcome::Timeout),
        Err(ExchangeError::Pick(_) | ExchangeError::Target) => {}
    }
    result
}

async fn converse(
    pool: &Pool,
    lease: &Lease,
    request: &Request<Bytes>,
    answer_max: usize,
) -> Result<Response<Bytes>, ExchangeError> {
    let (address, transport) = (lease.address(), lease.transport());
    while let Some(mut kept) = pool.kept.take(address, transport) {
        if !kept.wire.is_ready().await {
            continue;
        }
        let outgoing = outgoing(request, transport, address, kept.wire.is_h2())?;
        match kept.wire.send(outgoing).await {
            Ok(response) => return finish(pool, kept, response, answer_max).await,
            Err(mut error) => {
                // The endpoint closed the connection as the request came: it saw nothing, or may see it twice.
                let again = error.take_message().is_some() || request.method().is_idempotent();
                if !again {
                    return Err(ExchangeError::Broken(error.into_error().to_string()));
                }
            }
        }
    }
    let connect = |error: &dyn fmt::Display| ExchangeError::Connect(error.to_string());
    let (stream, protocol) = dial(address, transport).await.map_err(|error| connect(&error))?;
    lease.endpoint().negotiated(protocol);
    let wire = Wire::open(stream, protocol).await.map_err(|error| connect(&error))?;
    let now = Instant::now();
    let open = lease.endpoint().connection_counted();
    let mut fresh = KeptWire { address, identity: transport.identity, born: now, since: now, wire, open };
    let outgoing = outgoing(request, transport, address, fresh.wire.is_h2())?;
    match fresh.wire.send(outgoing).await {
        Ok(response) => finish(pool, fresh, response, answer_max).await,
        Err(error) => Err(ExchangeError::Broken(error.into_error().to_string())),
    }
}

/// Reads the body and keeps the connection if it can be used again.
async fn finish(
    pool: &Pool,
    mut kept: KeptWire,
    response: Response<Incoming>,
    answer_max: usize,
) -> Result<Response<Bytes>, ExchangeError> {
    let (mut parts, mut body) = response.into_parts();
    let mut bytes = BytesMut::new();
    while let Some(frame) = kept.wire.drive(body.frame()).await {
        let frame = frame.map_err(|error| ExchangeError::Broken(error.to_string()))?;
        let Ok(data) = frame.into_data() else { continue };
        let room = answer_max - bytes.len();
        bytes.extend_from_slice(data.get(..room).unwrap_or(&data));
        if data.len() > room {
            parts.extensions.insert(Truncated);
            return Ok(Response::from_parts(parts, bytes.freeze()));
        }
    }
    drop(body);
    pool.kept.keep(kept);
    Ok(Response::from_parts(parts, bytes.freeze()))
}

/// The request as it goes out: the target in the form of the protocol, hop-by-hop fields left out (RFC 9110 7.6.1).
fn outgoing(
    request: &Request<Bytes>,
    transport: &Transport,
    address: SocketAddr,
    h2: bool,
) -> Result<Request<Full<Bytes>>, ExchangeError> {
    let uri = request.uri();
    let path = uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
    let host = request.headers().get(header::HOST).map(HeaderValue::as_bytes);
    let authority = match (uri.authority(), host) {
        (Some(authority), _) => authority.clone(),
        (None, Some(host)) => Authority::try_from(host).map_err(|_| ExchangeError::Target)?,
        (None, None) => address.to_string().parse().map_err(|_| ExchangeError::Target)?,
    };
    let mut headers = request.headers().clone();
    remove_hop_by_hop(&mut headers);
    let mut target = http::uri::Parts::default();
    target.path_and_query = Some(path);
    if h2 {
        headers.remove(header::HOST);
        target.scheme = Some(if transport.tls.is_some() { Scheme::HTTPS } else { Scheme::HTTP });
        target.authority = Some(authority);
    } else {
        let host = HeaderValue::from_str(authority.as_str()).map_err(|_| ExchangeError::Target)?;
        headers.insert(header::HOST, host);
    }
    let mut outgoing = Request::new(Full::new(request.body().clone()));
    *outgoing.method_mut() = request.method().clone();
    *outgoing.uri_mut() = Uri::from_parts(target).map_err(|_| ExchangeError::Target)?;
    *outgoing.headers_mut() = headers;
    Ok(outgoing)
}

/// The length is the body's own, whatever the request said.
fn remove_hop_by_hop(headers: &mut HeaderMap) {
    let nominated: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    let always = [
        header::CONNECTION,
        header::CONTENT_LENGTH,
        header::EXPECT,
        header::TE,
        header::TRAILER,
        header::TRANSFER_ENCODING,
        header::UPGRADE,
        HeaderName::from_static("keep-alive"),
        HeaderName::from_static("proxy-connection"),
    ];
    for name in nominated.into_iter().chain(always) {
        headers.remove(name);
    }
}

impl Kept {
    /// A connection of this transport, youngest use first, that is neither too old nor idle for too long.
    fn take(&self, address: SocketAddr, transport: &Transport) -> Option<KeptWire> {
        let now = Instant::now();
        let limits = &transport.connections;
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let same = |one: &KeptWire| one.address == address && one.identity == transport.identity;
        let fresh = |one: &KeptWire| now - one.since < limits.idle && now - one.born < limits.max_age;
        kept.retain(|one| !same(one) || fresh(one));
        let index = kept.iter().rposition(same)?;
        Some(kept.remove(index))
    }

    fn keep(&self, mut wire: KeptWire) {
        wire.since = Instant::now();
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= KEPT_MAX {
            kept.remove(0);
        }
        kept.push(wire);
    }

    /// Closes connections to endpoints that are gone.
    pub(crate) fn retain(&self, is_member: impl Fn(SocketAddr) -> bool) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|one| is_member(one.address));
    }
}

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        f.debug_list().entries(kept.iter().map(|one| (one.address, one.open.endpoint().connections()))).finish()
    }
}
