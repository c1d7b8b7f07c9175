//! Who may pass: proofs in their order, what must be known of who was proven, and what is said to others.
//!
//! What is wrong with credentials is told to the log, not to the client: it learns that they are missing (401
//! `auth_required`), that they are not good (401 `auth_invalid`), or that they do not suffice (403 `auth_forbidden`).

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use http::header::{HeaderName, HeaderValue};

use super::api_key::{ApiKeys, KeyPlace};
use super::forward::ForwardAuth;
use super::issuer::Issuer;
use super::jwt::Remembered;
use super::limits::Limit;
use super::network::network;
use super::proof::{Passed, Proof, TokenPlace, Tried, proof, without_claims};
use super::require::Requirement;
use super::revoked::Revocations;
use super::users::Users;
use super::{Edits, Reading, Side};
use crate::bounded::{Bounded, Change};
use crate::config;
use crate::facts::{Facts, Proven, Subject};
use crate::problem::{Path, Problem};

/// Clients whose failures are remembered.
const CLIENTS_MAX: usize = 100_000;
/// API keys that are remembered with the networks that show them.
const SEEN_MAX: usize = 10_000;

/// What routes may name.
pub struct Sources<'d> {
    pub issuers: BTreeMap<&'d str, Arc<Issuer>>,
    pub api_keys: BTreeMap<&'d str, Arc<ApiKeys>>,
    pub users: BTreeMap<&'d str, Arc<Users>>,
    pub forward: BTreeMap<&'d str, Arc<ForwardAuth>>,
    pub proving: Arc<Proving>,
}

/// What all proofs of a document share, and what outlives it.
#[derive(Debug)]
pub struct Proving {
    remembered: OnceLock<Arc<Remembered>>,
    revocations: OnceLock<Arc<Revocations>>,
    failures: Limit,
    /// Clients that have failed too often, until when.
    blocked: OnceLock<Arc<Bounded<Instant>>>,
    /// API keys that were good, by the network that has shown them.
    seen: OnceLock<Arc<Bounded<()>>>,
}

/// `auth`, compiled.
#[derive(Debug)]
pub struct Access {
    pub proofs: Box<[Proof]>,
    require: Box<[Requirement]>,
    /// `WWW-Authenticate`, without what went wrong.
    challenges: Box<[Box<str>]>,
    anonymous: bool,
    /// Headers for the upstream.
    pub pass: Edits,
    /// Where credentials stand that no upstream sees.
    pub hidden: Hidden,
    pub proving: Arc<Proving>,
}

/// Places of credentials that no upstream sees.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hidden {
    pub query: Box<[Box<str>]>,
    pub cookies: Box<[Box<str>]>,
    pub headers: Box<[HeaderName]>,
    /// `Authorization`, unless it is the token that has proven who asks.
    pub authorization: bool,
}

/// What comes of all proofs together.
#[derive(Debug)]
pub enum Answer {
    Pass(Passed),
    /// 401 `auth_required`.
    Required,
    /// 401 `auth_invalid`, and whether somebody may have guessed.
    Invalid {
        cause: String,
        guess: bool,
    },
    /// 503 `auth_unavailable`.
    Unavailable(String),
    /// Only those were to be taken that are known already.
    Unknown,
}

impl Proving {
    pub fn new(words: &config::AuthFailures) -> Proving {
        Proving {
            remembered: OnceLock::new(),
            revocations: OnceLock::new(),
            failures: Limit::of_clients("auth_failures", words.rate, words.burst, CLIENTS_MAX),
            blocked: OnceLock::new(),
            seen: OnceLock::new(),
        }
    }

    pub fn inherit(&self, previous: &Proving) {
        let _ = self.remembered.set(previous.remembered().clone());
        let _ = self.blocked.set(previous.blocked().clone());
        let _ = self.seen.set(previous.seen().clone());
        self.failures.inherit(&previous.failures);
    }

    pub fn remembered(&self) -> &Arc<Remembered> {
        self.remembered.get_or_init(Arc::default)
    }

    /// What no document says: it stands above all of them.
    pub fn revoke_by(&self, revocations: &Arc<Revocations>) {
        let _ = self.revocations.set(revocations.clone());
    }

    pub fn revocations(&self) -> &Arc<Revocations> {
        self.revocations.get_or_init(Arc::default)
    }

    fn blocked(&self) -> &Arc<Bounded<Instant>> {
        self.blocked.get_or_init(|| Arc::new(Bounded::new(CLIENTS_MAX)))
    }

