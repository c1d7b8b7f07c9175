//! The words of `match`, read into hosts, patterns and conditions.

use std::collections::BTreeMap;
use std::net::IpAddr;

use http::Method;
use ipnet::IpNet;

use super::compile::Env;
use super::conditions::{Condition, Conditions, Networks};
use super::host::{HostPattern, HostPatternCause};
use super::pattern::{Pattern, PatternCause};
use crate::config;
use crate::facts::path::PathError;
use crate::facts::{CertificateField, SAN_KINDS};
use crate::policy::{Reading, headers};
use crate::problem::{Path, nearest};
use crate::scalar::{OneOrMany, without_references};

/// Most hosts times paths times lengths of networks of one route: each is an entry of the index.
const ENTRIES_MAX: usize = 10_000;

/// `match`, read.
#[derive(Debug)]
pub(super) struct Matching {
    pub(super) hosts: Vec<HostPattern>,
    pub(super) patterns: Vec<Pattern>,
    pub(super) conditions: Conditions,
    pub(super) networks: Vec<Networks>,
}

impl Matching {
    pub(super) fn read(words: &config::Match, at: &Path, env: &Env, reading: &mut Reading<'_>) -> Matching {
        let config::Match { host, path, method, header, query, cookie, client_certificate, from, listen } = words;
        let mut hosts = distinct(host, at, "host", reading, read_host);
        if host.is_empty() {
            hosts.push(HostPattern::Any);
        }
        let mut patterns = distinct(path, at, "path", reading, read_pattern);
        if path.is_empty() {
            patterns.extend("/*".parse::<Pattern>());
        }
        let networks = Networks::by_len(distinct(from, at, "from", reading, read_network));
        let conditions = Conditions {
            listen: read_listen(listen, at, env, reading),
            listen_named: !listen.is_empty(),
            methods: read_methods(method, at, reading),
            header: read_conditions(header, at, "header", reading, read_header_name),
            query: read_conditions(query, at, "query", reading, |name, _, _| Some(name.into())),
            cookie: read_conditions(cookie, at, "cookie", reading, read_cookie_name),
            client_certificate: read_certificate(client_certificate.as_ref(), at, reading),
        };
        let entries = hosts.len().saturating_mul(patterns.len()).saturating_mul(networks.len().max(1));
        if entries > ENTRIES_MAX {
            let message = format!("{entries} combinations of host, path and length of network");
            reading.error(at, message, format!("a route has {ENTRIES_MAX} at most; make several of it"));
            hosts.clear();
        }
        Matching { hosts, patterns, conditions, networks }
    }
}

