//! Choosing one of several members by weight. Each way of choosing sees members through a weight that is 0 for those
//! that cannot be chosen, and tolerates that weights change while it looks: requests come and go meanwhile.

mod hash;
mod least_requests;
mod random;
mod round_robin;

use super::members::Member;
use crate::config::Balance;

/// Chooses a member with weight. `None` if there is none.
pub(crate) fn choose<'m>(
    balance: Balance,
    key: Option<u64>,
    members: &'m [Member],
    turn: &std::sync::atomic::AtomicUsize,
    weight: impl Fn(&Member) -> u32,
) -> Option<&'m Member> {
    match (balance, key) {
        (Balance::RoundRobin, _) => round_robin::choose(members, turn, weight),
        (Balance::LeastRequests, _) => least_requests::choose(members, weight),
        (Balance::Hash, Some(key)) => hash::choose(members, key, weight),
        (Balance::Random, _) | (Balance::Hash, None) => random::choose(members, weight),
    }
}

/// Whether all members that can be chosen weigh the same, and what they weigh together.
fn census(members: &[Member], weight: &impl Fn(&Member) -> u32) -> Census {
    let mut census = Census { count: 0, total: 0, equal: true };
    let mut first = 0;
    for member in members {
        let weight = weight(member);
        if weight == 0 {
            continue;
        }
        if census.count == 0 {
            first = weight;
        }
        census.equal &= weight == first;
        census.count += 1;
        census.total += u64::from(weight);
    }
    census
}

struct Census {
    count: usize,
    total: u64,
    equal: bool,
}

/// The nth member that can be chosen.
fn nth<'m>(members: &'m [Member], n: usize, weight: &impl Fn(&Member) -> u32) -> Option<&'m Member> {
    members.iter().filter(|member| weight(member) > 0).nth(n)
}

#[cfg(test)]
pub(crate) mod fixture {
    use std::sync::Arc;

    use super::super::endpoint::Endpoint;
    use super::super::members::Member;
    use super::super::targets::Rank;
    use super::super::transport::Transport;
    use crate::config::{Connections, Protocol};

    /// Members at 10.0.0.1:80, 10.0.0.2:80, .. with these weights.
    pub(crate) fn members(weights: &[u16]) -> Vec<Member> {
        let transport = Arc::new(Transport::new("test", Protocol::H1, None, None, &Connections::default()));
        let member = |(index, weight): (usize, &u16)| Member {
            endpoint: Arc::new(Endpoint::new("test", format!("10.0.0.{}:80", index + 1).parse().unwrap())),
            weight: *weight,
            rank: Rank { tier: 1, foreign: false },
            region: None,
            transport: transport.clone(),
            probe: None,
        };
        weights.iter().enumerate().map(member).collect()
    }

    pub(crate) fn position(members: &[Member], chosen: &Member) -> usize {
        members.iter().position(|member| Arc::ptr_eq(&member.endpoint, &chosen.endpoint)).unwrap()
    }
}
