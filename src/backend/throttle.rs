//! Guessing one account's password takes long, however many connections guess. Accounts that nobody has are counted alike.

use std::time::{Duration, Instant};

use crate::bounded::{Bounded, Change};

/// The longest wait: whoever locks somebody else out does it for no longer than this at a time.
const WAIT_MAX: Duration = Duration::from_secs(60);
/// Accounts that are remembered; beyond it whoever was idle longest is forgotten.
const ACCOUNTS_MAX: usize = 10_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Failures {
    number: u32,
    last: Instant,
}

/// A try that was counted, and what was known before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Try {
    counted: Failures,
    before: Option<Failures>,
}

#[derive(Debug)]
pub(super) struct Throttle {
    free: u32,
    accounts: Bounded<Failures>,
}

impl Throttle {
    /// So many failures in a row cost nothing.
    pub(super) fn new(free: u32) -> Throttle {
        Throttle { free, accounts: Bounded::new(ACCOUNTS_MAX) }
    }

    /// Counts a try before it is looked at, so that those at once are counted one by one. The error is how long to wait.
    pub(super) fn attempt(&self, account: &str, now: Instant) -> Result<Try, Duration> {
        self.accounts.with(self.accounts.key(account), |known| {
            let number = known.map_or(0, |known| known.number);
            let left = known.map_or(Duration::ZERO, |known| (known.last + self.wait(number)).duration_since(now));
            if left > Duration::ZERO {
                return (Err(left), Change::Keep);
            }
            let counted = Failures { number: number.saturating_add(1), last: now };
            (Ok(Try { counted, before: known.copied() }), Change::Put(counted))
        })
    }

    /// The password was not looked at: the try counts for nothing. Others that were counted since then stay.
    pub(super) fn undo(&self, account: &str, tried: Try) {
        self.accounts.with(self.accounts.key(account), |known| {
            let change = match (known, tried.before) {
                (None, _) => Change::Keep,
                (Some(known), None) if *known == tried.counted => Change::Drop,
                (Some(known), Some(before)) if *known == tried.counted => Change::Put(before),
                (Some(known), _) => Change::Put(Failures { number: known.number.saturating_sub(1), ..*known }),
            };
            ((), change)
        });
    }

    /// The password was wrong: the wait begins now, however long it took to find out.
    pub(super) fn failed(&self, account: &str, now: Instant) {
        self.accounts.with(self.accounts.key(account), |known| {
            ((), known.map_or(Change::Keep, |known| Change::Put(Failures { last: now, ..*known })))
        });
    }

    /// The password was right.
    pub(super) fn forgive(&self, account: &str) {
        self.accounts.remove(self.accounts.key(account));
    }

    fn wait(&self, number: u32) -> Duration {
        match number.checked_sub(self.free) {
            None => Duration::ZERO,
            Some(beyond) => Duration::from_secs(1 << beyond.min(6)).min(WAIT_MAX),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_minute_and_end_with_the_right_password() {
        let throttle = Throttle::new(2);
        let mut now = Instant::now();
        for wait_s in [0, 0, 1, 2, 4, 8, 16, 32, 60, 60] {
            if wait_s > 0 {
                assert_eq!(throttle.attempt("a", now), Err(Duration::from_secs(wait_s)));
                now += Duration::from_secs(wait_s);
            }
            assert!(throttle.attempt("a", now).is_ok());
        }
        assert!(throttle.attempt("b", now).is_ok(), "others do not wait");
        throttle.forgive("a");
        assert!(throttle.attempt("a", now).is_ok());
    }

    #[test]
    fn a_try_that_was_not_looked_at_counts_for_nothing() {
        let (throttle, now) = (Throttle::new(2), Instant::now());
        for _ in 0..20 {
            let tried = throttle.attempt("a", now).unwrap();
            throttle.undo("a", tried);
        }
        let tries = [throttle.attempt("a", now).unwrap(), throttle.attempt("a", now).unwrap()];
        assert!(throttle.attempt("a", now).is_err(), "two others failed at once");
        throttle.undo("a", tries[0]);
        assert!(throttle.attempt("a", now).is_ok() && throttle.attempt("a", now).is_err(), "one of them did not");
    }
}
