//! Names into addresses, off the request path.
//!
//! Three kinds of answer are kept apart, because they mean different things: addresses; none (NXDOMAIN, or no data of the
//! type), which takes the endpoints away; and a failure (SERVFAIL, refused, timeout), which changes nothing.
//! Search domains are tried here and not by the library, whose last error would hide an earlier one of another kind.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use hickory_resolver::config::{
    ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts, ServerOrderingStrategy,
};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::rr::{Name, RecordType};
use hickory_resolver::{TokioResolver, system_conf};

use super::hosts::HostsFile;
use crate::settings;
use crate::tasks::jittered;

/// Asks name servers.
pub(crate) struct Resolver {
    inner: TokioResolver,
    hosts: Option<HostsFile>,
    search: Vec<Name>,
    ndots: usize,
    timeout: Duration,
    ttl_min: Duration,
    ttl_max: Duration,
}

/// What the name servers say about one family of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// At least one address.
    Addresses { addresses: Vec<IpAddr>, ttl: Duration },
    /// The name has none.
    Empty { ttl: Duration },
    /// Nobody knows.
    Failed { reason: String },
}

/// Both families of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answers {
    pub(crate) v6: Answer,
    pub(crate) v4: Answer,
}

/// A name that has no addresses and no word about how long is asked again after this.
const EMPTY_TTL: Duration = Duration::from_secs(5);

/// Between two questions that nobody answered.
const BACK_OFF_MIN: Duration = Duration::from_millis(250);
const BACK_OFF_MAX: Duration = Duration::from_secs(10);

#[derive(Debug, thiserror::Error)]
pub enum ResolverError {
    #[error("`{0}` is not the address of a name server; write `1.2.3.4:53` or `[fdaa::3]:53`")]
    Server(String),
    #[error("the resolver cannot be set up: {0}")]
    Setup(String),
}

impl Resolver {
    pub(crate) fn new(settings: &settings::Dns) -> Result<Resolver, ResolverError> {
        let (config, mut options, hosts) = if settings.servers.is_empty() {
            let (config, options) = system();
            (config, options, Some(HostsFile::system()))
        } else {
            let servers: Result<Vec<_>, _> = settings.servers.iter().map(|server| name_server(server)).collect();
            (ResolverConfig::from_name_servers(servers?), ResolverOpts::default(), None)
        };
        let search = config.domain().into_iter().chain(config.search()).cloned().collect();
        let ndots = options.ndots;
        // One repetition of a lost datagram fits into the time.
        options.timeout = settings.timeout.0 / 2;
        options.attempts = 1;
        // Followed by TTL, nothing is asked twice in a TTL anyway; and what was asked again must be asked for real.
        options.cache_size = 0;
        options.use_hosts_file = ResolveHosts::Never;
        options.server_ordering_strategy = ServerOrderingStrategy::UserProvidedOrder;
        let config = ResolverConfig::from_parts(None, Vec::new(), config.name_servers().to_vec());
        let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        *builder.options_mut() = options;
        Ok(Resolver {
            inner: builder.build().map_err(|error| ResolverError::Setup(error.to_string()))?,
            hosts,
            search,
            ndots,
            timeout: settings.timeout.0,
            ttl_min: settings.ttl_min.0,
            ttl_max: settings.ttl_max.0.max(settings.ttl_min.0),
        })
    }

