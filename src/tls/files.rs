//! Certificates from PEM files.

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use super::CertificateError;
use crate::settings::CertificateFiles;

/// Reads a chain and its key, and checks that they belong together.
pub fn load(files: &CertificateFiles) -> Result<CertifiedKey, CertificateError> {
    let read = |path: &std::path::Path| {
        std::fs::read(path).map_err(|source| CertificateError::Read { path: path.to_owned(), source })
    };
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(&read(&files.chain)?)
        .collect::<Result<_, _>>()
        .map_err(|_| CertificateError::Damaged { path: files.chain.clone() })?;
    if chain.is_empty() {
        return Err(CertificateError::Empty { path: files.chain.clone(), what: "certificate" });
    }
    let key = PrivateKeyDer::from_pem_slice(&read(&files.key)?)
        .map_err(|_| CertificateError::Empty { path: files.key.clone(), what: "private key" })?;
    let provider = CryptoProvider::get_default()
        .ok_or_else(|| CertificateError::Setup(rustls::Error::General("no crypto provider is installed".into())))?;
    CertifiedKey::from_der(chain, key, provider)
        .map_err(|source| CertificateError::Tls { path: files.chain.clone(), source })
}
