//! What the settings of certificates mean: mistakes that the shape of a value does not show.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use super::check::{NAME_HELP, is_name};
use super::{AcmeOf, Ca, Certificate, DnsProof, Internal, Listen, ListenProtocol, OnDemand, Settings, TsigKey};
use crate::problem::Path;
use crate::scalar::without_references;

/// Longest wait for records to be everywhere.
const SETTLE_MAX: std::time::Duration = std::time::Duration::from_secs(600);

type Error<'e> = &'e mut dyn FnMut(Path, String, &str);

pub(super) fn check(settings: &Settings, error: Error<'_>) {
    let top = Path::default();
    let taken = |name: &str| ["internal", "acme"].contains(&name);
    for name in settings.certificate.keys().filter(|name| !is_name(name) || taken(name)) {
        let help = if taken(name) { "the word stands for something else: take another name" } else { NAME_HELP };
        error(top.at("certificate").at(name), format!("`{name}` is not a name for a certificate"), help);
    }
    for name in settings.client_ca.keys().filter(|name| !is_name(name)) {
        error(top.at("client_ca").at(name), format!("`{name}` is not a name for a CA"), NAME_HELP);
    }
    for (name, ca) in &settings.ca {
        let at = top.at("ca").at(name);
        if !is_name(name) {
            error(at.clone(), format!("`{name}` is not a name for a CA"), NAME_HELP);
        }
        authority(settings, name, ca, &at, error);
        if settings.state.dir.is_none() && settings.seal().is_none() {
            let help =
                "set state.dir, or fleet.seal for a fleet: without them every start would ask for new certificates";
            error(at, "there is no place to keep accounts and certificates".to_owned(), help);
        }
    }
    listeners(settings, error);
    if let Some(words) = &settings.on_demand {
        on_demand(settings, words, &top.at("on_demand"), error);
    }
}

fn listeners(settings: &Settings, error: Error<'_>) {
    let mut named = BTreeSet::new();
    for (index, listen) in settings.listen.iter().enumerate() {
        let at = Path::default().at("listen").at(index).at("certificate");
        let Certificate::Acme(of) = settings.certificate(listen) else { continue };
        match of.ca().or(settings.main_ca()) {
            _ if listen.protocol != ListenProtocol::Https => {}
            Some(name) if settings.ca.contains_key(name) => {
                named.insert(name.to_owned());
                if named.len() > 1 {
                    let help =
                        "write `certificate = \"acme:NAME\"` in the [host.\"..\"] of the document for the others";
                    error(at, "the listeners ask different CAs for the same routes".to_owned(), help);
                }
            }
            Some(name) => {
                let help = "write \"acme:NAME\" with the NAME of a [ca.NAME]";
                error(at, format!("there is no CA `{name}`"), help);
            }
            None if settings.ca.is_empty() => {
                let help = "add a [ca.NAME] with its directory, or write \"internal\"";
                error(at, "there is no CA to ask".to_owned(), help);
            }
            None => {
                let help = "say which: \"acme:NAME\", or \"internal\" for none; or make one the fallback of the other";
                error(at, "there are several CAs".to_owned(), help);
            }
        }
    }
}

fn authority(settings: &Settings, name: &str, ca: &Ca, at: &Path, error: Error<'_>) {
    if !is_https(&ca.directory) {
        let message = format!("`{}` is not the URL of a directory", ca.directory);
        error(at.at("directory"), message, "write \"https://acme-v02.api.letsencrypt.org/directory\"");
    }
    for (index, contact) in ca.contact.iter().enumerate().filter(|(_, contact)| !contact.contains(':')) {
        let at = at.at("contact").at(index);
        error(at, format!("`{contact}` is no URL"), "write \"mailto:ops@example.com\"");
    }
    if ca.retry.0.is_zero() {
        error(at.at("retry"), "no wait at all would be an attack on the CA".to_owned(), "write at least 1s");
    }
    if let Some(account) = &ca.external_account
        && account.key.base64url().is_none()
    {
        let help = "write the key as the CA gave it out, in base64url";
        error(at.at("external_account").at("key"), "this is no key".to_owned(), help);
    }
    if let Some(other) = &ca.fallback
        && (other == name || !settings.ca.contains_key(other))
    {
        let help = "write the NAME of another [ca.NAME]";
        error(at.at("fallback"), format!("`{other}` is not another CA"), help);
    }
    if let Some(words) = &ca.dns {
        dns(words, &at.at("dns"), error);
    }
}

