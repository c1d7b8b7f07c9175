//! An upstream as it is used: words compiled, every mistake named at its place. Pure: no name is resolved, nothing read.

use std::sync::Arc;
use std::time::Duration;

use super::address::{Address, is_host_name};
use super::targets::{Target, targets};
use super::tls::{Tls, Trust, is_symbolic};
use super::transport::Transport;
use crate::config::{self, Balance, HealthKind, Protocol};
use crate::facts::{Fact, UnknownFact};
use crate::problem::{Path, Problem};
use crate::proxy_protocol::Version;
use crate::scalar::Span;

/// An upstream, compiled.
#[derive(Debug)]
pub struct Spec {
    pub(crate) name: Arc<str>,
    /// The gateway's own.
    pub(crate) region: Option<Box<str>>,
    pub(crate) targets: Vec<Target>,
    pub(crate) balance: Balance,
    pub(crate) hash_by: Option<Fact>,
    pub(crate) sticky: Option<Sticky>,
    pub(crate) health: Option<Arc<config::Health>>,
    pub(crate) eject: Option<config::Eject>,
    pub(crate) breaker: Option<u32>,
    pub(crate) panic_percent: u8,
    pub(crate) retry_budget: config::RetryBudget,
}

/// The cookie that keeps a client on its endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sticky {
    pub cookie: String,
    pub max_age: Option<Duration>,
}

/// More failures than this are not remembered for an endpoint.
const EJECT_ERRORS_MAX: u32 = 1_000;

impl Spec {
    /// Compiles the words under `path` (`upstream.NAME`). `None` if there was an error. Text with references that are
    /// not resolved (`check`) is taken to be right.
    pub fn compile(
        name: &str,
        words: &config::Upstream,
        path: &Path,
        own_region: Option<&str>,
        problems: &mut Vec<Problem>,
    ) -> Option<Spec> {
        // Every word is named, so that a new one does not compile until it is honoured here.
        let config::Upstream {
            address,
            discover,
            balance,
            hash_by,
            sticky,
            protocol,
            tls,
            proxy_protocol,
            connections,
            health,
            eject,
            breaker,
            panic_percent,
            retry_budget,
        } = words;
        let mut found = Vec::new();
        let transports = Transports::compile(name, *protocol, tls.as_ref(), connections, path, &mut found).announcing(
            proxy_protocol.map(|version| match version {
                config::ProxyVersion::V1 => Version::V1,
                config::ProxyVersion::V2 => Version::V2,
            }),
        );
        let spec = Spec {
            name: name.into(),
            region: own_region.map(Into::into),
            targets: targets(address.as_ref(), discover.as_deref(), &transports, path, &mut found),
            balance: *balance,
            hash_by: hash_fact(*balance, hash_by.as_deref(), &path.at("hash_by"), &mut found),
            sticky: sticky.as_ref().map(|words| compile_sticky(words, &path.at("sticky"), &mut found)),
            health: health.as_ref().map(|words| {
                check_health(words, &path.at("health"), &mut found);
                Arc::new(words.clone())
            }),
            eject: eject.clone(),
            breaker: breaker.as_ref().map(|breaker| breaker.in_flight),
            panic_percent: *panic_percent,
            retry_budget: retry_budget.clone(),
        };
        if proxy_protocol.is_some() && connections.max > 0 {
            let message = "each client has connections of its own here: a bound on all of them would lock clients out";
            let problem = Problem::error(path.at("connections").at("max"), message);
            found.push(problem.help("bound requests with `breaker` instead"));
        }
        check_name(name, path, &mut found);
        check_numbers(words, path, &mut found);
        let failed = found.iter().any(Problem::is_error);
        problems.append(&mut found);
        (!failed).then_some(spec)
    }

    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// The fact whose value is the key of `Pool::pick` (through `hash_key`), if one is wanted.
    pub fn hash_by(&self) -> Option<&Fact> {
        self.hash_by.as_ref()
    }

