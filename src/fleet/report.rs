//! What a node is and runs, as everybody in the fleet can read it.
//!
//! One value per node under `node.ID` of the status bucket, written by the node alone. A node that stops writing is silent:
//! readers judge that by how often it promised to write.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::Membership;
use crate::bus::names::{Fleet, level};
use crate::bus::{Bus, BusError};
use crate::config::vocabulary::Vocabulary;
use crate::control::Status;
use crate::control::drain::Drain;
use crate::ledger::{digest, now_ms};

/// How often a node writes that it is there.
const EVERY: Duration = Duration::from_secs(5);
/// A node that has not written for so many of these is silent.
const MISSED: u64 = 3;

/// Who a node is: what does not change while it lives.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    pub node: String,
    #[serde(default)]
    pub region: Option<String>,
    pub version: String,
    /// The format of documents that it reads.
    pub format: u32,
    /// Digest of the list of words that it reads: the list is under `words.DIGEST`.
    pub words: String,
    pub started_at_ms: u64,
    /// It promises to write this often, in milliseconds.
    pub every_ms: u64,
}

/// What a node runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    #[serde(flatten)]
    pub who: Node,
    /// Number of the document in force, if it came from the bus.
    pub revision: Option<u64>,
    /// The first twelve digits of its digest.
    pub digest: String,
    pub applied_at_ms: u64,
    /// `source`, `last_good` or `fallback`.
    pub serving: String,
    /// Number of a document that is refused here.
    #[serde(default)]
    pub refuses: Option<u64>,
    /// Why the newest document is not in force, or cannot be known.
    pub problem: Option<String>,
    pub ready: bool,
    pub draining: bool,
    /// When this was written.
    pub at_ms: u64,
    /// What the node shows, and what it verifies clients by.
    #[serde(default)]
    pub certificates: Vec<CertificateReport>,
}

/// How a certificate of a node stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateReport {
    pub name: String,
    /// Where it comes from: `file`, `acme:NAME`, `internal`, `client_ca`.
    #[serde(default)]
    pub source: String,
    /// Seconds since 1970; `None` until there is a certificate.
    pub not_after_unix: Option<u64>,
    /// What was last done about it failed.
    pub failing: bool,
}

impl Report {
    /// Whether the node has stopped writing.
    pub fn is_silent(&self, now_ms: u64) -> bool {
        now_ms.saturating_sub(self.at_ms) > self.who.every_ms * MISSED
    }

    /// Whether the node has this document in force.
    pub fn runs(&self, digest: &str) -> bool {
        !self.digest.is_empty() && digest.starts_with(&self.digest)
    }
}

/// Every node that ever wrote and has not been forgotten, in the order of their names.
pub async fn reports(bus: &Bus, fleet: &Fleet) -> Result<Vec<Report>, BusError> {
    let entries = bus.entries(&fleet.status(), "node.*").await?;
    // What a newer node writes may look different; it is one of the fleet all the same, but not one we can speak of.
    Ok(entries.iter().filter_map(|entry| serde_json::from_slice(&entry.value).ok()).collect())
}

/// The words that a node reads, by the digest of its report.
pub async fn words(bus: &Bus, fleet: &Fleet, of: &Node) -> Result<Option<BTreeSet<String>>, BusError> {
    let entry = bus.bucket(&fleet.status()).await?.entry(&format!("words.{}", of.words)).await?;
    Ok(entry.and_then(|entry| serde_json::from_slice(&entry.value).ok()))
}

/// Live nodes that do not read some of these words, and which: they would keep what they have.
pub async fn unread(
    bus: &Bus,
    fleet: &Fleet,
    requires: &BTreeSet<String>,
    now_ms: u64,
) -> Result<Vec<(Node, Vec<String>)>, BusError> {
    let mut refusing = Vec::new();
    for report in reports(bus, fleet).await?.into_iter().filter(|report| !report.is_silent(now_ms)) {
        // Of a node that does not say what it reads nobody knows that it does.
        let known = words(bus, fleet, &report.who).await?.unwrap_or_default();
        let unknown: Vec<String> = requires.difference(&known).cloned().collect();
        if !unknown.is_empty() {
            refusing.push((report.who, unknown));
        }
    }
    Ok(refusing)
}

