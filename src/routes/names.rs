//! What holds for a name, whatever is asked for under it: `[host."NAME"]`, compiled.
//!
//! Exact names come before `*.` ones. The TLS side is handed to whoever shakes hands; the HTTP side is asked per request.

use std::collections::BTreeMap;
use std::sync::Arc;

use ahash::AHashMap;
use http::HeaderValue;

use super::compile::Env;
use super::host::HostPattern;
use crate::config::{self, Cleartext, Hsts, TlsVersion};
use crate::problem::{Path, Problem, nearest};

/// The certificate a name shows.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NameCertificate {
    /// The listener's.
    Listener,
    /// A leaf of the local CA.
    Internal,
    /// From a `[ca.NAME]` of the boot settings.
    Acme(Box<str>),
    /// `[certificate.NAME]` of the boot settings.
    Named(Box<str>),
}

/// What holds for a name.
#[derive(Clone, Debug)]
pub struct NamePolicy {
    pub certificate: NameCertificate,
    pub min_version: TlsVersion,
    /// The value of `Strict-Transport-Security`.
    pub hsts: Option<HeaderValue>,
    pub cleartext: Cleartext,
}

/// The policies of all names.
#[derive(Clone, Debug, Default)]
pub struct Names {
    exact: AHashMap<Box<str>, Arc<NamePolicy>>,
    one_label: AHashMap<Box<str>, Arc<NamePolicy>>,
}

impl Names {
    /// The policy of a name in lower case, without a trailing dot.
    pub fn find(&self, name: &str) -> Option<&Arc<NamePolicy>> {
        if self.is_empty() {
            return None;
        }
        self.exact.get(name).or_else(|| self.one_label.get(name.split_once('.')?.1))
    }

    /// Every name (of a wildcard: what stands behind `*.`), whether it is a wildcard, and what holds for it.
    pub fn iter(&self) -> impl Iterator<Item = (&str, bool, &NamePolicy)> {
        let exact = self.exact.iter().map(|(name, policy)| (&**name, false, &**policy));
        exact.chain(self.one_label.iter().map(|(suffix, policy)| (&**suffix, true, &**policy)))
    }

    pub fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.one_label.is_empty()
    }

    pub(super) fn compile(words: &BTreeMap<String, config::Host>, env: &Env, problems: &mut Vec<Problem>) -> Names {
        let mut names = Names::default();
        for (name, words) in words {
            let path = Path::of(["host", name]);
            let policy = Arc::new(policy(words, env, &path, problems));
            if name.starts_with('*') && matches!(policy.certificate, NameCertificate::Acme(_)) {
                let problem = Problem::error(path.at("certificate"), "a CA proves wildcards by DNS only");
                problems
                    .push(problem.help("name each host, or write the certificate's files under [certificate.NAME]"));
            }
            if matches!(policy.certificate, NameCertificate::Acme(_)) && is_address(name) {
                let problem =
                    Problem::error(path.at("certificate"), "CAs give certificates for names, not for addresses");
                problems.push(problem.help("write \"internal\", or the certificate's files under [certificate.NAME]"));
            }
            let twice = match name.parse::<HostPattern>() {
                Ok(HostPattern::Exact(name)) => names.exact.insert(name, policy).is_some(),
                Ok(HostPattern::OneLabel(suffix)) => names.one_label.insert(suffix, policy).is_some(),
                Ok(HostPattern::Labels(_) | HostPattern::Any) => {
                    let problem = Problem::error(path.clone(), "a certificate covers one label, not several");
                    problems.push(problem.help("write \"*.example.com\", or each name"));
                    false
                }
                Err(error) => {
                    problems.push(Problem::error(path.clone(), error.to_string()));
                    false
                }
            };
            if twice {
                let problem = Problem::error(path, format!("`{name}` is there twice"));
                problems.push(problem.help("case and a trailing dot make no difference"));
            }
        }
        names
    }
}

fn policy(words: &config::Host, env: &Env, path: &Path, problems: &mut Vec<Problem>) -> NamePolicy {
    // Every word is named, so that a new one does not compile until it is honoured here.
    let config::Host { certificate, min_version, hsts, http } = words;
    let certificate = match certificate.as_deref() {
        None => NameCertificate::Listener,
        Some("internal") => NameCertificate::Internal,
        Some(text) if text == "acme" || text.starts_with("acme:") => {
            NameCertificate::Acme(authority(text, env, path, problems).into())
        }
        Some(name) => {
            if let Some(known) = env.certificates.as_ref().filter(|known| !known.contains(name)) {
                let message = format!("there is no certificate `{name}` in the boot settings");
                let help = match nearest(name, known.iter().map(String::as_str)) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!("add [certificate.{name}] to edge.toml, or write \"internal\""),
                };
                problems.push(Problem::error(path.at("certificate"), message).help(help));
            }
            NameCertificate::Named(name.into())
        }
    };
    NamePolicy {
        certificate,
        min_version: *min_version,
        hsts: hsts.as_ref().map(|words| strict_transport(words, &path.at("hsts"), problems)),
        cleartext: *http,
    }
}

fn is_address(name: &str) -> bool {
    name.starts_with('[') || name.parse::<std::net::IpAddr>().is_ok()
}

/// The CA that `acme` or `acme:NAME` means.
fn authority(text: &str, env: &Env, path: &Path, problems: &mut Vec<Problem>) -> String {
    let named = text.strip_prefix("acme:");
    let Some(known) = &env.authorities else { return named.unwrap_or_default().to_owned() };
    let mut all = known.iter();
    match (named, all.next(), all.next()) {
        (Some(name), _, _) if known.contains(name) => name.to_owned(),
        (None, Some(only), None) => only.clone(),
        (None, Some(one), Some(_)) => {
            let problem = Problem::error(path.at("certificate"), "there are several CAs in the boot settings");
            problems.push(problem.help(format!("say which: \"acme:{one}\"")));
            String::new()
        }
        (_, _, _) => {
            let message = match named {
                Some(name) => format!("there is no CA `{name}` in the boot settings"),
                None => "there is no CA in the boot settings".to_owned(),
            };
            let help = "add a [ca.NAME] with its directory to edge.toml";
            problems.push(Problem::error(path.at("certificate"), message).help(help));
            String::new()
        }
    }
}

/// RFC 6797 6.1. Lists of names built into browsers want a year and all subdomains.
fn strict_transport(words: &Hsts, path: &Path, problems: &mut Vec<Problem>) -> HeaderValue {
    let Hsts { max_age, include_subdomains, preload } = words;
    let age = max_age.0.as_secs();
    if *preload && (!include_subdomains || age < 365 * 86_400) {
        let problem = Problem::error(path.at("preload"), "browsers build in no name without its subdomains for a year");
        problems.push(problem.help("set include_subdomains = true and max_age = \"365d\", or take preload out"));
    }
    let subdomains = if *include_subdomains { "; includeSubDomains" } else { "" };
    let preload = if *preload { "; preload" } else { "" };
    HeaderValue::try_from(format!("max-age={age}{subdomains}{preload}"))
        .unwrap_or_else(|_| HeaderValue::from_static("max-age=0"))
}
