//! Certificates for names that no document lists: ordered when a client asks for one, if somebody allows it.
//!
//! A name is allowed by a list, or by a service of the operator that is asked. Names, orders and questions are bounded: a
//! stranger may ask for any name.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant, SystemTime};

use http_body_util::Full;
use rustls::sign::CertifiedKey;
use tokio::time::timeout;

use super::{Acme, AcmeCertificate, Wish};
use crate::bounded::Bounded;
use crate::facts::host;
use crate::fetch::{Failure, Trust, fetch};
use crate::settings::OnDemand;

/// How long a refusal is remembered.
const REFUSED_FOR: Duration = Duration::from_secs(60);
/// Refusals remembered at once.
const REFUSALS_MAX: usize = 10_000;
/// The service is given this long to say whether a name is allowed.
const ASK_WITHIN: Duration = Duration::from_secs(2);
/// Questions under way at once; beyond them a name is refused.
const QUESTIONS_MAX: usize = 16;
/// Names without a certificate: this part of all, and so many in any case.
const PENDING_PART: usize = 10;
const PENDING_MIN: usize = 10;
const MINUTE: Duration = Duration::from_secs(60);

/// What may be ordered on demand.
pub struct Demand {
    acme: Arc<Acme>,
    ca: Box<str>,
    words: OnDemand,
    names: RwLock<HashMap<Box<str>, Arc<AcmeCertificate>>>,
    refused: Bounded<Instant>,
    /// New names of this minute.
    minute: Mutex<(Instant, u32)>,
    questions: tokio::sync::Semaphore,
}

impl std::fmt::Debug for Demand {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Demand")
    }
}

/// There are as many names, questions or new names a minute as may be.
struct NoRoom;

/// What the operator's service says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Word {
    Yes,
    No,
    /// It could not be asked.
    Silent,
}

impl Demand {
    pub fn new(acme: Arc<Acme>, ca: &str, words: &OnDemand) -> Demand {
        Demand {
            acme,
            ca: ca.into(),
            words: words.clone(),
            names: RwLock::default(),
            refused: Bounded::new(REFUSALS_MAX),
            minute: Mutex::new((Instant::now(), 0)),
            questions: tokio::sync::Semaphore::new(QUESTIONS_MAX),
        }
    }

    /// The certificate of a name, if there is one.
    pub fn current(&self, name: &str) -> Option<Arc<CertifiedKey>> {
        let known = self.known(&normal(name)?)?;
        known.touch(SystemTime::now());
        known.current()
    }

    /// Waits for the certificate of a name, which is ordered if it may be. False: a bound stands in the way.
    pub async fn ask(&self, name: &str, wait: Duration) -> bool {
        let Some(name) = normal(name) else { return true };
        if self.known(&name).is_some_and(|known| known.current().is_some()) {
            return true;
        }
        let work = async {
            let certificate = match self.admit(&name).await {
                Ok(Some(certificate)) => certificate,
                Ok(None) => return true,
                Err(NoRoom) => return false,
            };
            // Registered before it is looked at: no news in between is missed.
            let news = certificate.news.notified();
            if certificate.current().is_none() {
                news.await;
            }
            true
        };
        timeout(wait, work).await.unwrap_or(true)
    }

    fn known(&self, name: &str) -> Option<Arc<AcmeCertificate>> {
        let names = self.names.read().unwrap_or_else(PoisonError::into_inner);
        let known = names.get(name)?;
        known.lock().demanded.then(|| known.clone())
    }