    fn seen(&self) -> &Arc<Bounded<()>> {
        self.seen.get_or_init(|| Arc::new(Bounded::new(SEEN_MAX)))
    }

    /// The client's network has shown a key that is good.
    pub(super) fn see(&self, key: &[u8], client: IpAddr) {
        let seen = self.seen();
        let key = seen.key((key, network(client)));
        seen.with(key, |held| ((), if held.is_some() { Change::Keep } else { Change::Put(()) }));
    }

    pub(super) fn has_seen(&self, key: &[u8], client: IpAddr) -> bool {
        let seen = self.seen();
        seen.get(seen.key((key, network(client)))).is_some()
    }

    /// How long a client that has failed too often is not listened to.
    pub fn is_blocked(&self, client: IpAddr) -> Option<Duration> {
        let blocked = self.blocked();
        if blocked.is_empty() {
            return None;
        }
        let until = blocked.get(blocked.key(network(client)))?;
        until.checked_duration_since(Instant::now())
    }

    /// A client has failed.
    pub fn failed(&self, client: IpAddr) {
        if let Err(wait) = self.failures.fail(client) {
            let blocked = self.blocked();
            blocked.put(blocked.key(network(client)), Instant::now() + wait);
        }
    }
}

impl Access {
    pub fn compile(words: &config::Access, sources: &Sources<'_>, at: &Path, reading: &mut Reading<'_>) -> Access {
        let config::Access { any, require, pass, forward_credentials } = words;
        if any.is_empty() {
            reading.error(&at.at("any"), "nothing can be proven", "write a proof, such as `{ jwt = \"accounts\" }`");
        }
        let mut proofs = Vec::new();
        let mut anonymous = false;
        for (index, words) in any.iter().enumerate() {
            anonymous |= words.anonymous;
            proofs.extend(proof(words, sources, &at.at("any").at(index), reading));
        }
        let require = require
            .iter()
            .enumerate()
            .filter_map(|(index, words)| Requirement::compile(words, &at.at("require").at(index), reading));
        let require: Box<[Requirement]> = require.collect();
        if anonymous && !require.is_empty() {
            let help = "take out `anonymous`, or `require`";
            reading.error(&at.at("require"), "nobody knows anything of who is anonymous", help);
        }
        if require.iter().any(Requirement::is_of_claim) {
            for word in without_claims(&proofs) {
                let message = format!("whoever is proven by `{word}` has no claims, and is answered 403 here");
                let problem = Problem::warning(at.at("require"), message);
                reading.problems.push(problem.help("require a fact, such as `subject.name`, or leave the proof out"));
            }
        }
        let edits = config::HeaderEdits { set: pass.clone(), ..config::HeaderEdits::default() };
        let pass = Edits::compile(&edits, Side::Request, at, reading);
        let hidden = hidden(&proofs, *forward_credentials);
        let challenges = challenges(&proofs);
        let proving = sources.proving.clone();
        Access { proofs: proofs.into(), require, challenges, anonymous, pass, hidden, proving }
    }

    /// Headers that credentials stand in.
    pub fn credential_headers(&self) -> impl Iterator<Item = &HeaderName> {
        self.proofs.iter().flat_map(Proof::headers)
    }

    /// Headers that services set: clients cannot send them.
    pub fn taken(&self) -> impl Iterator<Item = &HeaderName> {
        self.proofs.iter().flat_map(|proof| match proof {
            Proof::Forward(forward) => forward.take.iter(),
            _ => [].iter(),
        })
    }

    /// What comes of what the proofs have found, in their order.
    pub fn decide(&self, tried: Vec<Tried>) -> Answer {
        let (mut bad, mut unavailable, mut unknown) = (None, None, false);
        for one in tried {
            match one {
                Tried::Good(passed) => return Answer::Pass(passed),
                Tried::Bad { cause, guess } => {
                    let (first, guessed) = bad.unwrap_or((cause, false));
                    bad = Some((first, guessed || guess));
                }
                Tried::Unavailable(cause) => unavailable = unavailable.or(Some(cause)),
                Tried::Unknown => unknown = true,
                Tried::Absent => {}
            }
        }
        match (unavailable, bad) {
            _ if unknown => Answer::Unknown,
            (Some(cause), _) => Answer::Unavailable(cause),
            (None, Some((cause, guess))) => Answer::Invalid { cause, guess },
            (None, None) if self.anonymous => {
                let nobody = Subject::new(Proven::Anonymous, "", &"".into());
                Answer::Pass(Passed { known: false, ..Passed::new(nobody) })
            }
            (None, None) => Answer::Required,
        }
    }

