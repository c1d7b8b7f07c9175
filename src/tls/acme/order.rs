//! One order: challenges, proofs, certificate (RFC 8555 7.4).

use std::sync::Arc;
use std::time::Duration;

use instant_acme::{
    Account, AuthorizationHandle, AuthorizationStatus, CertificateIdentifier, ChallengeHandle, ChallengeType, Error,
    Identifier, NewOrder, OrderStatus, RetryPolicy,
};
use zeroize::Zeroizing;

use super::Acme;
use super::challenges::{Challenges, Offer};
use super::dns::{self, Change, DnsError};
use crate::settings::DnsProof;

/// For the CA to look, and to sign.
const POLL: Duration = Duration::from_secs(60);

#[derive(Debug, thiserror::Error)]
pub(super) enum OrderError {
    #[error("{0}")]
    Acme(#[from] Error),
    #[error("the CA offers no challenge of the kind {0}")]
    NoChallenge(&'static str),
    #[error("the CA did not accept that the name is ours: {0}")]
    Refused(String),
    #[error("no certificate for the challenge: {0}")]
    Mint(#[from] rcgen::Error),
    #[error("no certificate for the challenge: {0}")]
    Key(#[from] rustls::Error),
    #[error("the answer to a challenge cannot be kept: {0}")]
    Keep(#[from] std::io::Error),
    #[error("DNS: {0}")]
    Dns(#[from] DnsError),
}

impl OrderError {
    /// RFC 8555 6.7: `accountDoesNotExist`.
    pub(super) fn is_unknown_account(&self) -> bool {
        let OrderError::Acme(Error::Api(problem)) = self else { return false };
        problem.r#type.as_deref().is_some_and(|kind| kind.ends_with(":accountDoesNotExist"))
    }

    /// The CA did not answer, or not like one.
    pub(super) fn is_silence(&self) -> bool {
        matches!(self, OrderError::Acme(Error::Http(_) | Error::Hyper(_) | Error::Other(_)))
    }

    /// RFC 8555 6.7: `rateLimited`.
    pub(super) fn is_rate_limit(&self) -> bool {
        let OrderError::Acme(Error::Api(problem)) = self else { return false };
        problem.r#type.as_deref().is_some_and(|kind| kind.ends_with(":rateLimited")) || problem.status == Some(429)
    }
}

/// How a name is proven.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Proof {
    TlsAlpn01,
    Http01,
    Dns01,
}

/// The proofs that can be tried for names, in turn. Which ports a CA can reach is not known beforehand.
pub(super) fn proofs(names: &[Box<str>], by_dns: bool) -> &'static [Proof] {
    match (names.iter().any(|name| name.starts_with("*.")), by_dns) {
        (true, _) => &[Proof::Dns01],
        (false, true) => &[Proof::Dns01, Proof::TlsAlpn01],
        (false, false) => &[Proof::TlsAlpn01, Proof::Http01],
    }
}

/// What is ordered.
pub(super) struct Wanted<'w> {
    pub(super) names: &'w [Box<str>],
    pub(super) profile: Option<&'w str>,
    /// The certificate it stands for (RFC 9773 5).
    pub(super) replaces: Option<CertificateIdentifier<'w>>,
}

/// What it is proven with.
pub(super) struct Means<'m> {
    pub(super) proof: Proof,
    pub(super) challenges: &'m Challenges,
    pub(super) dns: Option<&'m DnsProof>,
}

/// Answers that stand until the order is through.
pub(super) struct Standing {
    acme: Arc<Acme>,
    ca: String,
    offers: Vec<Offer>,
    records: Vec<Written>,
}

/// A record that was written, or may have been: written down before, so that a crash leaves none behind for good.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
struct Written {
    ca: String,
    name: String,
    value: String,
}

/// No CA begins with a dot.
const RECORDS: &str = ".records";

impl Written {
    /// Values are SHA-256 in base64url.
    fn key(&self) -> &str {
        &self.value
    }
}

impl Standing {
    pub(super) fn new(acme: Arc<Acme>, ca: &str) -> Standing {
        Standing { acme, ca: ca.to_owned(), offers: Vec::new(), records: Vec::new() }
    }

    async fn write(&mut self, words: &DnsProof, name: String, value: String) -> Result<(), OrderError> {
        let record = Written { ca: self.ca.clone(), name, value };
        let (acme, kept) = (self.acme.clone(), record.clone());
        let json = serde_json::to_vec(&record).unwrap_or_default();
        let written = tokio::task::spawn_blocking(move || acme.store.write(RECORDS, kept.key(), &json)).await;
        written.map_err(std::io::Error::other)??;
        self.records.push(record.clone());
        dns::change(words, Change::Set, &record.name, &record.value).await?;
        Ok(())
    }

    /// Takes back what was written elsewhere.
    pub(super) async fn clear(self, means: &Means<'_>) {
        let Some(words) = means.dns else { return };
        for record in &self.records {
            self.acme.clear(words, record).await;
        }
    }
}

impl Acme {
    async fn clear(self: &Arc<Self>, words: &DnsProof, record: &Written) {
        if let Err(error) = dns::change(words, Change::Clear, &record.name, &record.value).await {
            // The next start tries again.
            return tracing::warn!(name = record.name, %error, "a record of a challenge that is over still stands");
        }
        let (acme, record) = (self.clone(), record.clone());
        let _ = tokio::task::spawn_blocking(move || acme.store.remove(RECORDS, record.key())).await;
    }

    /// What orders that were cut off have left in zones is taken back.
    pub(super) async fn clear_leftovers(self: &Arc<Self>) {
        let acme = self.clone();
        let read = tokio::task::spawn_blocking(move || {
            let keys = acme.store.list(RECORDS).unwrap_or_default();
            let records = keys
                .iter()
                .filter_map(|key| serde_json::from_slice::<Written>(&acme.store.read(RECORDS, key).ok()??).ok());
            records.collect::<Vec<_>>()
        });
        for record in read.await.unwrap_or_default() {
            if let Some(words) = self.authorities.get(&record.ca).and_then(|ca| ca.words.dns.as_ref()) {
                self.clear(words, &record).await;
            }
        }
    }
}

/// Key and chain in PEM, in this order.
pub(super) async fn obtain(
    account: &Account,
    wanted: Wanted<'_>,
    means: &Means<'_>,
    standing: &mut Standing,
) -> Result<Zeroizing<String>, OrderError> {
    let retries = RetryPolicy::new().timeout(POLL);
    let identifiers: Vec<Identifier> = wanted.names.iter().map(|name| Identifier::Dns(name.to_string())).collect();
    let mut new = NewOrder::new(&identifiers);
    if let Some(profile) = wanted.profile {
        new = new.profile(profile);
    }
    if let Some(replaces) = wanted.replaces {
        new = new.replaces(replaces);
    }
    let mut order = account.new_order(&new).await?;
    // First every answer, then the CA is told: records need their time, and they need it once.
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization?;
        if authorization.status != AuthorizationStatus::Valid {
            let name = bare_name(&authorization);
            offer(&name, challenge(&mut authorization, means.proof)?, means, standing).await?;
        }
    }
    if let Some(words) = means.dns.filter(|_| !standing.records.is_empty()) {
        tokio::time::sleep(words.settle.0).await;
    }
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization?;
        if authorization.status != AuthorizationStatus::Valid {
            challenge(&mut authorization, means.proof)?.set_ready().await?;
        }
    }
    match order.poll_ready(&retries).await? {
        OrderStatus::Ready | OrderStatus::Valid => {}
        _ => return Err(OrderError::Refused(why(&mut order).await)),
    }
    let key = Zeroizing::new(order.finalize().await?);
    let chain = order.poll_certificate(&retries).await?;
    Ok(Zeroizing::new(format!("{}\n{chain}", *key)))
}

