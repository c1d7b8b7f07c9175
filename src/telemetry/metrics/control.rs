//! The counters of changes: which document is applied, and what became of those seen.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use super::count::{Counts, Gauge, labels};
use super::exposition::Exposition;
use super::family;

labels! {
    /// What became of a document.
    pub enum Change {
        Applied => "applied",
        /// It says what is applied already.
        Unchanged => "unchanged",
        /// It has problems, or its tests fail; nothing changed.
        Refused => "refused",
    }
}

/// The counters of changes.
#[derive(Debug, Default)]
pub struct ControlMetrics {
    applied: Mutex<Option<(Arc<str>, SystemTime)>>,
    changes: Counts<Change, { Change::COUNT }>,
    last_ok: Gauge,
    problems: Gauge,
}

impl ControlMetrics {
    /// Counts a document and how many problems it has, warnings among them.
    pub fn changed(&self, result: Change, problems: usize) {
        self.changes.inc(result);
        self.last_ok.set(i64::from(result != Change::Refused));
        self.problems.set(i64::try_from(problems).unwrap_or(i64::MAX));
    }

    /// Says which revision is applied since when.
    pub fn applied(&self, revision: Arc<str>, at: SystemTime) {
        *self.applied.lock().unwrap_or_else(PoisonError::into_inner) = Some((revision, at));
    }

    pub(super) fn expose(&self, out: &mut Exposition) {
        if let Some((revision, at)) = self.applied.lock().unwrap_or_else(PoisonError::into_inner).clone() {
            let seconds = at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
            out.value(&family::CONFIG_INFO, &[&revision], 1.0);
            out.value(&family::CONFIG_APPLIED, &[], seconds);
        }
        for (result, number) in self.changes.iter() {
            out.value(&family::CONFIG_CHANGES, &[result], number as f64);
        }
        out.value(&family::CONFIG_OK, &[], self.last_ok.value() as f64);
        out.value(&family::CONFIG_PROBLEMS, &[], self.problems.value() as f64);
    }
}