    /// Whether it passes without credentials.
    pub fn lets_anybody(&self) -> bool {
        self.anonymous
    }

    /// What must be proven, for those who read it.
    pub fn described(&self) -> String {
        let proofs = self.proofs.iter().map(|proof| match proof {
            Proof::Jwt { issuers, .. } => {
                format!("jwt of {}", issuers.iter().map(|issuer| &**issuer.name()).collect::<Vec<_>>().join(", "))
            }
            Proof::ApiKey(sets) => {
                format!("api_key of {}", sets.iter().map(|set| &*set.name).collect::<Vec<_>>().join(", "))
            }
            Proof::Basic(users) => format!("basic of {}", users.name),
            Proof::ClientCertificate => "client_certificate".to_owned(),
            Proof::Forward(forward) => format!("forward to {}", forward.name),
        });
        let mut all: Vec<String> = proofs.collect();
        if self.anonymous {
            all.push("anonymous".to_owned());
        }
        let mut text = all.join(" or ");
        for requirement in &self.require {
            text.push_str(&format!("; requires {}", requirement.what()));
        }
        text
    }

    /// The requirement that is not met.
    pub fn missing(&self, subject: &Subject, facts: &dyn Facts) -> Option<&Requirement> {
        self.require.iter().find(|requirement| !requirement.holds(subject, facts))
    }

    /// `WWW-Authenticate` (RFC 9110 11.6.1), with the error of RFC 6750 3.1 where it is a token's.
    pub fn challenges(&self, error: Option<&str>, scope: Option<&str>) -> Vec<HeaderValue> {
        let all = self.challenges.iter().filter_map(|challenge| {
            let mut text = challenge.to_string();
            if let (Some(error), true) = (error, text.starts_with("Bearer")) {
                text.push_str(&format!(", error=\"{error}\""));
                if let Some(scope) = scope {
                    text.push_str(&format!(", scope=\"{scope}\""));
                }
            }
            HeaderValue::try_from(text).ok()
        });
        all.collect()
    }
}

fn hidden(proofs: &[Proof], forwarded: bool) -> Hidden {
    let (mut query, mut cookies, mut headers, mut authorization) = (Vec::new(), Vec::new(), Vec::new(), false);
    for proof in proofs {
        match proof {
            Proof::Jwt { places, .. } => {
                for place in places {
                    match place {
                        TokenPlace::Query(name) => query.push(name.clone()),
                        TokenPlace::Cookie(name) => cookies.push(name.clone()),
                        TokenPlace::Header(name) => headers.push(name.clone()),
                        TokenPlace::Bearer => authorization = true,
                    }
                }
            }
            Proof::ApiKey(sets) => {
                for place in sets.iter().flat_map(|set| &set.places) {
                    match place {
                        KeyPlace::Query(name) => query.push(name.clone()),
                        KeyPlace::Header(name) => headers.push(name.clone()),
                        KeyPlace::Basic => authorization = true,
                    }
                }
            }
            Proof::Basic(_) => authorization = true,
            Proof::ClientCertificate | Proof::Forward(_) => {}
        }
    }
    if forwarded {
        (headers, authorization) = (Vec::new(), false);
    }
    Hidden { query: query.into(), cookies: cookies.into(), headers: headers.into(), authorization }
}

fn challenges(proofs: &[Proof]) -> Box<[Box<str>]> {
    let mut all: Vec<Box<str>> = Vec::new();
    for proof in proofs {
        match proof {
            Proof::Jwt { .. } => all.push("Bearer realm=\"api\"".into()),
            Proof::Basic(users) => all.push(users.challenge.as_str().into()),
            Proof::ApiKey(sets) => {
                let basic = sets.iter().any(|set| set.places.contains(&KeyPlace::Basic));
                let challenge = if basic { "Basic realm=\"api\", charset=\"UTF-8\"" } else { "ApiKey realm=\"api\"" };
                all.push(challenge.into());
            }
            Proof::ClientCertificate | Proof::Forward(_) => {}
        }
    }
    all.dedup();
    // RFC 9110 15.5.2 wants one.
    if all.is_empty() {
        all.push("Bearer realm=\"api\"".into());
    }
    all.into()
}
