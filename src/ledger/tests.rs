//! The ledger on a bus within the process.

use std::time::Duration;

use super::signature::tests::pair;
use super::*;
use crate::bus::{Bucket, Local};

async fn ledger() -> Ledger {
    let bus = Bus::new(Local::default());
    bus.make_bucket(&Bucket { name: "docs".to_owned(), max_age: Duration::ZERO }).await.unwrap();
    Ledger::new(bus, "docs")
}

fn draft(text: &str) -> Draft {
    Draft {
        text: text.into(),
        author: "me".to_owned(),
        reason: "because".to_owned(),
        requires: BTreeSet::from(["route".to_owned()]),
        rollback_of: None,
    }
}

#[tokio::test]
async fn what_was_pushed_comes_back_byte_for_byte() {
    let ledger = ledger().await;
    assert!(ledger.head().await.unwrap().is_none());
    // Random letters do not shrink: several pieces.
    let long: String = std::iter::repeat_with(|| fastrand::char('a'..='z')).take(3 * PIECE).collect();
    let texts = ["format = 1\n", "", long.as_str(), "format = 1\n"];
    for (number, text) in (1..).zip(texts) {
        let head = ledger.head().await.unwrap();
        let pointer = ledger.push(draft(text), head.as_ref(), None).await.unwrap();
        assert_eq!((pointer.revision, pointer.parent), (number, number - 1));
    }
    for (number, text) in (1..).zip(texts) {
        let pointer = ledger.revision(number).await.unwrap();
        assert_eq!(&*ledger.text(&pointer.digest).await.unwrap(), text);
    }
    let log: Vec<u64> = ledger.log().await.unwrap().iter().map(|pointer| pointer.revision).collect();
    assert_eq!(log, [4, 3, 2, 1]);
    assert!(matches!(ledger.revision(9).await, Err(LedgerError::NoRevision(9))));
}

#[tokio::test]
async fn of_two_writers_one_loses_and_changes_nothing() {
    let ledger = ledger().await;
    let first = ledger.push(draft("one"), None, None).await.unwrap();
    assert!(matches!(ledger.push(draft("two"), None, None).await, Err(LedgerError::Lost { expected: 0, .. })));
    let seen = ledger.head().await.unwrap();
    ledger.push(draft("two"), seen.as_ref(), None).await.unwrap();
    match ledger.push(draft("three"), seen.as_ref(), None).await {
        Err(LedgerError::Lost { now: Some(now), expected: 1 }) => assert_eq!(now.digest, digest("two")),
        other => panic!("{other:?}"),
    }
    let log = ledger.log().await.unwrap();
    assert_eq!(log.len(), 2);
    assert_eq!(log.last(), Some(&first));
}

#[tokio::test]
async fn a_writer_that_died_after_the_head_leaves_a_whole_history() {
    let ledger = ledger().await;
    ledger.push(draft("one"), None, None).await.unwrap();
    ledger.bus.bucket("docs").await.unwrap().remove("revision.1", None).await.unwrap();
    assert_eq!(ledger.log().await.unwrap().len(), 1, "the head is part of it");
    let head = ledger.head().await.unwrap();
    ledger.push(draft("two"), head.as_ref(), None).await.unwrap();
    assert_eq!(ledger.log().await.unwrap().len(), 2);
}

#[tokio::test]
async fn damage_is_noticed() {
    let ledger = ledger().await;
    let pointer = ledger.push(draft("format = 1"), None, None).await.unwrap();
    let bucket = ledger.bus.bucket("docs").await.unwrap();
    let key = format!("document.{}.0", pointer.digest);
    let other = zstd::bulk::compress(b"format = 2", 3).unwrap();
    bucket.put(&key, other.into()).await.unwrap();
    let error = ledger.text(&pointer.digest).await.unwrap_err().to_string();
    assert!(error.contains("not what the digest says"), "{error}");
    let bomb = zstd::bulk::compress(&vec![b' '; 1 << 20], 3).unwrap();
    bucket.put(&key, bomb.into()).await.unwrap();
    let error = ledger.text(&pointer.digest).await.unwrap_err().to_string();
    assert!(error.contains("promised"), "{error}");
    bucket.remove(&key, None).await.unwrap();
    let error = ledger.text(&pointer.digest).await.unwrap_err().to_string();
    assert!(error.contains("piece 0 of 1 is missing"), "{error}");
}