fn dns(words: &DnsProof, at: &Path, error: Error<'_>) {
    let DnsProof { command, server, key, zone, ttl, settle, timeout } = words;
    if command.is_empty() == server.is_none() {
        let help = "set exactly one of command and server";
        error(at.clone(), "it is not said how records are written".to_owned(), help);
    }
    if let Some(program) = command.iter().next().filter(|program| !without_references(program).starts_with('/')) {
        error(at.at("command"), format!("`{program}` is not the absolute path of a program"), "write it from `/` on");
    }
    if settle.0 > SETTLE_MAX {
        error(at.at("settle"), format!("{settle} is longer than an order may take"), "write 10m at most");
    }
    if timeout.0.is_zero() {
        error(at.at("timeout"), "zero would let nothing through".to_owned(), "write at least 1s");
    }
    let Some(server) = server else {
        for (word, there) in [("key", key.is_some()), ("zone", zone.is_some())] {
            if there {
                error(at.at(word), "it goes with `server`".to_owned(), "take it out, or set `server`");
            }
        }
        return;
    };
    if server.parse::<SocketAddr>().is_err() && !server.contains("${") {
        let help = "write \"192.0.2.53:53\" or \"[2001:db8::53]:53\"";
        error(at.at("server"), format!("`{server}` is not the address of a name server"), help);
    }
    if ttl.0.as_secs() == 0 || ttl.0.as_secs() > 86_400 {
        error(at.at("ttl"), format!("{ttl} is no time to live"), "write 1s to 1d");
    }
    match key {
        None => {
            let help = "set key = { name = \"..\", secret = \"${file:..}\" }: updates that nobody signed are anybody's";
            error(at.clone(), "there is no key to sign updates with".to_owned(), help);
        }
        Some(TsigKey { name, algorithm: _, secret }) => {
            if secret.base64().is_none() {
                error(
                    at.at("key").at("secret"),
                    "this is no base64".to_owned(),
                    "write the secret as tsig-keygen does",
                );
            }
            if name.is_empty() {
                error(at.at("key").at("name"), "the name is empty".to_owned(), "write it as the server knows it");
            }
        }
    }
}

fn on_demand(settings: &Settings, words: &OnDemand, at: &Path, error: Error<'_>) {
    let OnDemand { ca, allow, ask, names, per_minute } = words;
    match ca.as_deref().or(settings.main_ca()) {
        Some(name) if settings.ca.contains_key(name) => {}
        Some(name) => error(at.at("ca"), format!("there is no CA `{name}`"), "write the NAME of a [ca.NAME]"),
        None => error(at.clone(), "it is not said which CA is asked".to_owned(), "set ca to the NAME of a [ca.NAME]"),
    }
    if allow.is_empty() && ask.is_none() {
        let help = "set allow, ask, or both: anybody can make a client ask for any name";
        error(at.clone(), "no name is allowed".to_owned(), help);
    }
    for (index, text) in allow.iter().enumerate() {
        let bare = text.trim_start_matches("**.").trim_start_matches("*.");
        if bare.contains('*') || crate::facts::host::normalise(bare).is_err() {
            let help = "names are like `shop.example.com`, `*.example.com`, `**.example.com`";
            error(at.at("allow").at(index), format!("`{text}` is not a name"), help);
        }
    }
    if let Some(url) = ask
        && !url.parse::<http::Uri>().is_ok_and(|uri| uri.scheme_str() == Some("http") && uri.host().is_some())
    {
        let help = "write a URL on your own network, such as \"http://127.0.0.1:9123/allowed\"";
        error(at.at("ask"), format!("`{url}` is not the URL of a service that is asked"), help);
    }
    if *names == 0 || *per_minute == 0 {
        error(at.clone(), "zero would let nothing through".to_owned(), "write at least 1, or take [on_demand] out");
    }
}

fn is_https(text: &str) -> bool {
    text.parse::<http::Uri>().is_ok_and(|uri| uri.scheme_str() == Some("https") && uri.host().is_some())
}

impl Settings {
    /// What a listener shows.
    pub fn certificate(&self, listen: &Listen) -> Certificate {
        match &listen.certificate {
            Some(certificate) => certificate.clone(),
            None if self.ca.is_empty() => Certificate::Internal(Internal::Internal),
            None => Certificate::Acme(AcmeOf("acme".to_owned())),
        }
    }

    /// The CA that `acme` means: the one that is no other's fallback. `None`: there is none, or there are several.
    pub fn main_ca(&self) -> Option<&str> {
        let is_fallback = |name: &str| self.ca.values().any(|ca| ca.fallback.as_deref() == Some(name));
        let mut all = self.ca.keys().filter(|name| !is_fallback(name));
        all.next().filter(|_| all.next().is_none()).map(String::as_str)
    }

    /// The CA that gives every host of the routes a certificate.
    pub fn automatic_ca(&self) -> Option<&str> {
        let encrypted = self.listen.iter().filter(|listen| listen.protocol == ListenProtocol::Https);
        encrypted.into_iter().find_map(|listen| match self.certificate(listen) {
            Certificate::Acme(of) => match of.ca() {
                Some(name) => self.ca.keys().find(|known| *known == name).map(String::as_str),
                None => self.main_ca(),
            },
            Certificate::Internal(_) | Certificate::Files(_) => None,
        })
    }
}