    pub fn sticky(&self) -> Option<&Sticky> {
        self.sticky.as_ref()
    }

    pub fn balance(&self) -> Balance {
        self.balance
    }

    /// The addresses as they were written, for `explain` and diagrams.
    pub fn addresses(&self) -> impl Iterator<Item = String> {
        self.targets.iter().map(|target| target.address.to_string())
    }
}

/// Makes the transport of each target: one per server name.
pub(super) struct Transports<'w> {
    pool: &'w str,
    protocol: Protocol,
    tls: Option<(Trust, Option<&'w str>)>,
    connections: &'w config::Connections,
    tls_path: Path,
    announces: Option<Version>,
}

impl<'w> Transports<'w> {
    fn compile(
        pool: &'w str,
        protocol: Protocol,
        tls: Option<&'w config::UpstreamTls>,
        connections: &'w config::Connections,
        path: &Path,
        problems: &mut Vec<Problem>,
    ) -> Transports<'w> {
        let tls_path = path.at("tls");
        if protocol == Protocol::Auto && tls.is_none() {
            problems.push(
                Problem::error(path.at("protocol"), "`auto` needs `tls`: without it nothing is negotiated")
                    .help("write `tls = {}`, or `h1` or `h2`"),
            );
        }
        let tls = tls.map(|words| {
            if let Some(name) = words.server_name.as_deref()
                && !is_symbolic(name)
                && name.parse::<std::net::IpAddr>().is_err()
                && !is_host_name(name)
            {
                let message = format!("`{name}` is neither a host name nor an IP address");
                problems.push(Problem::error(tls_path.at("server_name"), message));
            }
            (Trust::compile(words, &tls_path, problems), words.server_name.as_deref())
        });
        Transports { pool, protocol, tls, connections, tls_path, announces: None }
    }

    /// With a PROXY header before everything else.
    fn announcing(self, announces: Option<Version>) -> Transports<'w> {
        Transports { announces, ..self }
    }

    pub(super) fn of(&self, address: &Address, problems: &mut Vec<Problem>) -> Arc<Transport> {
        let tls = self.tls.as_ref().map(|(trust, server_name)| {
            if server_name.is_none() && !matches!(address, Address::Name { .. }) {
                let message = format!("the certificate of {address} needs a name to be verified against");
                let problem = Problem::error(self.tls_path.clone(), message);
                problems.push(problem.help("write `server_name = \"..\"`"));
            }
            let name = server_name.map_or_else(|| address.host(), str::to_owned);
            Arc::new(Tls::new(name, trust.clone(), self.protocol))
        });
        Arc::new(Transport::new(self.pool, self.protocol, tls, self.announces, self.connections))
    }
}

fn hash_fact(balance: Balance, words: Option<&str>, path: &Path, problems: &mut Vec<Problem>) -> Option<Fact> {
    match (balance, words) {
        (Balance::Hash, None) => Some(Fact::ClientIp),
        (Balance::Hash, Some(words)) if is_symbolic(words) => None,
        (Balance::Hash, Some(words)) => match words.parse() {
            Ok(fact) => Some(fact),
            Err(error) => {
                let error: UnknownFact = error;
                problems.push(Problem::error(path.clone(), error.to_string()).help(UnknownFact::HELP));
                None
            }
        },
        (_, None) => None,
        (_, Some(_)) => {
            let problem = Problem::error(path.clone(), "`hash_by` has no effect with this `balance`");
            problems.push(problem.help("write `balance = \"hash\"`"));
            None
        }
    }
}

fn compile_sticky(words: &config::StickyCookie, path: &Path, problems: &mut Vec<Problem>) -> Sticky {
    let config::StickyCookie { cookie, max_age } = words;
    if !is_symbolic(cookie) && !is_token(cookie) {
        let problem = Problem::error(path.at("cookie"), format!("`{cookie}` is not a cookie name"));
        problems.push(problem.help("letters, digits and !#$%&'*+-.^_`|~ (RFC 6265 4.1.1)"));
    }
    if let Some(max_age) = max_age {
        above_zero(*max_age, path.at("max_age"), problems);
    }
    Sticky { cookie: cookie.clone(), max_age: max_age.map(|span| span.0) }
}

