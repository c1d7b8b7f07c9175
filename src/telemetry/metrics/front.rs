//! The counters of the front: connections and handshakes.

use super::count::{Count, Counts, Gauge, labels};
use super::exposition::Exposition;
use super::family;

labels! {
    /// Why a connection of a client was closed.
    pub enum Refused {
        /// `limits.connections`
        Connections => "connections",
        /// `limits.connections_per_address`
        ConnectionsPerAddress => "connections_per_address",
        /// An HTTP/2 connection without its preface in time.
        Preface => "preface",
        /// A bound of `limits.http2` was broken.
        Http2Limit => "http2_limit",
        /// A load balancer's connection without its PROXY header.
        ProxyHeader => "proxy_header",
        /// A name that may have a certificate on demand, of which there are as many as may be.
        OnDemand => "on_demand",
        /// The client took no byte of its answer for `limits.write_idle`.
        WriteIdle => "write_idle",
    }
}

labels! {
    /// How a TLS handshake ended.
    pub enum Handshake {
        Done => "ok",
        Failed => "failed",
        /// `limits.handshake_timeout`
        Timeout => "timeout",
    }
}

/// The counters of the front.
#[derive(Debug, Default)]
pub struct FrontMetrics {
    /// Connections open now.
    pub open: Gauge,
    /// Connections accepted, without those refused at once.
    pub accepted: Count,
    refused: Counts<Refused, { Refused::COUNT }>,
    handshakes: Counts<Handshake, { Handshake::COUNT }>,
}

impl FrontMetrics {
    pub fn refused(&self, reason: Refused) {
        self.refused.inc(reason);
    }

    pub fn handshake(&self, result: Handshake) {
        self.handshakes.inc(result);
    }

    pub(super) fn expose(&self, out: &mut Exposition) {
        out.value(&family::CONNECTIONS_OPEN, &[], self.open.value() as f64);
        out.value(&family::CONNECTIONS_ACCEPTED, &[], self.accepted.value() as f64);
        for (reason, number) in self.refused.iter() {
            out.value(&family::CONNECTIONS_REFUSED, &[reason], number as f64);
        }
        for (result, number) in self.handshakes.iter() {
            out.value(&family::HANDSHAKES, &[result], number as f64);
        }
    }
}
