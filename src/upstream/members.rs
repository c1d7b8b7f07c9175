//! The members of a pool at one moment: immutable, read by requests without a lock.

use std::ops::Range;
use std::sync::Arc;

use super::eject::WHOLE;
use super::endpoint::Endpoint;
use super::health::Probe;
use super::spec::Spec;
use super::targets::Rank;
use super::transport::Transport;

/// An endpoint as the newest spec uses it.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    pub(crate) endpoint: Arc<Endpoint>,
    pub(crate) weight: u16,
    pub(crate) rank: Rank,
    pub(crate) region: Option<Box<str>>,
    pub(crate) transport: Arc<Transport>,
    /// What active checks say. `None`: there are none.
    pub(crate) probe: Option<Arc<Probe>>,
}

/// All members, preferred ones first, with the spec they were made for.
#[derive(Debug, Default)]
pub(crate) struct Members {
    /// `None` until the pool is adopted.
    pub(crate) spec: Option<Arc<Spec>>,
    pub(crate) list: Vec<Member>,
    /// Members of the same rank stand together.
    pub(crate) ranks: Vec<Range<usize>>,
}

impl Member {
    /// Checks and, if the spec ejects, live requests speak for it.
    pub(crate) fn is_healthy(&self, ejects: Ejects, now: u64) -> bool {
        self.probe.as_ref().is_none_or(|probe| probe.is_healthy())
            && (ejects == Ejects::No || !self.endpoint.outlier.is_ejected(now))
    }

    /// Its weight for a pick that respects health: 0 while unhealthy, less than whole while it ramps back.
    pub(crate) fn healthy_weight(&self, ejects: Ejects, now: u64) -> u32 {
        if self.weight == 0 || !self.probe.as_ref().is_none_or(|probe| probe.is_healthy()) {
            return 0;
        }
        let share = if ejects == Ejects::Yes { self.endpoint.outlier.share(now) } else { WHOLE };
        u32::from(self.weight) * share
    }

    /// Its weight for a pick that ignores health.
    pub(crate) fn plain_weight(&self) -> u32 {
        u32::from(self.weight) * WHOLE
    }

    /// All requests that its connections may carry are in flight.
    pub(crate) fn is_full(&self) -> bool {
        self.endpoint.in_flight() >= self.endpoint.most_in_flight(&self.transport)
    }
}

/// Whether the spec ejects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ejects {
    Yes,
    No,
}

impl Members {
    pub(crate) fn new(spec: Arc<Spec>, mut list: Vec<Member>) -> Members {
        list.sort_by_key(|member| (member.rank, member.endpoint.address()));
        let mut ranks: Vec<Range<usize>> = Vec::new();
        let mut last = None;
        for (index, member) in list.iter().enumerate() {
            match ranks.last_mut() {
                Some(range) if last == Some(member.rank) => range.end = index + 1,
                _ => ranks.push(index..index + 1),
            }
            last = Some(member.rank);
        }
        Members { spec: Some(spec), list, ranks }
    }

    pub(crate) fn ejects(&self) -> Ejects {
        match &self.spec {
            Some(spec) if spec.eject.is_some() => Ejects::Yes,
            _ => Ejects::No,
        }
    }
}
