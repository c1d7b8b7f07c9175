//! Any member, by weight.

use super::super::members::Member;
use super::{census, nth};

pub(super) fn choose(members: &[Member], weight: impl Fn(&Member) -> u32) -> Option<&Member> {
    let census = census(members, &weight);
    if census.count == 0 {
        return None;
    }
    if census.equal {
        return nth(members, fastrand::usize(..census.count), &weight).or_else(|| nth(members, 0, &weight));
    }
    draw(members, census.total, &weight)
}

/// A member at random by weight, of `total` in all.
pub(super) fn draw<'m>(members: &'m [Member], total: u64, weight: &impl Fn(&Member) -> u32) -> Option<&'m Member> {
    let mut left = fastrand::u64(..total.max(1));
    let mut last = None;
    for member in members {
        let weight = u64::from(weight(member));
        if weight == 0 {
            continue;
        }
        if left < weight {
            return Some(member);
        }
        left -= weight;
        last = Some(member);
    }
    last
}

#[cfg(test)]
mod tests {
    use super::super::fixture;
    use super::*;

    #[test]
    fn shares_by_weight_and_gives_nothing_to_weight_zero() {
        let members = fixture::members(&[6, 3, 0, 1]);
        fastrand::seed(7);
        let mut seen = [0_u32; 4];
        for _ in 0..20_000 {
            let chosen = choose(&members, |member| u32::from(member.weight)).unwrap();
            seen[fixture::position(&members, chosen)] += 1;
        }
        for (seen, expected) in seen.iter().zip([12_000_u32, 6_000, 0, 2_000]) {
            assert!(seen.abs_diff(expected) <= 300 && (expected > 0 || *seen == 0), "{seen} of {expected}");
        }
        assert!(choose(&members, |_| 0).is_none());
    }
}
