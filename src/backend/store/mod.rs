//! The database: SQLite with a write-ahead log, one thread that writes, a few connections that read.
//!
//! ```text
//! write ─▶ queue ─▶ thread: BEGIN · SAVEPOINT each · COMMIT (fsync) ─▶ answers
//! read  ─▶ place ─▶ connection, read-only
//! ```
//! Writes that wait share one commit, and nobody is answered before it is on the disk (`synchronous = FULL`): what was
//! answered survives a kill and a power cut.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};
use tokio::sync::{Notify, Semaphore, mpsc, oneshot};

pub(super) mod schema;
mod writer;

use crate::migrations::MigrationError;
use writer::Job;

/// Writes that wait for the thread.
const WAITING_MAX: usize = 256;
/// Connections that read.
const READERS: usize = 4;
/// How long a request waits for a place in the queue, or for a connection to read with.
const PLACE: Duration = Duration::from_secs(2);
/// A read that takes longer is broken off.
const READ: Duration = Duration::from_secs(5);
/// How long a connection waits for a lock. Only a backup or a person with `sqlite3` could hold one.
const BUSY: Duration = Duration::from_secs(5);

/// Why the database did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("{0}")]
    Sql(#[from] rusqlite::Error),
    #[error("{path}: {source}")]
    File { path: PathBuf, source: std::io::Error },
    #[error("{0}: another process has this directory")]
    Taken(PathBuf),
    #[error("{0}")]
    Migration(#[from] MigrationError),
    /// Too many wait, or the query takes too long.
    #[error("the database is busy")]
    Busy,
    #[error("the database is closed")]
    Closed,
    /// The commit that this was part of failed.
    #[error("not written: {0}")]
    Commit(String),
}

/// A handle on the database. Clones share it.
#[derive(Clone)]
pub(super) struct Store(Arc<Inner>);

struct Inner {
    jobs: mpsc::Sender<Job>,
    readers: Mutex<Vec<Connection>>,
    places: Arc<Semaphore>,
    /// The last commit went well.
    writable: Arc<AtomicBool>,
    /// Something was written to the outbox.
    told: Arc<Notify>,
    thread: Mutex<Option<std::thread::JoinHandle<()>>>,
    /// Keeps other processes out for as long as this one lives.
    _lock: File,
}

/// The database file of a data directory.
pub(super) fn database(data: &Path) -> PathBuf {
    data.join("data.db")
}

/// Takes a data directory for this process alone.
pub(super) fn take(data: &Path) -> Result<File, StoreError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| StoreError::File { path, source }
    };
    crate::durable::directory(data).map_err(failed(data))?;
    let path = data.join("lock");
    let lock = File::options().create(true).truncate(false).write(true).open(&path).map_err(failed(&path))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(std::fs::TryLockError::WouldBlock) => Err(StoreError::Taken(data.to_owned())),
        Err(std::fs::TryLockError::Error(source)) => Err(StoreError::File { path, source }),
    }
}

impl Store {
    /// Opens the database of a directory, makes it if there is none, and brings it up to date.
    pub(super) fn open(data: &Path) -> Result<Store, StoreError> {
        let lock = take(data)?;
        let path = database(data);
        crate::durable::private_database(&path).map_err(|source| StoreError::File { path: path.clone(), source })?;
        let mut connection = Connection::open(&path)?;
        connection.busy_timeout(BUSY)?;
        connection.pragma_update_and_check(None, "journal_mode", "wal", |_| Ok(()))?;
        connection.pragma_update(None, "synchronous", "full")?;
        connection.pragma_update(None, "foreign_keys", true)?;
        schema::make(&mut connection)?;
        let readers = (0..READERS).map(|_| reader(&path)).collect::<Result<Vec<_>, _>>()?;
        let (jobs, waiting) = mpsc::channel(WAITING_MAX);
        let (writable, told) = (Arc::new(AtomicBool::new(true)), Arc::new(Notify::new()));
        let working = (writable.clone(), told.clone());
        let thread = std::thread::Builder::new()
            .name("writer".to_owned())
            .spawn(move || writer::run(connection, waiting, &working.0, &working.1))
            .map_err(|source| StoreError::File { path, source })?;
        Ok(Store(Arc::new(Inner {
            jobs,
            readers: Mutex::new(readers),
            places: Arc::new(Semaphore::new(READERS)),
            writable,
            told,
            thread: Mutex::new(Some(thread)),
            _lock: lock,
        })))
    }

