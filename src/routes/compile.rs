//! Words into a table: pure, and all problems at once. `check`, reload and every later caller run this one function.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::bind::{Binder, Defaults, Named};
use super::conditions::Networks;
use super::conflict;
use super::hosts::Hosts;
use super::names::Names;
use super::reserved::{check_reserved, credentials, reserved};
use super::route::Route;
use super::table::{Entry, Table};
use super::trie::Trie;
use crate::config::Document;
use crate::policy::{ApiKeys, ForwardAuth, Issuer, Limit, Presence, Proving, Reading, Sources, Users};
use crate::problem::{Path, Problem};
use crate::settings::{ListenProtocol, Settings};
use crate::upstream::{Pools, Spec};

/// More listeners cannot be told apart by `match.listen`.
const LISTENERS_MAX: usize = 64;
/// Most entries of one host and pattern: a lookup goes through them one by one.
const PATTERN_ENTRIES_MAX: usize = 1_000;
/// Most steps of a lookup.
const STEPS_MAX: usize = 1_000;

/// What a document cannot say: who the gateway is.
#[derive(Clone, Debug, Default)]
pub struct Env {
    pub listeners: Vec<Listener>,
    pub region: Option<String>,
    /// Names of the certificates that hosts may show. `None`: unknown, without the boot settings.
    pub certificates: Option<BTreeSet<String>>,
    /// Names of the CAs that speak ACME. `None`: unknown.
    pub authorities: Option<BTreeSet<String>>,
    /// The one that `acme` means.
    pub main_authority: Option<String>,
    /// Those that prove names by DNS, and so wildcards. `None`: unknown.
    pub wildcard_authorities: Option<BTreeSet<String>>,
    /// Names of the CAs whose certificates clients may show. `None`: unknown.
    pub client_authorities: Option<BTreeSet<String>>,
    /// Whether services can register themselves. `None`: unknown.
    pub on_bus: Option<bool>,
}

/// A listener, as far as routes care.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    pub name: String,
    /// Routes without `match.listen` answer here.
    pub public: bool,
    pub https: bool,
    /// Where requests in the clear are sent to, unless a name or a route says otherwise.
    pub https_port: Option<u16>,
}

impl Listener {
    pub fn new(name: &str, public: bool) -> Listener {
        Listener { name: name.to_owned(), public, https: false, https_port: None }
    }
}

impl Env {
    pub fn of(settings: &Settings) -> Env {
        Env {
            listeners: settings
                .listen
                .iter()
                .map(|listen| Listener {
                    name: listen.name.clone(),
                    public: listen.public,
                    https: listen.protocol == ListenProtocol::Https,
                    https_port: settings.https_port(listen),
                })
                .collect(),
            region: settings.node.region.clone(),
            certificates: Some(settings.certificate.keys().cloned().collect()),
            authorities: Some(settings.ca.keys().cloned().collect()),
            main_authority: settings.main_ca().map(str::to_owned),
            wildcard_authorities: Some(
                settings.ca.iter().filter(|(_, ca)| ca.dns.is_some()).map(|(name, _)| name.clone()).collect(),
            ),
            client_authorities: Some(settings.client_ca.keys().cloned().collect()),
            on_bus: Some(settings.bus.as_ref().is_some_and(|bus| !bus.servers().is_empty())),
        }
    }

    /// For a document without its `edge.toml`: every listener it names, and one that is public.
    pub fn assumed(document: &Document) -> Env {
        let mut names: BTreeSet<&str> =
            document.route.iter().flat_map(|route| route.matches.listen.iter().map(String::as_str)).collect();
        names.extend(document.test.iter().filter_map(|case| case.given.listen.as_deref()));
        names.remove("public");
        let named = names.into_iter().map(|name| Listener::new(name, false));
        Env { listeners: std::iter::once(Listener::new("public", true)).chain(named).collect(), ..Env::default() }
    }
}

