//! Ways to prove who asks: where credentials are, and what is made of them.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use http::header::{AUTHORIZATION, HeaderName};

use super::api_key::{ApiKeys, KeyFault, KeyPlace};
use super::auth::{Proving, Sources};
use super::credentials::{self, Found, Scheme};
use super::forward::ForwardAuth;
use super::issuer::Issuer;
use super::jwt::{self, TokenFault};
use super::limits::Limits;
use super::users::{Users, Verdict};
use super::{Reading, unix_now};
use crate::config;
use crate::facts::{Head, Proven, Subject};
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
    Good(Passed),
    /// For the log, and whether somebody may have guessed.
    Bad {
        cause: String,
        guess: bool,
    },
    /// It cannot be told now.
    Unavailable(String),
    /// Only what is known already was to be taken, and this is not.
    Unknown,
}

/// Who was proven, and how.
#[derive(Debug)]
pub struct Passed {
    pub subject: Arc<Subject>,
    /// Limits that hold for whoever it is, beside those of the route.
    pub limits: Limits,
    /// By the token in `Authorization`, which then is one that the upstream can believe, too.
    pub bearer: bool,
    /// Somebody vouches for it.
    pub known: bool,
}

impl Passed {
    pub fn new(subject: Subject) -> Passed {
        Passed::of(Arc::new(subject))
    }

    pub fn of(subject: Arc<Subject>) -> Passed {
        Passed { subject, limits: Limits::default(), bearer: false, known: true }
    }
}

fn bad(cause: impl Into<String>) -> Tried {
    Tried::Bad { cause: cause.into(), guess: true }
}

impl Proof {
    /// Looks at the credentials of its kind. What a service decides is asked elsewhere. `known_only`: what would have to be
    /// verified, and costs something, is not.
    pub async fn attempt(&self, head: &Head<'_>, proving: &Proving, known_only: bool) -> Tried {
        match self {
            Proof::Jwt { issuers, places } => {
                let found = places.iter().find_map(|place| Some((place, place.token(head)?)));
                let (place, token) = match found {
                    None => return Tried::Absent,
                    Some((_, Err(cause))) => return bad(cause),
                    Some((place, Ok(token))) => (place, token),
                };
                let (remembered, revocations) = (proving.remembered(), proving.revocations());
                match jwt::verify(&token, issuers, remembered, revocations, known_only, unix_now()).await {
                    Ok(subject) => Tried::Good(Passed { bearer: *place == TokenPlace::Bearer, ..Passed::of(subject) }),
                    Err(TokenFault::NotNow) => Tried::Unknown,
                    Err(fault @ TokenFault::NoKeys(_)) => Tried::Unavailable(fault.to_string()),
                    Err(fault) => Tried::Bad { cause: format!("token: {fault}"), guess: fault.is_guess() },
                }
            }
            Proof::ApiKey(sets) => {
                let blocked = known_only && proving.is_blocked(head.client).is_some();
                api_key(sets, head, proving, blocked)
            }
            Proof::Basic(users) => match credentials::basic(head) {
                None => Tried::Absent,
                Some(Err(cause)) => bad(cause),
                Some(Ok((user, password))) => {
                    match users.verify(&user, &password, head.client, proving, known_only).await {
                        Verdict::Right => Tried::Good(Passed::new(users.subject(&user))),
                        // Counted already, before the next one of the same client had its turn.
                        Verdict::Wrong => Tried::Bad { cause: "wrong user or password".to_owned(), guess: false },
                        Verdict::Busy => Tried::Unavailable("too many passwords are asked about".to_owned()),
                        Verdict::Unknown => Tried::Unknown,
                    }
                }
            },
            Proof::ClientCertificate => match head.client_certificate {
                None => Tried::Absent,
                Some(certificate) => {
                    let name = Arc::from("client_certificate");
                    Tried::Good(Passed::new(Subject::new(Proven::ClientCertificate, &certificate.subject, &name)))
                }
            },
            Proof::Forward(_) => Tried::Absent,
        }
    }