    /// Changes the database in a transaction. When this returns `Ok`, the change is on the disk; after an error there is none.
    pub(super) async fn write<T, E>(
        &self,
        change: impl FnOnce(&Connection) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + From<rusqlite::Error> + Send + 'static,
    {
        let (done, wait) = oneshot::channel();
        let job = writer::job(change, done);
        match tokio::time::timeout(PLACE, self.0.jobs.send(job)).await {
            Ok(Ok(())) => wait.await.unwrap_or_else(|_| Err(StoreError::Closed.into())),
            Ok(Err(_)) => Err(StoreError::Closed.into()),
            Err(_) => Err(StoreError::Busy.into()),
        }
    }

    /// Asks the database. Sees everything that was answered before.
    pub(super) async fn read<T, E>(
        &self,
        question: impl FnOnce(&Connection) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        let place = tokio::time::timeout(PLACE, self.0.places.clone().acquire_owned()).await;
        let Ok(Ok(place)) = place else { return Err(StoreError::Busy.into()) };
        // There are as many places as connections.
        let Some(connection) = self.readers().pop() else { return Err(StoreError::Closed.into()) };
        let mut breaker = Breaker { handle: connection.get_interrupt_handle(), armed: true };
        let store = self.clone();
        let mut asked = tokio::task::spawn_blocking(move || {
            let answer = question(&connection);
            store.readers().push(connection);
            drop(place);
            answer
        });
        match tokio::time::timeout(READ, &mut asked).await {
            Ok(answer) => {
                breaker.armed = false;
                answer.unwrap_or_else(|_| Err(StoreError::Closed.into()))
            }
            Err(_) => {
                breaker.handle.interrupt();
                let _ = asked.await;
                breaker.armed = false;
                Err(StoreError::Busy.into())
            }
        }
    }

    fn readers(&self) -> std::sync::MutexGuard<'_, Vec<Connection>> {
        self.0.readers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the last commit went well, and there is a thread for the next.
    pub(super) fn is_writable(&self) -> bool {
        self.0.writable.load(Ordering::Relaxed) && !self.0.jobs.is_closed()
    }

    /// Wakes whoever sends the outbox.
    pub(super) fn told(&self) -> Arc<Notify> {
        self.0.told.clone()
    }

    /// Writes what waits, and the log into the database. Nothing can be written afterwards.
    pub(super) async fn close(&self) {
        let _ = self.0.jobs.send(Job::Close).await;
        let thread = self.0.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            // Connections that read would keep the log from being cut.
            self.readers().clear();
            let _ = tokio::task::spawn_blocking(move || thread.join()).await;
        }
    }
}

/// Breaks a read off that nobody waits for any more: its client has left.
struct Breaker {
    handle: rusqlite::InterruptHandle,
    armed: bool,
}

impl Drop for Breaker {
    fn drop(&mut self) {
        if self.armed {
            self.handle.interrupt();
        }
    }
}

/// Bytes of the database that are in use.
pub(super) fn used(connection: &Connection) -> Result<u64, rusqlite::Error> {
    let number = |name: &str| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let pages = number("page_count")? - number("freelist_count")?;
    Ok(pages.max(0).unsigned_abs() * number("page_size")?.unsigned_abs())
}

fn reader(path: &Path) -> Result<Connection, StoreError> {
    let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    connection.busy_timeout(BUSY)?;
    Ok(connection)
}

/// An empty database in memory, for tests of what is asked of it.
#[cfg(test)]
pub(super) fn migrated() -> Connection {
    let mut connection = Connection::open_in_memory().unwrap();
    connection.pragma_update(None, "foreign_keys", true).unwrap();
    schema::make(&mut connection).unwrap();
    connection
}

#[cfg(test)]
mod tests;
