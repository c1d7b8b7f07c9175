//! Live requests of the whole fleet, for somebody who looks; at no cost while nobody does.
//!
//! Whoever looks says so on the tap subject, again and again; gateways that hear it send matching access lines to a subject
//! of the asker's own, and stop a few seconds after they heard it last. Lines are those of the access log: secrets are
//! redacted in them already.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, interval, timeout_at};

use super::Membership;
use crate::bus::names::Fleet;
use crate::bus::{Bus, BusError, Message};
use crate::telemetry::AccessLog;
use crate::telemetry::access::{TapLine, Tapped};

/// A wish is renewed this often.
const RENEWED: Duration = Duration::from_secs(2);
/// A wish that is not renewed ends after this long.
const ENDS: Duration = Duration::from_secs(6);
/// Wishes that a gateway hears at once.
const WISHES_MAX: usize = 16;
/// Lines a gateway sends to one asker in a second.
const PER_SECOND: u32 = 1_000;
const TEXT_MAX: usize = 256;

/// What somebody wants to see: requests of which all of this is true.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wish {
    /// Unique; where lines are sent is called after it.
    pub id: String,
    #[serde(default)]
    pub route: Option<String>,
    #[serde(default)]
    pub node: Option<String>,
    #[serde(default)]
    pub host: Option<String>,
    /// What the path begins with.
    #[serde(default)]
    pub path: Option<String>,
    #[serde(default)]
    pub client: Option<String>,
    /// First and last.
    #[serde(default)]
    pub status: Option<(u16, u16)>,
    /// Requests that took this long or longer, in milliseconds.
    #[serde(default)]
    pub slower_ms: Option<u64>,
}

impl Wish {
    fn is_legal(&self) -> bool {
        let Wish { id, route, node, host, path, client, .. } = self;
        let texts = [route, node, host, path, client].into_iter().flatten();
        (8..=64).contains(&id.len()) && texts.chain([id]).all(|text| text.len() <= TEXT_MAX)
    }

    fn wants(&self, line: &TapLine, parsed: &serde_json::Value) -> bool {
        let Wish { id: _, route, node: _, host, path, client, status, slower_ms } = self;
        let text = |key: &str| parsed.get(key).and_then(serde_json::Value::as_str).unwrap_or_default();
        route.as_ref().is_none_or(|route| *route == line.route)
            && status.is_none_or(|(first, last)| (first..=last).contains(&line.status))
            && host.as_ref().is_none_or(|host| host == text("host"))
            && path.as_ref().is_none_or(|path| text("path").starts_with(path.as_str()))
            && client.as_ref().is_none_or(|client| client == text("client"))
            && slower_ms.is_none_or(|ms| {
                parsed.get("total_ms").and_then(serde_json::Value::as_f64).is_some_and(|took| took >= ms as f64)
            })
    }

    /// Whether a line has to be read for it: route and status are known without.
    fn reads(&self) -> bool {
        let Wish { host, path, client, slower_ms, .. } = self;
        host.is_some() || path.is_some() || client.is_some() || slower_ms.is_some()
    }
}

/// Live lines of the fleet, and the asking for them: drop the stream and it ends.
pub async fn ask(bus: &Bus, fleet: &Fleet, wish: Wish) -> Result<BoxStream<'static, Message>, BusError> {
    let lines = bus.subscribe(&fleet.tapped(&wish.id)).await?;
    let payload = serde_json::to_vec(&wish).unwrap_or_default();
    let asking = Message { subject: fleet.tap(), payload: payload.into() };
    let start = (lines, interval(RENEWED), bus.clone(), asking);
    let next = |(mut lines, mut tick, bus, asking): (
        BoxStream<'static, Message>,
        tokio::time::Interval,
        Bus,
        Message,
    )| async move {
        loop {
            tokio::select! {
                line = lines.next() => return line.map(|line| (line, (lines, tick, bus, asking))),
                // While the bus is lost nobody hears it; it is said again.
                _ = tick.tick() => drop(bus.publish(asking.clone()).await),
            }
        }
    };
    Ok(futures_util::stream::unfold(start, next).boxed())
}