/// The table of a document. `None` if there is an error among the problems.
///
/// Its `revision` is empty: the caller knows the text.
pub fn compile(document: &Document, env: &Env, pools: &Pools) -> (Option<Table>, Vec<Problem>) {
    let mut problems = Vec::new();
    let Document { format: _, upstream, host, defaults, route: routes, test: _, .. } = document;
    if env.listeners.len() > LISTENERS_MAX {
        problems.push(Problem::error(Path::default(), format!("more than {LISTENERS_MAX} listeners")));
    }
    let mut adopt = Vec::with_capacity(upstream.len());
    let mut named = BTreeMap::new();
    for (name, words) in upstream {
        let pool = pools.pool(name);
        let path = Path::of(["upstream", name]);
        let spec = Spec::compile(name, words, &path, env.region.as_deref(), &mut problems);
        if words.discover.is_some() && env.on_bus == Some(false) {
            let problem = Problem::error(path.at("discover"), "this gateway is on no bus that services register on");
            problems.push(problem.help("name its servers under `[bus]` in edge.toml"));
        }
        adopt.extend(spec.map(|spec| (pool.clone(), Arc::new(spec))));
        named.insert(name.as_str(), Named { pool, used: false });
    }
    let names = Names::compile(host, env, &mut problems);
    let (sources, limits) = sources(document, &mut problems);
    let defaults = Defaults::bind(defaults, &sources, &mut problems);
    let mut binder = Binder { env, pools: named, defaults, sources, limits };
    let mut index = Index::default();
    check_names(document, &mut problems);
    for (number, words) in routes.iter().enumerate() {
        let path = Path::of(["route".to_owned(), number.to_string()]);
        if let Some((route, networks)) = binder.bind(words, &path, &mut problems) {
            index.insert(route, networks, number, &mut problems);
        }
    }
    check_open(document, &index.routes, &mut problems);
    for (name, _) in binder.pools.iter().filter(|(_, named)| !named.used) {
        let problem = Problem::warning(Path::of(["upstream", name]), format!("no route uses upstream `{name}`"));
        problems.push(problem.help("it is resolved and checked all the same"));
    }
    index.finish(&mut problems);
    let reserved_headers = reserved(&mut index.routes);
    check_reserved(document, &reserved_headers, &mut problems);
    if problems.iter().any(Problem::is_error) {
        return (None, problems);
    }
    let credentials = credentials(&index.routes);
    let table = Table {
        revision: "".into(),
        routes: index.routes.into_iter().map(Arc::new).collect(),
        pools: adopt,
        default_cors: binder.defaults.cors,
        default_answers: binder.defaults.answers,
        reserved_headers,
        listeners: env.listeners.clone().into(),
        names,
        issuers: binder.sources.issuers.values().cloned().collect(),
        users: binder.sources.users.values().cloned().collect(),
        credentials,
        limits: binder.limits.values().cloned().collect(),
        proving: binder.sources.proving.clone(),
        hosts: index.hosts,
        trie: index.trie,
    };
    (Some(table), problems)
}

