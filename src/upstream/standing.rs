//! What a pool follows: the names of its targets, the services that register themselves, the checks of its endpoints.
//! Control work only; requests see the members that come out of it.
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
use super::pools::Discovery;
use super::resolve::{Answer, Answers, Resolver};
use super::spec::Spec;
use super::targets::{Rank, Target};
use crate::bus::found::{Endpoints, Registration, Told};
use crate::tasks::{TaskGuard, Tasks};

/// What all pools share.
#[derive(Debug)]
pub(crate) struct Environment {
    pub(crate) resolver: Resolver,
    pub(crate) discovery: Option<Discovery>,
    pub(crate) checks: Checks,
    pub(crate) tasks: Tasks,
}

/// The control side of a pool.
#[derive(Debug, Default)]
pub(crate) struct Standing {
    spec: Option<Arc<Spec>>,
    names: BTreeMap<Name, Following>,
}

/// What stands for endpoints that come and go.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Name {
    /// In DNS, as it is asked for.
    Host { host: Box<str>, rooted: bool },
    /// On the bus.
    Service(Box<str>),
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Name::Host { host, .. } => f.write_str(host),
            Name::Service(service) => write!(f, "bus:{service}"),
        }
    }
}

/// A name that is followed.
#[derive(Debug)]
struct Following {
    known: Addresses,
    state: NameState,
    failure: Option<String>,
    answered: watch::Sender<bool>,
    _task: TaskGuard,
}

/// What a name stands for, as it was told last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Addresses {
    v6: Vec<IpAddr>,
    v4: Vec<IpAddr>,
    registered: Vec<Registration>,
}

impl Addresses {
    fn len(&self) -> usize {
        self.v6.len() + self.v4.len() + self.registered.len()
    }
}

/// An endpoint that is to be, and what is said of it.
struct Place<'a> {
    target: &'a Target,
    address: SocketAddr,
    weight: u16,
    rank: Rank,
    region: Option<&'a str>,
}

