//! Certificates from PEM files: read whole, checked against their key, and read again when the files change. What is
//! broken is told and changes nothing.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use super::CertificateError;
use crate::settings::CertificateFiles;

/// Reads a chain and its key, and checks that they belong together.
fn load(files: &CertificateFiles) -> Result<CertifiedKey, CertificateError> {
    let read =
        |path: &Path| std::fs::read(path).map_err(|source| CertificateError::Read { path: path.to_owned(), source });
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

/// What tells a file from what it was: inode, size, and when it or its permissions changed.
type Stamp = [Option<(u64, u64, i64, i64)>; 2];

/// A certificate from files, as it is now.
#[derive(Debug)]
pub struct FileCertificate {
    name: String,
    files: CertificateFiles,
    current: ArcSwap<CertifiedKey>,
    seen: Mutex<Seen>,
}

#[derive(Debug)]
struct Seen {
    stamp: Stamp,
    error: Option<String>,
}

impl FileCertificate {
    /// The name is for the log: that of the block, or of the listener.
    pub fn open(name: &str, files: &CertificateFiles) -> Result<FileCertificate, CertificateError> {
        // Before the files: a change in between is then seen as one.
        let stamp = stamp(files);
        let current = ArcSwap::from_pointee(load(files)?);
        let seen = Mutex::new(Seen { stamp, error: None });
        Ok(FileCertificate { name: name.to_owned(), files: files.clone(), current, seen })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn current(&self) -> Arc<CertifiedKey> {
        self.current.load_full()
    }

    /// What was wrong with the files when they were last read.
    pub fn error(&self) -> Option<String> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).error.clone()
    }

    /// Reads the files again if they are not what they were. Blocks.
    pub fn look(&self) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let now = stamp(&self.files);
        // What could not be read is tried again: what stood in the way may be gone.
        if now == seen.stamp && seen.error.is_none() {
            return;
        }
        seen.stamp = now;
        match load(&self.files) {
            Ok(fresh) => {
                let same = fresh.cert == self.current.load().cert;
                self.current.store(Arc::new(fresh));
                seen.error = None;
                if !same {
                    tracing::info!(certificate = self.name, chain = %self.files.chain.display(), "certificate taken up");
                }
            }
            Err(error) => {
                // Chain and key are often written one after the other: the next look finds both.
                let error = error.to_string();
                if seen.error.as_ref() != Some(&error) {
                    tracing::error!(certificate = self.name, error, "the certificate stays as it was");
                }
                seen.error = Some(error);
            }
        }
    }
}

fn stamp(files: &CertificateFiles) -> Stamp {
    [&files.chain, &files.key].map(|path| {
        let of = std::fs::metadata(path).ok()?;
        Some((of.ino(), of.size(), of.ctime(), of.ctime_nsec()))
    })
}
