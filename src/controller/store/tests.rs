//! The memory: once and whole, found again, bounded.

use std::collections::BTreeMap;

use super::*;
use crate::fleet::Counted;

fn incoming(sequence: u64, subject: &str, payload: &str) -> Incoming {
    Incoming { sequence, at_ms: sequence * 1000, subject: subject.to_owned(), payload: payload.to_owned().into() }
}

fn store() -> (tempfile::TempDir, Store) {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    (directory, store)
}

#[tokio::test]
async fn events_are_found_by_trace_and_their_cursor_moves_with_them() {
    let (_directory, store) = store();
    let batch = vec![
        incoming(1, "f.event.shop.sold", r#"{"service":"shop","event":"sold","trace_id":"t1","n":1}"#),
        incoming(2, "f.event.shop.sold", "no json"),
        incoming(3, "f.event.shop.left", r#"{"n":2}"#),
        incoming(4, "f.event.shop.left", r#"{"id":"same"}"#),
        incoming(7, "f.event.shop.left", r#"{"id":"same"}"#),
    ];
    store.write(move |t| add_events(t, "events", &batch, 1000)).await.unwrap();
    let all = EventQuery { limit: 10, ..EventQuery::default() };
    let by_trace = EventQuery { trace: Some("t1".to_owned()), ..all.clone() };
    let (all, traced, at, missing) = store
        .read(move |c| Ok((events(c, &all)?, events(c, &by_trace)?, cursor(c, "events")?, lost(c)?)))
        .await
        .unwrap();
    let names: Vec<_> = all.found.iter().map(|event| (event.service.as_str(), event.event.as_str())).collect();
    assert_eq!(names, [("shop", "left"), ("shop", "left"), ("shop", "sold")], "the twin is kept once");
    assert_eq!((traced.found.len(), &traced.found[0].body["n"]), (1, &1.into()));
    assert_eq!((at, missing), (7, vec![("event_not_json".to_owned(), 1)]));
}

#[tokio::test]
async fn what_fails_leaves_nothing_half() {
    let (_directory, store) = store();
    let batch = vec![incoming(1, "f.event.a.b", "{}")];
    let failed = store
        .write(move |t| {
            add_events(t, "events", &batch, 1000)?;
            Err::<(), _>(rusqlite::Error::InvalidQuery)
        })
        .await;
    assert!(failed.is_err());
    let query = EventQuery { limit: 10, ..EventQuery::default() };
    let (found, at) = store.read(move |c| Ok((events(c, &query)?, cursor(c, "events")?))).await.unwrap();
    assert_eq!((found.found.len(), at), (0, 0));
}

#[tokio::test]
async fn pages_of_request_lines_and_limited_clients() {
    let (_directory, store) = store();
    let line = |n: u64, code: &str| format!(r#"{{"status":429,"code":"{code}","client":"10.0.0.{n}","route":"r"}}"#);
    let batch = vec![
        incoming(1, "f.request.n1", &line(1, "limit")),
        incoming(2, "f.request.n2", &format!("[{},{}]", line(1, "limit"), line(2, "limit"))),
        incoming(3, "f.request.n2", &line(3, "no_route")),
    ];
    store.write(move |t| add_requests(t, "requests", &batch, 1000)).await.unwrap();
    let first = RequestQuery { limit: 3, status: Some((400, 499)), ..RequestQuery::default() };
    let page = store
        .read({
            let first = first.clone();
            move |c| requests(c, &first)
        })
        .await
        .unwrap();
    assert_eq!((page.found.len(), &page.found[0]["node"]), (3, &"n2".into()));
    let next = RequestQuery { before: page.before, ..first };
    let rest = store.read(move |c| requests(c, &next)).await.unwrap();
    assert_eq!((rest.found.len(), rest.before, &rest.found[0]["node"]), (1, None, &"n1".into()));
    let top = store.read(|c| limited_clients(c, 0, 10)).await.unwrap();
    assert_eq!(top, [("10.0.0.1".to_owned(), "r".to_owned(), 2), ("10.0.0.2".to_owned(), "r".to_owned(), 1)]);
}

#[test]
fn a_page_ends_at_its_rows_or_its_bytes() {
    let rows = || (1..=5).rev().map(|id| Ok((id, 10, id)));
    for (limit, bytes, expect) in [
        (5, 100, (5, Some(1))),
        (6, 100, (5, None)),
        (2, 100, (2, Some(4))),
        (5, 25, (3, Some(3))),
        (5, 1, (1, Some(5))),
    ] {
        let Found { found, before } = page(rows(), limit, bytes).unwrap();
        assert_eq!((found.len(), before), expect, "{limit} rows, {bytes} bytes");
    }
}

#[tokio::test]
async fn old_and_many_rows_go() {
    let (_directory, store) = store();
    let batch: Vec<Incoming> = (1..=10).map(|n| incoming(n, "f.event.a.b", "{}")).collect();
    store.write(move |t| add_events(t, "events", &batch, 1000)).await.unwrap();
    store.write(|t| prune(t, "event", 3000, 5)).await.unwrap();
    let query = EventQuery { limit: 20, ..EventQuery::default() };
    let found = store.read(move |c| events(c, &query)).await.unwrap().found;
    assert_eq!(found.iter().map(|event| event.id).collect::<Vec<_>>(), [10, 9, 8, 7, 6]);
}

#[tokio::test]
async fn samples_add_up_in_both_steps_and_outlive_the_process() {
    let (directory, store) = store();
    let one = |status: usize| {
        let mut counted = Counted { took: vec![1, 2], ..Counted::default() };
        counted.classes[status] = 3;
        BTreeMap::from([(("n1".to_owned(), String::new()), counted)])
    };
    let now = 1_000_000_200;
    for (at, status) in [(now, 2), (now + 1, 2), (now + 10, 5)] {
        let samples = one(status);
        store.write(move |t| add_samples(t, at, &samples)).await.unwrap();
    }
    drop(store);
    let store = Store::open(directory.path()).unwrap();
    let (fine, coarse, all) = store
        .read(move |c| {
            let coarse = series(c, Step::FiveMinutes, "", 0)?;
            Ok((series(c, Step::TenSeconds, "", 0)?, coarse, since(c, now + 10)?))
        })
        .await
        .unwrap();
    assert_eq!(fine.values().map(Counted::requests).collect::<Vec<_>>(), [6, 3]);
    assert_eq!(coarse.values().map(Counted::requests).collect::<Vec<_>>(), [9]);
    assert_eq!(coarse.values().next().unwrap().took, [3, 6]);
    assert_eq!(all.len(), 1);
    // An hour later the fine ones are gone, the coarse ones are not.
    store.write(move |t| add_samples(t, now + 4000, &BTreeMap::new())).await.unwrap();
    let (fine, coarse) =
        store.read(|c| Ok((series(c, Step::TenSeconds, "", 0)?, series(c, Step::FiveMinutes, "", 0)?))).await.unwrap();
    assert_eq!((fine.len(), coarse.len()), (0, 1));
}

#[tokio::test]
async fn nobody_else_reads_its_files() {
    use std::os::unix::fs::PermissionsExt as _;
    let (directory, store) = store();
    store.write(|t| count_lost(t, "x", 1)).await.unwrap();
    for name in ["controller.db", "controller.db-wal", "controller.db-shm"] {
        let mode = std::fs::metadata(directory.path().join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
}

#[test]
fn a_second_controller_does_not_share_a_directory() {
    let (directory, _store) = store();
    assert!(matches!(Store::open(directory.path()), Err(StoreError::InUse(_))));
}

#[tokio::test]
async fn an_older_release_in_between_changes_nothing_and_a_newer_one_is_told() {
    let (directory, store) = store();
    // As the first release has stamped whatever it opened.
    store.write(|t| t.pragma_update(None, "user_version", 1)).await.unwrap();
    drop(store);
    let store = Store::open(directory.path()).unwrap();
    store.write(|t| t.pragma_update(None, "user_version", 99)).await.unwrap();
    drop(store);
    let refused = Store::open(directory.path()).unwrap_err();
    assert!(matches!(refused, StoreError::Migration(MigrationError::Newer { found: 99, .. })), "{refused}");
    assert!(refused.to_string().contains("newer"), "{refused}");
}

#[tokio::test]
async fn what_pages_ask_every_two_seconds_is_read_from_an_index() {
    let (_directory, store) = store();
    let plan = store.read(|c| {
        let mut statement = c.prepare(&format!("EXPLAIN QUERY PLAN {}", requests::LIMITED))?;
        let rows = statement.query_map((0, 10, 10), |row| row.get(3))?;
        rows.collect::<rusqlite::Result<Vec<String>>>()
    });
    let plan = plan.await.unwrap().join("; ");
    assert!(plan.contains("SEARCH request USING COVERING INDEX request_refused (code=? AND at>?)"), "{plan}");
}
