//! Ways to prove who asks: where credentials are, and what is made of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http::header::{AUTHORIZATION, HeaderName};

use super::api_key::{ApiKeys, KeyPlace};
use super::auth::{Proving, Sources};
use super::forward::ForwardAuth;
use super::issuer::Issuer;
use super::jwt::{self, TokenFault};
use super::limits::Limits;
use super::users::{Users, Verdict};
use super::{Reading, unix_now};
use crate::config;
use crate::facts::{Head, Proven, Subject, cookie, query_parameter};
use crate::problem::{Path, nearest};

/// A proof.
#[derive(Debug)]
pub enum Proof {
    Jwt { issuers: Box<[Arc<Issuer>]>, places: Box<[TokenPlace]> },
    ApiKey(Box<[Arc<ApiKeys>]>),
    Basic(Arc<Users>),
    ClientCertificate,
    Forward(Arc<ForwardAuth>),
}

/// Where a token is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenPlace {
    Bearer,
    Header(HeaderName),
    Cookie(Box<str>),
    Query(Box<str>),
}

/// What came of a proof.
#[derive(Debug)]
pub enum Tried {
    /// There are no credentials of its kind.
    Absent,
    Good(Arc<Subject>, Limits),
    /// For the log.
    Bad(String),
    /// It cannot be told now.
    Unavailable(String),
}

impl Proof {
    /// Looks at the credentials of its kind. What a service decides is asked elsewhere.
    pub async fn attempt(&self, head: &Head<'_>, proving: &Proving) -> Tried {
        match self {
            Proof::Jwt { issuers, places } => {
                let token = match places.iter().find_map(|place| place.token(head)) {
                    None => return Tried::Absent,
                    Some(Err(cause)) => return Tried::Bad(cause.to_owned()),
                    Some(Ok(token)) => token,
                };
                let (remembered, revocations) = (proving.remembered(), proving.revocations());
                match jwt::verify(&token, issuers, remembered, revocations, unix_now()).await {
                    Ok(subject) => Tried::Good(subject, Arc::default()),
                    Err(fault @ TokenFault::NoKeys(_)) => Tried::Unavailable(fault.to_string()),
                    Err(fault) => Tried::Bad(format!("token: {fault}")),
                }
            }
            Proof::ApiKey(sets) => api_key(sets, head),
            Proof::Basic(users) => match basic(head) {
                None => Tried::Absent,
                Some(None) => Tried::Bad("Basic credentials that are none".to_owned()),
                Some(Some((user, password))) => match users.verify(&user, &password).await {
                    Verdict::Right => Tried::Good(Arc::new(users.subject(&user)), Arc::default()),
                    Verdict::Wrong => Tried::Bad("wrong user or password".to_owned()),
                    Verdict::Busy => Tried::Unavailable("too many passwords are asked about".to_owned()),
                },
            },
            Proof::ClientCertificate => match head.client_certificate {
                None => Tried::Absent,
                Some(certificate) => {
                    let name = Arc::from("client_certificate");
                    let subject = Subject::new(Proven::ClientCertificate, &certificate.subject, &name);
                    Tried::Good(Arc::new(subject), Arc::default())
                }
            },
            Proof::Forward(_) => Tried::Absent,
        }
    }
}

