//! What a CA asks to see that a name is ours (RFC 8555 8.3, RFC 8737): answered while an order is under way, and no longer.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

/// The protocol of TLS-ALPN-01.
pub(crate) const ALPN: &[u8] = b"acme-tls/1";

/// Answers to challenges. Most of the time there are none, and asking costs one load.
#[derive(Debug, Default)]
pub struct Challenges {
    open: AtomicUsize,
    /// Key authorizations by token.
    http: RwLock<HashMap<Box<str>, Box<str>>>,
    /// Certificates by name.
    alpn: RwLock<HashMap<Box<str>, Arc<CertifiedKey>>>,
}

/// An answer that stands until this is dropped.
#[derive(Debug)]
pub(super) struct Offer {
    challenges: Arc<Challenges>,
    key: Box<str>,
}

impl Challenges {
    /// What `/.well-known/acme-challenge/TOKEN` says.
    pub fn http(&self, token: &str) -> Option<String> {
        if self.open.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let held = self.http.read().unwrap_or_else(PoisonError::into_inner);
        held.get(token).map(|answer| answer.to_string())
    }

    pub(super) fn offer_http(self: &Arc<Self>, token: &str, answer: &str) -> Offer {
        self.http.write().unwrap_or_else(PoisonError::into_inner).insert(token.into(), answer.into());
        self.offer(token)
    }

    pub(super) fn offer_alpn(self: &Arc<Self>, name: &str, certificate: Arc<CertifiedKey>) -> Offer {
        self.alpn.write().unwrap_or_else(PoisonError::into_inner).insert(name.into(), certificate);
        self.offer(name)
    }

    fn offer(self: &Arc<Self>, key: &str) -> Offer {
        self.open.fetch_add(1, Ordering::Relaxed);
        Offer { challenges: self.clone(), key: key.into() }
    }
}

impl ResolvesServerCert for Challenges {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name()?.to_ascii_lowercase();
        self.alpn.read().unwrap_or_else(PoisonError::into_inner).get(&*name).cloned()
    }
}

impl Drop for Offer {
    fn drop(&mut self) {
        let Offer { challenges, key } = self;
        // Tokens are random and names have dots: neither is ever the other.
        challenges.http.write().unwrap_or_else(PoisonError::into_inner).remove(key);
        challenges.alpn.write().unwrap_or_else(PoisonError::into_inner).remove(key);
        challenges.open.fetch_sub(1, Ordering::Relaxed);
    }
}
