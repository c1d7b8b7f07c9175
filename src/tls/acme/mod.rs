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
mod store;

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use instant_acme::CertificateIdentifier;
use tokio::sync::Notify;

use account::Authority;
pub use certificate::{AcmeCertificate, Standing, Wish};
use certificate::{Parsed, State};
pub(super) use challenges::ALPN;
pub use challenges::Challenges;
pub use demand::Demand;
use order::{Means, OrderError, Wanted, obtain, proofs};
use schedule::Record;
use store::{Directory, Store};

use crate::settings::Ca;

/// Orders under way at once.
const ORDERS_MAX: usize = 4;
/// An order that takes longer is given up.
const ORDER_WITHIN: Duration = Duration::from_secs(180);
/// The clock of the machine may be set: nothing is slept through for longer than this.
const LOOK: Duration = Duration::from_secs(60);
/// Failures at one CA before the next one is asked.
const FAILURES_EACH: u32 = 2;
/// Another gateway orders: what comes of it is looked at after this long.
const HELD: Duration = Duration::from_secs(2);
/// A CA that gives no advice, or none now, is asked for it again after this long (RFC 9773 4.3.2: at most a day).
const ADVICE_AFTER: Duration = Duration::from_secs(6 * 3_600);
const ADVICE_AFTER_MAX: Duration = Duration::from_secs(86_400);
/// A name that clients asked for is given up after this many failures once its certificate has run out.
const DEMAND_FAILURES: u32 = 5;

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
    #[error("it took longer than three minutes")]
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

/// What came of an order.
enum Outcome {
    Obtained(Parsed),
    /// Another gateway that shares the store was first.
    Found(Parsed),
    /// Another gateway orders.
    Held,
}

impl Acme {
    pub fn open(dir: &Path, authorities: &BTreeMap<String, Ca>) -> io::Result<Acme> {
        let store: Arc<dyn Store> = Arc::new(Directory::open(dir)?);
        let authority = |(name, words): (&String, &Ca)| (name.clone(), Authority::new(name, words, store.clone()));
        Ok(Acme {
            authorities: authorities.iter().map(authority).collect(),
            challenges: Arc::new(Challenges::new(store.clone())),
            store,
            certificates: Mutex::default(),
            changed: Notify::new(),
        })
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
        // Those that nobody wants any more make room.
        all.retain(|_, known| Arc::strong_count(known) > 1);
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
        self.look();
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
        if let Ok(Some(json)) = self.store.read(&wish.ca, &format!("{}.json", wish.key())) {
            certificate.lock().record = serde_json::from_slice(&json).unwrap_or_default();
        }
        certificate
    }

    fn kept(&self, wish: &Wish) -> Result<Option<Parsed>, Failure> {
        let Some(pem) = self.store.read(&wish.ca, &format!("{}.pem", wish.key()))? else { return Ok(None) };
        Parsed::read(&pem).map(Some).map_err(Failure::Unusable)
    }

