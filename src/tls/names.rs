//! Which certificate a name shows, and what it asks of its sessions: exact names, then one label, then the listener's own.
//! Swapped whole with the document.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use rustls::sign::CertifiedKey;

use super::acme::AcmeCertificate;
use super::files::FileCertificate;
use super::internal::Authority;
use super::session::Policy;

/// Where a certificate comes from.
#[derive(Clone, Debug)]
pub enum Held {
    Files(Arc<FileCertificate>),
    Internal(Arc<Authority>),
    /// With what the name showed before, until there is a first one.
    Acme(Arc<AcmeCertificate>, Option<Arc<Held>>),
}

impl Held {
    pub(super) fn certificate(&self, server_name: Option<&str>) -> Option<Arc<CertifiedKey>> {
        match self {
            Held::Files(files) => Some(files.current()),
            Held::Internal(authority) => authority.leaf(server_name),
            // What is kept may be good for fewer names than are wanted now.
            Held::Acme(certificate, before) => certificate
                .current()
                .filter(|_| server_name.is_none_or(|name| certificate.is_good_for(name)))
                .or_else(|| before.as_ref()?.certificate(server_name)),
        }
    }
}

/// The TLS side of what a document says about a name.
#[derive(Clone, Debug, Default)]
pub struct Named {
    /// What it says. `None`: nothing.
    pub held: Option<Held>,
    /// What it shows on listeners that get every host of the routes a certificate, where nothing is said.
    pub automatic: Option<Held>,
    pub policy: Policy,
}

/// Names and what they show.
#[derive(Clone, Debug, Default)]
pub struct Index {
    pub exact: HashMap<Box<str>, Arc<Named>>,
    /// `*.example.com` under `example.com`.
    pub one_label: HashMap<Box<str>, Arc<Named>>,
}

impl Index {
    pub(super) fn find(&self, server_name: &str) -> Option<&Arc<Named>> {
        if self.exact.is_empty() && self.one_label.is_empty() {
            return None;
        }
        let name = server_name.trim_end_matches('.');
        let name = match name.bytes().any(|byte| byte.is_ascii_uppercase()) {
            true => Cow::Owned(name.to_ascii_lowercase()),
            false => Cow::Borrowed(name),
        };
        self.exact.get(&*name).or_else(|| self.one_label.get(name.split_once('.')?.1))
    }
}

/// The names of the document in force, for all listeners.
#[derive(Debug, Default)]
pub struct ByName {
    index: ArcSwap<Index>,
    /// Counts changes: whoever remembers the number need not keep the names.
    generation: AtomicU64,
}

impl ByName {
    /// Takes effect with the next handshake.
    pub fn put(&self, index: Index) {
        self.index.store(Arc::new(index));
        self.generation.fetch_add(1, Ordering::Release);
    }

    /// Read before the names: whoever compares later sees a change in between as one.
    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// What is said about a server name.
    pub fn find(&self, server_name: &str) -> Option<Arc<Named>> {
        self.index.load().find(server_name).cloned()
    }
}
