//! The table: all routes of a document, compiled and immutable, and the one `find`.

use std::ops::ControlFlow;
use std::sync::Arc;

use http::{HeaderName, HeaderValue, Method};

use super::compile::Listener;
use super::conditions::{Asked, Miss, Networks};
use super::fit::Fit;
use super::host::HostPattern;
use super::hosts::Hosts;
use super::names::Names;
use super::pattern::{PathCaptures, Spans};
use super::route::Route;
use super::trie::Trie;
use crate::config::{Cleartext, ClientCertificateMode, EncodedSlash};
use crate::facts::path::{PathError, has_encoded_slash};
use crate::facts::{Head, Scheme};
use crate::policy::{Answers, Cors, Issuer, Limit, Proving, Revocations, Users};
use crate::upstream::{Pool, Spec};

/// All routes of a document.
#[derive(Debug)]
pub struct Table {
    /// Which text it was compiled from (`revision`).
    pub revision: Arc<str>,
    /// In the order of the document, which means nothing.
    pub routes: Vec<Arc<Route>>,
    /// What `upstream::Pools::adopt` is to adopt.
    pub pools: Vec<(Arc<Pool>, Arc<Spec>)>,
    /// For answers without a route.
    pub default_answers: Answers,
    /// Cross-origin rules for answers without a route.
    pub default_cors: Option<Arc<Cors>>,
    /// Sorted; `_` stands as `-`.
    pub(super) reserved_headers: Box<[Box<str>]>,
    /// A listener's place is its bit.
    pub(super) listeners: Box<[Listener]>,
    /// What holds for names.
    pub names: Names,
    pub issuers: Vec<Arc<Issuer>>,
    pub(super) users: Vec<Arc<Users>>,
    /// Query parameters that hold credentials of any route.
    pub credentials: Box<[Box<str>]>,
    pub limits: Vec<Arc<Limit>>,
    pub(super) proving: Arc<Proving>,
    pub(super) hosts: Hosts,
    pub(super) trie: Trie<Leaf>,
}

/// The entries of one host and pattern, best first.
pub(super) type Leaf = Vec<Entry>;

/// A route under one of its hosts and patterns, for its client networks of one length.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) route: u32,
    pub(super) pattern: u16,
    pub(super) fit: Fit,
    pub(super) networks: Option<Arc<Networks>>,
}

/// What a request has found.
#[derive(Debug)]
pub enum Found<'t> {
    Route {
        route: &'t Arc<Route>,
        captures: PathCaptures,
    },
    /// The route does not take paths like this one: 400.
    Refused {
        route: &'t Arc<Route>,
        cause: PathError,
    },
    /// At the best pattern only the method was wrong: 405.
    MethodNotAllowed {
        allow: HeaderValue,
    },
    NoRoute,
    /// The name is for clients with a certificate, and there is none: 421.
    CertificateRequired,
    /// The name is served over https only.
    ToHttps {
        location: HeaderValue,
    },
}

impl Table {
    /// The route of a request. Nothing is allocated on the way to a route.
    pub fn find(&self, head: &Head<'_>) -> Found<'_> {
        let found = self.routed(head);
        match (head.scheme, &found) {
            // Somebody in front may have ended TLS: it has no certificate to show.
            (Scheme::Https, _) if head.client_certificate.is_none() && self.is_for_clients(head.host) => match &found {
                Found::Route { route, .. } if route.conditions.listen_named => found,
                _ => Found::CertificateRequired,
            },
            (Scheme::Https, _) => found,
            // Whoever names a listener in the clear means it.
            (Scheme::Http, Found::Route { route, .. }) if route.conditions.listen_named => found,
            (Scheme::Http, _) => {
                let is_route = !matches!(found, Found::NoRoute);
                match self.https_port(head, is_route).and_then(|port| to_https(head, port)) {
                    Some(location) => Found::ToHttps { location },
                    None => found,
                }
            }
        }
    }

    /// Whether a name is for clients with a certificate only.
    fn is_for_clients(&self, host: &str) -> bool {
        let words = self.names.find(host).and_then(|name| name.client_certificate.as_ref());
        words.is_some_and(|words| words.mode == ClientCertificateMode::Require)
    }

    /// Where a request in the clear is sent to, if it is: by the word of its name, else of its listener.
    fn https_port(&self, head: &Head<'_>, is_route: bool) -> Option<u16> {
        let listener = || self.listeners.iter().find(|listener| listener.name == head.listener)?.https_port;
        match self.names.find(head.host).and_then(|name| name.cleartext) {
            Some(Cleartext::Redirect) => Some(listener().unwrap_or(443)),
            Some(Cleartext::Serve) => None,
            None => listener().filter(|_| is_route),
        }
    }

    fn routed(&self, head: &Head<'_>) -> Found<'_> {
        let preflight = Cors::preflight_method(head.method, head.headers);
        let asked = self.asked(head, preflight.as_ref());
        let Some(root) = self.hosts.find(head.host) else { return Found::NoRoute };
        let found = self.trie.walk(root, head.path, &mut |leaf, spans| self.decide(leaf, spans, &asked));
        match found {
            ControlFlow::Break(found) => found,
            ControlFlow::Continue(()) => Found::NoRoute,
        }
    }

    pub(super) fn asked<'a>(&self, head: &'a Head<'a>, preflight: Option<&'a Method>) -> Asked<'a> {
        let known = self.listeners.iter().position(|listener| listener.name == head.listener);
        let listener = known.and_then(|bit| u32::try_from(bit).ok()).and_then(|bit| 1u64.checked_shl(bit));
        Asked { head, listener: listener.unwrap_or(0), client: head.client.to_canonical(), preflight }
    }