    /// Every address of a name. A `rooted` name is not searched for.
    pub(crate) async fn lookup(&self, host: &str, rooted: bool) -> Answers {
        if let Some(addresses) = self.local(host).await {
            let family = |v6: bool| {
                let addresses: Vec<_> = addresses.iter().copied().filter(|ip| ip.is_ipv6() == v6).collect();
                let ttl = self.ttl_max;
                if addresses.is_empty() { Answer::Empty { ttl } } else { Answer::Addresses { addresses, ttl } }
            };
            return Answers { v6: family(true), v4: family(false) };
        }
        let names = match candidates(host, rooted, &self.search, self.ndots) {
            Ok(names) => names,
            Err(reason) => {
                let failed = Answer::Failed { reason };
                return Answers { v6: failed.clone(), v4: failed };
            }
        };
        let mut last = None;
        for name in names {
            let (v6, v4) = tokio::join!(self.ask(&name, RecordType::AAAA), self.ask(&name, RecordType::A));
            let answers = Answers { v6, v4 };
            // A failure ends the search: the next name's NXDOMAIN would say nothing about this one.
            let ends = answers.each().iter().any(|answer| !matches!(answer, Answer::Empty { .. }));
            last = Some(answers);
            if ends {
                break;
            }
        }
        let nothing = Answer::Empty { ttl: EMPTY_TTL };
        last.unwrap_or(Answers { v6: nothing.clone(), v4: nothing })
    }

    /// What is known without asking: the hosts file (read again when it changed), and localhost (RFC 6761 6.3).
    async fn local(&self, host: &str) -> Option<Vec<IpAddr>> {
        if let Some(hosts) = &self.hosts
            && let Some(addresses) = hosts.lookup(host).await
        {
            return Some(addresses);
        }
        let local = host == "localhost" || host.ends_with(".localhost");
        local.then(|| vec![Ipv6Addr::LOCALHOST.into(), Ipv4Addr::LOCALHOST.into()])
    }

    async fn ask(&self, name: &Name, kind: RecordType) -> Answer {
        match tokio::time::timeout(self.timeout, self.inner.lookup(name.clone(), kind)).await {
            Err(_) => Answer::Failed { reason: format!("no answer to {kind} within {:?}", self.timeout) },
            Ok(Ok(lookup)) => {
                let ttl = lookup.answers().iter().map(|record| record.ttl).min().unwrap_or_default();
                let addresses = lookup.answers().iter().filter_map(|record| record.data.ip_addr());
                // `0.0.0.0` and `::` are how some servers say "blocked"; connecting there would reach ourselves.
                let mut addresses: Vec<IpAddr> = addresses.filter(|ip| !ip.is_unspecified()).collect();
                addresses.sort_unstable();
                addresses.dedup();
                let ttl = self.clamp(Duration::from_secs(ttl.into()));
                if addresses.is_empty() { Answer::Empty { ttl } } else { Answer::Addresses { addresses, ttl } }
            }
            Ok(Err(NetError::Dns(DnsError::NoRecordsFound(none)))) => {
                let ttl = none.negative_ttl.map_or(EMPTY_TTL, |ttl| Duration::from_secs(ttl.into()));
                Answer::Empty { ttl: self.clamp(ttl) }
            }
            Ok(Err(error)) => Answer::Failed { reason: format!("{kind}: {error}") },
        }
    }

    fn clamp(&self, ttl: Duration) -> Duration {
        ttl.clamp(self.ttl_min, self.ttl_max)
    }

    /// How long to wait after the nth failure in a row: from a quarter of a second, doubled, to ten seconds.
    pub(crate) fn back_off(&self, failures: u32) -> Duration {
        let most = BACK_OFF_MAX.min(self.ttl_max);
        let wait = BACK_OFF_MIN.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(most);
        jittered(wait)
    }
}

#[cfg(test)]
impl Resolver {
    /// With search domains, which name servers of one's own do not come with.
    pub(crate) fn searching(self, domains: &[&str]) -> Resolver {
        let search = domains.iter().map(|domain| Name::from_ascii(domain).unwrap()).collect();
        Resolver { search, ..self }
    }
}

impl Answers {
    pub(crate) fn each(&self) -> [&Answer; 2] {
        [&self.v6, &self.v4]
    }

    pub(crate) fn has_failed(&self) -> bool {
        self.each().iter().any(|answer| matches!(answer, Answer::Failed { .. }))
    }

