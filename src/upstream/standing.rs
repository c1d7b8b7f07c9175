//! What a pool follows: the names of its targets, the checks of its endpoints. Control work only; requests see the
//! members that come out of it.
//!
//! A name belongs to the pool, not to a spec: a change that keeps the name keeps its addresses, and its task. Whatever
//! changes (spec, addresses), the members are made anew from all of it, with the endpoints that were there already.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use serde::Serialize;
use tokio::sync::watch;

use super::address::Address;
use super::counters::count;
use super::endpoint::Endpoint;
use super::health::{Check, Checks, Known, Probe};
use super::members::{Member, Members};
use super::pool::Pool;
use super::resolve::{Answer, Answers, Resolver};
use super::spec::{Spec, Target};
use crate::tasks::{TaskGuard, Tasks};

/// What all pools share.
#[derive(Debug)]
pub(crate) struct Environment {
    pub(crate) resolver: Resolver,
    pub(crate) checks: Checks,
    pub(crate) tasks: Tasks,
}

/// The control side of a pool.
#[derive(Debug, Default)]
pub(crate) struct Standing {
    spec: Option<Arc<Spec>>,
    names: BTreeMap<NameKey, Following>,
}

/// A name as it is asked for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct NameKey {
    pub(crate) host: Box<str>,
    pub(crate) rooted: bool,
}

/// A name that is followed.
#[derive(Debug)]
struct Following {
    v6: Vec<IpAddr>,
    v4: Vec<IpAddr>,
    state: NameState,
    failure: Option<String>,
    answered: watch::Sender<bool>,
    _task: TaskGuard,
}

/// How the last resolution of a name ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum NameState {
    /// No answer yet.
    Asking,
    /// It has addresses.
    Resolved,
    /// It has none: NXDOMAIN, or no A and AAAA.
    Empty,
    /// Asking failed; the last good answer stands.
    Failing,
}

/// A name of a pool at one moment.
#[derive(Clone, Debug, Serialize)]
pub struct NameSnapshot {
    pub name: String,
    pub state: NameState,
    pub addresses: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
}

impl Pool {
    /// Begins to follow the names of a spec to come, without using it.
    pub(crate) fn prepare(self: &Arc<Self>, spec: &Spec, environment: &Arc<Environment>) -> Vec<watch::Receiver<bool>> {
        let mut standing = self.standing();
        let names: Vec<NameKey> = names(spec).collect();
        names.into_iter().map(|name| standing.follow(name, self, environment).answered.subscribe()).collect()
    }

    /// Uses a spec from now on.
    pub(crate) fn apply(self: &Arc<Self>, spec: &Arc<Spec>, environment: &Arc<Environment>) {
        let mut standing = self.standing();
        let wanted: Vec<NameKey> = names(spec).collect();
        for name in &wanted {
            standing.follow(name.clone(), self, environment);
        }
        standing.names.retain(|name, _| wanted.contains(name));
        standing.spec = Some(spec.clone());
        self.rebuild(&standing, environment);
    }

    /// Ends all tasks. Requests that still use the pool keep the members there are, as healthy as they were last seen.
    pub(crate) fn retire(&self) {
        let mut standing = self.standing();
        standing.names.clear();
        standing.spec = None;
        let members = self.members.load();
        if let Some(spec) = &members.spec {
            let without = |member: &Member| Member { probe: None, ..member.clone() };
            let healthy = |member: &&Member| member.probe.as_ref().is_none_or(|probe| probe.is_healthy());
            let mut list: Vec<Member> = members.list.iter().filter(healthy).map(without).collect();
            if list.is_empty() {
                list = members.list.iter().map(without).collect();
            }
            self.members.store(Arc::new(Members::new(spec.clone(), list)));
        }
        self.kept.retain(|_| false);
    }

    pub(crate) fn names(&self) -> Vec<NameSnapshot> {
        let snapshot = |(name, following): (&NameKey, &Following)| NameSnapshot {
            name: name.host.to_string(),
            state: following.state,
            addresses: following.v6.len() + following.v4.len(),
            failure: following.failure.clone(),
        };
        self.standing().names.iter().map(snapshot).collect()
    }

