//! Searches of operators: bounded in time and number, on connections of their own, so that none holds up what alerts and
//! trials read. One that takes too long, or that nobody waits for any more, is ended within SQLite.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode, OpenFlags};
use tokio::sync::Semaphore;

use super::{BUSY, StoreError};

/// Longest search, from its turn on. The longest wait for a turn, too.
pub(super) const SEARCH_MAX: Duration = Duration::from_secs(10);
/// Searches at once.
pub(super) const SEARCHES_MAX: usize = 2;
/// Steps of SQLite's machine between two looks at the clock: some tens of microseconds.
const STEPS: i32 = 1_000;

#[derive(Debug)]
pub(super) struct Searches {
    path: PathBuf,
    turns: Arc<Semaphore>,
}

/// Tells a search that nobody waits for it any more.
struct Waiting(Arc<AtomicBool>);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Searches {
    pub(super) fn new(path: PathBuf) -> Searches {
        Searches { path, turns: Arc::new(Semaphore::new(SEARCHES_MAX)) }
    }

    pub(super) async fn search<T: Send + 'static>(
        &self,
        within: Duration,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let turn = tokio::time::timeout(within, self.turns.clone().acquire_owned()).await;
        let turn = turn.map_err(|_| StoreError::Searched)?.map_err(|_| StoreError::GivenUp)?;
        let unwanted = Arc::new(AtomicBool::new(false));
        let _waiting = Waiting(unwanted.clone());
        let path = self.path.clone();
        let done = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            let ends = Instant::now() + within;
            let mut connection = open(&path)?;
            let over = move || unwanted.load(Ordering::Relaxed) || Instant::now() >= ends;
            connection.progress_handler(STEPS, Some(over))?;
            match work(&connection) {
                Err(error) if error.sqlite_error_code() == Some(ErrorCode::OperationInterrupted) => {
                    Err(StoreError::TooLong(within))
                }
                done => Ok(done?),
            }
        });
        done.await.unwrap_or(Err(StoreError::GivenUp))
    }
}

/// A connection that only reads.
pub(super) fn open(path: &std::path::Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY)?;
    Ok(connection)
}

#[cfg(test)]
mod tests {
    use super::super::Store;
    use super::*;

    const ENDLESS: &str = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n";

    /// Some thousand steps.
    const BRIEF: &str =
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 10000) SELECT count(*) FROM n";

    fn count(connection: &Connection) -> rusqlite::Result<i64> {
        connection.query_row(ENDLESS, [], |row| row.get(0))
    }

    #[tokio::test]
    async fn a_search_that_takes_too_long_is_ended_and_holds_up_no_reader() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let searches = Arc::new(Searches::new(directory.path().join(super::super::FILE)));
        let endless = |within: Duration| {
            let searches = searches.clone();
            tokio::spawn(async move { searches.search(within, count).await })
        };
        let short = Duration::from_millis(50);
        assert!(matches!(endless(short).await.unwrap(), Err(StoreError::TooLong(_))));
        let running: Vec<_> = (0..SEARCHES_MAX).map(|_| endless(Duration::from_secs(3600))).collect();
        while searches.turns.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        assert!(matches!(endless(short).await.unwrap(), Err(StoreError::Searched)), "no turn");
        store.read(super::super::lost).await.unwrap();
        // Whoever goes away takes the search along.
        running.iter().for_each(tokio::task::JoinHandle::abort);
        let seven = |c: &Connection| c.query_row("SELECT 7", [], |row| row.get::<_, i64>(0));
        let found = searches.search(Duration::from_secs(60), seven).await;
        assert_eq!(found.unwrap(), 7);
    }

    #[tokio::test]
    async fn the_wait_for_a_turn_is_not_taken_from_the_search() {
        let directory = tempfile::tempdir().unwrap();
        let _store = Store::open(directory.path()).unwrap();
        let searches = Searches::new(directory.path().join(super::super::FILE));
        let turns = searches.turns.clone().acquire_many_owned(SEARCHES_MAX as u32).await.unwrap();
        let within = Duration::from_secs(2);
        // Waits for three quarters of the time, then takes half of it.
        let half = move |connection: &Connection| {
            let began = Instant::now();
            while began.elapsed() < within / 2 {
                connection.query_row(BRIEF, [], |_| Ok(()))?;
            }
            Ok(())
        };
        let mut searching = std::pin::pin!(searches.search(within, half));
        assert!(tokio::time::timeout(within * 3 / 4, &mut searching).await.is_err(), "it has no turn");
        drop(turns);
        searching.await.unwrap();
    }
}
