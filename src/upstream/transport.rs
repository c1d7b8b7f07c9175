//! How an endpoint is spoken to: protocol, TLS, limits on its connections.

use std::sync::Arc;
use std::time::Duration;

use super::tls::Tls;
use crate::config::{self, Protocol};
use crate::proxy_protocol::Version;

/// How an endpoint is spoken to.
#[derive(Debug)]
pub struct Transport {
    pub protocol: Protocol,
    pub tls: Option<Arc<Tls>>,
    /// The PROXY header that begins a connection.
    pub announces: Option<Version>,
    pub connections: Connections,
    /// Digest over everything that makes one connection different from another: pool, protocol, server name, CA, client
    /// certificate, whether the peer is verified. A connection is reused only for a transport of the same identity.
    pub identity: u64,
    /// As `identity`, without the pool: active checks are shared by it.
    pub(crate) peer_identity: u64,
}

/// Limits on the connections to one endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connections {
    /// Most connections open at once; 0 = no limit.
    pub max: u32,
    /// An idle connection is closed after this long.
    pub idle: Duration,
    /// A connection takes no new request after this long.
    pub max_age: Duration,
    /// Most requests at once on one HTTP/2 connection.
    pub streams: u32,
}

impl Transport {
    pub(crate) fn new(
        pool: &str,
        protocol: Protocol,
        tls: Option<Arc<Tls>>,
        announces: Option<Version>,
        words: &config::Connections,
    ) -> Transport {
        let mut digest = Digest::new("transport");
        digest.add(&[match protocol {
            Protocol::H1 => 1,
            Protocol::H2 => 2,
            Protocol::Auto => 3,
        }]);
        digest.add(match announces {
            None => b"-",
            Some(Version::V1) => b"1",
            Some(Version::V2) => b"2",
        });
        match &tls {
            None => digest.add(b"clear"),
            Some(tls) => tls.digest(&mut digest),
        }
        let peer_identity = digest.clone().finish();
        digest.add(pool.as_bytes());
        Transport {
            protocol,
            tls,
            announces,
            connections: Connections {
                max: words.max,
                idle: words.idle.0,
                max_age: words.max_age.0,
                streams: words.streams,
            },
            identity: digest.finish(),
            peer_identity,
        }
    }
}

/// SHA-256 over length-prefixed parts, cut to 64 bits: two lists of parts never read as the same bytes.
#[derive(Clone)]
pub(crate) struct Digest(aws_lc_rs::digest::Context);

impl Digest {
    pub(crate) fn new(domain: &str) -> Digest {
        let mut digest = Digest(aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256));
        digest.add(domain.as_bytes());
        digest
    }

    pub(crate) fn add(&mut self, part: &[u8]) {
        self.0.update(&(part.len() as u64).to_be_bytes());
        self.0.update(part);
    }

    pub(crate) fn finish(self) -> u64 {
        let digest = self.0.finish();
        digest.as_ref().iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte))
    }
}
