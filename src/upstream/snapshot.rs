//! What a pool looks like at one moment, for `/upstreams`, metrics and logs.

use serde::Serialize;

use super::counters::Counts;
use super::eject::WHOLE;
use super::pool::Pool;
use super::standing::NameSnapshot;
use crate::config::{Balance, Protocol};

/// A pool at one moment.
#[derive(Clone, Debug, Serialize)]
pub struct PoolSnapshot {
    pub name: String,
    pub balance: Option<Balance>,
    /// Requests in flight, retries included.
    pub in_flight: usize,
    pub retries_in_flight: usize,
    /// Preferred ones first.
    pub endpoints: Vec<EndpointSnapshot>,
    /// Names that are followed.
    pub names: Vec<NameSnapshot>,
    pub counts: Counts,
}

/// An endpoint at one moment.
#[derive(Clone, Debug, Serialize)]
pub struct EndpointSnapshot {
    pub address: String,
    pub state: EndpointState,
    pub weight: u16,
    pub tier: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    pub protocol: Protocol,
    pub in_flight: usize,
    pub connections: usize,
    /// Requests since the endpoint is known.
    pub requests: u64,
    /// Of which failed by its fault.
    pub failures: u64,
    /// Milliseconds until its ejection ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ejected_ms: Option<u64>,
    /// Active checks that passed and failed.
    pub checks_passed: u64,
    pub checks_failed: u64,
    /// Why its last check failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub check_failure: Option<String>,
}

/// Whether an endpoint gets requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum EndpointState {
    /// Checks pass, or there are none.
    Healthy,
    /// It comes back from an ejection with less than its weight.
    Ramping,
    /// Live requests failed.
    Ejected,
    /// Checks fail.
    Unhealthy,
}

impl Pool {
    pub fn snapshot(&self) -> PoolSnapshot {
        let (members, now) = (self.members.load(), self.now());
        let ejects = members.ejects();
        let checks = |member: &super::members::Member| member.probe.as_ref().map_or((0, 0), |probe| probe.counts());
        let endpoint = |member: &super::members::Member| {
            let endpoint = &member.endpoint;
            let share = member.healthy_weight(ejects, now);
            let checks_pass = member.probe.as_ref().is_none_or(|probe| probe.is_healthy());
            EndpointSnapshot {
                address: endpoint.address().to_string(),
                state: match checks_pass {
                    false => EndpointState::Unhealthy,
                    true if !member.is_healthy(ejects, now) => EndpointState::Ejected,
                    true if share < u32::from(member.weight) * WHOLE => EndpointState::Ramping,
                    true => EndpointState::Healthy,
                },
                weight: member.weight,
                tier: member.rank.tier,
                region: member.region.as_deref().map(str::to_owned),
                protocol: member.transport.protocol,
                in_flight: endpoint.in_flight(),
                connections: endpoint.connections(),
                requests: endpoint.requests.load(std::sync::atomic::Ordering::Relaxed),
                failures: endpoint.failures.load(std::sync::atomic::Ordering::Relaxed),
                ejected_ms: Some(endpoint.outlier.remaining(now)).filter(|ms| *ms > 0),
                checks_passed: checks(member).0,
                checks_failed: checks(member).1,
                check_failure: member.probe.as_ref().and_then(|probe| probe.failure()),
            }
        };
        PoolSnapshot {
            name: self.name().to_string(),
            balance: members.spec.as_ref().map(|spec| spec.balance),
            in_flight: self.in_flight(),
            retries_in_flight: self.budget().in_flight(),
            endpoints: members.list.iter().map(endpoint).collect(),
            names: self.names(),
            counts: self.counters.snapshot(),
        }
    }
}
