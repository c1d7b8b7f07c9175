//! Our account at a CA (RFC 8555 7.3): opened once, kept, and opened anew when the CA does not know it any more.

use std::path::PathBuf;
use std::sync::Arc;

use instant_acme::{Account, AccountCredentials, ExternalAccountKey, NewAccount};

use super::Failure;
use super::store::Store;
use crate::settings::Ca;

/// No host begins with a dot.
const KEY: &str = ".account.json";

/// A CA, and our account there once it is known.
pub(super) struct Authority {
    name: String,
    pub(super) words: Ca,
    store: Arc<dyn Store>,
    account: tokio::sync::Mutex<Option<Account>>,
}

/// An account with the directory it is good for.
#[derive(serde::Serialize, serde::Deserialize)]
struct Kept {
    directory: String,
    credentials: AccountCredentials,
}

impl Authority {
    pub(super) fn new(name: &str, words: &Ca, store: Arc<dyn Store>) -> Authority {
        Authority { name: name.to_owned(), words: words.clone(), store, account: tokio::sync::Mutex::default() }
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
        let kept = self.store.read(ca, KEY)?.and_then(|json| serde_json::from_slice::<Kept>(&json).ok());
        let account = match kept.filter(|kept| kept.directory == *directory) {
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
                if let Err(error) = self.store.write(ca, KEY, &json) {
                    tracing::error!(ca, %error, "the account is used and NOT KEPT: a restart opens another one");
                }
                account
            }
        };
        Ok(held.insert(account).clone())
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
