//! What stands where on the bus of a fleet. One list: permissions, makers and readers agree by it.
//!
//! ```text
//! bucket FLEET          head, revision.N, document.DIGEST.., canary      operators write, gateways read
//! bucket FLEET_status   node.ID, words.DIGEST                            every gateway writes its own, the controller forgets
//! bucket FLEET_shared   revoked.ID, lease.NAME, alert.., canary.decision gateways and controllers among themselves
//! bucket FLEET_sealed   acme.., keys.PLACE, sealed; lease.NAME           gateways among themselves
//! bucket FLEET_found    SERVICE.ID                                       services that register themselves
//! stream FLEET_events   FLEET.event.SERVICE.EVENT                        at least once
//! stream FLEET_requests FLEET.request.NODE                               best effort
//! subject FLEET.usage.NODE, FLEET.traffic.NODE, FLEET.tap, FLEET.tapped.ID, kept nowhere
//! ```

use std::time::Duration;

use super::{Bucket, Bus, BusError, Stream};

/// The name of a fleet, and what is called after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fleet(String);

impl Fleet {
    /// A name of letters, digits, `-` and `_`; whoever reads it from settings has checked that.
    pub fn new(name: impl Into<String>) -> Fleet {
        Fleet(name.into())
    }

    pub fn is_name(name: &str) -> bool {
        let legal = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        (1..=64).contains(&name.len()) && name.bytes().all(legal)
    }

    pub fn name(&self) -> &str {
        &self.0
    }

    pub fn status(&self) -> String {
        format!("{}_status", self.0)
    }
    pub fn shared(&self) -> String {
        format!("{}_shared", self.0)
    }
    pub fn sealed(&self) -> String {
        format!("{}_sealed", self.0)
    }
    pub fn found(&self) -> String {
        format!("{}_found", self.0)
    }
    pub fn events(&self) -> String {
        format!("{}_events", self.0)
    }
    pub fn requests(&self) -> String {
        format!("{}_requests", self.0)
    }

    /// Where a service tells what happened.
    pub fn event(&self, service: &str, event: &str) -> String {
        format!("{}.event.{}.{}", self.0, level(service), level(event))
    }
    /// Where a gateway tells of its requests.
    pub fn request(&self, node: &str) -> String {
        format!("{}.request.{}", self.0, level(node))
    }
    /// Where a gateway tells how much of its limits is used.
    pub fn usage(&self, node: &str) -> String {
        format!("{}.usage.{}", self.0, level(node))
    }
    /// Where all gateways do.
    pub fn usages(&self) -> String {
        format!("{}.usage.*", self.0)
    }
    /// Where a gateway tells its counters.
    pub fn traffic(&self, node: &str) -> String {
        format!("{}.traffic.{}", self.0, level(node))
    }
    /// Where all gateways do.
    pub fn traffics(&self) -> String {
        format!("{}.traffic.*", self.0)
    }
    /// Where somebody asks for live requests.
    pub fn tap(&self) -> String {
        format!("{}.tap", self.0)
    }
    /// Where live requests go that somebody asked for.
    pub fn tapped(&self, id: &str) -> String {
        format!("{}.tapped.{}", self.0, level(id))
    }

    pub fn buckets(&self, documents: &str) -> Vec<Bucket> {
        let bucket = |name: String, max_age| Bucket { name, max_age };
        vec![
            bucket(documents.to_owned(), Duration::ZERO),
            bucket(self.status(), Duration::from_secs(24 * 3600)),
            bucket(self.shared(), Duration::ZERO),
            bucket(self.sealed(), Duration::ZERO),
            // The longest term of a registration, and half of it.
            bucket(self.found(), Duration::from_secs(450)),
        ]
    }

    pub fn streams(&self) -> Vec<Stream> {
        let day = Duration::from_secs(24 * 3600);
        let stream = |name, subject: &str, max_age, max_bytes| Stream {
            name,
            subjects: vec![format!("{}.{subject}.>", self.0)],
            max_age,
            max_bytes,
        };
        vec![stream(self.events(), "event", 7 * day, 512 << 20), stream(self.requests(), "request", day, 256 << 20)]
    }

    /// Makes what is missing. Gateways may not; whoever pushes, and the controller, may.
    pub async fn make(&self, bus: &Bus, documents: &str) -> Result<(), BusError> {
        for bucket in self.buckets(documents) {
            bus.make_bucket(&bucket).await?;
        }
        for stream in self.streams() {
            bus.make_stream(&stream).await?;
        }
        Ok(())
    }
}

/// One level of a subject or key: what may not stand there becomes `_`.
pub fn level(text: &str) -> String {
    let legal = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    text.chars().map(|c| if legal(c) { c } else { '_' }).collect()
}