/// Reads a list; what is there twice is a mistake.
fn distinct<T: PartialEq>(
    words: &OneOrMany<String>,
    at: &Path,
    word: &str,
    reading: &mut Reading<'_>,
    read: impl Fn(&str, &Path, &mut Reading<'_>) -> Option<T>,
) -> Vec<T> {
    let mut list = Vec::with_capacity(words.0.len());
    for (index, text) in words.iter().enumerate() {
        let at = at.at(word).at(index);
        let Some(one) = read(text, &at, reading) else { continue };
        // Long lists are deduplicated where they are sorted.
        if list.len() < 100 && list.contains(&one) {
            reading.error(&at, format!("`{text}` is there twice"), "leave one of them out");
        } else {
            list.push(one);
        }
    }
    list
}

fn read_host(text: &str, at: &Path, reading: &mut Reading<'_>) -> Option<HostPattern> {
    let error = match without_references(text).parse::<HostPattern>() {
        Ok(pattern) => return Some(pattern),
        Err(error) => error,
    };
    let help = match &error.cause {
        HostPatternCause::Star if text == "*" => "leave `host` out for any host",
        HostPatternCause::Star => "one label: `*.example.com`; one or more: `**.example.com`",
        HostPatternCause::Port => "leave the port out; use `match.listen` to tell listeners apart",
        HostPatternCause::Host(_) => "a host is like `example.com`; names beyond ASCII are written as `xn--..`",
    };
    reading.error(at, error.to_string(), help);
    None
}

fn read_pattern(text: &str, at: &Path, reading: &mut Reading<'_>) -> Option<Pattern> {
    let error = match without_references(text).parse::<Pattern>() {
        Ok(pattern) => return Some(pattern),
        Err(error) => error,
    };
    let help = match &error.cause {
        PatternCause::NotNormal(normal) => format!("write the segment as `{normal}`"),
        PatternCause::NotRooted => format!("write `/{text}`"),
        PatternCause::Path(PathError::Character) => {
            "percent-encode it; the query is matched by `match.query`".to_owned()
        }
        _ => "patterns are `/exact`, `/users/{id}` and `/api/*`".to_owned(),
    };
    reading.error(at, error.to_string(), help);
    None
}

fn read_network(text: &str, at: &Path, reading: &mut Reading<'_>) -> Option<IpNet> {
    let help = match text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from)) {
        Ok(network) if network.trunc() == network => return Some(network),
        Ok(network) => format!("write `{}`", network.trunc()),
        // Nobody has resolved it: whatever it is may be right.
        Err(_) if text.contains("${") => return None,
        Err(_) => "a network is like `203.0.113.0/24` or `2001:db8::/32`, an address like `203.0.113.7`".to_owned(),
    };
    reading.error(at, format!("`{text}` is not a network"), help);
    None
}

fn read_methods(words: &OneOrMany<String>, at: &Path, reading: &mut Reading<'_>) -> Box<[Method]> {
    let mut methods = distinct(words, at, "method", reading, |text, at, reading| {
        let text = without_references(text);
        let method = Method::from_bytes(text.as_bytes()).ok();
        let lower = text.bytes().any(|byte| byte.is_ascii_lowercase());
        match method {
            Some(method) if !lower => return Some(method),
            Some(_) => {
                reading.error(at, format!("`{text}` is not a method"), format!("write `{}`", text.to_uppercase()))
            }
            None => reading.error(at, format!("`{text}` is not a method"), "methods are like `GET` (RFC 9110 9.1)"),
        }
        None
    });
    // Whoever answers GET answers HEAD (RFC 9110 9.3.2).
    if methods.contains(&Method::GET) && !methods.contains(&Method::HEAD) {
        methods.push(Method::HEAD);
    }
    methods.into()
}

fn read_listen(words: &OneOrMany<String>, at: &Path, env: &Env, reading: &mut Reading<'_>) -> u64 {
    let bit = |index: usize| u32::try_from(index).ok().and_then(|index| 1u64.checked_shl(index)).unwrap_or(0);
    if words.is_empty() {
        let public = env.listeners.iter().enumerate().filter(|(_, listener)| listener.public);
        return public.fold(0, |bits, (index, _)| bits | bit(index));
    }
    let mut bits = 0;
    for (step, name) in words.iter().enumerate() {
        let names = || env.listeners.iter().map(|listener| listener.name.as_str());
        match names().position(|known| known == name) {
            Some(index) => bits |= bit(index),
            None if name.contains("${") => {}
            None => {
                let help = match nearest(name, names()) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!("listeners are {}", names().collect::<Vec<_>>().join(", ")),
                };
                reading.error(&at.at("listen").at(step), format!("there is no listener `{name}`"), help);
            }
        }
    }
    bits
}

fn read_header_name(name: &str, at: &Path, reading: &mut Reading<'_>) -> Option<http::HeaderName> {
    if name.contains('_') {
        let message = format!("no request has `{name}`: names with `_` are removed from what clients send");
        reading.error(at, message, format!("write `{}`", name.replace('_', "-")));
        return None;
    }
    headers::name(name, at, reading)
}

