//! The same key goes to the same member: weighted rendezvous hashing.
//!
//! Each member scores the key; the highest score has it. A member that leaves gives up exactly its own keys, one that
//! comes takes only what it will keep, and weights (a ramp too) move keys in proportion. No ring has to be rebuilt.

use super::super::members::Member;

pub(super) fn choose(members: &[Member], key: u64, weight: impl Fn(&Member) -> u32) -> Option<&Member> {
    let mut best: Option<(&Member, f64)> = None;
    for member in members {
        let weight = weight(member);
        if weight == 0 {
            continue;
        }
        let score = score(key, member.endpoint.token().0, weight);
        if best.is_none_or(|(_, most)| score > most) {
            best = Some((member, score));
        }
    }
    best.map(|(member, _)| member)
}

/// weight / -ln(u) with u uniform in (0, 1): the highest of such scores is each member's with probability by weight.
fn score(key: u64, member: u64, weight: u32) -> f64 {
    let bits = mix(key ^ mix(member)) >> 11;
    let uniform = (bits as f64 + 0.5) / (1_u64 << 53) as f64;
    f64::from(weight) / -uniform.ln()
}

/// The finaliser of SplitMix64: every bit of the input moves half of those of the output.
fn mix(mut bits: u64) -> u64 {
    bits = bits.wrapping_add(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests {
    use super::super::fixture;
    use super::*;
    use proptest::prelude::*;

    const KEYS: u64 = 4_000;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        /// Losing one of n moves only its own keys, at most 1/n + 5 % of all.
        #[test]
        fn losing_one_moves_only_its_keys(n in 2usize..12, lost in 0usize..12, seed in any::<u64>()) {
            let members = fixture::members(&vec![1; n]);
            let lost = &members[lost % n].endpoint;
            let mut moved = 0;
            for key in (0..KEYS).map(|key| mix(key ^ seed)) {
                let before = choose(&members, key, |_| 1).unwrap();
                let after = choose(&members, key, |member| u32::from(!std::sync::Arc::ptr_eq(&member.endpoint, lost)));
                if std::sync::Arc::ptr_eq(&before.endpoint, lost) {
                    moved += 1;
                } else {
                    prop_assert_eq!(before.endpoint.address(), after.unwrap().endpoint.address());
                }
            }
            prop_assert!(f64::from(moved) <= KEYS as f64 * (1.0 / n as f64 + 0.05), "{} of {} moved", moved, KEYS);
            prop_assert!(moved > 0);
        }
    }

    #[test]
    fn shares_keys_by_weight() {
        let members = fixture::members(&[6, 3, 1, 0]);
        let mut seen = [0_u32; 4];
        for key in 0..20_000 {
            let chosen = choose(&members, key, |member| member.weight.into()).unwrap();
            seen[fixture::position(&members, chosen)] += 1;
        }
        for (seen, expected) in seen.iter().zip([12_000_u32, 6_000, 2_000, 0]) {
            assert!(seen.abs_diff(expected) <= 400, "{seen} of {expected}");
        }
    }
}