    /// At one pattern: the first entry whose conditions hold; 405 if they do but for the method; else the next pattern.
    fn decide(&self, leaf: &Leaf, spans: &Spans, asked: &Asked<'_>) -> ControlFlow<Found<'_>> {
        let mut method_only = false;
        for entry in leaf {
            match self.check(entry, asked) {
                Some((route, Ok(()))) => {
                    if route.encoded_slash == EncodedSlash::Refuse && has_encoded_slash(asked.head.path) {
                        return ControlFlow::Break(Found::Refused { route, cause: PathError::EncodedSlash });
                    }
                    let captures = PathCaptures { pattern: entry.pattern, spans: *spans };
                    return ControlFlow::Break(Found::Route { route, captures });
                }
                Some((_, Err(miss))) => method_only |= miss == Miss::Method,
                None => {}
            }
        }
        if !method_only {
            return ControlFlow::Continue(());
        }
        ControlFlow::Break(Found::MethodNotAllowed { allow: self.allow(leaf, asked) })
    }

    pub(super) fn check(&self, entry: &Entry, asked: &Asked<'_>) -> Option<(&Arc<Route>, Result<(), Miss<'_>>)> {
        let route = self.routes.get(usize::try_from(entry.route).ok()?)?;
        Some((route, route.conditions.check(entry.networks.as_deref(), asked, route.cors.is_some())))
    }

    /// The methods of the routes that would take the request (RFC 9110 10.2.1), sorted.
    fn allow(&self, leaf: &Leaf, asked: &Asked<'_>) -> HeaderValue {
        let mut methods: Vec<&str> = leaf
            .iter()
            .filter_map(|entry| self.check(entry, asked))
            .filter(|(_, result)| *result == Err(Miss::Method))
            .flat_map(|(route, _)| route.conditions.methods.iter().map(Method::as_str))
            .collect();
        methods.sort_unstable();
        methods.dedup();
        HeaderValue::from_str(&methods.join(", ")).unwrap_or(HeaderValue::from_static(""))
    }

    /// Whether routes write this request header: then no client can send it, in any spelling.
    pub fn is_reserved(&self, name: &HeaderName) -> bool {
        let dashed = || name.as_str().bytes().map(|byte| if byte == b'_' { b'-' } else { byte });
        self.reserved_headers.binary_search_by(|known| known.bytes().cmp(dashed())).is_ok()
    }

    /// Names of the request headers that routes write, sorted, `_` as `-`.
    pub fn reserved_headers(&self) -> &[Box<str>] {
        &self.reserved_headers
    }

    /// Host patterns of the routes that answer on some listener over https.
    pub fn encrypted_hosts(&self) -> impl Iterator<Item = &HostPattern> {
        let bits = |(bit, listener): (usize, &Listener)| if listener.https { 1u64 << bit.min(63) } else { 0 };
        let encrypted = self.listeners.iter().enumerate().map(bits).fold(0, |all, bit| all | bit);
        let routes = self.routes.iter().filter(move |route| route.conditions.listen & encrypted != 0);
        routes.flat_map(|route| route.hosts.iter())
    }

    pub fn route(&self, name: &str) -> Option<&Arc<Route>> {
        self.routes.iter().find(|route| &*route.name == name)
    }

    /// What was revoked holds under every table. Before the table is shared.
    pub fn revoke_by(&self, revocations: &Arc<Revocations>) {
        self.proving.revoke_by(revocations);
    }

    /// Takes over what belongs to routes and not to tables, by name. Before the table is shared.
    pub fn inherit(&mut self, previous: &Table) {
        self.proving.inherit(&previous.proving);
        for issuer in &self.issuers {
            previous
                .issuers
                .iter()
                .filter(|known| known.name() == issuer.name())
                .for_each(|known| issuer.inherit(known));
        }
        for users in &self.users {
            previous.users.iter().filter(|known| known.name == users.name).for_each(|known| users.inherit(known));
        }
        let limits: ahash::AHashMap<&str, &Arc<Limit>> =
            previous.limits.iter().map(|limit| (&*limit.name, limit)).collect();
        for limit in &self.limits {
            if let Some(known) = limits.get(&*limit.name) {
                limit.inherit(known);
            }
        }
        let by_name: ahash::AHashMap<&str, &Arc<Route>> =
            previous.routes.iter().map(|route| (&*route.name, route)).collect();
        for route in &mut self.routes {
            if let (Some(previous), Some(route)) = (by_name.get(&*route.name), Arc::get_mut(route)) {
                route.inherit(previous);
            }
        }
    }

    /// The routes of another table that this one does not have: whoever swaps tables cancels their `removed`.
    pub fn missing<'a>(&self, previous: &'a Table) -> impl Iterator<Item = &'a Arc<Route>> {
        let names: ahash::AHashSet<Arc<str>> = self.routes.iter().map(|route| route.name.clone()).collect();
        previous.routes.iter().filter(move |route| !names.contains(&route.name))
    }
}

/// The revision of a document: twelve hex digits of the SHA-256 of its text.
pub fn revision(text: &str) -> Arc<str> {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes());
    digest.as_ref().iter().take(6).map(|byte| format!("{byte:02x}")).collect::<String>().into()
}

/// The same over https.
fn to_https(head: &Head<'_>, port: u16) -> Option<HeaderValue> {
    let path = if head.path == "*" { "/" } else { head.path };
    let query = head.query.map(|query| format!("?{query}")).unwrap_or_default();
    let port = if port == 443 { String::new() } else { format!(":{port}") };
    HeaderValue::try_from(format!("https://{}{port}{path}{query}", head.host)).ok()
}
