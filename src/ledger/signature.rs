//! Who may say what is in force: ed25519 (RFC 8032) over bucket, digest, revision and parent.

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::Pointer;
use crate::scalar::Secret;

/// Of a public key in DER (RFC 8410) what stands before its 32 bytes.
const SPKI: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("no ed25519 private key in PEM; make one with `openssl genpkey -algorithm ed25519 -out operator.key`")]
    Private,
    #[error(
        "no ed25519 public key, as PEM or its 32 bytes in base64; `openssl pkey -in operator.key -pubout` prints it"
    )]
    Public,
}

/// What is signed is good for one bucket: an operator may have one key for several fleets.
fn signed(bucket: &str, pointer: &Pointer) -> String {
    let Pointer { revision, digest, parent, .. } = pointer;
    format!("tollgate document\n{bucket}\n{digest}\n{revision}\n{parent}\n")
}

fn pem(text: &str, label: &str) -> Option<Vec<u8>> {
    let (_, rest) = text.split_once(&format!("-----BEGIN {label}-----"))?;
    let (inside, _) = rest.split_once(&format!("-----END {label}-----"))?;
    let joined: String = inside.split_whitespace().collect();
    STANDARD.decode(joined).ok()
}

/// Signs pointers.
pub struct Signer(Ed25519KeyPair);

impl Signer {
    /// The key of a PEM text (PKCS#8).
    pub fn new(text: &Secret) -> Result<Signer, KeyError> {
        let der = zeroize::Zeroizing::new(pem(text.expose(), "PRIVATE KEY").ok_or(KeyError::Private)?);
        Ed25519KeyPair::from_pkcs8_maybe_unchecked(&der).map(Signer).map_err(|_| KeyError::Private)
    }

    /// Who accepts what this signs.
    pub fn verifier(&self) -> Verifier {
        let public: Option<[u8; 32]> = self.0.public_key().as_ref().try_into().ok();
        Verifier(public.into_iter().collect())
    }

    pub(super) fn sign(&self, bucket: &str, pointer: &Pointer) -> String {
        STANDARD.encode(self.0.sign(signed(bucket, pointer).as_bytes()))
    }
}

/// The keys whose signatures count.
#[derive(Clone, Debug, Default)]
pub struct Verifier(Vec<[u8; 32]>);

impl Verifier {
    /// Keys as settings hold them. Without any, nothing has to be signed.
    pub fn new<'a>(keys: impl IntoIterator<Item = &'a String>) -> Result<Verifier, KeyError> {
        keys.into_iter().map(|key| public(key).ok_or(KeyError::Public)).collect::<Result<_, _>>().map(Verifier)
    }

    pub fn is_strict(&self) -> bool {
        !self.0.is_empty()
    }

    /// Whether a pointer of a bucket may be followed.
    pub fn accepts(&self, bucket: &str, pointer: &Pointer) -> bool {
        let signature = pointer.signature.as_ref().and_then(|text| STANDARD.decode(text).ok());
        let by = |key: &[u8; 32]| {
            let public = UnparsedPublicKey::new(&ED25519, key);
            signature
                .as_ref()
                .is_some_and(|signature| public.verify(signed(bucket, pointer).as_bytes(), signature).is_ok())
        };
        !self.is_strict() || self.0.iter().any(by)
    }
}

fn public(text: &str) -> Option<[u8; 32]> {
    match pem(text, "PUBLIC KEY") {
        Some(der) => der.strip_prefix(&SPKI)?.try_into().ok(),
        None => STANDARD.decode(text.trim()).ok()?.try_into().ok(),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const B: &str = "bucket";

    pub(in crate::ledger) fn pair() -> (Signer, String) {
        let der = Ed25519KeyPair::generate_pkcs8(&aws_lc_rs::rand::SystemRandom::new()).unwrap();
        let text = format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", STANDARD.encode(der));
        let signer = Signer::new(&Secret::new(&text)).unwrap();
        let public = STANDARD.encode(signer.0.public_key());
        (signer, public)
    }

    #[test]
    fn only_what_was_signed_is_accepted() {
        let (signer, public) = pair();
        let (_, other) = pair();
        let mut pointer = Pointer {
            revision: 2,
            digest: "d".to_owned(),
            parent: 1,
            author: "a".to_owned(),
            reason: String::new(),
            at_ms: 0,
            requires: BTreeSet::new(),
            rollback_of: None,
            signature: None,
        };
        let verifier = Verifier::new([&public]).unwrap();
        assert!(!verifier.accepts(B, &pointer), "unsigned");
        assert!(Verifier::default().accepts(B, &pointer));
        pointer.signature = Some(signer.sign(B, &pointer));
        assert!(verifier.accepts(B, &pointer));
        assert!(!verifier.accepts("other", &pointer), "of another fleet");
        assert!(Verifier::new([&other, &public]).unwrap().accepts(B, &pointer));
        assert!(!Verifier::new([&other]).unwrap().accepts(B, &pointer));
        let changes: [fn(&mut Pointer); 3] = [|p| p.revision = 3, |p| p.parent = 0, |p| p.digest = "e".to_owned()];
        for change in changes {
            let mut changed = pointer.clone();
            change(&mut changed);
            assert!(!verifier.accepts(B, &changed), "{changed:?}");
        }
    }

    #[test]
    fn keys_are_told_from_nonsense() {
        // As `openssl genpkey -algorithm ed25519` and `openssl pkey -pubout` print them.
        let private = "-----BEGIN PRIVATE KEY-----\n\
            MC4CAQAwBQYDK2VwBCIEIJ+DYvh6SEqVTm50DFtMDoQikTmiCqirVv9mWG9qfSnF\n-----END PRIVATE KEY-----\n";
        let public = "-----BEGIN PUBLIC KEY-----\n\
            MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n-----END PUBLIC KEY-----\n";
        assert!(Signer::new(&Secret::new(private)).is_ok());
        assert!(Verifier::new([&public.to_owned()]).is_ok());
        for text in ["", "AAAA", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----"] {
            assert!(Verifier::new([&text.to_owned()]).is_err(), "{text}");
            assert!(Signer::new(&Secret::new(text)).is_err(), "{text}");
        }
    }
}