/// Hears wishes and fulfils them, for as long as the process lives.
pub async fn answer(membership: Membership, access: AccessLog) {
    let mut wishes: BTreeMap<String, (Wish, Instant)> = BTreeMap::new();
    loop {
        let Ok(mut heard) = membership.bus.subscribe(&membership.fleet.tap()).await else {
            tokio::time::sleep(RENEWED).await;
            continue;
        };
        while let Some(message) = heard.next().await {
            note(&mut wishes, &message, &membership);
            if !wishes.is_empty() {
                fulfil(&mut wishes, &mut heard, &membership, &access).await;
            }
        }
    }
}

fn note(wishes: &mut BTreeMap<String, (Wish, Instant)>, message: &Message, membership: &Membership) {
    let Ok(wish) = serde_json::from_slice::<Wish>(&message.payload) else { return };
    let here = wish.node.as_ref().is_none_or(|node| **node == *membership.node);
    if here && wish.is_legal() && (wishes.len() < WISHES_MAX || wishes.contains_key(&wish.id)) {
        wishes.insert(wish.id.clone(), (wish, Instant::now() + ENDS));
    }
}

/// Sends lines until the last wish has ended.
async fn fulfil(
    wishes: &mut BTreeMap<String, (Wish, Instant)>,
    heard: &mut BoxStream<'static, Message>,
    membership: &Membership,
    access: &AccessLog,
) {
    let mut tap = access.subscribe();
    let (mut second, mut sent) = (Instant::now(), 0);
    loop {
        wishes.retain(|_, (_, ends)| *ends > Instant::now());
        let Some(soonest) = wishes.values().map(|(_, ends)| *ends).min() else { return };
        let tapped = tokio::select! {
            message = heard.next() => match message {
                Some(message) => {
                    note(wishes, &message, membership);
                    continue;
                }
                None => return,
            },
            tapped = timeout_at(soonest, tap.next()) => match tapped {
                Ok(Some(Tapped::Line(line))) => line,
                Ok(Some(Tapped::Missed(_))) | Err(_) => continue,
                Ok(None) => return,
            },
        };
        if second.elapsed() >= Duration::from_secs(1) {
            (second, sent) = (Instant::now(), 0);
        }
        let reads = wishes.values().any(|(wish, _)| wish.reads());
        let parsed =
            if reads { serde_json::from_str(&tapped.json).unwrap_or_default() } else { serde_json::Value::Null };
        for (wish, _) in wishes.values().filter(|(wish, _)| wish.wants(&tapped, &parsed)) {
            sent += 1;
            if sent > PER_SECOND {
                continue;
            }
            // The line with the node in front.
            let rest = tapped.json.strip_prefix('{').unwrap_or("}");
            let payload = format!("{{\"node\":\"{}\",{rest}", membership.node);
            let subject = membership.fleet.tapped(&wish.id);
            membership.post.telemetry(Message { subject, payload: payload.into() });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_of_a_wish_must_be_true() {
        let json = r#"{"host":"h","path":"/api/x","client":"192.0.2.1","total_ms":12.5}"#;
        let line = TapLine { route: "a".to_owned(), status: 503, json: json.to_owned() };
        let parsed = serde_json::from_str(json).unwrap();
        let wish = |change: fn(&mut Wish)| {
            let mut wish = Wish { id: "12345678".to_owned(), ..Wish::default() };
            change(&mut wish);
            assert!(wish.is_legal());
            wish.wants(&line, &parsed)
        };
        assert!(wish(|_| ()));
        assert!(wish(|wish| wish.route = Some("a".to_owned())) && !wish(|wish| wish.route = Some("b".to_owned())));
        assert!(wish(|wish| wish.status = Some((500, 599))) && !wish(|wish| wish.status = Some((200, 299))));
        assert!(wish(|wish| wish.path = Some("/api".to_owned())) && !wish(|wish| wish.path = Some("/x".to_owned())));
        assert!(wish(|wish| wish.slower_ms = Some(12)) && !wish(|wish| wish.slower_ms = Some(13)));
        assert!(!wish(|wish| wish.host = Some("other".to_owned())));
        assert!(!wish(|wish| wish.client = Some("192.0.2.2".to_owned())));
    }
}