/// What routes may name beside upstreams. Every word of a document is named here or above.
fn sources<'d>(document: &'d Document, problems: &mut Vec<Problem>) -> (Sources<'d>, BTreeMap<&'d str, Arc<Limit>>) {
    let Document { issuer, api_keys, users, forward_auth, limit, auth_failures, .. } = document;
    let mut limits = BTreeMap::new();
    for (name, words) in limit {
        let at = Path::of(["limit", name]);
        check_block(name, &at, problems);
        if let Some(limit) = Limit::compile(name, words, &at, problems) {
            limits.insert(name.as_str(), Arc::new(limit));
        }
    }
    let mut issuers = BTreeMap::new();
    for (name, words) in issuer {
        let at = Path::of(["issuer", name]);
        check_block(name, &at, problems);
        if let Some(issuer) = Issuer::compile(name, words, &at, problems) {
            issuers.insert(name.as_str(), Arc::new(issuer));
        }
    }
    let mut keys = BTreeMap::new();
    for (name, words) in api_keys {
        let set = ApiKeys::compile(name, words, &limits, &Path::of(["api_keys", name]), problems);
        keys.insert(name.as_str(), Arc::new(set));
    }
    let mut sets = BTreeMap::new();
    for (name, words) in users {
        sets.insert(name.as_str(), Arc::new(Users::compile(name, words, &Path::of(["users", name]), problems)));
    }
    let mut forward = BTreeMap::new();
    let mut reading = Reading { captures: &|_| Presence::Never, problems };
    for (name, words) in forward_auth {
        let service = ForwardAuth::compile(name, words, &Path::of(["forward_auth", name]), &mut reading);
        forward.insert(name.as_str(), Arc::new(service));
    }
    let proving = Arc::new(Proving::new(auth_failures));
    (Sources { issuers, api_keys: keys, users: sets, forward, proving }, limits)
}

fn check_block(name: &str, at: &Path, problems: &mut Vec<Problem>) {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if name.is_empty() || name.len() > 64 || !name.bytes().all(legal) || name.starts_with('.') {
        let help = "letters, digits, `-`, `_` and `.`; 64 at most";
        problems.push(Problem::error(at.clone(), format!("`{name}` is not a name")).help(help));
    }
}

/// Tells of routes that are open where a wider one asks for proof: what is more specific wins, and nobody may have meant it.
fn check_open(document: &Document, routes: &[Route], problems: &mut Vec<Problem>) {
    let mut asked: BTreeMap<(String, &str), &str> = BTreeMap::new();
    for route in routes.iter().filter(|route| route.access.is_some()) {
        for (host, pattern) in route.hosts.iter().flat_map(|host| route.patterns.iter().map(move |one| (host, one))) {
            if let Some(prefix) = pattern.text().strip_suffix("/*") {
                asked.insert((host.to_string(), prefix), &route.name);
            }
        }
    }
    if asked.is_empty() {
        return;
    }
    let explicit = |name: &str| {
        let words = document.route.iter().find(|words| words.name == name);
        words.is_some_and(|words| words.auth.is_some())
    };
    for route in routes.iter().filter(|route| route.access.is_none() && !explicit(&route.name)) {
        let wider = route.hosts.iter().find_map(|host| {
            let host = host.to_string();
            route.patterns.iter().find_map(|pattern| {
                let mut path = pattern.text();
                while let Some((front, _)) = path.rsplit_once('/') {
                    path = front;
                    if let Some(name) = asked.get(&(host.clone(), path)) {
                        return Some(*name);
                    }
                }
                None
            })
        });
        let number = document.route.iter().position(|words| *words.name == *route.name);
        if let (Some(wider), Some(number)) = (wider, number) {
            let path = Path::of(["route".to_owned(), number.to_string()]);
            let message =
                format!("route `{}` is open, and route `{wider}`, which is wider, asks for proof", route.name);
            problems.push(Problem::warning(path, message).help("write `auth`, or `auth = \"none\"` if it is meant"));
        }
    }
}

/// Routes under their hosts and patterns.
struct Index {
    routes: Vec<Route>,
    /// Where each route stands in the document.
    numbers: Vec<usize>,
    hosts: Hosts,
    trie: Trie<Vec<Entry>>,
}

impl Default for Index {
    fn default() -> Index {
        Index { routes: Vec::new(), numbers: Vec::new(), hosts: Hosts::default(), trie: Trie::new() }
    }
}

