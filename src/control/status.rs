//! What a gateway runs and what it thinks of its source, as `/config` and `/ready` tell it.

use std::sync::Arc;
use std::time::SystemTime;

use serde::Serialize;

use crate::config::print::Entry;
use crate::ledger::unix_ms;
use crate::routes::Table;

/// Problems told in full; of more only their number.
const PROBLEMS_MAX: usize = 100;

/// The state of configuration. Replaced as a whole, never edited in place.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Status {
    /// Of the document in force.
    pub revision: Arc<str>,
    /// Its number on the bus, if it comes from there and is known.
    pub bus_revision: Option<u64>,
    /// The number of a document on the bus that is refused here.
    pub bus_refused: Option<u64>,
    /// Milliseconds since 1970.
    pub applied_at_ms: u64,
    pub serving: Serving,
    /// Where documents come from.
    pub source: String,
    pub routes: usize,
    pub upstreams: usize,
    /// Names of routes and upstreams that the last change touched.
    pub last_change: Difference,
    /// Of the newest document: errors if it was refused, warnings if it is in force.
    pub problems: Vec<Entry>,
    /// Their number, also beyond those listed.
    pub problems_total: usize,
    /// Why the source has no document now.
    pub source_error: Option<String>,
    /// When the newest document was refused; `null` if it is in force. Milliseconds since 1970.
    pub refused_at_ms: Option<u64>,
    /// Why the last good document could not be kept.
    pub last_good_error: Option<String>,
}

/// Which document is in force.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Serving {
    /// What the source held.
    #[default]
    Source,
    /// The one kept in `state.dir`: at start the source held none that is good.
    LastGood,
    /// The one named by `routes.fallback`: nothing was kept, either.
    Fallback,
}

/// What a change touched, by name; long lists are cut.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Difference {
    pub added: Names,
    pub changed: Names,
    pub removed: Names,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Names {
    pub total: usize,
    /// In order; the first of them if there are many.
    pub names: Vec<String>,
}

impl Serving {
    /// As metrics and pages name it.
    pub fn name(self) -> &'static str {
        match self {
            Serving::Source => "source",
            Serving::LastGood => "last_good",
            Serving::Fallback => "fallback",
        }
    }
}

impl Status {
    /// The source holds what is in force.
    pub fn is_current(&self) -> bool {
        self.refused_at_ms.is_none() && self.source_error.is_none()
    }

    pub(super) fn entered(
        &mut self,
        table: &Table,
        at: SystemTime,
        serving: Serving,
        difference: Difference,
        warnings: &[Entry],
    ) {
        self.revision = table.revision.clone();
        self.applied_at_ms = unix_ms(at);
        self.serving = serving;
        self.routes = table.routes.len();
        self.upstreams = table.pools.len();
        self.last_change = difference;
        // In front of a last good document stands what is wrong with the source.
        if serving == Serving::Source {
            self.unchanged(warnings);
        }
    }

    pub(super) fn unchanged(&mut self, warnings: &[Entry]) {
        self.serving = Serving::Source;
        self.bus_refused = None;
        self.source_error = None;
        self.refused_at_ms = None;
        self.note(warnings);
    }

    pub(super) fn refused(&mut self, problems: &[Entry], revision: Option<u64>) {
        self.bus_refused = revision;
        self.source_error = None;
        self.refused_at_ms = Some(unix_ms(SystemTime::now()));
        self.note(problems);
    }

    fn note(&mut self, problems: &[Entry]) {
        self.problems_total = problems.len();
        self.problems = problems.iter().take(PROBLEMS_MAX).cloned().collect();
    }
}