    /// For how long the answers hold; `None` if both failed. A family that is not there does not shorten or stretch the life of the other one.
    pub(crate) fn ttl(&self) -> Option<Duration> {
        let addresses = |answer: &&Answer| matches!(answer, Answer::Addresses { .. });
        let ttl = |answer: &Answer| match answer {
            Answer::Addresses { ttl, .. } | Answer::Empty { ttl } => Some(*ttl),
            Answer::Failed { .. } => None,
        };
        let shortest = |answers: &mut dyn Iterator<Item = &Answer>| answers.filter_map(ttl).min();
        let each = self.each();
        shortest(&mut each.into_iter().filter(addresses)).or_else(|| shortest(&mut each.into_iter()))
    }
}

/// The full names to try, in order (resolv.conf(5): search, ndots).
fn candidates(host: &str, rooted: bool, search: &[Name], ndots: usize) -> Result<Vec<Name>, String> {
    let name = Name::from_ascii(host).map_err(|error| error.to_string())?;
    let searched = search.iter().filter_map(|domain| name.clone().append_domain(domain).ok());
    let mut names: Vec<Name> = if rooted { Vec::new() } else { searched.collect() };
    // labels - 1 dots
    let plain_first = usize::from(name.num_labels()) > ndots;
    names.insert(if plain_first { 0 } else { names.len() }, name);
    names.iter_mut().for_each(|name| name.set_fqdn(true));
    Ok(names)
}

/// `/etc/resolv.conf`; without one, a name server on this machine (resolv.conf(5)).
fn system() -> (ResolverConfig, ResolverOpts) {
    system_conf::read_system_conf().unwrap_or_else(|error| {
        tracing::warn!(%error, "no usable /etc/resolv.conf; asking 127.0.0.1");
        let local = NameServerConfig::udp_and_tcp(Ipv4Addr::LOCALHOST.into());
        (ResolverConfig::from_name_servers(vec![local]), ResolverOpts::default())
    })
}

fn name_server(text: &str) -> Result<NameServerConfig, ResolverError> {
    let address: SocketAddr = text.parse().map_err(|_| ResolverError::Server(text.to_owned()))?;
    let (mut udp, mut tcp) = (ConnectionConfig::udp(), ConnectionConfig::tcp());
    (udp.port, tcp.port) = (address.port(), address.port());
    Ok(NameServerConfig::new(address.ip(), true, vec![udp, tcp]))
}

impl std::fmt::Debug for Resolver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Resolver").field("search", &self.search).field("timeout", &self.timeout).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn searches_as_resolv_conf_says() {
        let search: Vec<Name> = ["ns.svc.local", "lan"].map(|domain| Name::from_ascii(domain).unwrap()).to_vec();
        let names = |host: &str, rooted: bool, ndots: usize| -> Vec<String> {
            candidates(host, rooted, &search, ndots).unwrap().iter().map(Name::to_string).collect()
        };
        assert_eq!(names("db", false, 1), ["db.ns.svc.local.", "db.lan.", "db."]);
        assert_eq!(names("db.internal", false, 1), ["db.internal.", "db.internal.ns.svc.local.", "db.internal.lan."]);
        assert_eq!(names("db.internal", false, 5), ["db.internal.ns.svc.local.", "db.internal.lan.", "db.internal."]);
        assert_eq!(names("db", true, 5), ["db."]);
    }

    #[tokio::test]
    async fn backs_off_up_to_a_bound() {
        let resolver = Resolver::new(&settings::Dns { servers: vec_of("127.0.0.1:53"), ..Default::default() }).unwrap();
        assert!(resolver.back_off(1) < Duration::from_millis(320));
        assert!((7_500..=12_500).contains(&resolver.back_off(99).as_millis()));
        let wrong = Resolver::new(&settings::Dns { servers: vec_of("dns.test"), ..Default::default() });
        assert!(matches!(wrong, Err(ResolverError::Server(server)) if server == "dns.test"));
    }

    fn vec_of(server: &str) -> crate::scalar::OneOrMany<String> {
        crate::scalar::OneOrMany(vec![server.to_owned()])
    }
}