/// RFC 9110 5.6.2
fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

fn check_name(name: &str, path: &Path, problems: &mut Vec<Problem>) {
    let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if name.is_empty() || name.len() > 64 || !name.bytes().all(legal) {
        problems.push(
            Problem::error(path.clone(), format!("`{name}` is not a name"))
                .help("letters, digits, `-`, `_` and `.`; 64 at most"),
        );
    }
}

fn check_health(words: &config::Health, path: &Path, problems: &mut Vec<Problem>) {
    let config::Health { kind, path: target, host, service, expect, every, timeout, rise, fall } = words;
    let only = |word: &str, kinds: &str| Problem::error(path.at(word), format!("`{word}` is for `kind = {kinds}`"));
    if !is_symbolic(target) && (!target.starts_with('/') || target.parse::<http::uri::PathAndQuery>().is_err()) {
        problems.push(Problem::error(path.at("path"), format!("`{target}` is not a path")).help("it begins with `/`"));
    }
    if let Some(host) = host {
        if *kind == HealthKind::Tcp {
            problems.push(only("host", "http` or `grpc"));
        } else if !is_symbolic(host) && host.parse::<http::uri::Authority>().is_err() {
            problems.push(Problem::error(path.at("host"), format!("`{host}` is not a host")));
        }
    }
    if service.is_some() && *kind != HealthKind::Grpc {
        problems.push(only("service", "grpc"));
    }
    if !expect.is_empty() && *kind != HealthKind::Http {
        problems.push(only("expect", "http"));
    }
    for status in expect.iter().filter(|status| !(100..=599).contains(*status)) {
        problems.push(Problem::error(path.at("expect"), format!("{status} is not a status")).help("100 to 599"));
    }
    above_zero(*every, path.at("every"), problems);
    above_zero(*timeout, path.at("timeout"), problems);
    at_least_one(*rise, path.at("rise"), problems);
    at_least_one(*fall, path.at("fall"), problems);
}

fn check_numbers(words: &config::Upstream, path: &Path, problems: &mut Vec<Problem>) {
    let connections = path.at("connections");
    above_zero(words.connections.idle, connections.at("idle"), problems);
    above_zero(words.connections.max_age, connections.at("max_age"), problems);
    at_least_one(words.connections.streams, connections.at("streams"), problems);
    if let Some(config::Eject { errors, within, period }) = &words.eject {
        let path = path.at("eject");
        at_least_one(*errors, path.at("errors"), problems);
        at_most(*errors, EJECT_ERRORS_MAX, path.at("errors"), problems);
        above_zero(*within, path.at("within"), problems);
        above_zero(*period, path.at("for"), problems);
    }
    if let Some(breaker) = &words.breaker {
        at_least_one(breaker.in_flight, path.at("breaker").at("in_flight"), problems);
    }
    at_most(words.panic_percent.into(), 100, path.at("panic_percent"), problems);
    at_most(words.retry_budget.percent, 100, path.at("retry_budget").at("percent"), problems);
}

fn above_zero(span: Span, path: Path, problems: &mut Vec<Problem>) {
    if span.0.is_zero() {
        problems.push(Problem::error(path, "a duration of zero has no meaning here"));
    }
}

fn at_least_one(number: u32, path: Path, problems: &mut Vec<Problem>) {
    if number == 0 {
        problems.push(Problem::error(path, "0 has no meaning here").help("1 or more"));
    }
}

fn at_most(number: u32, most: u32, path: Path, problems: &mut Vec<Problem>) {
    if number > most {
        problems.push(Problem::error(path, format!("{number} is more than {most}")));
    }
}
