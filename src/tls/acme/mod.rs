//! Certificates from a CA that speaks ACME (RFC 8555): asked for, renewed and kept without anyone looking.
//!
//! One task goes through the names that the document wants: what is due is ordered, a few at a time, and a name that fails
//! holds up no other. What was obtained is kept in the store and taken up by the next handshake; a CA that is away changes
//! nothing about what is there.

mod challenges;
mod order;
mod schedule;
mod store;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwapOption;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use instant_acme::{Account, AccountCredentials, NewAccount};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use tokio::sync::Notify;

pub(super) use challenges::ALPN;
pub use challenges::Challenges;
use order::{OrderError, Proof, obtain};
use schedule::{Life, Record, due};
use store::Store;

use super::shown::Leaf;
use crate::settings::Ca;

/// Orders under way at once.
const ORDERS_MAX: usize = 4;
/// An order that takes longer is given up.
const ORDER_WITHIN: Duration = Duration::from_secs(180);
/// The clock of the machine may be set: nothing is slept through for longer than this.
const LOOK: Duration = Duration::from_secs(60);

/// No host begins with a dot.
const ACCOUNT: &str = ".account.json";

/// Everything ACME of a gateway.
pub struct Acme {
    store: Store,
    authorities: BTreeMap<String, Authority>,
    challenges: Arc<Challenges>,
    names: Mutex<BTreeMap<(String, String), Arc<AcmeCertificate>>>,
    changed: Notify,
}

/// A CA, and our account there once it is known.
struct Authority {
    words: Ca,
    account: tokio::sync::Mutex<Option<Account>>,
}

/// The certificate of one name from one CA.
#[derive(Debug)]
pub struct AcmeCertificate {
    pub ca: String,
    pub name: String,
    current: ArcSwapOption<CertifiedKey>,
    state: Mutex<State>,
}

#[derive(Clone, Debug, Default)]
struct State {
    life: Option<Life>,
    record: Record,
    last_error: Option<String>,
    /// The document wants it.
    wanted: bool,
    /// An order is under way.
    busy: bool,
}

impl AcmeCertificate {
    /// `None` until there is one.
    pub fn current(&self) -> Option<Arc<CertifiedKey>> {
        self.current.load_full()
    }

