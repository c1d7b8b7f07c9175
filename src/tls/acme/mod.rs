//! Certificates from a CA that speaks ACME (RFC 8555): asked for, renewed and kept without anyone looking.
//!
//! One task goes through the certificates that somebody wants: what is due is ordered, a few at a time, and one that fails
//! holds up no other. What was obtained is kept in the store and taken up by the next handshake; a CA that is away changes
//! nothing about what is there.

mod account;
mod certificate;
mod challenges;
mod demand;
mod dns;
mod order;
mod schedule;
mod shared;
mod store;
mod work;

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::sync::Notify;

use account::Authority;
pub use certificate::{AcmeCertificate, Standing, Wish};
use certificate::{Parsed, State};
pub(super) use challenges::ALPN;
pub use challenges::Challenges;
pub use demand::Demand;
use order::OrderError;
use schedule::Record;
pub use shared::Shared;
use store::{Directory, Store};

use crate::settings::Ca;

/// A CA that gives no advice now is asked for it again after this long.
const ADVICE_AFTER: Duration = Duration::from_secs(6 * 3_600);

/// Everything ACME of a gateway.
pub struct Acme {
    store: Arc<dyn Store>,
    authorities: BTreeMap<String, Authority>,
    challenges: Arc<Challenges>,
    certificates: Mutex<BTreeMap<Wish, Arc<AcmeCertificate>>>,
    changed: Notify,
}

#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Order(#[from] OrderError),
    #[error("it took too long")]
    Late,
    #[error("what is kept cannot be read: {0}")]
    Kept(#[from] io::Error),
    #[error("what the CA sent is no certificate for its key: {0}")]
    Unusable(String),
    #[error("there is no CA `{0}` in the boot settings")]
    NoAuthority(String),
}

impl From<instant_acme::Error> for Failure {
    fn from(error: instant_acme::Error) -> Failure {
        Failure::Order(error.into())
    }
}

impl Acme {
    pub fn open(dir: &Path, authorities: &BTreeMap<String, Ca>) -> io::Result<Acme> {
        Ok(Acme::over(Arc::new(Directory::open(dir)?), authorities))
    }

    /// Over the store of a fleet.
    pub fn shared(store: &Shared, authorities: &BTreeMap<String, Ca>) -> Acme {
        Acme::over(Arc::new(store.clone()), authorities)
    }

    fn over(store: Arc<dyn Store>, authorities: &BTreeMap<String, Ca>) -> Acme {
        let authority = |(name, words): (&String, &Ca)| (name.clone(), Authority::new(name, words, store.clone()));
        Acme {
            authorities: authorities.iter().map(authority).collect(),
            challenges: Arc::new(Challenges::new(store.clone())),
            store,
            certificates: Mutex::default(),
            changed: Notify::new(),
        }
    }

    /// Takes up what another gateway has obtained. Blocks.
    pub fn look_at_store(&self) {
        for certificate in self.all() {
            let wish = &certificate.wish;
            let Ok(Some(kept)) = self.kept(wish) else { continue };
            let life = certificate.lock().life;
            if !kept.covers(wish) || life.is_some_and(|life| kept.life.not_before <= life.not_before) {
                continue;
            }
            certificate.take_up(kept);
            let record = self.kept_record(wish);
            let mut state = certificate.lock();
            if let Some(record) = record {
                state.record = record;
            }
            (state.last_error, state.advice_at, state.advice, state.held_until) = (None, None, None, None);
            drop(state);
            certificate.news.notify_waiters();
            tracing::info!(event = "certificate.changed", ca = %wish.ca, name = wish.name(), "another gateway obtained it");
        }
        self.look();
    }

    pub fn challenges(&self) -> &Arc<Challenges> {
        &self.challenges
    }

    /// The certificate of a wish, read from the store if it is there. It is looked after once `want` names it.
    pub fn certificate(&self, wish: &Wish) -> Arc<AcmeCertificate> {
        let mut all = self.certificates.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = all.get(wish) {
            return known.clone();
        }
        let loaded = Arc::new(self.load(wish));
        all.insert(wish.clone(), loaded.clone());
        loaded
    }

    /// The document wants these and no others from now on.
    pub fn want(&self, wanted: &[Arc<AcmeCertificate>]) {
        let wanted: ahash::AHashSet<*const AcmeCertificate> = wanted.iter().map(Arc::as_ptr).collect();
        for certificate in self.all() {
            certificate.lock().wanted = wanted.contains(&Arc::as_ptr(&certificate));
        }
        self.forget();
        self.look();
    }

    /// Those that nobody holds any more make room.
    fn forget(&self) {
        let mut all = self.certificates.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, known| Arc::strong_count(known) > 1);
    }

    /// Something may be due.
    fn look(&self) {
        self.changed.notify_one();
    }

    /// Those that somebody wants.
    pub fn wanted(&self) -> Vec<Arc<AcmeCertificate>> {
        let wanted = |state: &State| state.wanted || state.demanded;
        self.all().into_iter().filter(|certificate| wanted(&certificate.lock())).collect()
    }

    fn all(&self) -> Vec<Arc<AcmeCertificate>> {
        self.certificates.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    fn load(&self, wish: &Wish) -> AcmeCertificate {
        let certificate = AcmeCertificate::new(wish.clone());
        match self.kept(wish) {
            Ok(Some(parsed)) => certificate.take_up(parsed),
            Ok(None) => {}
            Err(error) => {
                tracing::error!(ca = %wish.ca, name = wish.name(), %error, "a kept certificate cannot be used");
            }
        }
        certificate.lock().record = self.kept_record(wish).unwrap_or_default();
        // A CA is not asked by all at once when a gateway begins.
        let asked = SystemTime::now() + ADVICE_AFTER.mul_f64(schedule::share(wish.name()));
        certificate.lock().advice_at = Some(asked);
        certificate
    }

    /// Blocks.
    fn kept_record(&self, wish: &Wish) -> Option<Record> {
        let json = self.store.read(&wish.ca, &format!("{}.json", wish.key())).ok()??;
        serde_json::from_slice(&json).ok()
    }

    /// Blocks.
    fn kept(&self, wish: &Wish) -> Result<Option<Parsed>, Failure> {
        let Some(pem) = self.store.read(&wish.ca, &format!("{}.pem", wish.key()))? else { return Ok(None) };
        Parsed::read(&pem).map(Some).map_err(Failure::Unusable)
    }
}
