//! The retry budget: retries in flight never exceed max(`min`, `percent` of the pool's live requests).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::pool::Pool;
use crate::config::RetryBudget;

/// Permission for one retry. It counts as in flight until dropped.
#[derive(Debug)]
pub struct RetryPermit(Arc<Pool>);

/// Retries of a pool in flight.
#[derive(Debug, Default)]
pub(crate) struct Budget(AtomicUsize);

impl Budget {
    /// Takes one retry, if `live` requests allow one more.
    pub(crate) fn take(&self, words: &RetryBudget, live: usize) -> bool {
        let share = (live as u64).saturating_mul(words.percent.into()) / 100;
        let most = usize::try_from(share.max(words.min.into())).unwrap_or(usize::MAX);
        let one_more = |retries: usize| (retries < most).then_some(retries + 1);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).is_ok()
    }

    fn give_back(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

impl RetryPermit {
    /// Counts a retry already taken from the pool's budget.
    pub(crate) fn taken(pool: &Arc<Pool>) -> RetryPermit {
        RetryPermit(pool.clone())
    }
}

impl Drop for RetryPermit {
    fn drop(&mut self) {
        self.0.budget().give_back();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Against a model that counts: a retry is allowed if and only if the bound holds afterwards.
        #[test]
        fn never_exceeds_the_greater_of_minimum_and_share(
            percent in 0u32..=100,
            min in 0u32..5,
            steps in proptest::collection::vec((any::<bool>(), 0usize..60), 1..200),
        ) {
            let (budget, words) = (Budget::default(), RetryBudget { percent, min });
            let mut retries = 0;
            for (takes, live) in steps {
                if takes {
                    let allowed = (retries + 1) as f64 <= f64::from(min).max((live as f64 * f64::from(percent) / 100.0).floor());
                    prop_assert_eq!(budget.take(&words, live), allowed);
                    retries += usize::from(allowed);
                } else if retries > 0 {
                    budget.give_back();
                    retries -= 1;
                }
                prop_assert_eq!(budget.in_flight(), retries);
            }
        }
    }
}