    /// Headers that its credentials stand in.
    pub(super) fn headers(&self) -> Vec<&HeaderName> {
        match self {
            Proof::Jwt { places, .. } => places
                .iter()
                .filter_map(|place| match place {
                    TokenPlace::Bearer => Some(&AUTHORIZATION),
                    TokenPlace::Header(name) => Some(name),
                    TokenPlace::Cookie(_) | TokenPlace::Query(_) => None,
                })
                .collect(),
            Proof::ApiKey(sets) => sets
                .iter()
                .flat_map(|set| &set.places)
                .filter_map(|place| match place {
                    KeyPlace::Header(name) => Some(name),
                    KeyPlace::Basic => Some(&AUTHORIZATION),
                    KeyPlace::Query(_) => None,
                })
                .collect(),
            Proof::Basic(_) => vec![&AUTHORIZATION],
            Proof::ClientCertificate | Proof::Forward(_) => Vec::new(),
        }
    }

    /// Whether whoever it proves may have claims.
    fn has_claims(&self) -> bool {
        matches!(self, Proof::Jwt { .. } | Proof::ApiKey(_))
    }

    /// What it is called in a document.
    pub(super) fn word(&self) -> &'static str {
        match self {
            Proof::Jwt { .. } => "jwt",
            Proof::ApiKey(_) => "api_key",
            Proof::Basic(_) => "basic",
            Proof::ClientCertificate => "client_certificate",
            Proof::Forward(_) => "forward",
        }
    }
}

/// Proofs that never meet what is required of claims.
pub(super) fn without_claims(proofs: &[Proof]) -> impl Iterator<Item = &'static str> {
    proofs.iter().filter(|proof| !proof.has_claims()).map(Proof::word)
}

impl TokenPlace {
    fn token<'h>(&self, head: &Head<'h>) -> Found<Cow<'h, str>> {
        Some(match self {
            TokenPlace::Bearer => credentials::authorization(head, Scheme::Bearer)?.map(Cow::Borrowed),
            TokenPlace::Header(name) => credentials::header(head, name)?.and_then(|bytes| {
                std::str::from_utf8(bytes).map(Cow::Borrowed).map_err(|_| "a token that cannot be read")
            }),
            TokenPlace::Cookie(name) => credentials::cookie(head, name)?.map(Cow::Borrowed),
            TokenPlace::Query(name) => credentials::query(head, name)?,
        })
    }
}

/// `blocked`: only keys that the client's network has shown before are looked at.
fn api_key(sets: &[Arc<ApiKeys>], head: &Head<'_>, proving: &Proving, blocked: bool) -> Tried {
    let mut wrong = Tried::Absent;
    for set in sets {
        let found: Found<Cow<'_, [u8]>> = set.places.iter().find_map(|place| {
            Some(match place {
                KeyPlace::Header(name) => credentials::header(head, name)?.map(Cow::Borrowed),
                KeyPlace::Query(name) => {
                    credentials::query(head, name)?.map(|key| key.into_owned().into_bytes().into())
                }
                KeyPlace::Basic => credentials::basic(head)?.map(|(_, password)| password.into_bytes().into()),
            })
        });
        if let (true, Some(Ok(key))) = (blocked, &found)
            && !proving.has_seen(key, head.client)
        {
            return Tried::Unknown;
        }
        match found.map(|key| key.map(|key| (set.find(&key, unix_now()), key))) {
            None => {}
            Some(Ok((Ok((subject, limits)), key))) => {
                if !blocked {
                    proving.see(&key, head.client);
                }
                return Tried::Good(Passed { limits, ..Passed::of(subject) });
            }
            Some(Ok((Err(fault), _))) => {
                wrong = Tried::Bad { cause: format!("API key: {fault}"), guess: fault == KeyFault::Unknown };
            }
            Some(Err(cause)) => wrong = bad(cause),
        }
    }
    wrong
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
        for (index, one) in issuers.iter().enumerate() {
            if issuers.iter().take(index).any(|other| other.iss == one.iss) {
                let message = format!("another issuer here is `{}`, too: its tokens are looked at first", one.iss);
                reading.error(&at.at("jwt"), message, "write a proof for each: `{ jwt = \"a\" }, { jwt = \"b\" }`");
            }
        }
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
        (Some(text), None, None) if text.contains('_') => {
            reading.error(at, format!("`{text}` never arrives: names with `_` are dropped"), "write it with `-`");
            None
        }
        (Some(text), None, None) => super::headers::name(text, at, reading).map(TokenPlace::Header),
        (None, Some(name), None) => Some(TokenPlace::Cookie(name.as_str().into())),
        (None, None, Some(name)) => Some(TokenPlace::Query(name.as_str().into())),
        _ => {
            reading.error(at, "a token is in one place", "write one of `header`, `cookie`, `query`");
            None
        }
    }
}
