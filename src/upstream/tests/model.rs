//! Any pool, any state, any balance: a pick is one that a naive reading of the rules allows.

use std::net::SocketAddr;

use proptest::prelude::*;

use super::super::PickError;
use super::{adopt_spec, pools, spec_in};
use crate::config::Eject;
use crate::scalar::Span;

#[derive(Clone, Debug)]
struct Target {
    weight: u16,
    tier: u8,
    own: bool,
    ejected: bool,
    tried: bool,
    full: bool,
}

fn targets() -> impl Strategy<Value = Vec<Target>> {
    let target = (0u16..3, 1u8..4, any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>());
    let target =
        target.prop_map(|(weight, tier, own, ejected, tried, full)| Target { weight, tier, own, ejected, tried, full });
    proptest::collection::vec(target, 1..7).prop_filter("some weight", |all| all.iter().any(|one| one.weight > 0))
}

/// Which targets may be picked: the rules, one after the other.
fn allowed(all: &[Target], panic_percent: usize) -> Vec<usize> {
    let weighty = |n: &usize| all[*n].weight > 0;
    let rank = |n: usize| (all[n].tier, !all[n].own);
    let mut ranks: Vec<_> = (0..all.len()).filter(weighty).map(rank).collect();
    ranks.sort();
    ranks.dedup();
    let of = |wanted: Option<_>| (0..all.len()).filter(weighty).filter(move |n| wanted.is_none_or(|w| rank(*n) == w));
    let enough = |wanted| of(wanted).filter(|n| !all[*n].ejected).count() * 100 >= panic_percent * of(wanted).count();
    let first = ranks.iter().position(|r| of(Some(*r)).any(|n| !all[n].ejected));
    let groups: Vec<Vec<usize>> = match first {
        None if panic_percent == 0 => vec![],
        None => vec![of(None).collect()],
        Some(first) => {
            let panic = !enough(Some(ranks[first])) && !enough(None);
            ranks[first..].iter().map(|r| of(Some(*r)).filter(|n| panic || !all[*n].ejected).collect()).collect()
        }
    };
    for tried_too in [false, true] {
        for group in &groups {
            let free = |n: &usize| !all[*n].full && (tried_too || !all[*n].tried);
            let free: Vec<usize> = group.iter().copied().filter(|n| free(n)).collect();
            if !free.is_empty() {
                return free;
            }
        }
    }
    vec![]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn a_pick_is_one_the_rules_allow(
        all in targets(),
        panic_percent in prop_oneof![Just(0usize), Just(50), Just(100), 0usize..=100],
        balance in prop_oneof![Just("round_robin"), Just("least_requests"), Just("random"), Just("hash")],
        key in any::<Option<u64>>(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let _inside = runtime.enter();
        let address = |n: usize| SocketAddr::from(([127, 0, 0, 1], n as u16 + 1));
        let target = |(n, one): (usize, &Target)| {
            let region = if one.own { "here" } else { "there" };
            format!("{{ to = '{}', weight = {}, tier = {}, region = '{region}' }}", address(n), one.weight, one.tier)
        };
        let targets: Vec<String> = all.iter().enumerate().map(target).collect();
        let text = format!(
            "balance = '{balance}'\npanic_percent = {panic_percent}\neject = {{}}\nconnections = {{ max = 1 }}\naddress = [{}]",
            targets.join(", ")
        );
        let pools = pools();
        let pool = adopt_spec(&pools, &spec_in(&text, Some("here")));
        let hour = Eject { errors: 1, within: Span::from_secs(1), period: Span::from_secs(3_600) };
        for member in &pool.members.load().list {
            let one = &all[usize::from(member.endpoint.address().port()) - 1];
            if one.ejected {
                member.endpoint.outlier.eject(&hour, pool.now());
            }
            if one.full {
                assert!(member.endpoint.enter(1));
            }
        }
        let tried: Vec<SocketAddr> = (0..all.len()).filter(|n| all[*n].tried).map(address).collect();
        let allowed = allowed(&all, panic_percent);
        for _ in 0..4 {
            match pool.pick(key, &tried) {
                Ok(lease) => prop_assert!(allowed.contains(&(usize::from(lease.address().port()) - 1)), "{:?}", lease.address()),
                Err(PickError::NoEndpoint | PickError::ConnectionLimit) => prop_assert!(allowed.is_empty(), "{allowed:?}"),
                Err(error) => prop_assert!(false, "{error}"),
            }
        }
        prop_assert_eq!(pool.in_flight(), 0);
    }
}
