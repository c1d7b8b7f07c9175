//! How an older SQLite database becomes a newer one: step by step, each whole or not at all.
//!
//! The number of steps that were taken is the database's `user_version`. A step that was shipped is never changed: another is
//! added.

use rusqlite::{Connection, TransactionBehavior};

/// Why a database is not brought up to date.
#[derive(Debug, thiserror::Error)]
pub enum MigrationError {
    #[error("{0}")]
    Sql(#[from] rusqlite::Error),
    #[error("the database is of version {found}, and this program knows {known}: it was written by a newer one")]
    Newer { found: i64, known: i64 },
}

/// The version to which steps lead.
pub fn newest(steps: &[&str]) -> i64 {
    steps.len() as i64
}

/// How many steps a database has taken.
///
/// # Errors
/// It cannot be read.
pub fn version(connection: &Connection) -> Result<i64, rusqlite::Error> {
    connection.pragma_query_value(None, "user_version", |row| row.get(0))
}

/// Takes the steps that are missing. A database that has taken more than there are is left as it is.
///
/// # Errors
/// A step fails, and what was taken before it stays; or the database is of a newer version.
pub fn apply(connection: &mut Connection, steps: &[&str]) -> Result<(), MigrationError> {
    let known = newest(steps);
    loop {
        let found = version(connection)?;
        if found > known {
            return Err(MigrationError::Newer { found, known });
        }
        let Some(step) = usize::try_from(found).ok().and_then(|found| steps.get(found)) else { return Ok(()) };
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Exclusive)?;
        transaction.execute_batch(step)?;
        transaction.pragma_update(None, "user_version", found + 1)?;
        transaction.commit()?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEPS: &[&str] = &["CREATE TABLE a (n)", "CREATE TABLE b (n); INSERT INTO b VALUES (1)"];

    fn database() -> Connection {
        Connection::open_in_memory().unwrap()
    }

    #[test]
    fn each_step_is_taken_once() {
        let mut connection = database();
        for steps in [&STEPS[..1], STEPS, STEPS] {
            apply(&mut connection, steps).unwrap();
            assert_eq!(version(&connection).unwrap(), newest(steps));
        }
        let rows: i64 = connection.query_row("SELECT count(*) FROM b", [], |row| row.get(0)).unwrap();
        assert_eq!(rows, 1);
    }

    #[test]
    fn a_step_that_fails_leaves_nothing_half() {
        let mut connection = database();
        assert!(apply(&mut connection, &[STEPS[0], "CREATE TABLE b (n); no such thing"]).is_err());
        assert_eq!(version(&connection).unwrap(), 1);
        apply(&mut connection, STEPS).unwrap();
    }

    #[test]
    fn a_newer_database_is_refused_and_left_as_it_is() {
        let mut connection = database();
        apply(&mut connection, STEPS).unwrap();
        let refused = apply(&mut connection, &STEPS[..1]).unwrap_err();
        assert!(matches!(refused, MigrationError::Newer { found: 2, known: 1 }), "{refused}");
        assert_eq!(version(&connection).unwrap(), 2);
    }
}
