//! When a certificate is asked for: at once if there is none, when its CA says (RFC 9773) or at two thirds of its life, later
//! after failures. Pure.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// Longest wait after failures.
const WAIT_MAX: Duration = Duration::from_secs(6 * 3_600);
/// A CA that says that it is asked too often is left alone for this long at least.
const RATE_LIMITED: Duration = Duration::from_secs(3_600);
/// A certificate is renewed on the CA's word no sooner than this, or a fiftieth of its life.
const ADVISED_AFTER: Duration = Duration::from_secs(3_600);
/// How much longer each wait is than the one before: of Let's Encrypt's five failures an hour, four are used.
const GROWTH: u32 = 5;

/// From when to when a certificate is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Life {
    pub(super) not_before: SystemTime,
    pub(super) not_after: SystemTime,
}

/// How the last orders went. Kept across restarts, so that a crash loop asks a CA no more often.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) failures: u32,
    /// No order before this second of the Unix epoch.
    pub(super) not_before_unix: u64,
    /// When the CA would have the certificate renewed that there is.
    #[serde(default)]
    pub(super) renew_at_unix: Option<u64>,
}

impl Record {
    /// Whether it is too early for an order.
    pub(super) fn forbids(self, now: SystemTime) -> bool {
        due(None, self, now, "") > now
    }

    /// After a certificate came: even one that is due again at once is not asked for at once.
    pub(super) fn succeeded(now: SystemTime, first: Duration) -> Record {
        let at = (now + first).duration_since(UNIX_EPOCH).unwrap_or_default();
        Record { failures: 0, not_before_unix: at.as_secs(), renew_at_unix: None }
    }

    /// After another failure. `first` is the wait after the first one.
    pub(super) fn failed(self, now: SystemTime, first: Duration, rate_limited: bool, name: &str) -> Record {
        let grown = first.saturating_mul(GROWTH.saturating_pow(self.failures.min(16)));
        let wait = grown.min(WAIT_MAX).max(if rate_limited { RATE_LIMITED } else { Duration::ZERO });
        let wait = wait + wait.mul_f64(share(name) / 10.0);
        let at = (now + wait).duration_since(UNIX_EPOCH).unwrap_or_default();
        let not_before_unix = at.as_millis().div_ceil(1_000) as u64;
        Record { failures: self.failures.saturating_add(1), not_before_unix, ..self }
    }

    /// A time within the window that the CA suggests, not the same for all who are given the same one.
    pub(super) fn advised(self, start: SystemTime, end: SystemTime) -> Record {
        let window = end.duration_since(start).unwrap_or_default();
        let at = (start + window.mul_f64(fastrand::f64())).duration_since(UNIX_EPOCH).unwrap_or_default();
        Record { renew_at_unix: Some(at.as_secs()), ..self }
    }
}

/// When the next order is due. A wait that no failure can have led to was written under a clock that was wrong.
pub(super) fn due(life: Option<Life>, record: Record, now: SystemTime, name: &str) -> SystemTime {
    let allowed = UNIX_EPOCH.checked_add(Duration::from_secs(record.not_before_unix));
    let allowed = allowed.filter(|at| *at <= now + WAIT_MAX * 2).unwrap_or(now);
    let Some(Life { not_before, not_after }) = life else { return allowed };
    let lifetime = not_after.duration_since(not_before).unwrap_or_default();
    // Spread over a thirtieth of the life, so that names that began together do not renew together.
    let renewal = not_before + lifetime * 2 / 3 + lifetime.mul_f64(share(name) / 30.0);
    let advised = record.renew_at_unix.and_then(|at| UNIX_EPOCH.checked_add(Duration::from_secs(at)));
    // Advice that would let it run out is none; and a CA that always says "now" is not asked all the time.
    let soonest = not_before + (lifetime / 50).min(ADVISED_AFTER);
    advised.filter(|at| *at < not_after).map_or(renewal, |at| at.max(soonest)).max(allowed)
}

/// A number from 0 to 1 that is always the same for a name.
pub(super) fn share(name: &str) -> f64 {
    let hash = name
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    (hash >> 11) as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    #[test]
    fn renews_after_two_thirds_and_not_all_at_once() {
        let start = UNIX_EPOCH + 20_000 * DAY;
        let life = Some(Life { not_before: start, not_after: start + 90 * DAY });
        let at = |name: &str| due(life, Record::default(), start, name).duration_since(start).unwrap();
        for name in ["a.test", "b.test", "c.test"] {
            assert!(at(name) >= 60 * DAY && at(name) <= 63 * DAY, "{name}: {:?}", at(name));
        }
        assert_ne!(at("a.test"), at("b.test"));
        assert!(due(None, Record::default(), start, "a.test") <= start);
        // Ends at once, or was written under a clock that was wrong: neither stops nor spins.
        let soon = Record::succeeded(start, Duration::from_secs(60));
        let over = Some(Life { not_before: start - 9 * DAY, not_after: start });
        assert!(due(over, soon, start, "a.test") >= start + Duration::from_secs(59));
        for not_before_unix in [u64::MAX, (start + 90 * DAY).duration_since(UNIX_EPOCH).unwrap().as_secs()] {
            let record = Record { failures: 3, not_before_unix, renew_at_unix: None };
            assert_eq!(due(None, record, start, "a.test"), start);
        }
    }

    #[test]
    fn the_ca_says_when_unless_that_is_too_late() {
        let start = UNIX_EPOCH + 20_000 * DAY;
        let life = Some(Life { not_before: start, not_after: start + 90 * DAY });
        let advised = Record::default().advised(start + 10 * DAY, start + 12 * DAY);
        let at = due(life, advised, start, "a.test");
        assert!(at >= start + 10 * DAY && at <= start + 12 * DAY);
        let late = Record::default().advised(start + 91 * DAY, start + 92 * DAY);
        assert!(due(life, late, start, "a.test") <= start + 63 * DAY);
        // Failures put it off, and are not forgotten by advice.
        let failed = advised.failed(at, DAY / 24, false, "a.test");
        assert!(due(life, failed, at, "a.test") > at);
        assert_eq!(failed.renew_at_unix, advised.renew_at_unix);
    }

    #[test]
    fn failures_are_waited_out_longer_and_longer() {
        let now = UNIX_EPOCH + 20_000 * DAY;
        let minute = Duration::from_secs(60);
        let mut record = Record::default();
        let mut waits = Vec::new();
        for _ in 0..8 {
            record = record.failed(now, minute, false, "a.test");
            waits.push(due(None, record, now, "a.test").duration_since(now).unwrap());
        }
        assert!(waits.is_sorted());
        assert!(waits[0] >= minute && waits[0] <= 2 * minute, "{waits:?}");
        assert!(waits[7] >= WAIT_MAX && waits[7] <= WAIT_MAX * 2, "{waits:?}");
        // No more than five in any hour.
        let within = waits.iter().scan(Duration::ZERO, |sum, wait| {
            *sum += *wait;
            Some(*sum)
        });
        assert!(within.take_while(|at| *at < RATE_LIMITED).count() <= 4, "{waits:?}");
        let limited = Record::default().failed(now, minute, true, "a.test");
        assert!(due(None, limited, now, "a.test") >= now + RATE_LIMITED);
    }
}