    /// Takes what the name servers said. False: nobody wants to know any more.
    fn answered(&self, name: &NameKey, answers: Answers, environment: &Environment) -> bool {
        let mut standing = self.standing();
        let Some(following) = standing.names.get_mut(name) else { return false };
        let before = (following.v6.clone(), following.v4.clone());
        let was = following.state;
        following.failure = None;
        for (family, answer) in [(&mut following.v6, answers.v6), (&mut following.v4, answers.v4)] {
            match answer {
                Answer::Addresses { addresses, .. } => *family = addresses,
                Answer::Empty { .. } => family.clear(),
                Answer::Failed { reason } => following.failure = Some(reason),
            }
        }
        let empty = following.v6.is_empty() && following.v4.is_empty();
        let (state, counter) = match (&following.failure, empty) {
            (Some(_), _) => (NameState::Failing, &self.counters.resolve_failures),
            (None, true) => (NameState::Empty, &self.counters.resolved_empty),
            (None, false) => (NameState::Resolved, &self.counters.resolved),
        };
        count(counter);
        following.state = state;
        let known = following.v6.len() + following.v4.len();
        let (upstream, host) = (self.name(), &name.host);
        match state {
            NameState::Failing if was != state => {
                let reason = following.failure.as_deref().unwrap_or_default();
                tracing::warn!(%upstream, %host, reason, addresses = known, "resolving fails; keeping the last answer");
            }
            NameState::Empty if was != state => tracing::warn!(%upstream, %host, "the name has no addresses"),
            NameState::Resolved if was != state => tracing::info!(%upstream, %host, addresses = known, "resolved"),
            _ => {}
        }
        let changed = before != (following.v6.clone(), following.v4.clone());
        following.answered.send_replace(true);
        if changed {
            self.rebuild(&standing, environment);
        }
        true
    }

    fn standing(&self) -> MutexGuard<'_, Standing> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the members anew. The caller holds the standing, so that one rebuild follows the other.
    fn rebuild(&self, standing: &Standing, environment: &Environment) {
        // Before it is adopted a pool has no members, however many addresses are known.
        let Some(spec) = &standing.spec else { return };
        let old = self.members.load();
        let mut list: Vec<Member> = Vec::new();
        let mut targets: Vec<&Target> = spec.targets.iter().collect();
        // An address that two targets have belongs to the preferred one.
        targets.sort_by_key(|target| target.rank);
        for target in targets {
            for address in standing.addresses(&target.address) {
                if list.iter().any(|member| member.endpoint.address() == address) {
                    continue;
                }
                let known = old.list.iter().find(|member| member.endpoint.address() == address);
                let endpoint = match known {
                    Some(member) => member.endpoint.clone(),
                    None => Arc::new(Endpoint::new(self.name(), address)),
                };
                let probe = probe(spec, target, address, known, environment);
                list.push(Member {
                    endpoint,
                    weight: target.weight,
                    rank: target.rank,
                    region: target.region.clone(),
                    transport: target.transport.clone(),
                    probe,
                });
            }
        }
        let members = Arc::new(Members::new(spec.clone(), list));
        self.kept.retain(|address| members.list.iter().any(|member| member.endpoint.address() == address));
        self.members.store(members);
    }
}

fn probe(
    spec: &Spec,
    target: &Target,
    address: SocketAddr,
    known: Option<&Member>,
    environment: &Environment,
) -> Option<Arc<Probe>> {
    let words = spec.health.clone()?;
    let known = known.and_then(|member| member.probe.as_ref()).map_or(Known::Nothing, |probe| probe.known());
    let authority = target.address.authority();
    let check = Check { address, words, authority, transport: target.transport.clone() };
    Some(environment.checks.probe(&environment.tasks, check, known))
}

fn names(spec: &Spec) -> impl Iterator<Item = NameKey> {
    spec.targets.iter().filter_map(|target| match &target.address {
        Address::Literal(_) => None,
        Address::Name { host, rooted, .. } => Some(NameKey { host: host.clone(), rooted: *rooted }),
    })
}

impl Standing {
    fn follow(&mut self, name: NameKey, pool: &Arc<Pool>, environment: &Arc<Environment>) -> &Following {
        self.names.entry(name.clone()).or_insert_with(|| Following {
            v6: Vec::new(),
            v4: Vec::new(),
            state: NameState::Asking,
            failure: None,
            answered: watch::Sender::new(false),
            _task: environment.tasks.spawn("resolve", follow(name, Arc::downgrade(pool), environment.clone())),
        })
    }

    fn addresses(&self, address: &Address) -> Vec<SocketAddr> {
        match address {
            Address::Literal(address) => vec![*address],
            Address::Name { host, port, rooted } => {
                let name = NameKey { host: host.clone(), rooted: *rooted };
                let Some(following) = self.names.get(&name) else { return Vec::new() };
                following.v6.iter().chain(&following.v4).map(|ip| SocketAddr::new(*ip, *port)).collect()
            }
        }
    }
}

/// Asks for a name whenever its answer runs out, until the pool is gone.
async fn follow(name: NameKey, pool: Weak<Pool>, environment: Arc<Environment>) {
    let mut failures = 0;
    loop {
        let answers = environment.resolver.lookup(&name.host, name.rooted).await;
        let (ttl, failed) = (answers.ttl(), answers.has_failed());
        failures = if failed { failures + 1 } else { 0 };
        let wanted = pool.upgrade().is_some_and(|pool| pool.answered(&name, answers, &environment));
        if !wanted {
            return;
        }
        let back_off = failed.then(|| environment.resolver.back_off(failures));
        let wait = ttl.into_iter().chain(back_off).min().unwrap_or(Duration::from_secs(1));
        tokio::time::sleep(wait).await;
    }
}
