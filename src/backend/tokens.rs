//! Tokens: short ones that say who somebody is (JWT, ES256), and random ones that renew them.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, Header, Validation};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::keys::Ring;
use super::moment::{Ms, ms, new_id};
use super::refusal::Refusal;
use crate::settings::backend as settings;

/// Longer tokens are not ours.
const TOKEN_MAX: usize = 4096;
/// Random bytes of a refresh token.
const REFRESH_BYTES: usize = 32;

/// What an access token says.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
pub(super) struct Claims {
    iss: String,
    aud: Vec<String>,
    /// The account.
    pub(super) sub: String,
    pub(super) role: Role,
    /// The session: it may be ended before the token is.
    pub(super) sid: String,
    jti: String,
    iat: u64,
    pub(super) exp: u64,
}

#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub(super) enum Role {
    User,
    Admin,
}

impl Role {
    pub(super) fn name(self) -> &'static str {
        match self {
            Role::User => "user",
            Role::Admin => "admin",
        }
    }

    /// As the database has it.
    pub(super) fn of(name: &str) -> Role {
        if name == "admin" { Role::Admin } else { Role::User }
    }
}

pub(super) fn base64url(bytes: &[u8]) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

/// A new access token.
pub(super) fn issue(
    ring: &Ring,
    words: &settings::Token,
    (user, role): (&str, Role),
    session: &str,
    now: Ms,
) -> Result<String, Refusal> {
    let key = ring.signing(now).ok_or_else(|| Refusal::internal("there is no key to sign with"))?;
    let seconds = |at: Ms| u64::try_from(at / 1000).unwrap_or_default();
    let claims = Claims {
        iss: words.issuer.clone(),
        aud: words.audience.0.clone(),
        sub: user.to_owned(),
        role,
        sid: session.to_owned(),
        jti: new_id(),
        iat: seconds(now),
        exp: seconds(now + ms(words.access.0)),
    };
    let header = Header { kid: Some(key.id.clone()), ..Header::new(Algorithm::ES256) };
    jsonwebtoken::encode(&header, &claims, &key.signing).map_err(Refusal::internal)
}

/// What a token says, if it is one of ours and has not ended.
pub(super) fn verify(ring: &Ring, words: &settings::Token, token: &str) -> Result<Claims, Refusal> {
    if token.len() > TOKEN_MAX {
        return Err(Refusal::Token);
    }
    let header = jsonwebtoken::decode_header(token).map_err(|_| Refusal::Token)?;
    let key = header.kid.as_deref().and_then(|kid| ring.by_id(kid)).ok_or(Refusal::Token)?;
    let mut validation = Validation::new(Algorithm::ES256);
    validation.leeway = 0;
    validation.set_issuer(&[&words.issuer]);
    validation.set_audience(&words.audience.0);
    let decoded = jsonwebtoken::decode::<Claims>(token, &key.verifying, &validation);
    decoded.map(|decoded| decoded.claims).map_err(|_| Refusal::Token)
}

/// A new refresh token; the database gets its digest only.
pub(super) fn new_refresh() -> Result<Zeroizing<String>, Refusal> {
    let mut random = Zeroizing::new([0; REFRESH_BYTES]);
    aws_lc_rs::rand::fill(&mut *random).map_err(|_| Refusal::internal("no random bytes"))?;
    Ok(Zeroizing::new(base64url(&*random)))
}

pub(super) fn digest(token: &str) -> Vec<u8> {
    aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, token.as_bytes()).as_ref().to_vec()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::keys::Times;
    use super::super::moment;
    use super::super::store::migrated;
    use super::*;

    fn ring() -> Ring {
        let times = Times { rotate: Duration::from_secs(1000), access: Duration::from_secs(100) };
        Ring::turn(&migrated(), times, moment::now() - 10_000).unwrap()
    }

    #[test]
    fn only_own_tokens_are_taken_and_only_until_they_end() {
        let (ring, words, now) = (ring(), settings::Token::default(), moment::now());
        let token = issue(&ring, &words, ("u1", Role::User), "s1", now).unwrap();
        let claims = verify(&ring, &words, &token).unwrap();
        assert_eq!((claims.sub.as_str(), claims.sid.as_str(), claims.role), ("u1", "s1", Role::User));
        let others = settings::Token { issuer: "other".to_owned(), ..words.clone() };
        let foreign = settings::Token { audience: crate::scalar::OneOrMany(vec!["web".to_owned()]), ..words.clone() };
        for other in [&others, &foreign] {
            let token = issue(&ring, other, ("u1", Role::Admin), "s1", now).unwrap();
            assert_eq!(verify(&ring, &words, &token), Err(Refusal::Token));
        }
        let short = settings::Token { access: crate::scalar::Span::from_secs(1), ..words.clone() };
        let token = issue(&ring, &short, ("u1", Role::User), "s1", now - 5000).unwrap();
        assert_eq!(verify(&ring, &words, &token), Err(Refusal::Token));
    }

    #[test]
    fn a_token_that_was_changed_or_is_of_another_key_is_refused() {
        let (mine, other, words) = (ring(), ring(), settings::Token::default());
        let token = issue(&other, &words, ("u1", Role::User), "s1", moment::now()).unwrap();
        assert_eq!(verify(&mine, &words, &token), Err(Refusal::Token));
        let token = issue(&mine, &words, ("u1", Role::User), "s1", moment::now()).unwrap();
        let (head, signature) = token.rsplit_once('.').unwrap();
        let (header, payload) = head.split_once('.').unwrap();
        let payload = String::from_utf8(BASE64_URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap();
        let raised = BASE64_URL_SAFE_NO_PAD.encode(payload.replace("\"user\"", "\"admin\""));
        let none = BASE64_URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#);
        for forged in [
            format!("{header}.{raised}.{signature}"),
            format!("{none}.{raised}."),
            format!("{head}."),
            String::new(),
            "x".repeat(TOKEN_MAX + 1),
        ] {
            assert_eq!(verify(&mine, &words, &forged), Err(Refusal::Token), "{forged}");
        }
    }
}