#[tokio::test]
async fn old_revisions_go_with_what_only_they_named() {
    let ledger = ledger().await;
    let (signer, public) = pair();
    for number in 0..KEPT + 2 {
        let head = ledger.head().await.unwrap();
        let text = if number == 1 { "only here".to_owned() } else { format!("text {}", number % 7) };
        ledger.push(draft(&text), head.as_ref(), Some(&signer)).await.unwrap();
    }
    let log = ledger.log().await.unwrap();
    assert_eq!((log.len() as u64, log.last().unwrap().revision), (KEPT, 3));
    assert!(ledger.text(&digest("only here")).await.is_err());
    assert!(ledger.text(&digest("text 0")).await.is_ok());
    let verifier = Verifier::new([&public]).unwrap();
    assert!(log.iter().all(|pointer| verifier.accepts("docs", pointer)));
}

#[tokio::test]
async fn a_trial_that_cannot_be_read_makes_room_for_the_next() {
    let ledger = ledger().await;
    ledger.push(draft("one"), None, None).await.unwrap();
    let head = ledger.head().await.unwrap().unwrap();
    let bucket = ledger.bus.bucket("docs").await.unwrap();
    let begin = || ledger.begin(draft("two"), &head, BTreeSet::from(["n1".to_owned()]), Judged::default(), None);
    bucket.put(CANARY, "?".into()).await.unwrap();
    assert!(matches!(ledger.canary().await, Err(LedgerError::Unreadable { .. })));
    let canary = begin().await.unwrap();
    assert_eq!(ledger.canary().await.unwrap().unwrap().0, canary);
    assert!(matches!(begin().await, Err(LedgerError::Bus(BusError::Lost { .. }))), "that one can be decided");
    bucket.put(CANARY, "?".into()).await.unwrap();
    ledger.push(draft("three"), Some(&head), None).await.unwrap();
    assert!(ledger.canary().await.unwrap().is_none());
}

#[tokio::test]
async fn a_trial_that_runs_outlives_a_push() {
    let ledger = ledger().await;
    ledger.push(draft("one"), None, None).await.unwrap();
    let head = ledger.head().await.unwrap().unwrap();
    let nodes = BTreeSet::from(["n1".to_owned()]);
    let canary = ledger.begin(draft("two"), &head, nodes, Judged::default(), None).await.unwrap();
    ledger.push(draft("three"), Some(&head), None).await.unwrap();
    assert_eq!(ledger.canary().await.unwrap().unwrap().0, canary, "the controller ends it, and tells of it");
}

#[tokio::test]
async fn an_entry_of_the_history_that_cannot_be_read_is_left_out() {
    let ledger = ledger().await;
    let bucket = ledger.bus.bucket("docs").await.unwrap();
    for text in ["one", "two", "three"] {
        let head = ledger.head().await.unwrap();
        ledger.push(draft(text), head.as_ref(), None).await.unwrap();
    }
    bucket.put("revision.2", "?".into()).await.unwrap();
    let log = async || ledger.log().await.unwrap().iter().map(|pointer| pointer.revision).collect::<Vec<_>>();
    assert_eq!(log().await, [3, 1]);
    assert!(matches!(ledger.revision(2).await, Err(LedgerError::Unreadable { key, .. }) if key == "revision.2"));
    // The head is as bad: the newest that can be read says how to go on.
    bucket.put(HEAD, "?".into()).await.unwrap();
    let head = ledger.head().await.unwrap().unwrap();
    assert_eq!(head.pointer.revision, 3);
    assert_eq!(ledger.push(draft("four"), Some(&head), None).await.unwrap().revision, 4);
    assert_eq!(log().await, [4, 3, 1]);
}

#[tokio::test]
async fn pruning_goes_past_what_cannot_be_read() {
    let ledger = ledger().await;
    let bucket = ledger.bus.bucket("docs").await.unwrap();
    for number in 1..=KEPT + 3 {
        let head = ledger.head().await.unwrap();
        if number == KEPT {
            for key in ["revision.2", "revision.9", CANARY] {
                bucket.put(key, "?".into()).await.unwrap();
            }
        }
        ledger.push(draft(&format!("text {number}")), head.as_ref(), None).await.unwrap();
    }
    let kept = ledger.bus.entries("docs", HISTORY).await.unwrap();
    let numbers: BTreeSet<u64> = kept.iter().filter_map(|entry| number(&entry.key)).collect();
    assert_eq!((numbers.len() as u64, numbers.first()), (KEPT, Some(&4)));
    assert!(ledger.text(&digest("text 3")).await.is_err());
    assert!(ledger.text(&digest("text 4")).await.is_ok());
}
