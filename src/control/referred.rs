//! Files that a document refers to (`${file:..}`): when one of them changes, the document is read again.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use crate::stamp::Stamp;

/// How often they are looked at. Secrets change rarely, and by whole files.
const LOOK: Duration = Duration::from_secs(2);

/// The files of the document in force, and what they were when they were last looked at.
#[derive(Debug, Default)]
pub(super) struct Referred {
    files: Arc<[PathBuf]>,
    seen: Vec<Option<Stamp>>,
}

impl Referred {
    pub(super) fn new(files: BTreeMap<PathBuf, Option<Stamp>>) -> Referred {
        let (files, seen): (Vec<PathBuf>, _) = files.into_iter().unzip();
        Referred { files: files.into(), seen }
    }

    /// Returns when one of them is not what it was. Never, where there are none. May be dropped at any time.
    pub(super) async fn changed(&mut self) {
        if self.files.is_empty() {
            std::future::pending::<()>().await;
        }
        loop {
            sleep(LOOK).await;
            let files = self.files.clone();
            let Ok(now) = tokio::task::spawn_blocking(move || stamps(&files)).await else { continue };
            if now != self.seen {
                self.seen = now;
                return;
            }
        }
    }
}

fn stamps(files: &[PathBuf]) -> Vec<Option<Stamp>> {
    files.iter().map(|file| Stamp::of(file)).collect()
}