/// The bucket forgets after a day.
const WORDS_AGAIN: Duration = Duration::from_secs(3600);
/// Certificates told of in one report.
const CERTIFICATES_MAX: usize = 500;

/// Writes what this node runs.
pub struct Reporter {
    pub membership: Membership,
    pub status: watch::Receiver<Arc<Status>>,
    pub drain: Drain,
    pub ready: Arc<dyn Fn() -> bool + Send + Sync>,
    pub certificates: Arc<dyn Fn() -> Vec<CertificateReport> + Send + Sync>,
}

impl Reporter {
    /// For as long as the process lives.
    pub async fn run(mut self) {
        let list = serde_json::to_vec(&Vocabulary::document().all()).unwrap_or_default();
        let list = Bytes::from(list);
        let who = Node {
            node: self.membership.node.to_string(),
            region: self.membership.region.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            format: 1,
            words: digest(&String::from_utf8_lossy(&list)).chars().take(16).collect(),
            started_at_ms: now_ms(),
            every_ms: ms_of(EVERY),
        };
        let mut link = self.membership.bus.link();
        // The words of this version, written once per connection and again before the bucket forgets them.
        let mut told_words = false;
        let mut told_at = tokio::time::Instant::now();
        let mut failing = false;
        let draining = self.drain.clone();
        let mut left = false;
        loop {
            if told_at.elapsed() > WORDS_AGAIN {
                told_words = false;
            }
            let report = self.report(&who);
            let written = self.write(&report, (!told_words).then_some(&list)).await;
            if !told_words && written.is_ok() {
                (told_words, told_at) = (true, tokio::time::Instant::now());
            }
            match written {
                Err(error) if !failing => {
                    tracing::warn!(%error, "the fleet does not learn what this node runs");
                    failing = true;
                }
                Err(_) => {}
                Ok(()) => failing = false,
            }
            tokio::select! {
                () = tokio::time::sleep(EVERY.mul_f64(0.9 + fastrand::f64() / 10.0)) => {}
                changed = self.status.changed() => if changed.is_err() { return },
                changed = link.changed() => if changed.is_ok() { told_words = false },
                () = draining.begun(), if !left => left = true,
            }
        }
    }

    fn report(&mut self, who: &Node) -> Report {
        let status = self.status.borrow_and_update().clone();
        let first = status.problems.iter().find(|problem| problem.severity == "error");
        let refused = status
            .refused_at_ms
            .and(first)
            .map(|first| format!("{}:{}:{}: {}", first.file, first.line, first.column, first.message));
        let draining = !self.drain.is_serving();
        Report {
            who: who.clone(),
            revision: status.bus_revision,
            digest: status.revision.to_string(),
            applied_at_ms: status.applied_at_ms,
            serving: status.serving.name().to_owned(),
            refuses: status.bus_refused,
            problem: refused.or_else(|| status.source_error.clone()),
            ready: (self.ready)() && !draining,
            draining,
            at_ms: now_ms(),
            certificates: self.certificates(),
        }
    }

    /// Those that end first, if there are too many.
    fn certificates(&self) -> Vec<CertificateReport> {
        let mut all = (self.certificates)();
        if all.len() > CERTIFICATES_MAX {
            all.sort_by_key(|one| (!one.failing, one.not_after_unix));
            all.truncate(CERTIFICATES_MAX);
        }
        all
    }

    async fn write(&self, report: &Report, words: Option<&Bytes>) -> Result<(), BusError> {
        let Membership { bus, fleet, node, .. } = &self.membership;
        let bucket = bus.bucket(&fleet.status()).await?;
        if let Some(words) = words {
            bucket.put(&format!("words.{}", report.who.words), words.clone()).await?;
        }
        let value = serde_json::to_vec(report).unwrap_or_default();
        bucket.put(&format!("node.{}", level(node)), value.into()).await.map(drop)
    }
}

fn ms_of(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
