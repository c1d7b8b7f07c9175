//! Each member in turn, by weight, smoothly: 5:1:1 gives a a b a c a a, not a a a a a b c.
//!
//! Equal weights rotate by one counter. Unequal ones keep an account per endpoint: a pick credits every member its weight
//! and charges the chosen one, the richest, the sum. The accounts are atomics without a lock around them: two picks at once
//! may choose in another order, but credits and charges are never lost, so shares stay exact.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::super::members::Member;
use super::{census, nth};

pub(super) fn choose<'m>(
    members: &'m [Member],
    turn: &AtomicUsize,
    weight: impl Fn(&Member) -> u32,
) -> Option<&'m Member> {
    let census = census(members, &weight);
    if census.count == 0 {
        return None;
    }
    if census.equal {
        let turn = turn.fetch_add(1, Ordering::Relaxed) % census.count;
        return nth(members, turn, &weight).or_else(|| nth(members, 0, &weight));
    }
    let mut richest: Option<(&Member, i64)> = None;
    let mut credited = 0;
    for member in members {
        let weight = i64::from(weight(member));
        if weight == 0 {
            continue;
        }
        credited += weight;
        let balance = member.endpoint.turn.fetch_add(weight, Ordering::Relaxed) + weight;
        if richest.is_none_or(|(_, most)| balance > most) {
            richest = Some((member, balance));
        }
    }
    let (chosen, _) = richest?;
    chosen.endpoint.turn.fetch_sub(credited, Ordering::Relaxed);
    Some(chosen)
}

#[cfg(test)]
mod tests {
    use super::super::fixture;
    use super::*;
    use proptest::prelude::*;

    fn rounds(weights: &[u16], picks: usize) -> Vec<usize> {
        let (members, turn) = (fixture::members(weights), AtomicUsize::new(0));
        let pick = |_| choose(&members, &turn, |member| member.weight.into());
        (0..picks).map(|n| fixture::position(&members, pick(n).unwrap())).collect()
    }

    #[test]
    fn rotates_and_spreads_the_heavy_one() {
        assert_eq!(rounds(&[1, 1, 1], 6), [0, 1, 2, 0, 1, 2]);
        assert_eq!(rounds(&[5, 1, 1], 7), [0, 0, 1, 0, 2, 0, 0]);
        assert_eq!(rounds(&[0, 1, 0], 3), [1, 1, 1]);
    }

    proptest! {
        /// Every window of (sum of weights) picks from the start holds each member exactly its weight in times.
        #[test]
        fn every_round_is_exact(weights in proptest::collection::vec(0u16..9, 1..7), rounds_of in 1usize..4) {
            let sum: usize = weights.iter().map(|weight| usize::from(*weight)).sum();
            prop_assume!(sum > 0);
            for round in rounds(&weights, sum * rounds_of).chunks(sum) {
                for (index, weight) in weights.iter().enumerate() {
                    let seen = round.iter().filter(|chosen| **chosen == index).count();
                    prop_assert_eq!(seen, usize::from(*weight));
                }
            }
        }
    }

    #[test]
    fn shares_stay_exact_when_threads_race() {
        let (members, turn) = (fixture::members(&[5, 2, 1]), AtomicUsize::new(0));
        let seen: [AtomicUsize; 3] = Default::default();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..2_000 {
                        let chosen = choose(&members, &turn, |member| member.weight.into()).unwrap();
                        seen[fixture::position(&members, chosen)].fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
        });
        for (seen, expected) in seen.iter().zip([5_000_usize, 2_000, 1_000]) {
            let seen = seen.load(Ordering::Relaxed);
            assert!(seen.abs_diff(expected) <= 40, "{seen} of {expected}");
        }
    }
}
