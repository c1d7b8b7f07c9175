//! A request's hold on an endpoint. It counts as in flight until dropped, whatever becomes of the request.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::Arc;

use super::endpoint::Endpoint;
use super::pool::{InFlight, Pool};
use super::transport::{Digest, Transport};

/// A request's hold on an endpoint.
#[derive(Debug)]
pub struct Lease {
    endpoint: Arc<Endpoint>,
    transport: Arc<Transport>,
    pool: InFlight,
}

/// How a request ended, as far as the endpoint is to blame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It ended well, or the client ended it.
    Success,
    /// No connection could be opened: refused, unreachable, TLS failed, too late.
    Connect,
    /// The connection broke, or the endpoint broke the protocol.
    Reset,
    /// No answer in time.
    Timeout,
    /// It answered. 502, 503 and 504 are failures.
    Status(u16),
}

impl Lease {
    /// The endpoint's place in flight must be taken already.
    pub(crate) fn entered(endpoint: &Arc<Endpoint>, transport: &Arc<Transport>, pool: InFlight) -> Lease {
        Lease { endpoint: endpoint.clone(), transport: transport.clone(), pool }
    }

    pub fn address(&self) -> SocketAddr {
        self.endpoint.address()
    }

    pub fn endpoint(&self) -> &Arc<Endpoint> {
        &self.endpoint
    }

    pub fn transport(&self) -> &Arc<Transport> {
        &self.transport
    }

    pub fn pool(&self) -> &Arc<Pool> {
        self.pool.pool()
    }

    /// What the cookie must say for `Pool::pick_sticky` to come back here.
    pub fn sticky_token(&self) -> StickyToken {
        self.endpoint.token()
    }

    /// Tells the pool how the request ended. Once per lease.
    pub fn report(&self, outcome: Outcome) {
        self.pool.pool().ended(&self.endpoint, outcome);
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.endpoint.leave();
    }
}

/// Names an endpoint to a client without its address: a digest of pool and address, the same on every gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StickyToken(pub(crate) u64);

impl StickyToken {
    pub(crate) fn of(pool: &str, address: SocketAddr) -> StickyToken {
        let mut digest = Digest::new("sticky");
        digest.add(pool.as_bytes());
        digest.add(address.to_string().as_bytes());
        StickyToken(digest.finish())
    }
}

impl fmt::Display for StickyToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a value this gateway gave")]
pub struct NoToken;

impl FromStr for StickyToken {
    type Err = NoToken;
    fn from_str(text: &str) -> Result<StickyToken, NoToken> {
        let hex = text.len() == 16 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if !hex {
            return Err(NoToken);
        }
        u64::from_str_radix(text, 16).map(StickyToken).map_err(|_| NoToken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_survives_the_cookie_and_tells_endpoints_apart() {
        let token = |pool: &str, address: &str| StickyToken::of(pool, address.parse().unwrap());
        let one = token("a", "127.0.0.1:80");
        assert_eq!(one.to_string().parse(), Ok(one));
        assert_ne!(one, token("a", "127.0.0.1:81"));
        assert_ne!(one, token("b", "127.0.0.1:80"));
        for text in ["", "xyz", "+000000000000001", "00000000000000001", "000000000000000G", "ABCDEF0123456789"] {
            assert_eq!(text.parse::<StickyToken>(), Err(NoToken), "{text}");
        }
    }
}
