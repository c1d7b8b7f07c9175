//! Certificates from PEM files: read whole, and checked against their key.

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use super::staple::Stapled;
use super::watched::{FromFiles, Watched, read};
use super::{CertificateError, provider};
use crate::settings::CertificateFiles;

/// A certificate from files, as it is now.
pub type FileCertificate = Watched<CertifiedKey>;

impl FromFiles for CertifiedKey {
    type Files = CertificateFiles;
    const WHAT: &'static str = "certificate";

    fn paths(files: &CertificateFiles) -> Vec<&Path> {
        vec![&files.chain, &files.key]
    }

    /// Reads a chain and its key, and checks that they belong together.
    fn load(files: &CertificateFiles) -> Result<CertifiedKey, CertificateError> {
        let chain = certificates(&files.chain)?;
        let key = PrivateKeyDer::from_pem_slice(&read(&files.key)?)
            .map_err(|_| CertificateError::Empty { path: files.key.clone(), what: "private key" })?;
        CertifiedKey::from_der(chain, key, &provider())
            .map_err(|source| CertificateError::Tls { path: files.chain.clone(), source })
    }

    fn is_same(&self, other: &CertifiedKey) -> bool {
        self.cert == other.cert
    }
}

impl Stapled for FileCertificate {
    fn certified(&self) -> Option<Arc<CertifiedKey>> {
        Some(self.current())
    }

    fn replace(&self, old: &Arc<CertifiedKey>, fresh: CertifiedKey) {
        self.exchange(old, fresh);
    }
}

/// All certificates of a PEM file; at least one.
pub(super) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    let all: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(&read(path)?)
        .collect::<Result<_, _>>()
        .map_err(|_| CertificateError::Damaged { path: path.to_owned() })?;
    match all.is_empty() {
        true => Err(CertificateError::Empty { path: path.to_owned(), what: "certificate" }),
        false => Ok(all),
    }
}