impl TokenPlace {
    /// The token, if there is one. Two of them are none.
    fn token(&self, head: &Head<'_>) -> Option<Result<String, &'static str>> {
        match self {
            TokenPlace::Bearer => {
                let mut all = head.headers.get_all(AUTHORIZATION).iter();
                let text = all.next()?.to_str().ok()?;
                let (scheme, token) = text.split_once(' ')?;
                if !scheme.eq_ignore_ascii_case("bearer") {
                    return None;
                }
                if all.next().is_some() {
                    return Some(Err("several Authorization headers"));
                }
                Some(Ok(token.trim_start_matches(' ').to_owned()))
            }
            TokenPlace::Header(name) => {
                let mut all = head.headers.get_all(name).iter();
                let text = all.next()?.to_str().ok()?.to_owned();
                Some(if all.next().is_some() { Err("several tokens") } else { Ok(text) })
            }
            TokenPlace::Cookie(name) => cookie(head.headers, name).map(|token| Ok(token.to_owned())),
            TokenPlace::Query(name) => query_parameter(head.query?, name).map(|token| Ok(token.into_owned())),
        }
    }
}

fn api_key(sets: &[Arc<ApiKeys>], head: &Head<'_>) -> Tried {
    let mut bad = None;
    for set in sets {
        let found = set.places.iter().find_map(|place| match place {
            KeyPlace::Header(name) => head.headers.get(name).map(|value| value.as_bytes().to_vec()),
            KeyPlace::Query(name) => query_parameter(head.query?, name).map(|key| key.into_owned().into_bytes()),
            KeyPlace::Basic => basic(head)?.map(|(_, password)| password.into_bytes()),
        });
        let Some(key) = found else { continue };
        match set.find(&key, unix_now()) {
            Ok((subject, limits)) => return Tried::Good(subject, limits),
            Err(fault) => bad = Some(format!("API key: {fault}")),
        }
    }
    bad.map_or(Tried::Absent, Tried::Bad)
}

/// User and password (RFC 7617). The outer `None`: no Basic credentials; the inner one: they are malformed.
#[allow(clippy::option_option)] // three cases: absent, malformed, there
fn basic(head: &Head<'_>) -> Option<Option<(String, String)>> {
    let text = head.headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, encoded) = text.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = BASE64_STANDARD.decode(encoded.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    Some(decoded.and_then(|text| text.split_once(':').map(|(user, password)| (user.to_owned(), password.to_owned()))))
}

pub(super) fn proof(
    words: &config::Proof,
    sources: &Sources<'_>,
    at: &Path,
    reading: &mut Reading<'_>,
) -> Option<Proof> {
    let config::Proof { jwt, token, api_key, basic, client_certificate, forward, anonymous } = words;
    let there =
        [!jwt.is_empty(), !api_key.is_empty(), basic.is_some(), *client_certificate, forward.is_some(), *anonymous];
    if there.into_iter().filter(|there| *there).count() != 1 {
        let help = "write one of `jwt`, `api_key`, `basic`, `client_certificate`, `forward`, `anonymous`";
        reading.error(at, "not one proof", help);
        return None;
    }
    if !token.is_empty() && jwt.is_empty() {
        reading.error(&at.at("token"), "it goes with `jwt`", "leave it out");
    }
    if !jwt.is_empty() {
        let issuers = named(&jwt.0, &sources.issuers, "issuer", &at.at("jwt"), reading);
        let mut places: Vec<TokenPlace> = token
            .iter()
            .enumerate()
            .filter_map(|(index, words)| token_place(words, &at.at("token").at(index), reading))
            .collect();
        if places.is_empty() {
            places.push(TokenPlace::Bearer);
        }
        return Some(Proof::Jwt { issuers: issuers.into(), places: places.into() });
    }
    if !api_key.is_empty() {
        return Some(Proof::ApiKey(
            named(&api_key.0, &sources.api_keys, "api_keys", &at.at("api_key"), reading).into(),
        ));
    }
    if let Some(name) = basic {
        let found = named(std::slice::from_ref(name), &sources.users, "users", &at.at("basic"), reading);
        return found.into_iter().next().map(Proof::Basic);
    }
    if let Some(name) = forward {
        let found = named(std::slice::from_ref(name), &sources.forward, "forward_auth", &at.at("forward"), reading);
        return found.into_iter().next().map(Proof::Forward);
    }
    client_certificate.then_some(Proof::ClientCertificate)
}

fn named<T>(
    names: &[String],
    known: &BTreeMap<&str, Arc<T>>,
    block: &str,
    at: &Path,
    reading: &mut Reading<'_>,
) -> Vec<Arc<T>> {
    let mut found = Vec::new();
    for name in names {
        match known.get(name.as_str()) {
            Some(one) => found.push(one.clone()),
            None => {
                let help = match nearest(name, known.keys().copied()) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!("write a block `[{block}.{name}]`"),
                };
                reading.error(at, format!("there is no `{name}` among the blocks `[{block}.NAME]`"), help);
            }
        }
    }
    found
}

fn token_place(words: &config::TokenPlace, at: &Path, reading: &mut Reading<'_>) -> Option<TokenPlace> {
    let config::TokenPlace { header, cookie, query } = words;
    match (header, cookie, query) {
        (Some(text), None, None) if text.eq_ignore_ascii_case("authorization") => Some(TokenPlace::Bearer),
        (Some(text), None, None) => super::headers::name(text, at, reading).map(TokenPlace::Header),
        (None, Some(name), None) => Some(TokenPlace::Cookie(name.as_str().into())),
        (None, None, Some(name)) => Some(TokenPlace::Query(name.as_str().into())),
        _ => {
            reading.error(at, "a token is in one place", "write one of `header`, `cookie`, `query`");
            None
        }
    }
}
