//! Limits of the whole fleet: nodes tell each other what was used, five times a second.
//!
//! A node admits by what it knows. What others used since it last heard of them is more than it knows: over a time `w` the
//! fleet admits at most `burst + rate * w`, and `(nodes - 1) * (burst + rate * d)` more, where `d` is how old its knowledge
//! may be (a fifth of a second and the way). The excess comes once per burst, not per second: later it is waited for, since
//! every node counts what all have used.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use futures_util::StreamExt as _;
use serde::{Deserialize, Serialize};

use super::Membership;
use crate::bounded::Key;
use crate::bus::{Link, Message, VALUE_MAX};
use crate::policy::Limit;
use crate::routes::Live;

const EVERY: Duration = Duration::from_millis(200);
/// A node that used nothing says so this often: the others count it.
const ALIVE: Duration = Duration::from_secs(1);
/// A node that was not heard for so long is none that a limit is shared with.
const GONE: Duration = Duration::from_secs(30);
/// Bytes of a key and a number.
const RECORD: usize = 20;
/// Records of one message.
const RECORDS_MAX: usize = (VALUE_MAX - 4096) / RECORD;

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct About {
    node: String,
    limit: String,
}

/// Tells and listens, for as long as the process lives.
pub async fn share(membership: Membership, live: Arc<Live>) {
    let mut peers: BTreeMap<String, Instant> = BTreeMap::new();
    let link = membership.bus.link();
    let subject = membership.fleet.usages();
    let mut told = Instant::now();
    let mut heard = futures_util::stream::empty().boxed();
    let (mut listening, mut was_up) = (false, false);
    let mut tick = tokio::time::interval(EVERY);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        if !listening && let Ok(messages) = membership.bus.subscribe(&subject).await {
            (heard, listening) = (messages, true);
        }
        tokio::select! {
            message = heard.next(), if listening => match message {
                Some(message) => hear(&message, &membership, &live, &mut peers),
                None => listening = false,
            },
            _ = tick.tick() => {
                let up = *link.borrow() == Link::Up;
                if up && !was_up {
                    // Nobody could be heard meanwhile.
                    peers.values_mut().for_each(|at| *at = Instant::now());
                }
                was_up = up;
                if up {
                    peers.retain(|_, at| at.elapsed() < GONE);
                }
                let nodes = u32::try_from(peers.len()).unwrap_or(u32::MAX);
                let nodes = NonZeroU32::MIN.saturating_add(nodes);
                let table = live.load_full();
                for limit in table.limits.iter() {
                    let Some(shared) = limit.shared() else { continue };
                    shared.set_nodes(nodes, !up);
                    let mut used = shared.drain();
                    if !up || (used.is_empty() && told.elapsed() < ALIVE) {
                        continue;
                    }
                    // Those who used most first: what does not fit is least missed.
                    used.sort_unstable_by_key(|(_, used)| std::cmp::Reverse(*used));
                    used.truncate(RECORDS_MAX);
                    tell(&membership, limit, &used).await;
                }
                if up && told.elapsed() >= ALIVE {
                    told = Instant::now();
                }
            }
        }
    }
}

async fn tell(membership: &Membership, limit: &Limit, used: &[(Key, u32)]) {
    let about = About { node: membership.node.to_string(), limit: limit.name.to_string() };
    let message = Message { subject: membership.fleet.usage(&membership.node), payload: write(&about, used) };
    // Not by the box: what is old is worth nothing here. What is lost is used twice at most.
    let _ = tokio::time::timeout(EVERY, membership.bus.publish(message)).await;
}

fn hear(message: &Message, membership: &Membership, live: &Live, peers: &mut BTreeMap<String, Instant>) {
    let Some((about, used)) = read(&message.payload) else { return };
    if about.node == *membership.node {
        return;
    }
    peers.insert(about.node, Instant::now());
    let table = live.load_full();
    if let Some(limit) = table.limits.iter().find(|limit| *limit.name == about.limit) {
        used.for_each(|(key, used)| limit.spent_elsewhere(key, used));
    }
}

/// A line of JSON, then records.
fn write(about: &About, used: &[(Key, u32)]) -> Bytes {
    let mut out = BytesMut::from(&*serde_json::to_vec(about).unwrap_or_default());
    out.put_u8(b'\n');
    for (key, used) in used {
        let [one, two] = key.bits();
        out.put_u64(one);
        out.put_u64(two);
        out.put_u32(*used);
    }
    out.freeze()
}

fn read(payload: &Bytes) -> Option<(About, impl Iterator<Item = (Key, NonZeroU32)>)> {
    let line = payload.iter().position(|byte| *byte == b'\n')?;
    let about = serde_json::from_slice(payload.get(..line)?).ok()?;
    let mut records = payload.slice(line + 1..);
    let next = move || {
        (records.len() >= RECORD).then(|| (Key::from_bits([records.get_u64(), records.get_u64()]), records.get_u32()))
    };
    let some = |(key, used)| NonZeroU32::new(used).map(|used| (key, used));
    Some((about, std::iter::from_fn(next).filter_map(some)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let about = || About { node: "n".to_owned(), limit: "l".to_owned() };
        let used = [(Key::from_bits([1, u64::MAX]), 7), (Key::from_bits([3, 4]), 0)];
        let bytes = write(&about(), &used);
        let (told, records) = read(&bytes).unwrap();
        assert_eq!(told, about());
        assert_eq!(records.collect::<Vec<_>>(), [(Key::from_bits([1, u64::MAX]), NonZeroU32::new(7).unwrap())]);
        for wrong in [&b""[..], b"\n", b"{}\n", b"[1]", b"{\"node\":1}\n"] {
            assert!(read(&Bytes::copy_from_slice(wrong)).is_none());
        }
        // A record that is not whole is none.
        let cut = bytes.slice(..bytes.len() - 1);
        assert_eq!(read(&cut).unwrap().1.count(), 1);
    }
}