    /// Nothing is looked up for a name that nobody allows.
    async fn admit(&self, name: &str) -> Result<Option<Arc<AcmeCertificate>>, NoRoom> {
        if let Some(known) = self.known(name) {
            return Ok(Some(known));
        }
        let allowed = match self.is_listed(name) {
            true => Word::Yes,
            false => self.question(name).await,
        };
        if allowed == Word::No {
            return Ok(None);
        }
        // Reading from the store is bounded like questions are: it blocks a thread.
        let Ok(_turn) = self.questions.try_acquire() else { return Err(NoRoom) };
        let wish = Wish { ca: self.ca.clone(), names: [name.into()].into() };
        let acme = self.acme.clone();
        let Ok(certificate) = tokio::task::spawn_blocking(move || acme.certificate(&wish)).await else {
            return Ok(None);
        };
        let kept = certificate.current().is_some();
        // A service that is away takes nothing from names that were allowed once.
        if allowed == Word::Silent && !kept {
            return Ok(None);
        }
        let mut names = self.names.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = names.get(name).filter(|known| known.lock().demanded) {
            return Ok(Some(known.clone()));
        }
        if names.len() >= self.words.names {
            // Those that the orders have given up make room.
            names.retain(|_, known| known.lock().demanded);
        }
        // Names without a certificate may fail for hours: they take no more than a part of the places.
        let pending = names.values().filter(|known| known.current().is_none()).count();
        let pending_max = (self.words.names / PENDING_PART).max(PENDING_MIN);
        if names.len() >= self.words.names || (!kept && (pending >= pending_max || !self.take_turn())) {
            tracing::debug!(name, names = names.len(), pending, "no certificate on demand: a bound stands in the way");
            return Err(NoRoom);
        }
        tracing::info!(event = "certificate.demanded", name, "a certificate on demand");
        certificate.touch(SystemTime::now());
        certificate.lock().demanded = true;
        names.insert(name.into(), certificate.clone());
        drop(names);
        self.acme.look();
        Ok(Some(certificate))
    }

    fn is_listed(&self, name: &str) -> bool {
        self.words.allow.iter().any(|pattern| {
            let pattern = pattern.trim_end_matches('.').to_ascii_lowercase();
            let below = |suffix: &str| name.strip_suffix(suffix)?.strip_suffix('.').filter(|front| !front.is_empty());
            match (pattern.strip_prefix("**."), pattern.strip_prefix("*.")) {
                (Some(suffix), _) => below(suffix).is_some(),
                (None, Some(suffix)) => below(suffix).is_some_and(|front| !front.contains('.')),
                (None, None) => *name == *pattern,
            }
        })
    }

    async fn question(&self, name: &str) -> Word {
        let Some(url) = &self.words.ask else { return Word::No };
        let key = self.refused.key(name);
        if self.refused.get(key).is_some_and(|at| at.elapsed() < REFUSED_FOR) {
            return Word::No;
        }
        let Ok(_turn) = self.questions.try_acquire() else { return Word::Silent };
        match timeout(ASK_WITHIN, put(url, name)).await {
            Ok(Ok(true)) => Word::Yes,
            Ok(Ok(false)) => {
                self.refused.put(key, Instant::now());
                Word::No
            }
            Ok(Err(error)) => {
                tracing::debug!(name, %error, "nobody says whether the name may have a certificate");
                Word::Silent
            }
            Err(_) => {
                tracing::debug!(name, "whoever says which names may have a certificate took too long");
                Word::Silent
            }
        }
    }

    fn take_turn(&self) -> bool {
        let mut minute = self.minute.lock().unwrap_or_else(PoisonError::into_inner);
        if minute.0.elapsed() >= MINUTE {
            *minute = (Instant::now(), 0);
        }
        minute.1 += 1;
        minute.1 <= self.words.per_minute
    }
}

/// A name that a CA may give a certificate for.
fn normal(name: &str) -> Option<String> {
    let name = host::normalise(name).ok()?.into_owned();
    let is_address = name.starts_with('[') || name.parse::<std::net::IpAddr>().is_ok();
    (name.contains('.') && !is_address && !name.contains(['*', '_'])).then_some(name)
}

/// `GET URL?domain=NAME`: 200 is yes.
async fn put(url: &str, name: &str) -> Result<bool, Failure> {
    let parted = if url.contains('?') { '&' } else { '?' };
    let request = http::Request::get(format!("{url}{parted}domain={name}")).body(Full::default())?;
    Ok(fetch(request, &Trust::default()).await?.status == http::StatusCode::OK)
}
