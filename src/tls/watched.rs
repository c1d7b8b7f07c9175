//! What stands in files and is read again when they change. What is broken is told and changes nothing.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use zeroize::Zeroizing;

use super::CertificateError;
use crate::stamp::Stamp;

/// What is made of files.
pub trait FromFiles: fmt::Debug + Send + Sync + Sized + 'static {
    type Files: fmt::Debug + Clone + Send + Sync;
    /// For the log: `certificate`.
    const WHAT: &'static str;

    fn paths(files: &Self::Files) -> Vec<&Path>;
    fn load(files: &Self::Files) -> Result<Self, CertificateError>;
    /// Whether it is worth telling that it changed.
    fn is_same(&self, other: &Self) -> bool;
}

/// What files held when they were last whole.
#[derive(Debug)]
pub struct Watched<T: FromFiles> {
    name: String,
    files: T::Files,
    current: ArcSwap<T>,
    seen: Mutex<Seen>,
}

type Stamps = Vec<Option<Stamp>>;

#[derive(Debug)]
struct Seen {
    stamps: Stamps,
    error: Option<String>,
}

/// Looks at its files. Blocks.
pub trait Look: Send + Sync {
    fn look(&self);
}

impl<T: FromFiles> Watched<T> {
    /// The name is for the log: that of the block, or of the listener.
    pub fn open(name: &str, files: &T::Files) -> Result<Watched<T>, CertificateError> {
        // Before the files: a change in between is then seen as one.
        let stamps = stamps::<T>(files);
        let current = ArcSwap::from_pointee(T::load(files)?);
        let seen = Mutex::new(Seen { stamps, error: None });
        Ok(Watched { name: name.to_owned(), files: files.clone(), current, seen })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn current(&self) -> Arc<T> {
        self.current.load_full()
    }

    /// Puts `fresh` in the place of `old`, if that is still what is held.
    pub(super) fn exchange(&self, old: &Arc<T>, fresh: T) {
        self.current.compare_and_swap(old, Arc::new(fresh));
    }

    /// What was wrong with the files when they were last read.
    pub fn error(&self) -> Option<String> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).error.clone()
    }
}

impl<T: FromFiles> Look for Watched<T> {
    /// Reads the files again if they are not what they were.
    fn look(&self) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let now = stamps::<T>(&self.files);
        // What could not be read is tried again: what stood in the way may be gone.
        if now == seen.stamps && seen.error.is_none() {
            return;
        }
        seen.stamps = now;
        match T::load(&self.files) {
            Ok(fresh) => {
                let same = fresh.is_same(&self.current.load());
                self.current.store(Arc::new(fresh));
                seen.error = None;
                if !same {
                    tracing::info!(event = "certificate.changed", name = self.name, "{} taken up", T::WHAT);
                }
            }
            Err(error) => {
                // Chain and key are often written one after the other: the next look finds both.
                let error = error.to_string();
                if seen.error.as_ref() != Some(&error) {
                    tracing::error!(
                        event = "certificate.broken",
                        name = self.name,
                        error,
                        "the {} stays as it was",
                        T::WHAT
                    );
                }
                seen.error = Some(error);
            }
        }
    }
}

fn stamps<T: FromFiles>(files: &T::Files) -> Stamps {
    T::paths(files).into_iter().map(Stamp::of).collect()
}

/// A whole file, overwritten in memory when it is dropped: it may hold a key.
pub(super) fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, CertificateError> {
    std::fs::read(path)
        .map(Zeroizing::new)
        .map_err(|source| CertificateError::Read { path: PathBuf::from(path), source })
}
