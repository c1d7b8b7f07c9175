//! Tokens (JWT, RFC 7519, RFC 8725): whose they are, whether they are good, what they say.
//!
//! Nothing that a token says about itself decides how it is verified: the key does. What was verified is remembered, by a
//! digest of the token, until the token ends or its key is gone.

use std::sync::Arc;

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jsonwebtoken::Algorithm;
use serde_json::{Map, Value};

use super::issuer::Issuer;
use super::keys::{Key, Keys};
use super::revoked::Revocations;
use super::ring::Learned;
use super::strict;
use crate::bounded::Bounded;
use crate::facts::{Proven, Subject};

/// Verified tokens that are remembered.
const REMEMBERED_MAX: usize = 20_000;
/// Keys that are tried for a token that names none.
const TRIED_MAX: usize = 10;
/// Longest token that is remembered.
const REMEMBERED_LENGTH: usize = 4 << 10;
const KID_MAX: usize = 256;
const HEADER_MAX: usize = 4 << 10;

/// Tokens that were verified.
#[derive(Debug)]
pub struct Remembered(Bounded<Arc<Verified>>);

impl Default for Remembered {
    fn default() -> Remembered {
        Remembered(Bounded::new(REMEMBERED_MAX))
    }
}

/// A token that was good when it was verified.
#[derive(Debug)]
struct Verified {
    subject: Arc<Subject>,
    exp: u64,
    nbf: u64,
    key: [u8; 32],
    issuer: Arc<str>,
    words: u64,
}

/// Why a token is not good. Clients are told nothing of it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum TokenFault {
    #[error("no token: {0}")]
    Shape(&'static str),
    #[error("the algorithm `{0}` is not one that is taken")]
    Algorithm(String),
    #[error("`crit` names extensions that nobody here knows")]
    Critical,
    #[error("the type is `{0}`")]
    Type(String),
    #[error("no issuer of this route is `{0}`")]
    Issuer(String),
    #[error("no key for it")]
    Key,
    #[error("the signature is wrong")]
    Signature,
    #[error("it ended {0} s ago")]
    Expired(u64),
    #[error("it begins in {0} s")]
    Early(u64),
    #[error("it is for somebody else")]
    Audience,
    #[error("claim `{0}` is missing or of the wrong kind")]
    Claim(&'static str),
    #[error("it is revoked")]
    Revoked,
    #[error("the keys of issuer `{0}` are not known")]
    NoKeys(String),
    #[error("it is not known already, and this is no time to find out")]
    NotNow,
}

impl TokenFault {
    /// Whether somebody may have made it up. What was good once is nobody's guess.
    pub(super) fn is_guess(&self) -> bool {
        !matches!(
            self,
            TokenFault::Expired(_)
                | TokenFault::Early(_)
                | TokenFault::Audience
                | TokenFault::Revoked
                | TokenFault::NoKeys(_)
                | TokenFault::NotNow
        )
    }
}

/// What a token says before anything is verified.
struct Unverified<'t> {
    message: &'t str,
    signature: &'t str,
    algorithm: Algorithm,
    kid: Option<String>,
    claims: Map<String, Value>,
}

/// Looks at a token for the issuers of a route. Waits only where its key is not known. `known_only`: without verifying.
pub(super) async fn verify(
    token: &str,
    issuers: &[Arc<Issuer>],
    remembered: &Remembered,
    revocations: &Revocations,
    known_only: bool,
    now: u64,
) -> Result<Arc<Subject>, TokenFault> {
    let longest = issuers.iter().map(|issuer| issuer.token_max).max().unwrap_or(0);
    if token.len() > longest {
        return Err(TokenFault::Shape("it is too long"));
    }
    let key = remembered.0.key(digest::digest(&digest::SHA256, token.as_bytes()).as_ref());
    if let Some(verified) = remembered.0.get(key) {
        let issuer = issuers.iter().find(|one| one.name == verified.issuer && one.words == verified.words);
        if let Some(issuer) = issuer.filter(|one| one.ring().keys().is_some_and(|keys| keys.has(&verified.key))) {
            in_time(verified.exp, verified.nbf, issuer.leeway, now)?;
            return match revocations.covers(&verified.subject, now) {
                true => Err(TokenFault::Revoked),
                false => Ok(verified.subject.clone()),
            };
        }
    }
    if known_only {
        return Err(TokenFault::NotNow);
    }
    let unverified = Unverified::read(token)?;
    let iss = unverified.claims.get("iss").and_then(Value::as_str).ok_or(TokenFault::Claim("iss"))?;
    let Some(issuer) = issuers.iter().find(|issuer| issuer.iss == iss) else {
        return Err(TokenFault::Issuer(iss.chars().take(100).collect()));
    };
    if token.len() > issuer.token_max {
        return Err(TokenFault::Shape("it is too long"));
    }
    if let Some(wanted) = &issuer.token_type {
        unverified.check_type(token, wanted)?;
    }
    if !issuer.takes(unverified.algorithm) {
        return Err(TokenFault::Algorithm(format!("{:?}", unverified.algorithm)));
    }
    if !issuer.is_for_us(unverified.claims.get("aud")) {
        return Err(TokenFault::Audience);
    }
    let exp = time(&unverified.claims, "exp")?.ok_or(TokenFault::Claim("exp"))?;
    let nbf = time(&unverified.claims, "nbf")?.unwrap_or(0);
    in_time(exp, nbf, issuer.leeway, now)?;
    let ring = issuer.ring();
    if let Some(kid) = &unverified.kid {
        match ring.learn(kid).await {
            Learned::Known => {}
            Learned::Unknown => return Err(TokenFault::Key),
            Learned::Unsure => return Err(TokenFault::NoKeys(issuer.name.to_string())),
        }
    }
    let keys = ring.keys().ok_or_else(|| TokenFault::NoKeys(issuer.name.to_string()))?;
    for name in ["sub", "jti"] {
        // RFC 7519 4.1: they are texts. As anything else nobody could revoke them by it.
        if unverified.claims.get(name).is_some_and(|value| !value.is_string()) {
            return Err(TokenFault::Claim(name));
        }
    }
    let signer = unverified.signer(&keys)?;
    let name = unverified.claims.get("sub").and_then(Value::as_str).unwrap_or_default().to_owned();
    let mut subject = Subject::new(Proven::Jwt, &name, &issuer.name);
    subject.claims = unverified.claims;
    // Of the key, not of the token: what a token leaves out must not save it.
    subject.key = Some(signer.name());
    subject.expires = Some(exp.saturating_add(issuer.leeway));
    let subject = Arc::new(subject);
    let (issuer, words) = (issuer.name.clone(), issuer.words);
    let verified = Verified { subject: subject.clone(), exp, nbf, key: signer.id, issuer, words };
    if token.len() <= REMEMBERED_LENGTH {
        remembered.0.put(key, Arc::new(verified));
    }
    if revocations.covers(&subject, now) { Err(TokenFault::Revoked) } else { Ok(subject) }
}

