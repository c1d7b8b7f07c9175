//! Access lines for the controller: so many in a second and no more.
//!
//! The gateway listens to its own access log as somebody at `/tap` would, until it has what it may send in this second, and
//! then not: lines beyond cost nothing. How many there were in all goes with them.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::Membership;
use crate::bus::{Message, VALUE_MAX};
use crate::telemetry::AccessLog;
use crate::telemetry::access::Tapped;

const SECOND: Duration = Duration::from_secs(1);
/// Bytes of one message.
const BATCH: usize = VALUE_MAX / 4;

/// Sends lines as long as the process lives. `ended` is how many requests have ended in all.
pub async fn ship(membership: Membership, access: AccessLog, per_second: u32, ended: impl Fn() -> u64 + Send) {
    let subject = membership.fleet.request(&membership.node);
    let mut before = ended();
    loop {
        let until = Instant::now() + SECOND;
        let mut lines: Vec<String> = Vec::new();
        let mut bytes = 0;
        {
            let mut tap = access.subscribe();
            let most = usize::try_from(per_second).unwrap_or(usize::MAX);
            while lines.len() < most && bytes < BATCH {
                match timeout_at(until, tap.next()).await {
                    Ok(Some(Tapped::Line(line))) => {
                        bytes += line.json.len();
                        lines.push(line.json.clone());
                    }
                    Ok(Some(Tapped::Missed(_))) => {}
                    Ok(None) => return,
                    Err(_) => break,
                }
            }
        }
        // Nobody listens for the rest of the second.
        tokio::time::sleep_until(until).await;
        let now = ended();
        let sent = lines.len() as u64;
        let unsent = now.saturating_sub(before).saturating_sub(sent);
        before = now;
        if sent + unsent > 0 {
            lines.push(format!("{{\"unsent\":{unsent}}}"));
            let payload = format!("[{}]", lines.join(","));
            membership.post.telemetry(Message { subject: subject.clone(), payload: payload.into() });
        }
    }
}
