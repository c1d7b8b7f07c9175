//! What a CA asks to see that a name is ours (RFC 8555 8.3, RFC 8737): answered while an order is under way, and no longer.
//!
//! Answers stand in the store: whoever shares it can give them, whichever of them the CA happens to reach.

use std::sync::Arc;

use rcgen::{CertificateParams, CustomExtension, KeyPair};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::order::OrderError;
use super::store::Store;

/// The protocol of TLS-ALPN-01.
pub(crate) const ALPN: &[u8] = b"acme-tls/1";

/// No CA begins with a dot.
const SHELF: &str = ".challenges";
/// RFC 8555 8.1: a token has at least 128 bits in base64url.
const TOKEN_LEN: std::ops::RangeInclusive<usize> = 22..=128;
/// A SHA-256.
const DIGEST_LEN: usize = 32;

/// Answers to challenges.
#[derive(Debug)]
pub struct Challenges(Arc<dyn Store>);

/// An answer that stands until this is dropped.
#[derive(Debug)]
pub(super) struct Offer {
    store: Arc<dyn Store>,
    key: String,
}

impl Challenges {
    pub(super) fn new(store: Arc<dyn Store>) -> Challenges {
        Challenges(store)
    }

    /// What `/.well-known/acme-challenge/TOKEN` says.
    pub fn http(&self, token: &str) -> Option<String> {
        let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        if !TOKEN_LEN.contains(&token.len()) || !token.bytes().all(legal) {
            return None;
        }
        let answer = self.0.read(SHELF, &format!("{token}.http")).ok()??;
        String::from_utf8(answer.to_vec()).ok()
    }

    pub(super) async fn offer_http(&self, token: &str, answer: &str) -> Result<Offer, OrderError> {
        self.offer(format!("{token}.http"), answer.as_bytes().to_vec()).await
    }

    pub(super) async fn offer_alpn(&self, name: &str, digest: &[u8]) -> Result<Offer, OrderError> {
        self.offer(format!("{name}.alpn"), digest.to_vec()).await
    }

    async fn offer(&self, key: String, answer: Vec<u8>) -> Result<Offer, OrderError> {
        let offer = Offer { store: self.0.clone(), key };
        let (store, key) = (offer.store.clone(), offer.key.clone());
        let written = tokio::task::spawn_blocking(move || store.write(SHELF, &key, &answer)).await;
        written.map_err(std::io::Error::other)??;
        tokio::time::sleep(self.0.settling()).await;
        Ok(offer)
    }
}

impl ResolvesServerCert for Challenges {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name()?.trim_end_matches('.').to_ascii_lowercase();
        let digest = self.0.read(SHELF, &format!("{name}.alpn")).ok()??;
        (digest.len() == DIGEST_LEN).then(|| certificate(&name, &digest).ok().map(Arc::new))?
    }
}

/// RFC 8737 3: self-signed, for the name alone, with the digest in an extension.
fn certificate(name: &str, digest: &[u8]) -> Result<CertifiedKey, OrderError> {
    let pair = KeyPair::generate()?;
    let mut params = CertificateParams::new(vec![name.to_owned()])?;
    params.custom_extensions = vec![CustomExtension::new_acme_identifier(digest)];
    let certificate = params.self_signed(&pair)?;
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(pair.serialize_der()));
    // Not `from_der`: it reads the certificate and stumbles over the critical extension, which is the point of it.
    let key = crate::tls::provider().key_provider.load_private_key(key)?;
    Ok(CertifiedKey::new(vec![certificate.der().clone()], key))
}

impl Drop for Offer {
    fn drop(&mut self) {
        if let Err(error) = self.store.remove(SHELF, &self.key) {
            tracing::warn!(%error, "an answer to a challenge that is over still stands");
        }
    }
}
