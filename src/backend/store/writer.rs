//! The thread that writes: what waits is written together, each change in a savepoint of its own.

use std::sync::atomic::{AtomicBool, Ordering};

use rusqlite::{Connection, TransactionBehavior};
use tokio::sync::{Notify, mpsc, oneshot};

use super::StoreError;

/// Changes that share one commit.
const TOGETHER_MAX: usize = 64;

/// Does a change and returns how it is answered once it is known whether the commit went well.
type Change = Box<dyn FnOnce(&Connection) -> Answer + Send>;
type Answer = Box<dyn FnOnce(Result<(), String>) + Send>;

pub(super) enum Job {
    Change(Change),
    Close,
}

pub(super) fn job<T, E>(
    change: impl FnOnce(&Connection) -> Result<T, E> + Send + 'static,
    done: oneshot::Sender<Result<T, E>>,
) -> Job
where
    T: Send + 'static,
    E: From<StoreError> + From<rusqlite::Error> + Send + 'static,
{
    Job::Change(Box::new(move |connection| {
        let result = in_savepoint(connection, change);
        Box::new(move |committed| {
            let _ = done.send(match committed {
                Ok(()) => result,
                Err(why) => result.and(Err(StoreError::Commit(why).into())),
            });
        })
    }))
}

/// What a change did before it failed is undone, and only that.
fn in_savepoint<T, E: From<rusqlite::Error>>(
    connection: &Connection,
    change: impl FnOnce(&Connection) -> Result<T, E>,
) -> Result<T, E> {
    connection.execute_batch("SAVEPOINT change")?;
    let result = change(connection);
    let end = if result.is_ok() { "RELEASE change" } else { "ROLLBACK TO change; RELEASE change" };
    connection.execute_batch(end)?;
    result
}

/// Works until it is told to close, or nobody is left to ask.
pub(super) fn run(mut connection: Connection, mut waiting: mpsc::Receiver<Job>, writable: &AtomicBool, told: &Notify) {
    let mut open = true;
    while open {
        let mut changes = Vec::new();
        let mut next = waiting.blocking_recv();
        loop {
            match next {
                Some(Job::Change(change)) => changes.push(change),
                Some(Job::Close) | None => {
                    open = false;
                    break;
                }
            }
            if changes.len() >= TOGETHER_MAX {
                break;
            }
            let Ok(job) = waiting.try_recv() else { break };
            next = Some(job);
        }
        if !changes.is_empty() {
            together(&mut connection, changes, writable);
            told.notify_one();
        }
    }
    waiting.close();
    if let Err(error) = connection.pragma_update_and_check(None, "wal_checkpoint", "truncate", |_| Ok(())) {
        tracing::warn!(%error, "the log could not be written into the database; the next start does it");
    }
}

fn together(connection: &mut Connection, changes: Vec<Change>, writable: &AtomicBool) {
    let mut answers = Vec::with_capacity(changes.len());
    let committed = (|| {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        answers.extend(changes.into_iter().map(|change| change(&transaction)));
        transaction.commit()
    })();
    writable.store(committed.is_ok(), Ordering::Relaxed);
    let committed = committed.map_err(|error| {
        tracing::error!(%error, "the database could not be written");
        error.to_string()
    });
    // Whose change was not even begun gets no answer, which says so, too.
    answers.into_iter().for_each(|answer| answer(committed.clone()));
}