fn in_time(exp: u64, nbf: u64, leeway: u64, now: u64) -> Result<(), TokenFault> {
    if now >= exp.saturating_add(leeway) {
        return Err(TokenFault::Expired(now.saturating_sub(exp)));
    }
    if nbf > now.saturating_add(leeway) {
        return Err(TokenFault::Early(nbf - now));
    }
    Ok(())
}

/// A NumericDate (RFC 7519 2): seconds, perhaps with a part of one.
fn time(claims: &Map<String, Value>, name: &'static str) -> Result<Option<u64>, TokenFault> {
    let Some(value) = claims.get(name) else { return Ok(None) };
    let seconds = value.as_f64().filter(|seconds| (0.0..=1e15).contains(seconds)).ok_or(TokenFault::Claim(name))?;
    Ok(Some(seconds as u64))
}

impl<'t> Unverified<'t> {
    fn read(token: &'t str) -> Result<Unverified<'t>, TokenFault> {
        let mut parts = token.split('.');
        let (Some(header), Some(payload), Some(signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(TokenFault::Shape("it has not three parts"));
        };
        if header.len() > HEADER_MAX {
            return Err(TokenFault::Shape("its header is too long"));
        }
        // Without padding, and with nothing in the bits that do not count: a token has one form.
        let decode = |part: &str, what| BASE64_URL_SAFE_NO_PAD.decode(part).map_err(|_| TokenFault::Shape(what));
        decode(signature, "its signature is not base64url")?;
        let header = strict::object(&decode(header, "its header is not base64url")?)
            .map_err(|_| TokenFault::Shape("its header is no JSON object that means one thing"))?;
        if header.contains_key("crit") {
            return Err(TokenFault::Critical);
        }
        let named = header.get("alg").and_then(Value::as_str).ok_or(TokenFault::Shape("it names no algorithm"))?;
        let algorithm: Algorithm =
            named.parse().map_err(|_| TokenFault::Algorithm(named.chars().take(32).collect()))?;
        let kid = match header.get("kid") {
            None => None,
            Some(Value::String(kid)) if kid.len() <= KID_MAX => Some(kid.clone()),
            Some(_) => return Err(TokenFault::Shape("its `kid` is no short text")),
        };
        let claims = strict::object(&decode(payload, "its payload is not base64url")?)
            .map_err(|_| TokenFault::Shape("its payload is no JSON object that means one thing"))?;
        let message = token.get(..token.len() - signature.len() - 1).unwrap_or_default();
        Ok(Unverified { message, signature, algorithm, kid, claims })
    }

    fn check_type(&self, token: &str, wanted: &str) -> Result<(), TokenFault> {
        let header = token.split('.').next().unwrap_or_default();
        let header = BASE64_URL_SAFE_NO_PAD.decode(header).unwrap_or_default();
        let header = strict::object(&header).unwrap_or_default();
        let named = header.get("typ").and_then(Value::as_str).unwrap_or_default();
        // RFC 7515 4.1.9: `application/` may be left out, and case does not count.
        let bare = |text: &str| text.to_ascii_lowercase().trim_start_matches("application/").to_owned();
        match bare(named) == bare(wanted) {
            true => Ok(()),
            false => Err(TokenFault::Type(named.chars().take(32).collect())),
        }
    }

    /// The key that has signed it.
    fn signer<'k>(&self, keys: &'k Keys) -> Result<&'k Key, TokenFault> {
        let mut fault = TokenFault::Key;
        for key in keys.fitting(self.kid.as_deref(), self.algorithm).take(TRIED_MAX) {
            let good =
                jsonwebtoken::crypto::verify(self.signature, self.message.as_bytes(), &key.decoding, self.algorithm);
            if good.unwrap_or(false) {
                return Ok(key);
            }
            fault = TokenFault::Signature;
        }
        Err(fault)
    }
}

#[cfg(test)]
#[path = "jwt_tests.rs"]
mod tests;