    /// When it is asked for next, and what went wrong last.
    pub fn standing(&self) -> Standing {
        let State { life, record, last_error, wanted: _, busy: _ } = self.lock().clone();
        Standing { next_order: due(life, record, SystemTime::now(), &self.name), last_error }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What an operator wants to know of a certificate.
#[derive(Clone, Debug)]
pub struct Standing {
    pub next_order: SystemTime,
    pub last_error: Option<String>,
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
}

impl From<instant_acme::Error> for Failure {
    fn from(error: instant_acme::Error) -> Failure {
        Failure::Order(error.into())
    }
}

impl Acme {
    pub fn open(dir: &Path, authorities: &BTreeMap<String, Ca>) -> io::Result<Acme> {
        let authority = |(name, words): (&String, &Ca)| {
            (name.clone(), Authority { words: words.clone(), account: tokio::sync::Mutex::default() })
        };
        Ok(Acme {
            store: Store::open(dir)?,
            authorities: authorities.iter().map(authority).collect(),
            challenges: Arc::default(),
            names: Mutex::default(),
            changed: Notify::new(),
        })
    }

    pub fn challenges(&self) -> &Arc<Challenges> {
        &self.challenges
    }

    /// The certificate of a name, read from the store if it is there. It is looked after once `want` names it.
    pub fn certificate(&self, ca: &str, name: &str) -> Arc<AcmeCertificate> {
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (ca.to_owned(), name.to_owned());
        names.entry(key).or_insert_with(|| Arc::new(self.load(ca, name))).clone()
    }

    /// These names and no others are looked after from now on.
    pub fn want(&self, wanted: &[Arc<AcmeCertificate>]) {
        for certificate in self.all() {
            certificate.lock().wanted = wanted.iter().any(|one| Arc::ptr_eq(one, &certificate));
        }
        self.changed.notify_one();
    }

    /// Those that the document wants.
    pub fn wanted(&self) -> Vec<Arc<AcmeCertificate>> {
        self.all().into_iter().filter(|certificate| certificate.lock().wanted).collect()
    }

    fn all(&self) -> Vec<Arc<AcmeCertificate>> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    fn load(&self, ca: &str, name: &str) -> AcmeCertificate {
        let certificate = AcmeCertificate {
            ca: ca.to_owned(),
            name: name.to_owned(),
            current: ArcSwapOption::empty(),
            state: Mutex::default(),
        };
        let told =
            |error: &dyn std::fmt::Display| tracing::error!(ca, name, %error, "a kept certificate cannot be used");
        match self.store.read(ca, &format!("{name}.pem")) {
            Ok(Some(pem)) => match parse(&pem) {
                Ok((certified, life)) => {
                    certificate.current.store(Some(Arc::new(certified)));
                    certificate.lock().life = Some(life);
                }
                Err(error) => told(&error),
            },
            Ok(None) => {}
            Err(error) => told(&error),
        }
        if let Ok(Some(json)) = self.store.read(ca, &format!("{name}.json")) {
            certificate.lock().record = serde_json::from_slice(&json).unwrap_or_default();
        }
        certificate
    }

    /// Orders what is due for as long as the process lives.
    pub async fn run(self: Arc<Self>) {
        let mut orders = FuturesUnordered::new();
        loop {
            let (due, wait) = self.due(SystemTime::now(), ORDERS_MAX - orders.len().min(ORDERS_MAX));
            for certificate in due {
                certificate.lock().busy = true;
                orders.push(self.attempt(certificate));
            }
            tokio::select! {
                Some(()) = orders.next(), if !orders.is_empty() => {}
                () = self.changed.notified() => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// What is due, at most `room` of it, and how long there is nothing else to do.
    fn due(&self, now: SystemTime, room: usize) -> (Vec<Arc<AcmeCertificate>>, Duration) {
        let mut waiting: Vec<(SystemTime, Arc<AcmeCertificate>)> = Vec::new();
        for certificate in self.all() {
            let State { life, record, wanted, busy, last_error: _ } = certificate.lock().clone();
            if wanted && !busy {
                waiting.push((due(life, record, now, &certificate.name), certificate));
            }
        }
        waiting.sort_by_key(|(at, _)| *at);
        let next = waiting.iter().find(|(at, _)| *at > now).map(|(at, _)| at.duration_since(now).unwrap_or_default());
        let due = waiting.into_iter().filter(|(at, _)| *at <= now).map(|(_, certificate)| certificate);
        (due.take(room).collect(), next.unwrap_or(LOOK).min(LOOK))
    }

    async fn attempt(&self, certificate: Arc<AcmeCertificate>) {
        let (ca, name) = (certificate.ca.as_str(), certificate.name.as_str());
        let outcome = match tokio::time::timeout(ORDER_WITHIN, self.order(&certificate)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(Failure::Late),
        };
        let record = match outcome {
            Ok((certified, life)) => {
                certificate.current.store(Some(Arc::new(certified)));
                let mut state = certificate.lock();
                (state.life, state.last_error) = (Some(life), None);
                tracing::info!(ca, name, "certificate obtained");
                Record::succeeded(SystemTime::now(), self.first_wait(ca))
            }
            Err(failure) => {
                let limited = matches!(&failure, Failure::Order(error) if error.is_rate_limit());
                let forgotten = matches!(&failure, Failure::Order(error) if error.is_unknown_account());
                if forgotten && let Some(authority) = self.authorities.get(ca) {
                    // The CA was set up anew, or has closed it.
                    tracing::warn!(ca, "the CA does not know our account any more: another one is opened");
                    *authority.account.lock().await = None;
                    if let Err(error) = self.store.write(ca, ACCOUNT, b"") {
                        tracing::error!(ca, %error, "the old account is still kept");
                    }
                }
                let first = self.first_wait(ca);
                let mut state = certificate.lock();
                state.last_error = Some(failure.to_string());
                let record = state.record.failed(SystemTime::now(), first, limited, name);
                tracing::error!(ca, name, error = %failure, failures = record.failures, "no certificate");
                record
            }
        };
        {
            let mut state = certificate.lock();
            (state.record, state.busy) = (record, false);
        }
        let json = serde_json::to_vec(&record).unwrap_or_default();
        if let Err(error) = self.store.write(ca, &format!("{name}.json"), &json) {
            tracing::error!(ca, name, %error, "how the order went is not kept");
        }
    }

    fn first_wait(&self, ca: &str) -> Duration {
        self.authorities.get(ca).map_or(LOOK, |authority| authority.words.retry.0)
    }

    async fn order(&self, certificate: &AcmeCertificate) -> Result<(CertifiedKey, Life), Failure> {
        let (ca, name) = (&certificate.ca, &certificate.name);
        // Which of the two ports the CA can reach is not known: after a failure the other one is tried.
        let proof = if certificate.lock().record.failures.is_multiple_of(2) { Proof::TlsAlpn01 } else { Proof::Http01 };
        let account = self.account(ca).await?;
        let pem = obtain(&account, name, proof, &self.challenges).await?;
        let parsed = parse(pem.as_bytes()).map_err(Failure::Unusable)?;
        if let Err(error) = self.store.write(ca, &format!("{name}.pem"), pem.as_bytes()) {
            // It is shown all the same; to order another one would not make room.
            tracing::error!(ca, name, %error, "the certificate is in force and NOT KEPT: a restart orders another one");
        }
        Ok(parsed)
    }

    /// Our account at a CA: the one that is kept, or a new one.
    async fn account(&self, ca: &str) -> Result<Account, Failure> {
        let Some(authority) = self.authorities.get(ca) else {
            return Err(Failure::Unusable(format!("there is no CA `{ca}` in the boot settings")));
        };
        let mut held = authority.account.lock().await;
        if let Some(account) = &*held {
            return Ok(account.clone());
        }
        let Ca { directory, contact, root, retry: _ } = &authority.words;
        let builder = |root: &Option<PathBuf>| match root {
            Some(root) => Account::builder_with_root(root),
            None => Account::builder(),
        };
        let kept = self.store.read(ca, ACCOUNT)?.and_then(|json| serde_json::from_slice::<Kept>(&json).ok());
        let account = match kept.filter(|kept| kept.directory == *directory) {
            Some(kept) => builder(root)?.from_credentials(kept.credentials).await?,
            None => {
                let contact: Vec<&str> = contact.iter().map(String::as_str).collect();
                let new = NewAccount { contact: &contact, terms_of_service_agreed: true, only_return_existing: false };
                let (account, credentials) = builder(root)?.create(&new, directory.clone(), None).await?;
                let kept = Kept { directory: directory.clone(), credentials };
                if let Err(error) = self.store.write(ca, ACCOUNT, &serde_json::to_vec(&kept).unwrap_or_default()) {
                    tracing::error!(ca, %error, "the account is used and NOT KEPT: a restart opens another one");
                }
                account
            }
        };
        Ok(held.insert(account).clone())
    }
}

/// An account with the directory it is good for.
#[derive(serde::Serialize, serde::Deserialize)]
struct Kept {
    directory: String,
    credentials: AccountCredentials,
}

/// Key and chain out of one PEM text, and from when to when the leaf is good.
fn parse(pem: &[u8]) -> Result<(CertifiedKey, Life), String> {
    let told = |error: &dyn std::fmt::Display| error.to_string();
    let key = PrivateKeyDer::from_pem_slice(pem).map_err(|error| told(&error))?;
    let chain: Vec<CertificateDer<'static>> =
        CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().map_err(|error| told(&error))?;
    let leaf = chain.first().ok_or("there is no certificate")?;
    let read = Leaf::read(leaf)?;
    let life = Life { not_before: read.not_before, not_after: read.not_after };
    let provider = rustls::crypto::CryptoProvider::get_default().ok_or("no crypto provider is installed")?;
    let certified = CertifiedKey::from_der(chain, key, provider).map_err(|error| told(&error))?;
    Ok((certified, life))
}
