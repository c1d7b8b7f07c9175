//! Of two members drawn at random, the one with fewer requests in flight for its weight.
//!
//! Drawing is by weight, so that an idle pool shares by weight too. Equal members are drawn without putting the first
//! back (two real choices); unequal ones with, or a light member would be compared in every pick of a small pool and get
//! far more than its share while there is little traffic.

use super::super::members::Member;
use super::random::draw;
use super::{census, nth};

pub(super) fn choose(members: &[Member], weight: impl Fn(&Member) -> u32) -> Option<&Member> {
    let census = census(members, &weight);
    let (one, two) = match census.count {
        0 => return None,
        1 => return nth(members, 0, &weight),
        count if census.equal => {
            let one = fastrand::usize(..count);
            let two = (one + 1 + fastrand::usize(..count - 1)) % count;
            (nth(members, one, &weight), nth(members, two, &weight))
        }
        _ => (draw(members, census.total, &weight), draw(members, census.total, &weight)),
    };
    let (Some(one), Some(two)) = (one, two) else { return one.or(two).or_else(|| nth(members, 0, &weight)) };
    // a/weight(one) <= b/weight(two), without the division
    let load = |member: &Member, other: &Member| member.endpoint.in_flight() as u64 * u64::from(weight(other).max(1));
    Some(if load(one, two) <= load(two, one) { one } else { two })
}

#[cfg(test)]
mod tests {
    use super::super::fixture;
    use super::*;

    #[test]
    fn of_two_takes_the_less_loaded_for_its_weight() {
        let members = fixture::members(&[1, 1]);
        assert!(members[0].endpoint.enter(usize::MAX));
        for _ in 0..50 {
            let chosen = choose(&members, |member| member.weight.into()).unwrap();
            assert_eq!(fixture::position(&members, chosen), 1);
        }
    }

    /// Requests that last: the member in flight counts end up in the ratio of the weights.
    #[test]
    fn fills_members_by_weight() {
        fastrand::seed(3);
        let members = fixture::members(&[4, 2, 1, 0]);
        for _ in 0..7_000 {
            let chosen = choose(&members, |member| member.weight.into()).unwrap();
            assert!(chosen.endpoint.enter(usize::MAX));
        }
        for (member, expected) in members.iter().zip([4_000_usize, 2_000, 1_000, 0]) {
            let seen = member.endpoint.in_flight();
            assert!(seen.abs_diff(expected) <= expected / 20, "{seen} of {expected}");
        }
    }

    #[test]
    fn shares_by_weight_while_idle() {
        fastrand::seed(5);
        let members = fixture::members(&[9, 1]);
        let light = (0..10_000)
            .filter(|_| fixture::position(&members, choose(&members, |member| member.weight.into()).unwrap()) == 1)
            .count();
        assert!((900..1_100).contains(&light), "{light}");
    }
}