impl Index {
    fn insert(&mut self, route: Route, networks: Vec<Networks>, number: usize, problems: &mut Vec<Problem>) {
        let Ok(id) = u32::try_from(self.routes.len()) else { return };
        let fit = super::fit::Fit { priority: route.priority, ..route.conditions.fit() };
        let networks: Vec<Arc<Networks>> = networks.into_iter().map(Arc::new).collect();
        for host in &route.hosts {
            let root = self.hosts.root(host, || self.trie.root());
            for (index, pattern) in route.patterns.iter().enumerate() {
                let (Ok(at), Some(leaf)) = (u16::try_from(index), self.trie.leaf(root, pattern)) else { continue };
                // Two patterns of one route that differ in the names of their captures only.
                if leaf.last().is_some_and(|last| last.route == id) {
                    let path = Path::of(["route", &number.to_string(), "match", "path", &index.to_string()]);
                    problems.push(Problem::error(
                        path,
                        format!("`{pattern}` matches what another path of this route does"),
                    ));
                    continue;
                }
                let entry = |networks, fit| Entry { route: id, pattern: at, fit, networks };
                if networks.is_empty() {
                    leaf.push(entry(None, fit));
                }
                for networks in &networks {
                    let fit = super::fit::Fit { network: networks.rank(), ..fit };
                    leaf.push(entry(Some(networks.clone()), fit));
                }
            }
        }
        self.routes.push(route);
        self.numbers.push(number);
    }

    /// Puts the entries in the order they are tried in, and finds those whose order nothing decides.
    fn finish(&mut self, problems: &mut Vec<Problem>) {
        let mut conflicts = BTreeSet::new();
        for leaf in self.trie.leaves_mut() {
            leaf.sort_by_key(|entry| Reverse(entry.fit));
            if leaf.len() > PATTERN_ENTRIES_MAX {
                let names: BTreeSet<u32> = leaf.iter().map(|entry| entry.route).collect();
                let first = leaf.first().and_then(|entry| self.numbers.get(usize::try_from(entry.route).ok()?));
                let path = Path::of(["route".to_owned(), first.copied().unwrap_or(0).to_string()]);
                let message = format!("{} routes share a host and a path pattern", names.len());
                problems.push(Problem::error(path, message).help(format!(
                    "at most {PATTERN_ENTRIES_MAX}, because each request tries them one by one; tell them apart by host or path"
                )));
                continue;
            }
            conflict::find(leaf, &self.routes, &mut conflicts);
        }
        for (one, other) in conflicts {
            problems.extend(self.conflict(one, other));
        }
        let widest = self.trie.widest();
        for (host, root) in self.hosts.patterns() {
            let steps = usize::try_from(root).ok().and_then(|root| widest.get(root).copied()).unwrap_or(0);
            if steps > STEPS_MAX {
                let message =
                    format!("the path patterns of {host} overlap so much that a lookup could take {steps} steps");
                problems.push(
                    Problem::error(Path::of(["route"]), message)
                        .help(format!("{STEPS_MAX} at most; use fewer captures side by side with literal segments")),
                );
            }
        }
    }

    fn conflict(&self, one: u32, other: u32) -> Option<Problem> {
        let of = |id: u32| {
            let id = usize::try_from(id).ok()?;
            Some((self.routes.get(id)?, *self.numbers.get(id)?))
        };
        let ((first, first_number), (second, second_number)) = (of(one)?, of(other)?);
        let path = Path::of(["route".to_owned(), second_number.to_string(), "match".to_owned()]);
        let message = format!(
            "route `{}` and route `{}` (route.{first_number}.match) match the same requests, and nothing says which comes first",
            second.name, first.name,
        );
        Some(Problem::error(path, message).help("give one of them another condition, or a higher `priority`"))
    }
}

fn check_names(document: &Document, problems: &mut Vec<Problem>) {
    let mut known = BTreeMap::new();
    for (number, route) in document.route.iter().enumerate() {
        if let Some(first) = known.insert(route.name.as_str(), number) {
            let path = Path::of(["route", &number.to_string(), "name"]);
            let message = format!("two routes are named `{}`: route.{first} and route.{number}", route.name);
            problems.push(Problem::error(path, message).help("names are unique in a document"));
        }
    }
}
