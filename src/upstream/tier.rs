//! Which members a pick may choose from: tiers in order, the own region first, and what panic makes of them.
//!
//! The first rank (tier and region) with a healthy member takes the traffic; the next one takes over when it has none.
//! Panic: if too few of that rank are healthy, and too few of the whole pool, the checks are believed less than the
//! endpoints: health is ignored. A healthy majority in another tier is the sign that the checks are right.

use std::ops::Range;

use super::members::{Ejects, Members};

/// Which members a pick may choose from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Plan {
    /// Healthy members of the ranks from this one on, in order.
    Healthy { from: usize },
    /// All members of the ranks from this one on, in order.
    Panic { from: usize },
    /// All members of all ranks alike: none is healthy.
    Everyone,
    /// None: nothing is healthy and panic is switched off, or there are no members.
    Nobody,
}

impl Members {
    pub(crate) fn plan(&self, now: u64) -> Plan {
        let Some(spec) = &self.spec else { return Plan::Nobody };
        let enough = |healthy: usize, of: usize| healthy * 100 >= usize::from(spec.panic_percent) * of;
        let (mut all, mut healthy, mut first) = (0, 0, None);
        for (index, rank) in self.ranks.iter().enumerate() {
            let (of, here) = self.census(rank, now);
            if here > 0 && first.is_none() {
                if enough(here, of) {
                    return Plan::Healthy { from: index };
                }
                first = Some(index);
            }
            all += of;
            healthy += here;
        }
        match first {
            Some(from) if enough(healthy, all) => Plan::Healthy { from },
            Some(from) => Plan::Panic { from },
            None if all == 0 || spec.panic_percent == 0 => Plan::Nobody,
            None => Plan::Everyone,
        }
    }

    /// Members with weight, and how many of them are healthy.
    fn census(&self, rank: &Range<usize>, now: u64) -> (usize, usize) {
        let ejects: Ejects = self.ejects();
        let members = self.list.get(rank.clone()).unwrap_or_default();
        members
            .iter()
            .filter(|member| member.weight > 0)
            .fold((0, 0), |(all, healthy), member| (all + 1, healthy + usize::from(member.is_healthy(ejects, now))))
    }
}
