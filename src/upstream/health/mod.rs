//! Active checks. One prober per (address, check, TLS identity), shared by every pool that asks for the same.
//!
//! Until the first result an endpoint counts as healthy; the first result of a new endpoint decides at once, later ones
//! by `rise` and `fall`. A prober ends with the last member that reads it.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::counters::count;
use super::registry::Registry;
use super::transport::Transport;
use crate::config::{self, HealthKind};
use crate::tasks::{TaskGuard, Tasks};

mod grpc;
mod http;
mod tcp;
mod verdict;

use verdict::Verdict;

/// Who asks, in the logs of the endpoint.
const USER_AGENT: &str = concat!("tollgate/", env!("CARGO_PKG_VERSION"), " (health check)");

/// What active checks know about one address. The checks end when the last reader drops it.
#[derive(Debug)]
pub(crate) struct Probe {
    findings: Arc<Findings>,
    _task: TaskGuard,
}

/// What a prober writes and members read.
#[derive(Debug)]
struct Findings {
    healthy: AtomicBool,
    passed: AtomicU64,
    failed: AtomicU64,
    failure: Mutex<Option<String>>,
}

/// What is checked, and how.
#[derive(Clone, Debug)]
pub(crate) struct Check {
    pub(crate) address: SocketAddr,
    pub(crate) words: Arc<config::Health>,
    /// `Host` or `:authority`, if the words do not say.
    pub(crate) authority: String,
    pub(crate) transport: Arc<Transport>,
}

/// Checks that are the same are made once.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    address: SocketAddr,
    words: Arc<config::Health>,
    authority: String,
    peer_identity: u64,
}

/// All probers.
#[derive(Debug, Default)]
pub(crate) struct Checks(Registry<Key, Probe>);

/// What is known of an endpoint whose checks begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Known {
    Nothing,
    /// Other checks of the same endpoint came to this; the new ones need `rise` or `fall` to change it.
    Healthy(bool),
}

impl Probe {
    pub(crate) fn is_healthy(&self) -> bool {
        self.findings.healthy.load(Ordering::Relaxed)
    }

    /// Why the last check failed, if it did.
    pub(crate) fn failure(&self) -> Option<String> {
        self.findings.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Checks that passed and failed.
    pub(crate) fn counts(&self) -> (u64, u64) {
        (self.findings.passed.load(Ordering::Relaxed), self.findings.failed.load(Ordering::Relaxed))
    }

    fn has_result(&self) -> bool {
        self.counts() != (0, 0)
    }

    /// What its readers may hand on to checks that replace it.
    pub(crate) fn known(&self) -> Known {
        if self.has_result() { Known::Healthy(self.is_healthy()) } else { Known::Nothing }
    }
}

impl Checks {
    /// The prober of a check; begins now if nobody asked for it before.
    pub(crate) fn probe(&self, tasks: &Tasks, check: Check, known: Known) -> Arc<Probe> {
        let key = Key {
            address: check.address,
            words: check.words.clone(),
            authority: check.authority.clone(),
            peer_identity: check.transport.peer_identity,
        };
        self.0.find_or_make(key, || {
            let findings = Arc::new(Findings {
                healthy: AtomicBool::new(known != Known::Healthy(false)),
                passed: AtomicU64::new(0),
                failed: AtomicU64::new(0),
                failure: Mutex::new(None),
            });
            let task = tasks.spawn("health check", run(check, findings.clone(), known));
            Probe { findings, _task: task }
        })
    }

    #[cfg(test)]
    pub(crate) fn running(&self) -> usize {
        self.0.held()
    }
}

async fn run(check: Check, findings: Arc<Findings>, known: Known) {
    let mut verdict = Verdict::new(known);
    loop {
        let result = match tokio::time::timeout(check.words.timeout.0, once(&check)).await {
            Ok(result) => result,
            Err(_) => Err(format!("no result within {}", check.words.timeout)),
        };
        count(if result.is_ok() { &findings.passed } else { &findings.failed });
        let before = findings.healthy.load(Ordering::Relaxed);
        let healthy = verdict.after(result.is_ok(), &check.words);
        let failure = result.err();
        if healthy != before {
            let (endpoint, kind) = (check.address, check.words.kind);
            if healthy {
                tracing::info!(%endpoint, check = ?kind, "endpoint is healthy: checks pass");
            } else {
                let reason = failure.as_deref().unwrap_or_default();
                tracing::warn!(%endpoint, check = ?kind, reason, "endpoint is unhealthy: checks fail");
            }
        }
        *findings.failure.lock().unwrap_or_else(PoisonError::into_inner) = failure;
        findings.healthy.store(healthy, Ordering::Relaxed);
        tokio::time::sleep(jittered(check.words.every.0)).await;
    }
}

async fn once(check: &Check) -> Result<(), String> {
    match check.words.kind {
        HealthKind::Http => http::check(check).await,
        HealthKind::Tcp => tcp::check(check).await,
        HealthKind::Grpc => grpc::check(check).await,
    }
}

/// A tenth more or less, so that probers of many gateways do not fall into step.
fn jittered(every: Duration) -> Duration {
    every.mul_f64(0.9 + 0.2 * fastrand::f64())
}

impl Check {
    fn authority(&self) -> &str {
        self.words.host.as_deref().unwrap_or(&self.authority)
    }
}
