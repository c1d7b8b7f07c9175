//! Our account at a CA (RFC 8555 7.3): opened once, kept, and opened anew when the CA does not know it any more.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use instant_acme::{Account, AccountCredentials, ExternalAccountKey, NewAccount};

use super::Failure;
use super::store::{Lock, Store};
use crate::settings::Ca;

/// No host begins with a dot.
const KEY: &str = ".account.json";
/// The right to open it: a lock called so brings what was written under `KEY` before it was taken.
const OPENING: &str = ".account";
/// How often a gateway looks whether another one has opened it: for longer than one that died has the right.
const TRIES: u32 = 40;
const PAUSE: Duration = Duration::from_millis(500);

/// A CA, and our account there once it is known.
pub(super) struct Authority {
    name: String,
    pub(super) words: Ca,
    store: Arc<dyn Store>,
    account: tokio::sync::Mutex<Option<Account>>,
    /// It said that it is asked too often, or nothing at all: no order before then.
    paused: Mutex<Option<SystemTime>>,
    no_advice: AtomicBool,
}

/// An account with the directory it is good for.
#[derive(serde::Serialize, serde::Deserialize)]
struct Kept {
    directory: String,
    credentials: AccountCredentials,
}

impl Authority {
    pub(super) fn new(name: &str, words: &Ca, store: Arc<dyn Store>) -> Authority {
        Authority {
            name: name.to_owned(),
            words: words.clone(),
            store,
            account: tokio::sync::Mutex::default(),
            paused: Mutex::default(),
            no_advice: AtomicBool::new(false),
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn pause(&self, until: SystemTime) {
        *self.paused.lock().unwrap_or_else(PoisonError::into_inner) = Some(until);
    }

    pub(super) fn paused(&self) -> Option<SystemTime> {
        *self.paused.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// It does not know ARI.
    pub(super) fn has_no_advice(&self) {
        self.no_advice.store(true, Ordering::Relaxed);
    }

    pub(super) fn gives_advice(&self) -> bool {
        !self.no_advice.load(Ordering::Relaxed)
    }

    /// The account that is kept, or a new one.
    pub(super) async fn account(&self) -> Result<Account, Failure> {
        let mut held = self.account.lock().await;
        if let Some(account) = &*held {
            return Ok(account.clone());
        }
        let (ca, Ca { directory, contact, root, external_account, .. }) = (&self.name, &self.words);
        let builder = |root: &Option<PathBuf>| match root {
            Some(root) => Account::builder_with_root(root),
            None => Account::builder(),
        };
        let (mut kept, mut right) = (self.kept().await?, None);
        if kept.is_none() {
            right = Some(self.right().await?);
            kept = self.kept().await?;
        }
        let account = match kept {
            Some(kept) => builder(root)?.from_credentials(kept.credentials).await?,
            None => {
                let contact: Vec<&str> = contact.iter().map(String::as_str).collect();
                let new = NewAccount { contact: &contact, terms_of_service_agreed: true, only_return_existing: false };
                let external = external_account
                    .as_ref()
                    .and_then(|words| Some(ExternalAccountKey::new(words.id.clone(), &words.key.base64url()?)));
                let made = builder(root)?.create(&new, directory.clone(), external.as_ref()).await;
                let (account, credentials) = made?;
                tracing::info!(event = "certificate.account", ca, "an account was opened");
                let kept = Kept { directory: directory.clone(), credentials };
                let json = zeroize::Zeroizing::new(serde_json::to_vec(&kept).unwrap_or_default());
                let (store, shelf) = (self.store.clone(), ca.clone());
                let written = tokio::task::spawn_blocking(move || store.write(&shelf, KEY, &json)).await;
                if let Ok(Err(error)) = written {
                    tracing::error!(ca, %error, "the account is used and NOT KEPT: a restart opens another one");
                }
                account
            }
        };
        drop(right);
        Ok(held.insert(account).clone())
    }

    /// The account of this directory that is kept.
    async fn kept(&self) -> Result<Option<Kept>, Failure> {
        let (store, shelf) = (self.store.clone(), self.name.clone());
        let read = tokio::task::spawn_blocking(move || store.read(&shelf, KEY)).await;
        let json = read.map_err(|error| Failure::Kept(std::io::Error::other(error)))??;
        let kept = json.and_then(|json| serde_json::from_slice::<Kept>(&json).ok());
        Ok(kept.filter(|kept| kept.directory == self.words.directory))
    }

    /// The right to open an account: of several gateways one does, and the others take it up.
    async fn right(&self) -> Result<Box<dyn Lock>, Failure> {
        for _ in 0..TRIES {
            let (store, shelf) = (self.store.clone(), self.name.clone());
            let taken = tokio::task::spawn_blocking(move || store.lock(&shelf, OPENING)).await;
            if let Some(right) = taken.map_err(|error| Failure::Kept(std::io::Error::other(error)))?? {
                return Ok(right);
            }
            tokio::time::sleep(PAUSE).await;
        }
        Err(Failure::Kept(std::io::Error::other("another gateway opens the account, and does not come to an end")))
    }

    /// The CA was set up anew, or has closed the account.
    pub(super) async fn forget(&self) {
        let ca = &self.name;
        tracing::warn!(ca, "the CA does not know our account any more: another one is opened");
        *self.account.lock().await = None;
        if let Err(error) = self.store.remove(ca, KEY) {
            tracing::error!(ca, %error, "the old account is still kept");
        }
    }
}