/// The name that is proven, of a wildcard the part behind `*.`.
fn bare_name(authorization: &AuthorizationHandle<'_>) -> String {
    authorization.identifier().to_string().trim_start_matches("*.").to_owned()
}

fn challenge<'a>(
    authorization: &'a mut AuthorizationHandle<'a>,
    proof: Proof,
) -> Result<ChallengeHandle<'a>, OrderError> {
    let (kind, text) = match proof {
        Proof::TlsAlpn01 => (ChallengeType::TlsAlpn01, "tls-alpn-01"),
        Proof::Http01 => (ChallengeType::Http01, "http-01"),
        Proof::Dns01 => (ChallengeType::Dns01, "dns-01"),
    };
    authorization.challenge(kind).ok_or(OrderError::NoChallenge(text))
}

async fn offer(
    name: &str,
    challenge: ChallengeHandle<'_>,
    means: &Means<'_>,
    standing: &mut Standing,
) -> Result<(), OrderError> {
    let key = challenge.key_authorization();
    match means.proof {
        Proof::Http01 => standing.offers.push(means.challenges.offer_http(&challenge.token, key.as_str()).await?),
        Proof::TlsAlpn01 => standing.offers.push(means.challenges.offer_alpn(name, key.digest().as_ref()).await?),
        Proof::Dns01 => {
            let words = means.dns.ok_or(DnsError::Unsaid)?;
            standing.write(words, format!("_acme-challenge.{name}"), key.dns_value()).await?;
        }
    }
    Ok(())
}

/// What the CA said about the name.
async fn why(order: &mut instant_acme::Order) -> String {
    let mut authorizations = order.authorizations();
    while let Some(Ok(authorization)) = authorizations.next().await {
        if let Some(problem) = authorization.challenges.iter().find_map(|challenge| challenge.error.as_ref()) {
            return problem.to_string();
        }
    }
    "it gave no reason".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_are_proven_by_dns_alone() {
        let names = |all: &[&str]| all.iter().map(|name| (*name).into()).collect::<Vec<Box<str>>>();
        assert_eq!(proofs(&names(&["a.test", "*.a.test"]), true), [Proof::Dns01]);
        assert_eq!(proofs(&names(&["a.test"]), true), [Proof::Dns01, Proof::TlsAlpn01]);
        assert_eq!(proofs(&names(&["a.test"]), false), [Proof::TlsAlpn01, Proof::Http01]);
    }
}