fn read_cookie_name(name: &str, at: &Path, reading: &mut Reading<'_>) -> Option<Box<str>> {
    let legal = http::HeaderName::from_bytes(name.as_bytes()).is_ok();
    if !legal {
        reading.error(at, format!("`{name}` is not the name of a cookie"), "names are tokens (RFC 6265 4.1.1)");
    }
    legal.then(|| name.into())
}

fn read_conditions<N: PartialEq>(
    words: &BTreeMap<String, config::Condition>,
    at: &Path,
    word: &str,
    reading: &mut Reading<'_>,
    name: impl Fn(&str, &Path, &mut Reading<'_>) -> Option<N>,
) -> Box<[(N, Condition)]> {
    let mut conditions: Vec<(N, Condition)> = Vec::with_capacity(words.len());
    for (text, words) in words {
        let at = at.at(word).at(text);
        let Some(name) = name(text, &at, reading) else { continue };
        if conditions.iter().any(|(known, _)| *known == name) {
            reading.error(&at, format!("`{text}` is there twice"), "names of headers are the same in any case");
            continue;
        }
        conditions.extend(read_condition(words, &at, reading).map(|condition| (name, condition)));
    }
    conditions.into()
}

fn read_condition(words: &config::Condition, at: &Path, reading: &mut Reading<'_>) -> Option<Condition> {
    Some(match words {
        config::Condition::Exact(text) => Condition::Exact(text.as_str().into()),
        config::Condition::Prefix(config::PrefixCondition { prefix }) if prefix.is_empty() => {
            reading.error(&at.at("prefix"), "an empty prefix", "write `{ present = true }` for any value");
            return None;
        }
        config::Condition::Prefix(config::PrefixCondition { prefix }) => Condition::Prefix(prefix.as_str().into()),
        config::Condition::Present(config::PresentCondition { present: true }) => Condition::Present,
        config::Condition::Present(config::PresentCondition { present: false }) => Condition::Absent,
    })
}

fn read_certificate(
    words: Option<&config::CertificateMatch>,
    at: &Path,
    reading: &mut Reading<'_>,
) -> Box<[(CertificateField, Condition)]> {
    let Some(words) = words else { return Box::default() };
    let config::CertificateMatch { subject, san, fingerprint } = words;
    let at = at.at("client_certificate");
    let mut conditions = Vec::new();
    for (field, words) in [
        (CertificateField::Subject, subject),
        (CertificateField::San, san),
        (CertificateField::Fingerprint, fingerprint),
    ] {
        let Some(words) = words else { continue };
        let at = at.at(field.as_str());
        let Some(condition) = read_condition(words, &at, reading) else { continue };
        if let Condition::Exact(text) | Condition::Prefix(text) = &condition
            && !text.contains("${")
        {
            let exact = matches!(condition, Condition::Exact(_));
            if let Some((message, help)) = impossible(field, text, exact) {
                reading.error(&at, message, help);
                continue;
            }
        }
        conditions.push((field, condition));
    }
    if *words == config::CertificateMatch::default() {
        conditions.push((CertificateField::Fingerprint, Condition::Present));
    }
    conditions.into()
}

/// A value that no certificate has, and what to write instead.
fn impossible(field: CertificateField, text: &str, exact: bool) -> Option<(String, String)> {
    let hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    match field {
        CertificateField::Fingerprint if !text.bytes().all(hex) || (exact && text.len() != 64) || text.len() > 64 => {
            let bare: String = text.chars().filter(char::is_ascii_hexdigit).collect::<String>().to_lowercase();
            let help = if bare.len() == 64 { format!("write `{bare}`") } else { "write 64 hex digits".to_owned() };
            Some((format!("`{text}` is not the SHA-256 of a certificate in lower case"), help))
        }
        CertificateField::San if !SAN_KINDS.iter().any(|kind| text.starts_with(kind) || kind.starts_with(text)) => {
            let help = format!("say which kind of name it is: `dns:{text}` (dns:, uri:, email:, ip:)");
            Some((format!("no alternative name begins like `{text}`"), help))
        }
        _ => None,
    }
}
