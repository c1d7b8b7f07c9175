//! Keys that tokens are verified with: what they are for, and how they are read.
//!
//! A key says which algorithms it is for; what a token says about itself decides nothing.

use aws_lc_rs::digest;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use x509_parser::oid_registry::{
    OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_NIST_EC_P384, OID_PKCS1_RSAENCRYPTION, OID_SIG_ED25519,
};
use x509_parser::prelude::FromDer;
use x509_parser::x509::SubjectPublicKeyInfo;

/// Keys of one issuer.
const KEYS_MAX: usize = 100;
/// RFC 7518 3.3.
const RSA_BITS_MIN: usize = 2048;

pub(super) const RSA: [Algorithm; 6] =
    [Algorithm::RS256, Algorithm::RS384, Algorithm::RS512, Algorithm::PS256, Algorithm::PS384, Algorithm::PS512];

/// A key.
#[derive(Clone)]
pub(super) struct Key {
    /// What tells it from others: a cached verdict is good as long as the key is there.
    pub(super) id: [u8; 32],
    kid: Option<String>,
    algorithms: Vec<Algorithm>,
    pub(super) decoding: DecodingKey,
}

impl Key {
    /// What operators call it: its `kid`; of a key without one the beginning of its digest.
    pub(super) fn name(&self) -> Box<str> {
        match &self.kid {
            Some(kid) => kid.as_str().into(),
            None => self.id.iter().take(8).map(|byte| format!("{byte:02x}")).collect(),
        }
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Key").field("kid", &self.kid).field("algorithms", &self.algorithms).finish_non_exhaustive()
    }
}

/// All keys of an issuer at a time.
#[derive(Clone, Debug, Default)]
pub struct Keys(Vec<Key>);

impl Keys {
    /// Keys that a token may have been signed with: the one that it names, else those that have no name; every one of the
    /// algorithm if it names none.
    pub(super) fn fitting<'k, 't>(
        &'k self,
        kid: Option<&'t str>,
        algorithm: Algorithm,
    ) -> impl Iterator<Item = &'k Key> + use<'k, 't> {
        let named = kid.is_some() && self.0.iter().any(|key| key.kid.as_deref() == kid);
        self.0.iter().filter(move |key| {
            key.algorithms.contains(&algorithm)
                && match (named, kid) {
                    (true, kid) => key.kid.as_deref() == kid,
                    (false, Some(_)) => key.kid.is_none(),
                    (false, None) => true,
                }
        })
    }

    pub(super) fn knows(&self, kid: &str) -> bool {
        self.0.iter().any(|key| key.kid.as_deref().is_none_or(|known| known == kid))
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether they are the same.
    pub(super) fn are(&self, other: &Keys) -> bool {
        self.0.iter().map(|key| key.id).eq(other.0.iter().map(|key| key.id))
    }

    pub(super) fn has(&self, id: &[u8; 32]) -> bool {
        self.0.iter().any(|key| key.id == *id)
    }

    /// A shared secret.
    pub(super) fn secret(secret: &[u8], algorithms: Vec<Algorithm>) -> Keys {
        Keys(vec![Key { id: hash(secret), kid: None, algorithms, decoding: DecodingKey::from_secret(secret) }])
    }

    /// A JWKS, or public keys in PEM.
    pub(super) fn read(text: &str) -> Result<Keys, String> {
        let keys = if text.trim_start().starts_with('{') { jwks(text)? } else { pem(text)? };
        match keys.len() {
            0 => Err("there is no key in it that can verify a signature".to_owned()),
            1..=KEYS_MAX => Ok(Keys(keys)),
            more => Err(format!("{more} keys; {KEYS_MAX} at most")),
        }
    }
}

fn hash(bytes: &[u8]) -> [u8; 32] {
    digest::digest(&digest::SHA256, bytes).as_ref().try_into().unwrap_or_default()
}

#[derive(serde::Deserialize)]
struct Set {
    keys: Vec<serde_json::Value>,
}

/// Keys of other kinds and for other uses are left out (RFC 7517 5).
fn jwks(text: &str) -> Result<Vec<Key>, String> {
    let set: Set = serde_json::from_str(text).map_err(|error| format!("no JWKS: {error}"))?;
    Ok(set.keys.iter().filter_map(jwk).collect())
}

