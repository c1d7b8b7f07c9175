//! Passive ejection: an endpoint that fails live requests is left out for a while, then trusted again step by step.
//!
//! Failures within the window → out for `for` → weight from a tenth to all of it over the same time again. Whether the
//! pool can do without the endpoint is the pool's to judge (`Pool::failed`). Times are milliseconds of the pool's clock.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::config::Eject;

/// Parts of a whole weight.
pub(crate) const WHOLE: u32 = 1_000;
/// Where the ramp begins.
const RAMP_START: u32 = WHOLE / 10;

/// What live requests say about an endpoint.
#[derive(Debug, Default)]
pub(crate) struct Outlier {
    /// When it failed, oldest first; at most `errors` entries.
    failures: Mutex<VecDeque<u64>>,
    /// End of the ejection; 0 = never ejected.
    until: AtomicU64,
    /// End of the ramp after it.
    whole_at: AtomicU64,
}

impl Outlier {
    /// Remembers a failure. True when as many as eject lie within the window.
    pub(crate) fn failed(&self, words: &Eject, now: u64) -> bool {
        let within = millis(words.within.0);
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        failures.push_back(now);
        while failures.len() > words.errors as usize
            || failures.front().is_some_and(|at| now.saturating_sub(*at) >= within)
        {
            failures.pop_front();
        }
        failures.len() >= words.errors as usize
    }

    pub(crate) fn eject(&self, words: &Eject, now: u64) {
        let period = millis(words.period.0).max(1);
        self.failures.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.whole_at.store(now.saturating_add(period.saturating_mul(2)), Ordering::Relaxed);
        self.until.store(now.saturating_add(period), Ordering::Release);
    }

    /// How much of its weight the endpoint has now: 0 while ejected, `WHOLE` unless it comes back from an ejection.
    pub(crate) fn share(&self, now: u64) -> u32 {
        let until = self.until.load(Ordering::Acquire);
        if until == 0 {
            return WHOLE;
        }
        if now < until {
            return 0;
        }
        let whole_at = self.whole_at.load(Ordering::Relaxed);
        if now >= whole_at {
            return WHOLE;
        }
        let (passed, all) = (now - until, whole_at.saturating_sub(until).max(1));
        RAMP_START + u32::try_from(u64::from(WHOLE - RAMP_START) * passed / all).unwrap_or(WHOLE - RAMP_START)
    }

    pub(crate) fn is_ejected(&self, now: u64) -> bool {
        now < self.until.load(Ordering::Acquire)
    }

    /// Milliseconds of the ejection still to come.
    pub(crate) fn remaining(&self, now: u64) -> u64 {
        self.until.load(Ordering::Acquire).saturating_sub(now)
    }
}

fn millis(span: std::time::Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scalar::Span;

    fn words(errors: u32) -> Eject {
        Eject { errors, within: Span::from_secs(10), period: Span::from_secs(30) }
    }

    #[test]
    fn counts_failures_within_a_sliding_window() {
        let outlier = Outlier::default();
        assert!(!outlier.failed(&words(3), 1_000));
        assert!(!outlier.failed(&words(3), 2_000));
        // The first one is 10 s old and counts no more.
        assert!(!outlier.failed(&words(3), 11_000));
        assert!(outlier.failed(&words(3), 11_500));
    }

    #[test]
    fn ramps_from_a_tenth_to_all_of_the_weight() {
        let outlier = Outlier::default();
        assert_eq!(outlier.share(5), WHOLE);
        outlier.eject(&words(1), 1_000);
        assert_eq!((outlier.share(30_999), outlier.is_ejected(30_999), outlier.remaining(30_000)), (0, true, 1_000));
        assert_eq!((outlier.share(31_000), outlier.is_ejected(31_000)), (100, false));
        assert_eq!(outlier.share(46_000), 550);
        assert_eq!(outlier.share(61_000), WHOLE);
    }

    proptest::proptest! {
        #[test]
        fn agrees_with_counting_all_failures(errors in 1u32..6, gaps in proptest::collection::vec(0u64..6_000, 1..60)) {
            let outlier = Outlier::default();
            let (mut now, mut all) = (0, Vec::new());
            for gap in gaps {
                now += gap;
                all.push(now);
                let naive = all.iter().filter(|at| now - **at < 10_000).count() >= errors as usize;
                proptest::prop_assert_eq!(outlier.failed(&words(errors), now), naive);
            }
        }
    }
}
