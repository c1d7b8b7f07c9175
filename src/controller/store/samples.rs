//! Traffic over time: what each node did for each route, in steps of ten seconds for an hour and of five minutes for two days.
//!
//! A step of five minutes grows with every ten seconds that end, so that a restart loses no more than those.

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension as _, Transaction};

use super::{signed, unsigned};
use crate::controller::meter::add;
use crate::fleet::Counted;

/// How fine a series is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::controller) enum Step {
    TenSeconds,
    FiveMinutes,
}

impl Step {
    pub(in crate::controller) const ALL: [Step; 2] = [Step::TenSeconds, Step::FiveMinutes];

    pub(in crate::controller) fn seconds(self) -> u64 {
        match self {
            Step::TenSeconds => 10,
            Step::FiveMinutes => 300,
        }
    }

    /// Seconds that are kept.
    fn kept(self) -> u64 {
        match self {
            Step::TenSeconds => 3600,
            Step::FiveMinutes => 48 * 3600,
        }
    }
}

/// Adds what happened at a moment (seconds since 1970), by node and route; drops what is too old.
pub(in crate::controller) fn add_samples(
    transaction: &Transaction<'_>,
    at: u64,
    samples: &BTreeMap<(String, String), Counted>,
) -> rusqlite::Result<()> {
    let mut find =
        transaction.prepare("SELECT counted FROM sample WHERE step = ?1 AND route = ?2 AND at = ?3 AND node = ?4")?;
    let mut put = transaction.prepare("INSERT OR REPLACE INTO sample VALUES (?1, ?2, ?3, ?4, ?5)")?;
    for step in Step::ALL {
        let seconds = step.seconds();
        let begin = signed(at - at % seconds);
        for ((node, route), counted) in samples {
            let there: Option<String> =
                find.query_row((signed(seconds), route, begin, node), |row| row.get(0)).optional()?;
            let mut total: Counted =
                there.and_then(|text: String| serde_json::from_str(&text).ok()).unwrap_or_default();
            add(&mut total, counted);
            let text = serde_json::to_string(&total).unwrap_or_default();
            put.execute((signed(seconds), begin, route, node, text))?;
        }
        transaction
            .prepare("DELETE FROM sample WHERE step = ?1 AND at < ?2")?
            .execute((signed(seconds), signed(at.saturating_sub(step.kept()))))?;
    }
    Ok(())
}

/// A route of all nodes (`""`: everything) from a moment on: each step's begin in seconds and what happened in it.
pub(in crate::controller) fn series(
    connection: &Connection,
    step: Step,
    route: &str,
    from: u64,
) -> rusqlite::Result<BTreeMap<u64, Counted>> {
    let mut statement =
        connection.prepare("SELECT at, counted FROM sample WHERE step = ?1 AND route = ?2 AND at >= ?3")?;
    let mut rows = statement.query((signed(step.seconds()), route, signed(from)))?;
    let mut found: BTreeMap<u64, Counted> = BTreeMap::new();
    while let Some(row) = rows.next()? {
        let counted: Counted = serde_json::from_str(&row.get::<_, String>(1)?).unwrap_or_default();
        add(found.entry(unsigned(row.get(0)?)).or_default(), &counted);
    }
    Ok(found)
}

/// What each node did for each route since a moment, in steps of ten seconds that began at it or later.
pub(in crate::controller) fn since(
    connection: &Connection,
    from: u64,
) -> rusqlite::Result<BTreeMap<(String, String), Counted>> {
    let mut statement = connection.prepare("SELECT node, route, counted FROM sample WHERE step = ?1 AND at >= ?2")?;
    let mut rows = statement.query((signed(Step::TenSeconds.seconds()), signed(from)))?;
    let mut found: BTreeMap<(String, String), Counted> = BTreeMap::new();
    while let Some(row) = rows.next()? {
        let counted: Counted = serde_json::from_str(&row.get::<_, String>(2)?).unwrap_or_default();
        add(found.entry((row.get(0)?, row.get(1)?)).or_default(), &counted);
    }
    Ok(found)
}
