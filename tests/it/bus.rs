//! The bus as its users see it, the one within the process and the one over a real nats-server alike.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use tollgate::bus::{
    Bucket, Bus, BusError, Change, Entry, Expect, KeyValue, Lease, Link, Local, Message, Post, Role, Seen, Stream,
    VALUE_MAX,
};
use tollgate::settings;

use crate::kit::controller::Controller;
use crate::kit::nats::Nats;
use crate::kit::within;

async fn connected(nats: &Nats) -> Bus {
    let words = settings::Bus { urls: tollgate::scalar::OneOrMany(vec![nats.url()]), ..settings::Bus::default() };
    let bus = tollgate::bus::open(&words, "test", Role::Operator).await.unwrap();
    within("a connection", bus.link().wait_for(|link| *link == Link::Up)).await.unwrap();
    bus
}

fn bucket() -> Bucket {
    Bucket { name: "b".to_owned(), max_age: Duration::ZERO }
}

async fn opened(bus: &Bus) -> Arc<dyn KeyValue> {
    bus.make_bucket(&bucket()).await.unwrap();
    bus.make_bucket(&bucket()).await.expect("making it again changes nothing");
    bus.bucket("b").await.unwrap()
}

fn text(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

/// Runs a test against both kinds.
async fn both<F: Future<Output = ()>>(test: impl Fn(Bus) -> F) {
    test(Bus::new(Local::default())).await;
    let nats = Nats::start().await;
    test(connected(&nats).await).await;
}

#[tokio::test]
async fn values_are_compared_and_set() {
    both(|bus| async move {
        assert!(matches!(bus.bucket("b").await.map(drop), Err(BusError::Missing(name)) if name == "b"));
        let bucket = opened(&bus).await;
        assert_eq!(bucket.entry("a.x").await.unwrap(), None);
        let first = bucket.swap("a.x", text("1"), Expect::Nothing).await.unwrap();
        assert!(matches!(bucket.swap("a.x", text("2"), Expect::Nothing).await, Err(BusError::Lost { .. })));
        let second = bucket.swap("a.x", text("2"), Expect::Revision(first)).await.unwrap();
        assert!(second > first);
        assert!(matches!(bucket.swap("a.x", text("3"), Expect::Revision(first)).await, Err(BusError::Lost { .. })));
        let entry = bucket.entry("a.x").await.unwrap().unwrap();
        assert_eq!(entry, Entry { key: "a.x".to_owned(), value: text("2"), revision: second });
        assert!(matches!(bucket.remove("a.x", Some(first)).await, Err(BusError::Lost { .. })));
        bucket.remove("a.x", Some(second)).await.unwrap();
        assert_eq!(bucket.entry("a.x").await.unwrap(), None);
        let again = bucket.swap("a.x", text("4"), Expect::Nothing).await.unwrap();
        assert!(again > second, "what was removed can be made again");
        let long = Bytes::from(vec![0; VALUE_MAX + 1]);
        assert!(matches!(bucket.put("a.x", long).await, Err(BusError::TooLong { .. })));
        bucket.put("a.x", Bytes::from(vec![7; VALUE_MAX])).await.unwrap();
        assert_eq!(bucket.entry("a.x").await.unwrap().unwrap().value.len(), VALUE_MAX);
    })
    .await;
}

#[tokio::test]
async fn of_many_writers_one_wins_each_round() {
    both(|bus| async move {
        let bucket = opened(&bus).await;
        let mut revision = bucket.put("a", text("0")).await.unwrap();
        for _ in 0..5 {
            let tries = (0..8).map(|_| bucket.swap("a", text("n"), Expect::Revision(revision)));
            let won: Vec<u64> =
                futures_util::future::join_all(tries).await.into_iter().filter_map(Result::ok).collect();
            assert_eq!(won.len(), 1);
            revision = won[0];
        }
    })
    .await;
}

#[tokio::test]
async fn a_watch_tells_what_stands_and_what_changes() {
    both(|bus| async move {
        let bucket = opened(&bus).await;
        let mut empty = bucket.watch("a.*").await.unwrap();
        assert_eq!(within("an empty bucket", empty.next()).await.unwrap().unwrap(), Change::Current);
        bucket.put("a.1", text("old")).await.unwrap();
        let one = bucket.put("a.1", text("one")).await.unwrap();
        bucket.put("other", text("x")).await.unwrap();
        bucket.put("a.2", text("two")).await.unwrap();
        bucket.remove("a.2", None).await.unwrap();
        let mut watch = bucket.watch("a.*").await.unwrap();
        let mut found = BTreeMap::new();
        loop {
            match within("what stands", watch.next()).await.unwrap().unwrap() {
                Change::Put(entry) => drop(found.insert(entry.key, entry.revision)),
                Change::Removed(key) => assert_eq!(key, "a.2"),
                Change::Current => break,
            }
        }
        assert_eq!(found, BTreeMap::from([("a.1".to_owned(), one)]));
        let three = bucket.put("a.3", text("three")).await.unwrap();
        let expect = Change::Put(Entry { key: "a.3".to_owned(), value: text("three"), revision: three });
        assert_eq!(within("a change", watch.next()).await.unwrap().unwrap(), expect);
        bucket.remove("a.3", None).await.unwrap();
        assert_eq!(within("a removal", watch.next()).await.unwrap().unwrap(), Change::Removed("a.3".to_owned()));
        let keys: Vec<String> = bus.entries("b", ">").await.unwrap().into_iter().map(|entry| entry.key).collect();
        assert_eq!(keys, ["a.1", "other"]);
    })
    .await;
}

/// A server of 2.9 counts wrongly what is replaced while it is read; whoever waits for the count waits long.
#[tokio::test]
async fn a_watch_is_whole_soon_while_others_write() {
    both(|bus| async move {
        let bucket = opened(&bus).await;
        let keys: std::collections::BTreeSet<String> = (0..300).map(|n| format!("k.{n}")).collect();
        futures_util::future::join_all(keys.iter().map(|key| bucket.put(key, text("0")))).await;
        let (writer, written) = (bucket.clone(), keys.clone());
        let writing = tokio::spawn(async move {
            for key in written.iter().cycle() {
                writer.put(key, text("1")).await.unwrap();
            }
        });
        for _ in 0..20 {
            let reading = async {
                let mut told = std::collections::BTreeSet::new();
                let mut watch = bucket.watch("k.*").await.unwrap();
                loop {
                    match watch.next().await.unwrap().unwrap() {
                        Change::Put(entry) => drop(told.insert(entry.key)),
                        Change::Removed(key) => panic!("{key} was never removed"),
                        Change::Current => break told,
                    }
                }
            };
            assert_eq!(tokio::time::timeout(Duration::from_secs(1), reading).await.unwrap(), keys);
        }
        writing.abort();
    })
    .await;
}

/// A server of 2.9 that purges one key skips what others wrote a moment before: whoever follows never hears of it.
#[tokio::test]
async fn a_watch_misses_nothing_while_keys_are_removed() {
    both(|bus| async move {
        let bucket = opened(&bus).await;
        let mut watch = bucket.watch("k.>").await.unwrap();
        let others: Vec<String> = (0..500).map(|n| format!("k.other.{n}")).collect();
        futures_util::future::join_all(others.iter().map(|key| bucket.put(key, text("0")))).await;
        for (n, other) in others.iter().enumerate() {
            let key = format!("k.mine.{n}");
            let (put, removed) = tokio::join!(bucket.put(&key, text("1")), bucket.remove(other, None));
            put.unwrap();
            removed.unwrap();
        }
        let mut missing: std::collections::BTreeSet<String> =
            (0..others.len()).map(|n| format!("k.mine.{n}")).collect();
        let mut standing: std::collections::BTreeSet<String> = others.into_iter().collect();
        let reading = async {
            while !missing.is_empty() || !standing.is_empty() {
                match watch.next().await.unwrap().unwrap() {
                    Change::Put(entry) => drop(missing.remove(&entry.key)),
                    Change::Removed(key) => drop(standing.remove(&key)),
                    Change::Current => {}
                }
            }
        };
        let read = tokio::time::timeout(Duration::from_secs(5), reading).await;
        assert!(read.is_ok(), "never told: {missing:?} {standing:?}");
    })
    .await;
}

#[tokio::test]
async fn what_is_erased_leaves_no_trace() {
    both(|bus| async move {
        let bucket = opened(&bus).await;
        bucket.put("a.removed", text("1")).await.unwrap();
        bucket.put("a.erased", text("1")).await.unwrap();
        bucket.put("a.stays", text("1")).await.unwrap();
        bucket.remove("a.removed", None).await.unwrap();
        bucket.erase("a.erased").await.unwrap();
        bucket.erase("a.never").await.unwrap();
        assert_eq!(bucket.entry("a.erased").await.unwrap(), None);
        let mut told = Vec::new();
        let mut watch = bucket.watch("a.*").await.unwrap();
        loop {
            match watch.next().await.unwrap().unwrap() {
                Change::Put(Entry { key, .. }) => told.push(key),
                // A mark stays where it was removed, on a server.
                Change::Removed(key) => assert_eq!(key, "a.removed"),
                Change::Current => break,
            }
        }
        assert_eq!(told, ["a.stays"]);
        bucket.swap("a.erased", text("2"), Expect::Nothing).await.unwrap();
        bucket.swap("a.removed", text("2"), Expect::Nothing).await.unwrap();
    })
    .await;
}

/// Every node of a fleet lets go of the same old keys at the same time.
#[tokio::test]
async fn who_erases_second_finds_it_done() {
    both(|bus| async move {
        let bucket = opened(&bus).await;
        for round in 0..20 {
            let key = format!("a.{round}");
            bucket.put(&key, text("1")).await.unwrap();
            let erased = futures_util::future::join_all((0..8).map(|_| bucket.erase(&key))).await;
            erased.into_iter().collect::<Result<(), _>>().unwrap();
            assert_eq!(bucket.entry(&key).await.unwrap(), None);
        }
    })
    .await;
}

/// As others made them: no server lets anybody change that later.
#[tokio::test]
async fn a_bucket_that_keeps_marks_works_and_is_told_of_once() {
    let mut nats = Nats::start().await;
    let streams = async |nats: &Nats| async_nats::jetstream::new(async_nats::connect(nats.url()).await.unwrap());
    let config = async_nats::jetstream::stream::Config {
        name: "KV_tollgate_shared".to_owned(),
        subjects: vec!["$KV.tollgate_shared.>".to_owned()],
        max_messages_per_subject: 1,
        allow_direct: true,
        allow_rollup: true,
        deny_delete: true,
        ..Default::default()
    };
    streams(&nats).await.create_stream(config).await.unwrap();
    let controller = Controller::start(&nats).await;
    let told = || controller.log().matches("nothing can be erased").count();
    eventually!(told() == 1);
    assert!(controller.log().contains("tollgate_shared"), "{}", controller.log());
    // It looks at all of them again after the server was away: what comes later in the list is made anew.
    let last = "KV_tollgate_found";
    eventually!(streams(&nats).await.delete_stream(last).await);
    nats.kill();
    nats.begin().await;
    eventually!(streams(&nats).await.get_stream(last).await);
    assert_eq!(told(), 1, "{}", controller.log());
    let bucket = connected(&nats).await.bucket("tollgate_shared").await.unwrap();
    bucket.put("a.erased", text("1")).await.unwrap();
    let erased = futures_util::future::join_all((0..8).map(|_| bucket.erase("a.erased"))).await;
    erased.into_iter().collect::<Result<(), _>>().unwrap();
    assert_eq!(bucket.entry("a.erased").await.unwrap(), None);
}

#[tokio::test]
async fn events_are_kept_in_order_once_and_within_bounds() {
    both(|bus| async move {
        let stream = |max_bytes| Stream {
            name: "events".to_owned(),
            subjects: vec!["f.event.>".to_owned()],
            max_age: Duration::from_secs(3600),
            max_bytes,
        };
        let message = |number: u32| Message { subject: "f.event.a".to_owned(), payload: number.to_string().into() };
        assert!(matches!(bus.append(message(0), "0").await, Err(BusError::Missing(_))));
        bus.make_stream(&stream(1 << 20)).await.unwrap();
        bus.make_stream(&stream(2 << 20)).await.expect("other bounds");
        for number in 0..100 {
            bus.append(message(number), &number.to_string()).await.unwrap();
            bus.append(message(number), &number.to_string()).await.unwrap();
        }
        let read: Vec<(u64, String)> = within(
            "all events",
            bus.read("events", 10)
                .await
                .unwrap()
                .take(90)
                .map(|kept| {
                    let kept = kept.unwrap();
                    (kept.sequence, String::from_utf8(kept.message.payload.to_vec()).unwrap())
                })
                .collect(),
        )
        .await;
        let expect: Vec<(u64, String)> = (10..100).map(|number| (number + 1, number.to_string())).collect();
        assert_eq!(read, expect);
        // A place beyond the end is one of a stream that was lost: it is read from the beginning.
        let mut anew = bus.read("events", 0).await.unwrap();
        assert_eq!(within("the first", anew.next()).await.unwrap().unwrap().sequence, 1);
    })
    .await;
}

#[tokio::test]
async fn what_a_server_never_takes_is_told_apart_from_what_it_cannot_take_now() {
    let nats = Nats::with("max_payload: 2048").await;
    let bus = connected(&nats).await;
    let stream = Stream {
        name: "events".to_owned(),
        subjects: vec!["f.event.>".to_owned()],
        max_age: Duration::from_secs(3600),
        max_bytes: 1 << 20,
    };
    bus.make_stream(&stream).await.unwrap();
    let message = |size: usize| Message { subject: "f.event.a".to_owned(), payload: vec![0; size].into() };
    assert!(matches!(bus.append(message(VALUE_MAX + 1), "1").await, Err(BusError::TooLong { .. })));
    // The bound of the server, and one of the stream that somebody has set.
    assert!(matches!(bus.append(message(4096), "2").await, Err(BusError::Refused { .. })));
    let client = async_nats::connect(nats.url()).await.unwrap();
    let context = async_nats::jetstream::new(client);
    let mut config = context.get_stream("events").await.unwrap().cached_info().config.clone();
    config.max_message_size = 1024;
    context.update_stream(&config).await.unwrap();
    let refused = bus.append(message(1536), "3").await;
    assert!(matches!(&refused, Err(BusError::Refused { subject, .. }) if subject == "f.event.a"), "{refused:?}");
    bus.append(message(512), "4").await.unwrap();
    // The box of a node goes on behind it.
    let post = Post::new(10);
    let sending = tokio::spawn(post.clone().run(bus.clone()));
    post.event(message(4096));
    post.event(message(512));
    eventually!(post.posted().sent == 1);
    assert_eq!((post.posted().events_lost, post.posted().waiting), (1, 0));
    sending.abort();
}

#[tokio::test]
async fn messages_reach_whoever_listens() {
    both(|bus| async move {
        let mut all = bus.subscribe("f.tap.*").await.unwrap();
        // A server has the subscription once it has answered something that came after it.
        opened(&bus).await;
        bus.publish(Message { subject: "f.other".to_owned(), payload: text("no") }).await.unwrap();
        let message = Message { subject: "f.tap.n1".to_owned(), payload: text("yes") };
        bus.publish(message.clone()).await.unwrap();
        assert_eq!(within("a message", all.next()).await.unwrap(), message);
    })
    .await;
}

#[tokio::test]
async fn a_follower_outlives_the_server() {
    let mut nats = Nats::start().await;
    let bus = connected(&nats).await;
    let bucket = opened(&bus).await;
    bucket.put("a.1", text("1")).await.unwrap();
    let mut follow = bus.follow("b", "a.*");
    let put = |seen: &Seen, value: &str| matches!(seen, Seen::Put(entry) if entry.value == value.as_bytes());
    assert_eq!(within("a reading", follow.next()).await, Seen::Anew);
    assert!(put(&within("the value", follow.next()).await, "1"));
    assert_eq!(within("the end of it", follow.next()).await, Seen::Current);
    nats.kill();
    while !matches!(within("the loss", follow.next()).await, Seen::Lost(_)) {}
    nats.begin().await;
    let mut link = bus.link();
    within("another connection", link.wait_for(|link| *link == Link::Up)).await.unwrap();
    eventually!(bucket.put("a.1", text("2")).await);
    while !put(&within("the new value", follow.next()).await, "2") {}
}

#[tokio::test]
async fn two_that_want_one_lease_never_hold_it_at_once() {
    both(|bus| async move {
        opened(&bus).await;
        let term = Duration::from_secs(2);
        let inside = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let work = |name: &str| {
            let lease = Lease::new(bus.clone(), "b", "x", name, term);
            let inside = inside.clone();
            async move {
                for _ in 0..3 {
                    let held = lease.take().await;
                    let alone = async {
                        let others = inside.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                        tokio::task::yield_now().await;
                        inside.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
                        others
                    };
                    assert_eq!(lease.during(held, alone).await, Some(0));
                }
            }
        };
        within("both", futures_util::future::join(work("one"), work("two"))).await;
    })
    .await;
}
