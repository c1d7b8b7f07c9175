//! What is answered is there, what failed is not, and neither disturbs the other.

use super::*;

async fn add(store: &Store, name: &'static str, fail: bool) -> Result<(), StoreError> {
    store
        .write(move |connection| {
            connection.execute("INSERT INTO counts VALUES (?1, 1)", [name])?;
            if fail { Err(StoreError::Busy) } else { Ok(()) }
        })
        .await
}

async fn names(store: &Store) -> Vec<String> {
    let read = store.read(|connection| {
        let mut query = connection.prepare("SELECT name FROM counts ORDER BY name")?;
        let names = query.query_map([], |row| row.get(0))?.collect::<Result<Vec<String>, _>>()?;
        Ok::<_, StoreError>(names)
    });
    read.await.unwrap()
}

#[tokio::test]
async fn a_change_that_fails_leaves_nothing_and_harms_no_other() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    let (a, b, c) = tokio::join!(add(&store, "a", false), add(&store, "b", true), add(&store, "c", false));
    assert!(a.is_ok() && b.is_err() && c.is_ok());
    assert!(add(&store, "a", false).await.is_err(), "it is there already");
    assert_eq!(names(&store).await, ["a", "c"]);
    assert!(store.is_writable());
    store.close().await;
    assert!(matches!(add(&store, "d", false).await, Err(StoreError::Closed)));
    assert!(!store.is_writable());
}

#[tokio::test]
async fn what_was_answered_is_there_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    add(&store, "a", false).await.unwrap();
    assert!(matches!(Store::open(directory.path()), Err(StoreError::Taken(_))), "one process at a time");
    store.close().await;
    drop(store);
    let log = directory.path().join("data.db-wal");
    assert_eq!(std::fs::metadata(log).map_or(0, |log| log.len()), 0, "the log is written into the database");
    let store = Store::open(directory.path()).unwrap();
    assert_eq!(names(&store).await, ["a"]);
}

#[tokio::test]
async fn readers_cannot_write() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    let written = store.read(|connection| Ok::<_, StoreError>(connection.execute("DELETE FROM counts", [])?));
    assert!(written.await.is_err());
}

#[tokio::test]
async fn nobody_else_reads_its_files() {
    use std::os::unix::fs::PermissionsExt as _;
    let directory = tempfile::tempdir().unwrap();
    let mode = |name: &str| std::fs::metadata(directory.path().join(name)).unwrap().permissions().mode() & 0o777;
    // As an older version has left it.
    std::fs::write(directory.path().join("data.db"), "").unwrap();
    let store = Store::open(directory.path()).unwrap();
    add(&store, "a", false).await.unwrap();
    for name in ["data.db", "data.db-wal", "data.db-shm"] {
        assert_eq!(mode(name), 0o600, "{name}");
    }
    store.close().await;
    drop(store);
    let made = directory.path().join("made");
    drop(Store::open(&made).unwrap());
    assert_eq!(mode("made"), 0o700);
}
