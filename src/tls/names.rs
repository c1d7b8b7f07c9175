//! Which certificate a name shows: exact names, then one label, then the listener's own. Swapped whole with the document.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::sign::CertifiedKey;

use super::acme::AcmeCertificate;
use super::files::FileCertificate;
use super::internal::Authority;

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
            Held::Acme(certificate, before) => {
                certificate.current().or_else(|| before.as_ref()?.certificate(server_name))
            }
        }
    }
}

/// The TLS side of what a document says about a name.
#[derive(Clone, Debug)]
pub struct Named {
    /// `None`: the listener's.
    pub held: Option<Held>,
    /// TLS 1.2 is not spoken.
    pub only_tls13: bool,
}

/// Names and what they show.
#[derive(Clone, Debug, Default)]
pub struct Index {
    pub exact: HashMap<Box<str>, Named>,
    /// `*.example.com` under `example.com`.
    pub one_label: HashMap<Box<str>, Named>,
}

/// The names of the document in force, for all listeners.
#[derive(Debug, Default)]
pub struct ByName(ArcSwap<Index>);

impl ByName {
    /// Takes effect with the next handshake.
    pub fn put(&self, index: Index) {
        self.0.store(Arc::new(index));
    }

    /// What is said about a server name.
    pub fn find(&self, server_name: &str) -> Option<Named> {
        let index = self.0.load();
        if index.exact.is_empty() && index.one_label.is_empty() {
            return None;
        }
        let name = server_name.trim_end_matches('.').to_ascii_lowercase();
        index.exact.get(&*name).or_else(|| index.one_label.get(name.split_once('.')?.1)).cloned()
    }
}