/// How it went when a name was looked up last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum NameState {
    /// No answer yet.
    Asking,
    /// It has addresses.
    Resolved,
    /// It has none: NXDOMAIN, no A and AAAA, or nobody registered.
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
        let names: Vec<Name> = names(spec).collect();
        names.into_iter().map(|name| standing.follow(name, self, environment).answered.subscribe()).collect()
    }

    /// Uses a spec from now on.
    pub(crate) fn apply(self: &Arc<Self>, spec: &Arc<Spec>, environment: &Arc<Environment>) {
        let mut standing = self.standing();
        let wanted: Vec<Name> = names(spec).collect();
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
        let snapshot = |(name, following): (&Name, &Following)| NameSnapshot {
            name: name.to_string(),
            state: following.state,
            addresses: following.known.len(),
            failure: following.failure.clone(),
        };
        self.standing().names.iter().map(snapshot).collect()
    }

    /// Takes what the name servers said. False: nobody wants to know any more.
    fn answered(&self, name: &Name, answers: Answers, environment: &Environment) -> bool {
        self.learned(name, environment, |known| {
            let mut failure = None;
            for (family, answer) in [(&mut known.v6, answers.v6), (&mut known.v4, answers.v4)] {
                match answer {
                    Answer::Addresses { addresses, .. } => *family = addresses,
                    Answer::Empty { .. } => family.clear(),
                    Answer::Failed { reason } => failure = Some(reason),
                }
            }
            failure
        })
    }

    /// Takes what is registered under the name of a service. False: nobody wants to know any more.
    fn told(&self, name: &Name, told: Told, environment: &Environment) -> bool {
        self.learned(name, environment, |known| match told {
            Told::Endpoints(registered) => {
                known.registered = registered;
                None
            }
            Told::Lost(reason) => Some(reason),
        })
    }

    /// `learn` returns why something could not be learned, if so.
    fn learned(
        &self,
        name: &Name,
        environment: &Environment,
        learn: impl FnOnce(&mut Addresses) -> Option<String>,
    ) -> bool {
        let mut standing = self.standing();
        let Some(following) = standing.names.get_mut(name) else { return false };
        let (before, was) = (following.known.clone(), following.state);
        following.failure = learn(&mut following.known);
        let empty = following.known.len() == 0;
        let (state, counter) = match (&following.failure, empty) {
            (Some(_), _) => (NameState::Failing, &self.counters.resolve_failures),
            (None, true) => (NameState::Empty, &self.counters.resolved_empty),
            (None, false) => (NameState::Resolved, &self.counters.resolved),
        };
        count(counter);
        following.state = state;
        let known = following.known.len();
        let (upstream, host) = (self.name(), name);
        match state {
            NameState::Failing if was != state => {
                let reason = following.failure.as_deref().unwrap_or_default();
                tracing::warn!(%upstream, %host, reason, addresses = known, "it cannot be looked up; keeping the last answer");
            }
            NameState::Empty if was != state => tracing::warn!(%upstream, %host, "the name has no addresses"),
            NameState::Resolved if was != state => tracing::info!(%upstream, %host, addresses = known, "resolved"),
            _ => {}
        }
        let changed = before != following.known;
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
        let mut places: Vec<Place<'_>> = spec.targets.iter().flat_map(|target| standing.places(spec, target)).collect();
        // An address that two targets have belongs to the preferred one.
        places.sort_by_key(|place| place.rank);
        for Place { target, address, weight, rank, region } in places {
            if list.iter().any(|member| member.endpoint.address() == address) {
                continue;
            }
            let known = old.list.iter().find(|member| member.endpoint.address() == address);
            let endpoint = match known {
                Some(member) => member.endpoint.clone(),
                None => Arc::new(Endpoint::new(self.name(), address)),
            };
            let probe = probe(spec, target, address, known, environment);
            let (region, transport) = (region.map(Into::into), target.transport.clone());
            list.push(Member { endpoint, weight, rank, region, transport, probe });
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
    let authority = target.address.authority(address);
    let check = Check { address, words, authority, transport: target.transport.clone() };
    Some(environment.checks.probe(&environment.tasks, check, known))
}

fn names(spec: &Spec) -> impl Iterator<Item = Name> {
    spec.targets.iter().filter_map(|target| name(&target.address))
}

/// What is followed for an address, if anything is.
fn name(address: &Address) -> Option<Name> {
    match address {
        Address::Literal(_) => None,
        Address::Name { host, rooted, .. } => Some(Name::Host { host: host.clone(), rooted: *rooted }),
        Address::Found { service } => Some(Name::Service(service.clone())),
    }
}

impl Standing {
    fn follow(&mut self, name: Name, pool: &Arc<Pool>, environment: &Arc<Environment>) -> &Following {
        self.names.entry(name.clone()).or_insert_with(|| {
            let (pool, environment) = (Arc::downgrade(pool), environment.clone());
            let tasks = environment.tasks.clone();
            Following {
                known: Addresses::default(),
                state: NameState::Asking,
                failure: None,
                answered: watch::Sender::new(false),
                _task: match name {
                    Name::Host { host, rooted } => tasks.spawn("resolve", resolve(host, rooted, pool, environment)),
                    Name::Service(service) => tasks.spawn("discover", discover(service, pool, environment)),
                },
            }
        })
    }

    fn places<'a>(&'a self, spec: &'a Spec, target: &'a Target) -> Vec<Place<'a>> {
        let rank = |region| Rank::of(target.tier, region, spec.region.as_deref());
        let region = target.region.as_deref();
        let at = |address| Place { target, address, weight: target.weight, rank: rank(region), region };
        let known = name(&target.address).and_then(|name| self.names.get(&name)).map(|following| &following.known);
        match (&target.address, known) {
            (Address::Literal(address), _) => vec![at(*address)],
            (Address::Name { port, .. }, Some(known)) => {
                known.v6.iter().chain(&known.v4).map(|ip| at(SocketAddr::new(*ip, *port))).collect()
            }
            (Address::Found { .. }, Some(known)) => {
                let place = |registered: &'a Registration| {
                    let region = registered.region.as_deref();
                    let (weight, rank) = (registered.weight, rank(region));
                    Place { target, address: registered.address, weight, rank, region }
                };
                known.registered.iter().map(place).collect()
            }
            (Address::Name { .. } | Address::Found { .. }, None) => Vec::new(),
        }
    }
}

/// Asks for a name whenever its answer runs out, until the pool is gone.
async fn resolve(host: Box<str>, rooted: bool, pool: Weak<Pool>, environment: Arc<Environment>) {
    let name = Name::Host { host: host.clone(), rooted };
    let mut failures = 0;
    loop {
        let answers = environment.resolver.lookup(&host, rooted).await;
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

/// Takes what registers itself under a name, until the pool is gone.
async fn discover(service: Box<str>, pool: Weak<Pool>, environment: Arc<Environment>) {
    let Some(Discovery { bus, bucket, local }) = &environment.discovery else {
        // The document was refused, or nobody could know.
        let lost = Told::Lost("this gateway is on no bus".to_owned());
        if let Some(pool) = pool.upgrade() {
            pool.told(&Name::Service(service), lost, &environment);
        }
        return;
    };
    let mut endpoints = Endpoints::of(bus, bucket, &service, *local);
    let name = Name::Service(service);
    loop {
        let told = endpoints.next().await;
        if !pool.upgrade().is_some_and(|pool| pool.told(&name, told, &environment)) {
            return;
        }
    }
}
