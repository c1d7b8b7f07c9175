//! One certificate from a CA, for one name or several: what it is now, and how it stands with the next one.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::{ArcSwap, ArcSwapOption};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use tokio::sync::Notify;

use super::schedule::{Life, Record, due};
use crate::tls::shown::Leaf;
use crate::tls::staple::Stapled;

/// A certificate that somebody wants.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Wish {
    /// The CA that is asked first.
    pub ca: Box<str>,
    /// What it is to be good for, at least one; it is kept under the first.
    pub names: Arc<[Box<str>]>,
}

impl Wish {
    /// For the log and for operators.
    pub fn name(&self) -> &str {
        self.names.first().map_or("", |name| name)
    }

    /// Under which it is kept.
    pub(super) fn key(&self) -> String {
        self.name().replace('*', "_")
    }
}

/// A certificate from a CA.
#[derive(Debug)]
pub struct AcmeCertificate {
    pub wish: Wish,
    current: ArcSwapOption<CertifiedKey>,
    /// What the current one is good for.
    good_for: ArcSwap<Vec<String>>,
    whole: AtomicBool,
    /// When a client asked for it last, in seconds of the Unix epoch.
    used: AtomicU64,
    state: Mutex<State>,
    /// Something has come of an order.
    pub(super) news: Notify,
}

#[derive(Clone, Debug, Default)]
pub(super) struct State {
    /// Of the current one, if it is good for all names.
    pub(super) life: Option<Life>,
    pub(super) record: Record,
    pub(super) last_error: Option<String>,
    /// The document wants it.
    pub(super) wanted: bool,
    /// Clients have asked for it.
    pub(super) demanded: bool,
    /// An order is under way, or the CA is asked for advice.
    pub(super) busy: bool,
    /// When the CA is asked again when to renew. `None`: now.
    pub(super) advice_at: Option<SystemTime>,
    /// The window it named last.
    pub(super) advice: Option<(SystemTime, SystemTime)>,
    /// Somebody else holds the right to order: it is tried again then.
    pub(super) held_until: Option<SystemTime>,
}

/// What an operator wants to know of a certificate.
#[derive(Clone, Debug)]
pub struct Standing {
    pub next_order: SystemTime,
    pub last_error: Option<String>,
}

impl AcmeCertificate {
    pub(super) fn new(wish: Wish) -> AcmeCertificate {
        AcmeCertificate {
            wish,
            current: ArcSwapOption::empty(),
            good_for: ArcSwap::default(),
            whole: AtomicBool::new(false),
            used: AtomicU64::new(0),
            state: Mutex::default(),
            news: Notify::new(),
        }
    }

    /// `None` until there is one.
    pub fn current(&self) -> Option<Arc<CertifiedKey>> {
        self.current.load_full()
    }

    /// Whether there is one for all the names that are wanted.
    pub fn is_whole(&self) -> bool {
        self.whole.load(Ordering::Acquire)
    }

    /// Whether the current one is good for a server name.
    pub(in crate::tls) fn is_good_for(&self, server_name: &str) -> bool {
        self.is_whole() || self.good_for.load().iter().any(|name| covers(name, server_name))
    }

    /// A client asked for it.
    pub(super) fn touch(&self, now: SystemTime) {
        self.used.store(now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs(), Ordering::Relaxed);
    }

    pub(super) fn used(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(self.used.load(Ordering::Relaxed))
    }

    /// When it is asked for next, and what went wrong last.
    pub fn standing(&self) -> Standing {
        let state = self.lock().clone();
        Standing { next_order: self.due(&state, SystemTime::now()), last_error: state.last_error }
    }

    pub(super) fn due(&self, state: &State, now: SystemTime) -> SystemTime {
        let at = due(state.life, state.record, now, self.wish.name());
        state.held_until.map_or(at, |until| at.max(until))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Shown from the next handshake on.
    pub(super) fn take_up(&self, parsed: Parsed) {
        let whole = parsed.covers(&self.wish);
        self.lock().life = Some(parsed.life).filter(|_| whole);
        self.good_for.store(Arc::new(parsed.names));
        self.current.store(Some(Arc::new(parsed.certified)));
        self.whole.store(whole, Ordering::Release);
    }
}

impl Stapled for AcmeCertificate {
    fn certified(&self) -> Option<Arc<CertifiedKey>> {
        self.current()
    }

    fn replace(&self, old: &Arc<CertifiedKey>, fresh: CertifiedKey) {
        self.current.compare_and_swap(&Some(old.clone()), Some(Arc::new(fresh)));
    }
}

/// Whether a name of a certificate stands for a server name (RFC 6125 6.4.3).
fn covers(name: &str, server_name: &str) -> bool {
    let server_name = server_name.trim_end_matches('.');
    match name.strip_prefix("*.") {
        Some(suffix) => server_name.split_once('.').is_some_and(|(_, rest)| rest.eq_ignore_ascii_case(suffix)),
        None => name.eq_ignore_ascii_case(server_name),
    }
}

/// A certificate with its key, read out of PEM.
pub(super) struct Parsed {
    pub(super) certified: CertifiedKey,
    pub(super) life: Life,
    names: Vec<String>,
}

impl Parsed {
    pub(super) fn covers(&self, wish: &Wish) -> bool {
        wish.names.iter().all(|wanted| self.names.iter().any(|name| name.eq_ignore_ascii_case(wanted)))
    }

    /// Key and chain out of one text, and from when to when the leaf is good.
    pub(super) fn read(pem: &[u8]) -> Result<Parsed, String> {
        let told = |error: &dyn std::fmt::Display| error.to_string();
        let key = PrivateKeyDer::from_pem_slice(pem).map_err(|error| told(&error))?;
        let chain: Vec<CertificateDer<'static>> =
            CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().map_err(|error| told(&error))?;
        let leaf = Leaf::read(chain.first().ok_or("there is no certificate")?)?;
        let life = Life { not_before: leaf.not_before, not_after: leaf.not_after };
        let certified = CertifiedKey::from_der(chain, key, &crate::tls::provider()).map_err(|error| told(&error))?;
        Ok(Parsed { certified, life, names: leaf.names })
    }
}
