//! Events: what happened on this node, kept by the bus for whoever asks later.

use bytes::Bytes;
use serde_json::json;

use super::Membership;
use crate::bus::Message;
use crate::ledger::now_ms;
use crate::telemetry::Happened;
use crate::telemetry::access::rfc3339;

/// What events of gateways stand under.
const SERVICE: &str = "gateway";

impl Membership {
    /// Tells what happened here. Never waits: a bus that is away is told later, as much as its box holds.
    pub fn tell(&self, happened: Happened) {
        let Some(event) = happened.get("event").and_then(|event| event.as_str()).map(str::to_owned) else { return };
        let at = std::time::UNIX_EPOCH + std::time::Duration::from_millis(now_ms());
        let mut body = happened;
        for (name, value) in [
            ("id", json!(format!("{}-{:016x}", self.node, fastrand::u64(..)))),
            ("service", json!(SERVICE)),
            ("node", json!(&*self.node)),
            ("region", json!(self.region)),
            ("timestamp", json!(rfc3339(at))),
        ] {
            body.insert(name.to_owned(), value);
        }
        let payload = Bytes::from(serde_json::Value::Object(body).to_string());
        self.post.event(Message { subject: self.fleet.event(SERVICE, &event), payload });
    }
}
