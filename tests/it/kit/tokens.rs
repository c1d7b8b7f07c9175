//! Issuers of tokens: keys that sign, and a real HTTP server that publishes them.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use http::{Response, StatusCode};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use rcgen::{KeyPair, PublicKeyData as _, RsaKeySize};
use serde_json::{Value, json};
use x509_parser::prelude::FromDer as _;

use super::{Origin, full};

/// `iss` of every token of the kit.
pub(crate) const ISSUER: &str = "https://accounts.test";

/// A key that signs tokens.
pub(crate) struct Signer {
    pub(crate) kid: String,
    pub(crate) algorithm: Algorithm,
    key: EncodingKey,
    /// The public key.
    pub(crate) jwk: Value,
    pub(crate) public_pem: String,
}

impl Signer {
    pub(crate) fn new(kid: &str, algorithm: Algorithm) -> Signer {
        let pair = match algorithm {
            Algorithm::ES256 => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256),
            Algorithm::ES384 => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384),
            Algorithm::EdDSA => KeyPair::generate_for(&rcgen::PKCS_ED25519),
            _ => KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_2048),
        };
        let pair = pair.unwrap();
        let pem = pair.serialize_pem();
        let raw = pair.der_bytes().to_vec();
        let text = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
        let (key, mut jwk) = match algorithm {
            Algorithm::ES256 | Algorithm::ES384 => {
                let (x, y) = raw[1..].split_at((raw.len() - 1) / 2);
                let curve = if algorithm == Algorithm::ES256 { "P-256" } else { "P-384" };
                let jwk = json!({ "kty": "EC", "crv": curve, "x": text(x), "y": text(y) });
                (EncodingKey::from_ec_pem(pem.as_bytes()), jwk)
            }
            Algorithm::EdDSA => {
                let jwk = json!({ "kty": "OKP", "crv": "Ed25519", "x": text(&raw) });
                (EncodingKey::from_ed_pem(pem.as_bytes()), jwk)
            }
            _ => {
                let info = pair.subject_public_key_info();
                let (_, info) = x509_parser::x509::SubjectPublicKeyInfo::from_der(&info).unwrap();
                let x509_parser::public_key::PublicKey::RSA(rsa) = info.parsed().unwrap() else { panic!("no RSA key") };
                let modulus = rsa.modulus.strip_prefix(&[0]).unwrap_or(rsa.modulus);
                let jwk = json!({ "kty": "RSA", "n": text(modulus), "e": text(rsa.exponent) });
                (EncodingKey::from_rsa_pem(pem.as_bytes()), jwk)
            }
        };
        (jwk["kid"], jwk["use"]) = (json!(kid), json!("sig"));
        Signer { kid: kid.to_owned(), algorithm, key: key.unwrap(), jwk, public_pem: pair.public_key_pem() }
    }

    /// A token of these claims, as they are.
    pub(crate) fn exactly(&self, claims: &Value) -> String {
        let header = Header { kid: Some(self.kid.clone()), ..Header::new(self.algorithm) };
        jsonwebtoken::encode(&header, claims, &self.key).unwrap()
    }

    /// A good token for `api`, with more claims or others.
    pub(crate) fn token(&self, more: Value) -> String {
        let mut claims = json!({ "iss": ISSUER, "aud": "api", "sub": "u1", "iat": now(), "exp": now() + 600 });
        claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        self.exactly(&claims)
    }

    /// Header and payload as they are, with a signature over them that is right.
    pub(crate) fn raw(&self, header: &str, payload: &str) -> String {
        let message = format!("{}.{}", BASE64_URL_SAFE_NO_PAD.encode(header), BASE64_URL_SAFE_NO_PAD.encode(payload));
        let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &self.key, self.algorithm).unwrap();
        format!("{message}.{signature}")
    }
}

/// Seconds of the Unix epoch.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// Publishes keys under `/jwks`, and what OpenID providers say of themselves.
pub(crate) struct KeyServer {
    pub(crate) origin: Origin,
    keys: Arc<Mutex<Vec<Value>>>,
    fetches: Arc<AtomicUsize>,
    /// The `issuer` that the provider's document names; empty: its own address.
    provider: Arc<Mutex<String>>,
}

impl KeyServer {
    pub(crate) fn start(signers: &[&Signer]) -> KeyServer {
        let keys = Arc::new(Mutex::new(Vec::new()));
        let fetches = Arc::new(AtomicUsize::new(0));
        let provider = Arc::new(Mutex::new(String::new()));
        let origin = {
            let (keys, fetches, provider) = (keys.clone(), fetches.clone(), provider.clone());
            Origin::replying(move |seen| match seen.target() {
                "/jwks" => {
                    fetches.fetch_add(1, Ordering::SeqCst);
                    Response::new(full(json!({ "keys": *keys.lock().unwrap() }).to_string()))
                }
                "/.well-known/openid-configuration" => {
                    let own = format!("http://{}", seen.header("host"));
                    let named = provider.lock().unwrap().clone();
                    let issuer = if named.is_empty() { own.clone() } else { named };
                    Response::new(full(json!({ "issuer": issuer, "jwks_uri": format!("{own}/jwks") }).to_string()))
                }
                _ => Response::builder().status(StatusCode::NOT_FOUND).body(full("")).unwrap(),
            })
        };
        let server = KeyServer { origin, keys, fetches, provider };
        server.publish(signers);
        server
    }

    pub(crate) fn publish(&self, signers: &[&Signer]) {
        *self.keys.lock().unwrap() = signers.iter().map(|signer| signer.jwk.clone()).collect();
    }

    /// What it calls itself from now on.
    pub(crate) fn pose_as(&self, issuer: &str) {
        issuer.clone_into(&mut self.provider.lock().unwrap());
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.origin.address())
    }

    pub(crate) fn fetches(&self) -> usize {
        self.fetches.load(Ordering::SeqCst)
    }

    /// The block `[issuer.accounts]`.
    pub(crate) fn block(&self, more: &str) -> String {
        format!(
            "[issuer.accounts]\nissuer = \"{ISSUER}\"\naudience = \"api\"\njwks = \"{}/jwks\"\n{more}\n",
            self.url()
        )
    }
}