    /// Orders what is due for as long as the process lives.
    pub async fn run(self: Arc<Self>) {
        let mut work = FuturesUnordered::new();
        loop {
            let (due, wait) = self.due(SystemTime::now(), ORDERS_MAX - work.len().min(ORDERS_MAX));
            for (certificate, kind) in due {
                certificate.lock().busy = true;
                work.push(self.attend(certificate, kind));
            }
            tokio::select! {
                Some(()) = work.next(), if !work.is_empty() => {}
                () = self.changed.notified() => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// What is due, at most `room` of it, and how long there is nothing else to do.
    fn due(&self, now: SystemTime, room: usize) -> (Vec<(Arc<AcmeCertificate>, Work)>, Duration) {
        let mut waiting: Vec<(SystemTime, Arc<AcmeCertificate>, Work)> = Vec::new();
        for certificate in self.all() {
            let state = certificate.lock().clone();
            if !(state.wanted || state.demanded) || state.busy {
                continue;
            }
            let order = certificate.due(&state, now);
            match state.advice_at.unwrap_or(now) {
                advice if state.life.is_some() && advice < order => waiting.push((advice, certificate, Work::Advice)),
                _ => waiting.push((order, certificate, Work::Order)),
            }
        }
        waiting.sort_by_key(|(at, ..)| *at);
        let next = waiting.iter().find(|(at, ..)| *at > now).map(|(at, ..)| at.duration_since(now).unwrap_or_default());
        let due = waiting.into_iter().filter(|(at, ..)| *at <= now).map(|(_, certificate, work)| (certificate, work));
        (due.take(room).collect(), next.unwrap_or(LOOK).min(LOOK))
    }

    async fn attend(&self, certificate: Arc<AcmeCertificate>, work: Work) {
        match work {
            Work::Order => self.attempt(&certificate).await,
            Work::Advice => self.take_advice(&certificate).await,
        }
        let record = {
            let mut state = certificate.lock();
            state.busy = false;
            state.record
        };
        certificate.news.notify_waiters();
        let Wish { ca, .. } = &certificate.wish;
        let json = serde_json::to_vec(&record).unwrap_or_default();
        if let Err(error) = self.store.write(ca, &format!("{}.json", certificate.wish.key()), &json) {
            tracing::error!(%ca, name = certificate.wish.name(), %error, "how the order went is not kept");
        }
    }

    /// The CAs that are asked for a certificate, one after the other.
    fn chain(&self, first: &str) -> Vec<&str> {
        let mut chain: Vec<&str> = Vec::new();
        let mut next = self.authorities.get_key_value(first);
        while let Some((name, authority)) = next.filter(|(name, _)| !chain.contains(&name.as_str())) {
            chain.push(name);
            next = authority.words.fallback.as_ref().and_then(|name| self.authorities.get_key_value(name));
        }
        chain
    }

    async fn attempt(&self, certificate: &AcmeCertificate) {
        let (first, name) = (&certificate.wish.ca, certificate.wish.name());
        let chain = self.chain(first);
        let failures = certificate.lock().record.failures;
        let turn = usize::try_from(failures / FAILURES_EACH).unwrap_or(0) % chain.len().max(1);
        let ca = chain.get(turn).copied().unwrap_or(first);
        let wait = self.authorities.get(&**first).map_or(LOOK, |authority| authority.words.retry.0);
        let outcome = self.order(certificate, ca).await;
        let now = SystemTime::now();
        match outcome {
            Ok(Outcome::Held) => certificate.lock().held_until = Some(now + HELD),
            Ok(Outcome::Obtained(parsed)) => {
                let until = crate::telemetry::access::rfc3339(parsed.life.not_after);
                certificate.take_up(parsed);
                tracing::info!(event = "certificate.obtained", ca, name, until, "certificate obtained");
                self.succeeded(certificate, Record::succeeded(now, wait));
            }
            Ok(Outcome::Found(parsed)) => {
                certificate.take_up(parsed);
                tracing::info!(
                    event = "certificate.changed",
                    ca,
                    name,
                    "certificate taken up: another gateway obtained it"
                );
                self.succeeded(certificate, Record::succeeded(now, wait));
            }
            Err(failure) => {
                let forgotten = matches!(&failure, Failure::Order(error) if error.is_unknown_account());
                if let Some(authority) = self.authorities.get(ca).filter(|_| forgotten) {
                    authority.forget().await;
                }
                let limited = matches!(&failure, Failure::Order(error) if error.is_rate_limit());
                let mut state = certificate.lock();
                // A CA that is asked too often is left alone: by waiting, or by asking the next one.
                let mut record = state.record.failed(now, wait, limited && chain.len() < 2, name);
                if limited && chain.len() > 1 {
                    record.failures = record.failures.next_multiple_of(FAILURES_EACH);
                }
                state.record = record;
                state.last_error = Some(failure.to_string());
                let over = state.life.is_none_or(|life| life.not_after <= now);
                if state.demanded && over && record.failures >= DEMAND_FAILURES {
                    tracing::warn!(name, "given up: no CA gives the name a certificate, whoever asked for it");
                    state.demanded = false;
                }
                tracing::error!(
                    event = "certificate.failed",
                    ca,
                    name,
                    error = %failure,
                    failures = record.failures,
                    "no certificate"
                );
            }
        }
    }

    fn succeeded(&self, certificate: &AcmeCertificate, record: Record) {
        let mut state = certificate.lock();
        state.record = record;
        (state.last_error, state.advice_at, state.advice, state.held_until) = (None, None, None, None);
    }

    async fn order(&self, certificate: &AcmeCertificate, ca: &str) -> Result<Outcome, Failure> {
        let wish = &certificate.wish;
        let Some(authority) = self.authorities.get(ca) else { return Err(Failure::NoAuthority(ca.to_owned())) };
        let Some(_right) = self.store.lock(&wish.ca, &wish.key())? else { return Ok(Outcome::Held) };
        let (failures, life) = {
            let state = certificate.lock();
            (state.record.failures, state.life)
        };
        if let Ok(Some(kept)) = self.kept(wish)
            && kept.covers(wish)
            && life.is_none_or(|life| kept.life.not_before > life.not_before)
            && kept.life.not_after > SystemTime::now()
        {
            return Ok(Outcome::Found(kept));
        }
        let kinds = proofs(&wish.names, authority.words.dns.is_some());
        let tried = usize::try_from(failures % FAILURES_EACH).unwrap_or(0);
        let Some(proof) = kinds.get(tried % kinds.len()).copied() else { return Err(Failure::Late) };
        let account = within(authority.account()).await?;
        let means = Means { proof, challenges: &self.challenges, dns: authority.words.dns.as_ref() };
        // The CA may not know the one it stands for: after a failure it is not named.
        let current = certificate.current().filter(|_| failures == 0 && certificate.lock().advice.is_some());
        let replaces = current.as_ref().and_then(|current| CertificateIdentifier::try_from(current.cert.first()?).ok());
        let wanted = Wanted { names: &wish.names, profile: authority.words.profile.as_deref(), replaces };
        let mut standing = order::Standing::default();
        let outcome = within(async { Ok(obtain(&account, wanted, &means, &mut standing).await?) }).await;
        standing.clear(&means).await;
        let pem = outcome?;
        let parsed = Parsed::read(pem.as_bytes()).map_err(Failure::Unusable)?;
        if let Err(error) = self.store.write(&wish.ca, &format!("{}.pem", wish.key()), pem.as_bytes()) {
            // It is shown all the same; to order another one would not make room.
            let name = wish.name();
            tracing::error!(ca, name, %error, "the certificate is in force and NOT KEPT: a restart orders another one");
        }
        Ok(Outcome::Obtained(parsed))
    }

    /// Asks the CA when it would have the certificate renewed (ARI, RFC 9773).
    async fn take_advice(&self, certificate: &AcmeCertificate) {
        let wish = &certificate.wish;
        let advice = async {
            let authority = self.authorities.get(&*wish.ca).ok_or_else(|| Failure::NoAuthority(wish.ca.to_string()))?;
            let account = authority.account().await?;
            let current = certificate.current();
            let leaf = current.as_ref().and_then(|current| current.cert.first());
            let id = leaf.and_then(|leaf| CertificateIdentifier::try_from(leaf).ok());
            let Some(id) = id else { return Ok(None) };
            match account.renewal_info(&id).await {
                Ok(advice) => Ok(Some(advice)),
                Err(instant_acme::Error::Unsupported(_)) => Ok(None),
                Err(error) => Err(Failure::from(error)),
            }
        };
        let now = SystemTime::now();
        let outcome: Result<_, Failure> = within(advice).await;
        let mut state = certificate.lock();
        state.advice_at = Some(now + ADVICE_AFTER);
        match outcome {
            Ok(Some((info, again))) => {
                let window = (info.suggested_window.start.into(), info.suggested_window.end.into());
                if state.advice != Some(window) {
                    state.advice = Some(window);
                    state.record = state.record.advised(window.0, window.1);
                }
                let least = self.authorities.get(&*wish.ca).map_or(LOOK, |authority| authority.words.retry.0);
                state.advice_at = Some(now + again.clamp(least.min(ADVICE_AFTER_MAX), ADVICE_AFTER_MAX));
            }
            Ok(None) => {}
            Err(error) => {
                tracing::debug!(ca = %wish.ca, name = wish.name(), %error, "the CA does not say when to renew");
            }
        }
    }
}

async fn within<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    tokio::time::timeout(ORDER_WITHIN, work).await.unwrap_or(Err(Failure::Late))
}

/// What is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Work {
    Order,
    Advice,
}
