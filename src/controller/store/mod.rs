//! The controller's own memory: one SQLite file.
//!
//! What was read from a stream and how far is written in one transaction, so that nothing is lost and nothing is doubled
//! whenever the process ends. One connection writes, one reads, searches have their own; all are used on threads that may block.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, Transaction, TransactionBehavior};

use crate::durable;
use crate::migrations::MigrationError;

mod events;
mod requests;
mod samples;
mod schema;
mod search;
#[cfg(test)]
mod tests;

pub(super) use events::{Event, EventQuery, Found, Incoming, add_events, events};
pub(super) use requests::{RequestQuery, add_requests, limited_clients, requests};
use search::{SEARCH_MAX, SEARCHES_MAX, Searches};

pub(super) use samples::{Step, add_samples, series, since};

/// How long a writer waits for another process on the same file before it gives up.
const BUSY: Duration = Duration::from_secs(5);
const FILE: &str = "controller.db";

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    #[error(transparent)]
    Migration(#[from] MigrationError),
    #[error(transparent)]
    Io(#[from] std::io::Error),
    #[error("{0} is used by another controller: each needs a directory of its own (data)")]
    InUse(String),
    #[error(
        "the search took longer than {0:?} and was ended: say more of what is looked for, best a trace or a request"
    )]
    TooLong(Duration),
    #[error("{SEARCHES_MAX} others are searching: try again")]
    Searched,
    #[error("the work was given up")]
    GivenUp,
}

/// Clones share it.
#[derive(Clone, Debug)]
pub(super) struct Store(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    writing: Mutex<Connection>,
    reading: Mutex<Connection>,
    searches: Searches,
    /// Held for as long as the process lives: two controllers on one database would count everything twice.
    _lock: std::fs::File,
}

impl Store {
    /// Opens the database of a directory; makes both if need be.
    pub(super) fn open(directory: &Path) -> Result<Store, StoreError> {
        durable::directory(directory)?;
        let lock = std::fs::OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(directory.join("controller.lock"))?;
        if lock.try_lock().is_err() {
            return Err(StoreError::InUse(directory.display().to_string()));
        }
        let path = directory.join(FILE);
        durable::private_database(&path)?;
        let mut writing = Connection::open(&path)?;
        writing.busy_timeout(BUSY)?;
        // NORMAL in WAL: after a crash of the machine the last transactions may be gone, with their cursor: they are read again.
        writing.execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;")?;
        schema::make(&mut writing)?;
        let reading = search::open(&path)?;
        Ok(Store(Arc::new(Inner {
            writing: Mutex::new(writing),
            reading: Mutex::new(reading),
            searches: Searches::new(path),
            _lock: lock,
        })))
    }

    /// Does all of it or nothing.
    pub(super) async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let inner = self.0.clone();
        let done = tokio::task::spawn_blocking(move || {
            let mut connection = inner.writing.lock().unwrap_or_else(PoisonError::into_inner);
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let done = work(&transaction)?;
            transaction.commit()?;
            Ok(done)
        });
        done.await.unwrap_or(Err(StoreError::GivenUp))
    }

    /// Reads what is found at once, by an index.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let inner = self.0.clone();
        let done = tokio::task::spawn_blocking(move || {
            let connection = inner.reading.lock().unwrap_or_else(PoisonError::into_inner);
            Ok(work(&connection)?)
        });
        done.await.unwrap_or(Err(StoreError::GivenUp))
    }
}

impl Store {
    /// Reads what may take a while, and is ended if it takes too long.
    pub(super) async fn search<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.0.searches.search(SEARCH_MAX, work).await
    }
}

/// Bytes of a page: rows beyond are on the next.
const PAGE_MAX: usize = 16 << 20;

/// The rows of a page, up to its bounds in number and bytes, and the id before which the next page begins.
fn page<T>(
    rows: impl Iterator<Item = rusqlite::Result<(u64, usize, T)>>,
    limit: usize,
    bytes_max: usize,
) -> rusqlite::Result<Found<T>> {
    let (mut found, mut bytes) = (Vec::new(), 0);
    for row in rows {
        let (id, size, row) = row?;
        found.push(row);
        bytes += size;
        if found.len() == limit || bytes >= bytes_max {
            return Ok(Found { found, before: Some(id) });
        }
    }
    Ok(Found { found, before: None })
}

/// How far a stream has been read.
pub(super) fn cursor(connection: &Connection, stream: &str) -> rusqlite::Result<u64> {
    use rusqlite::OptionalExtension as _;
    let found = connection
        .prepare("SELECT sequence FROM cursor WHERE stream = ?1")?
        .query_row([stream], |row| row.get::<_, i64>(0))
        .optional()?;
    Ok(found.map_or(0, |sequence| u64::try_from(sequence).unwrap_or_default()))
}

pub(super) fn set_cursor(transaction: &Transaction<'_>, stream: &str, sequence: u64) -> rusqlite::Result<()> {
    transaction
        .prepare("INSERT INTO cursor VALUES (?1, ?2) ON CONFLICT DO UPDATE SET sequence = excluded.sequence")?
        .execute((stream, signed(sequence)))
        .map(drop)
}

/// Counts what did not come in, by reason.
pub(super) fn count_lost(transaction: &Transaction<'_>, reason: &str, number: u64) -> rusqlite::Result<()> {
    if number == 0 {
        return Ok(());
    }
    transaction
        .prepare("INSERT INTO lost VALUES (?1, ?2) ON CONFLICT DO UPDATE SET number = number + excluded.number")?
        .execute((reason, signed(number)))
        .map(drop)
}

/// What did not come in, by reason.
pub(super) fn lost(connection: &Connection) -> rusqlite::Result<Vec<(String, u64)>> {
    let mut statement = connection.prepare("SELECT reason, number FROM lost ORDER BY reason")?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, unsigned(row.get(1)?))))?;
    rows.collect()
}

/// Removes what is too old or too much of a table that has `id` and `at`.
pub(super) fn prune(
    transaction: &Transaction<'_>,
    table: &str,
    before_ms: u64,
    number: u64,
) -> rusqlite::Result<usize> {
    let old = transaction.execute(&format!("DELETE FROM {table} WHERE at < ?1"), [signed(before_ms)])?;
    // Ids only grow: what is further from the newest than the bound is too much.
    let sql = format!("DELETE FROM {table} WHERE id <= (SELECT max(id) FROM {table}) - ?1");
    Ok(old + transaction.execute(&sql, [signed(number)])?)
}

/// SQLite has signed integers only; ours never come near the difference.
fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or_default()
}