fn jwk(value: &serde_json::Value) -> Option<Key> {
    let jwk: Jwk = serde_json::from_value(value.clone()).ok()?;
    let common = &jwk.common;
    let verifies = common.key_operations.as_ref().is_none_or(|all| all.contains(&KeyOperations::Verify));
    if !verifies || common.public_key_use.as_ref().is_some_and(|what| *what != PublicKeyUse::Signature) {
        return None;
    }
    let fitting: Vec<Algorithm> = match &jwk.algorithm {
        AlgorithmParameters::RSA(key) if key.n.len() * 6 >= RSA_BITS_MIN => RSA.to_vec(),
        AlgorithmParameters::EllipticCurve(key) => match key.curve {
            EllipticCurve::P256 => vec![Algorithm::ES256],
            EllipticCurve::P384 => vec![Algorithm::ES384],
            _ => return None,
        },
        AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => vec![Algorithm::EdDSA],
        // Whoever publishes a shared secret has none.
        _ => return None,
    };
    let named = match &common.key_algorithm {
        Some(named) => Some(named.to_string().parse::<Algorithm>().ok()?),
        None => None,
    };
    let algorithms: Vec<Algorithm> =
        fitting.into_iter().filter(|one| named.is_none_or(|named| named == *one)).collect();
    let decoding = DecodingKey::from_jwk(&jwk).ok()?;
    let id = hash(serde_json::to_string(&jwk).unwrap_or_default().as_bytes());
    (!algorithms.is_empty()).then(|| Key { id, kid: common.key_id.clone(), algorithms, decoding })
}

fn pem(text: &str) -> Result<Vec<Key>, String> {
    let mut keys = Vec::new();
    for block in x509_parser::pem::Pem::iter_from_buffer(text.as_bytes()) {
        let block = block.map_err(|_| "no whole PEM".to_owned())?;
        if block.label != "PUBLIC KEY" {
            return Err(format!("`{}` is no public key (PUBLIC KEY, RFC 7468 13)", block.label));
        }
        let (_, info) = SubjectPublicKeyInfo::from_der(&block.contents).map_err(|_| "no public key".to_owned())?;
        let bits: &[u8] = &info.subject_public_key.data;
        let curve = info.algorithm.parameters.as_ref().and_then(|any| any.as_oid().ok());
        let (algorithms, decoding) = match &info.algorithm.algorithm {
            kind if *kind == OID_PKCS1_RSAENCRYPTION => {
                let size = info.parsed().map_or(0, |key| key.key_size());
                if size < RSA_BITS_MIN {
                    return Err(format!("an RSA key of {size} bits; {RSA_BITS_MIN} at least"));
                }
                (RSA.to_vec(), DecodingKey::from_rsa_der(bits))
            }
            kind if *kind == OID_KEY_TYPE_EC_PUBLIC_KEY => match curve {
                Some(curve) if curve == OID_EC_P256 => (vec![Algorithm::ES256], DecodingKey::from_ec_der(bits)),
                Some(curve) if curve == OID_NIST_EC_P384 => (vec![Algorithm::ES384], DecodingKey::from_ec_der(bits)),
                _ => return Err("a curve that is neither P-256 nor P-384".to_owned()),
            },
            kind if *kind == OID_SIG_ED25519 => (vec![Algorithm::EdDSA], DecodingKey::from_ed_der(bits)),
            _ => return Err("a key that is neither RSA nor EC nor Ed25519".to_owned()),
        };
        keys.push(Key { id: hash(&block.contents), kid: None, algorithms, decoding });
    }
    Ok(keys)
}

#[cfg(test)]
mod tests {
    use super::*;

    const EC: &str = r#"{"kty":"EC","crv":"P-256","kid":"a","x":"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4","y":"4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM""#;

    #[test]
    fn keys_are_for_their_own_algorithms() {
        let keys = Keys::read(&format!("{{\"keys\":[{EC}}}]}}")).unwrap();
        assert_eq!(keys.fitting(Some("a"), Algorithm::ES256).count(), 1);
        assert_eq!(keys.fitting(None, Algorithm::ES256).count(), 1);
        assert_eq!(keys.fitting(Some("b"), Algorithm::ES256).count(), 0);
        for other in [Algorithm::HS256, Algorithm::RS256, Algorithm::ES384, Algorithm::EdDSA] {
            assert_eq!(keys.fitting(Some("a"), other).count(), 0, "{other:?}");
        }
    }

    #[test]
    fn what_cannot_verify_is_left_out() {
        for more in [r#","use":"enc"}"#, r#","key_ops":["sign"]}"#, r#","alg":"RS256"}"#, r#","alg":"none"}"#] {
            assert!(Keys::read(&format!("{{\"keys\":[{EC}{more}]}}")).is_err(), "{more}");
        }
        let secret = r#"{"keys":[{"kty":"oct","k":"c2VjcmV0","kid":"a"}]}"#;
        assert!(Keys::read(secret).is_err(), "nobody publishes a secret");
        let short = r#"{"keys":[{"kty":"RSA","n":"AQAB","e":"AQAB"}]}"#;
        assert!(Keys::read(short).is_err());
        for text in ["", "{}", "[]", "{\"keys\":[]}", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"] {
            assert!(Keys::read(text).is_err(), "{text}");
        }
    }
}
