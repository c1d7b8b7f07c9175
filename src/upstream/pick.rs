//! One pick: rank after rank until an endpoint has room.

use std::net::SocketAddr;
use std::sync::atomic::AtomicUsize;

use super::balance;
use super::members::{Ejects, Member, Members};
use super::spec::Spec;
use super::tier::Plan;

/// What a pick may choose from, and what it saw.
pub(crate) struct Pick<'p> {
    members: &'p Members,
    spec: &'p Spec,
    turn: &'p AtomicUsize,
    key: Option<u64>,
    now: u64,
    plan: Plan,
    ejects: Ejects,
    saw_full: bool,
}

impl<'p> Pick<'p> {
    pub(crate) fn new(
        members: &'p Members,
        spec: &'p Spec,
        turn: &'p AtomicUsize,
        key: Option<u64>,
        now: u64,
    ) -> Pick<'p> {
        let (plan, ejects) = (members.plan(now), members.ejects());
        Pick { members, spec, turn, key, now, plan, ejects, saw_full: false }
    }

    /// An endpoint that is not in `tried`, with its place in flight taken.
    pub(crate) fn among(&mut self, tried: &[SocketAddr]) -> Option<&'p Member> {
        let everyone = 0..self.members.list.len();
        let ranks = match self.plan {
            Plan::Nobody => return None,
            Plan::Everyone => std::slice::from_ref(&everyone),
            Plan::Healthy { from } | Plan::Panic { from } => self.members.ranks.get(from..).unwrap_or_default(),
        };
        for rank in ranks {
            let rank = self.members.list.get(rank.clone()).unwrap_or_default();
            // A place seen free may be taken by the time it is asked for; each round then sees one endpoint less.
            for _ in 0..=rank.len() {
                let weight = |member: &Member| self.weight(member, tried);
                let chosen = balance::choose(self.spec.balance, self.key, rank, self.turn, weight);
                let Some(member) = chosen else { break };
                if member.endpoint.enter(member.endpoint.most_in_flight(&member.transport)) {
                    return Some(member);
                }
            }
            self.saw_full |= rank.iter().any(|member| member.weight > 0 && member.is_full());
        }
        None
    }

    /// An endpoint would have been chosen but for its connection limit.
    pub(crate) fn saw_full(&self) -> bool {
        self.saw_full
    }

    /// Health was ignored.
    pub(crate) fn is_panic(&self) -> bool {
        matches!(self.plan, Plan::Panic { .. } | Plan::Everyone)
    }

    fn weight(&self, member: &Member, tried: &[SocketAddr]) -> u32 {
        if tried.contains(&member.endpoint.address()) || member.is_full() {
            return 0;
        }
        match self.plan {
            Plan::Healthy { .. } => member.healthy_weight(self.ejects, self.now),
            Plan::Panic { .. } | Plan::Everyone => member.plain_weight(),
            Plan::Nobody => 0,
        }
    }
}
