//! What holds for a name, whatever is asked for under it: `[host."NAME"]`, compiled.
//!
//! Exact names come before `*.` ones. The TLS side is handed to whoever shakes hands; the HTTP side is asked per request.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ahash::AHashMap;
use http::HeaderValue;

use super::compile::Env;
use super::host::HostPattern;
use crate::config::{self, Cleartext, ClientCertificateMode, Hsts, TlsVersion};
use crate::problem::{Path, Problem, nearest};
use crate::settings::HttpVersion;

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
    /// Those offered by ALPN. `None`: what the listener speaks.
    pub versions: Option<Box<[HttpVersion]>>,
    pub client_certificate: Option<config::ClientCertificate>,
    /// The names of the block, its own first: with ACME, those of one certificate.
    pub names: Arc<[Box<str>]>,
    /// The value of `Strict-Transport-Security`.
    pub hsts: Option<HeaderValue>,
    /// `None`: as the listener says.
    pub cleartext: Option<Cleartext>,
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
            let also = words.also.iter().enumerate().map(|(index, name)| (name, path.at("also").at(index)));
            let all: Vec<(&String, Path)> = std::iter::once((name, path.clone())).chain(also).collect();
            let listed = all.iter().filter_map(|(name, _)| Some(name.parse::<HostPattern>().ok()?.to_string().into()));
            let policy = Arc::new(policy(words, listed.collect(), env, &path, problems));
            for (name, at) in all {
                names.insert(name, at, &policy, env, problems);
            }
        }
        names
    }

    fn insert(&mut self, name: &str, at: Path, policy: &Arc<NamePolicy>, env: &Env, problems: &mut Vec<Problem>) {
        let mut error = |at: Path, message: &str, help: &str| problems.push(Problem::error(at, message).help(help));
        if let NameCertificate::Acme(ca) = &policy.certificate {
            let proves = |all: &BTreeSet<String>| all.contains(&**ca);
            if name.starts_with('*') && env.wildcard_authorities.as_ref().is_some_and(|all| !proves(all)) {
                let help = "set `dns` of its [ca.NAME] in edge.toml, or name each host";
                error(at.clone(), "a CA proves wildcards by DNS only", help);
            }
            if is_address(name) {
                let help = "write \"internal\", or the certificate's files under [certificate.NAME]";
                error(at.clone(), "CAs give certificates for names, not for addresses", help);
            }
        }
        let twice = match name.parse::<HostPattern>() {
            Ok(HostPattern::Exact(name)) => self.exact.insert(name, policy.clone()).is_some(),
            Ok(HostPattern::OneLabel(suffix)) => self.one_label.insert(suffix, policy.clone()).is_some(),
            Ok(HostPattern::Labels(_) | HostPattern::Any) => {
                let help = "write \"*.example.com\", or each name";
                return error(at, "a certificate covers one label, not several", help);
            }
            Err(wrong) => return problems.push(Problem::error(at, wrong.to_string())),
        };
        if twice {
            error(at, &format!("`{name}` is there twice"), "case and a trailing dot make no difference");
        }
    }
}

fn policy(
    words: &config::Host,
    names: Arc<[Box<str>]>,
    env: &Env,
    path: &Path,
    problems: &mut Vec<Problem>,
) -> NamePolicy {
    // Every word is named, so that a new one does not compile until it is honoured here.
    let config::Host { also: _, certificate, min_version, versions, client_certificate, hsts, http } = words;
    if let Some(versions) = versions {
        let twice = versions.iter().enumerate().any(|(index, one)| versions.iter().take(index).any(|two| one == two));
        if versions.is_empty() || twice {
            let problem = Problem::error(path.at("versions"), "no HTTP version is left, or one is there twice");
            problems.push(problem.help("name some of \"h1\" and \"h2\" once, or leave the key out"));
        }
    }
    let mut cleartext = *http;
    if let Some(clients) = client_certificate {
        check_client_authority(clients, env, path, problems);
        if clients.mode == ClientCertificateMode::Require {
            if cleartext == Some(Cleartext::Serve) {
                let problem = Problem::error(path.at("http"), "requests in the clear show no certificate");
                problems.push(problem.help("take the key out, or set client_certificate.mode = \"request\""));
            }
            // Fails closed; whoever wants it otherwise names the listener in `match.listen`.
            cleartext = Some(Cleartext::Redirect);
        }
    }
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
        versions: versions.clone().map(Into::into),
        client_certificate: client_certificate.clone(),
        names,
        hsts: hsts.as_ref().map(|words| strict_transport(words, &path.at("hsts"), problems)),
        cleartext,
    }
}

fn check_client_authority(words: &config::ClientCertificate, env: &Env, path: &Path, problems: &mut Vec<Problem>) {
    let Some(known) = env.client_authorities.as_ref().filter(|known| !known.contains(&words.ca)) else { return };
    let message = format!("there is no CA for clients `{}` in the boot settings", words.ca);
    let help = match nearest(&words.ca, known.iter().map(String::as_str)) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("add [client_ca.{}] with its roots to edge.toml", words.ca),
    };
    problems.push(Problem::error(path.at("client_certificate").at("ca"), message).help(help));
}

fn is_address(name: &str) -> bool {
    name.starts_with('[') || name.parse::<std::net::IpAddr>().is_ok()
}

/// The CA that `acme` or `acme:NAME` means.
fn authority(text: &str, env: &Env, path: &Path, problems: &mut Vec<Problem>) -> String {
    let named = text.strip_prefix("acme:");
    let Some(known) = &env.authorities else { return named.unwrap_or_default().to_owned() };
    let (message, help) = match (named, &env.main_authority, known.first()) {
        (Some(name), _, _) if known.contains(name) => return name.to_owned(),
        (None, Some(main), _) => return main.clone(),
        (None, None, Some(one)) => {
            ("there are several CAs in the boot settings".to_owned(), format!("say which: \"acme:{one}\""))
        }
        (Some(name), ..) => {
            let help = match nearest(name, known.iter().map(String::as_str)) {
                Some(near) => format!("did you mean `acme:{near}`?"),
                None => format!("add a [ca.{name}] with its directory to edge.toml"),
            };
            (format!("there is no CA `{name}` in the boot settings"), help)
        }
        (None, None, None) => (
            "there is no CA in the boot settings".to_owned(),
            "add a [ca.NAME] with its directory to edge.toml".to_owned(),
        ),
    };
    problems.push(Problem::error(path.at("certificate"), message).help(help));
    String::new()
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
