//! One interface, two buses: every test here runs within the process; `tests/it/bus.rs` runs the same against a server.

use std::time::Duration;

use super::*;
use futures_util::StreamExt as _;

async fn bus() -> (Bus, Arc<dyn KeyValue>) {
    let bus = Bus::new(Local::default());
    bus.make_bucket(&Bucket { name: "b".to_owned(), max_age: Duration::ZERO }).await.unwrap();
    let bucket = bus.bucket("b").await.unwrap();
    (bus, bucket)
}

#[test]
fn patterns_mean_levels() {
    for (pattern, subject, expect) in [
        ("a", "a", true),
        ("a", "a.b", false),
        ("a.*", "a.b", true),
        ("a.*", "a", false),
        ("a.*", "a.b.c", false),
        ("a.>", "a.b.c", true),
        ("a.>", "a", false),
        (">", "a.b", true),
        ("*.b", "a.b", true),
        ("a.b", "a", false),
    ] {
        assert_eq!(matches(pattern, subject), expect, "{pattern} {subject}");
    }
}

#[tokio::test]
async fn telemetry_goes_before_events_when_the_box_is_full() {
    let post = Post::new(3);
    let message = |n: u8| Message { subject: "s.x".to_owned(), payload: Bytes::from(vec![n]) };
    post.telemetry(message(1));
    post.event(message(2));
    post.event(message(3));
    post.event(message(4));
    let expect = Posted { sent: 0, events_lost: 0, telemetry_lost: 1, waiting: 3 };
    assert_eq!(post.posted(), expect);
    post.event(message(5));
    assert_eq!(post.posted(), Posted { events_lost: 1, ..expect });
}

#[tokio::test(start_paused = true)]
async fn events_wait_for_the_bus_and_are_kept_once() {
    let local = Local::default();
    let bus = Bus::new(local);
    let post = Post::new(10);
    let running = tokio::spawn(post.clone().run(bus.clone()));
    // There is no stream yet: it is tried again.
    post.event(Message { subject: "f.event.a.b".to_owned(), payload: Bytes::from_static(b"1") });
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(post.posted().waiting, 1);
    let stream = Stream {
        name: "events".to_owned(),
        subjects: vec!["f.event.>".to_owned()],
        max_age: Duration::from_secs(60),
        max_bytes: 1 << 20,
    };
    bus.make_stream(&stream).await.unwrap();
    let kept = bus.read("events", 0).await.unwrap().next().await.unwrap().unwrap();
    assert_eq!((kept.sequence, &kept.message.payload[..]), (1, &b"1"[..]));
    bus.append(kept.message.clone(), "one").await.unwrap();
    bus.append(kept.message.clone(), "one").await.unwrap();
    bus.append(kept.message, "two").await.unwrap();
    let rest: Vec<u64> =
        bus.read("events", 1).await.unwrap().take(2).map(|kept| kept.unwrap().sequence).collect().await;
    assert_eq!(rest, [2, 3]);
    running.abort();
}

#[tokio::test(start_paused = true)]
async fn an_event_that_the_bus_never_takes_holds_up_nobody() {
    let bus = Bus::new(Local::default());
    let names = names::Fleet::new("f");
    names.make(&bus, "f").await.unwrap();
    let post = Post::new(10);
    let event = |payload: Vec<u8>| Message { subject: "f.event.a.b".to_owned(), payload: payload.into() };
    post.event(event(vec![0; VALUE_MAX + 1]));
    post.event(event(vec![0; VALUE_MAX + 1]));
    post.event(event(b"fits".to_vec()));
    let running = tokio::spawn(post.clone().run(bus.clone()));
    let mut events = bus.read(&names.events(), 0).await.unwrap();
    let kept = tokio::time::timeout(Duration::from_secs(60), events.next()).await.unwrap().unwrap().unwrap();
    assert_eq!(&kept.message.payload[..], b"fits");
    tokio::task::yield_now().await;
    assert_eq!(post.posted(), Posted { sent: 1, events_lost: 2, telemetry_lost: 0, waiting: 0 });
    running.abort();
}

#[tokio::test(start_paused = true)]
async fn a_dead_holder_is_succeeded_after_its_term_and_not_before() {
    let (bus, bucket) = bus().await;
    let term = Duration::from_secs(10);
    let first = Lease::new(bus.clone(), "b", "x", "first", term);
    let second = Lease::new(bus.clone(), "b", "x", "second", term);
    let held = first.take().await;
    assert!(second.take_now().await.unwrap().is_none());
    // While it works, nobody else gets it.
    let working = first.during(held, tokio::time::sleep(term * 5));
    let (done, early) = tokio::join!(working, tokio::time::timeout(term * 4, second.take()));
    assert_eq!(done, Some(()));
    assert!(early.is_err());
    // It was given back.
    assert!(bucket.entry("lease.x").await.unwrap().is_none());
    // One that dies is waited for.
    let _dead = first.take().await;
    let started = tokio::time::Instant::now();
    let _held = second.take().await;
    assert!(started.elapsed() >= term, "{:?}", started.elapsed());
    assert!(started.elapsed() < term * 2, "{:?}", started.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_somebody_took_stops_the_work() {
    let (bus, bucket) = bus().await;
    let lease = Lease::new(bus, "b", "x", "me", Duration::from_secs(3));
    let held = lease.take().await;
    bucket.put("lease.x", Bytes::from_static(b"other")).await.unwrap();
    assert_eq!(lease.during(held, std::future::pending::<()>()).await, None);
    assert_eq!(bucket.entry("lease.x").await.unwrap().unwrap().value, "other");
}

#[tokio::test(start_paused = true)]
async fn a_follower_begins_anew_when_the_link_is_back() {
    let local = Local::default();
    let bus = Bus::new(local.clone());
    let mut follow = bus.follow("b", "a.>");
    assert!(matches!(follow.next().await, Seen::Lost(_)), "there is no bucket yet");
    bus.make_bucket(&Bucket { name: "b".to_owned(), max_age: Duration::ZERO }).await.unwrap();
    let bucket = bus.bucket("b").await.unwrap();
    bucket.put("a.1", Bytes::from_static(b"1")).await.unwrap();
    bucket.put("z", Bytes::from_static(b"1")).await.unwrap();
    let put = |revision, value: &'static str| {
        Seen::Put(Entry { key: "a.1".to_owned(), value: Bytes::from_static(value.as_bytes()), revision })
    };
    for expect in [Seen::Anew, put(1, "1"), Seen::Current] {
        assert_eq!(follow.next().await, expect);
    }
    local.set_link(Link::Down { since: SystemTime::now() });
    assert!(matches!(follow.next().await, Seen::Lost(_)));
    bucket.put("a.1", Bytes::from_static(b"2")).await.unwrap();
    local.set_link(Link::Up);
    for expect in [Seen::Anew, put(3, "2"), Seen::Current] {
        assert_eq!(follow.next().await, expect);
    }
    bucket.remove("a.1", None).await.unwrap();
    assert_eq!(follow.next().await, Seen::Removed("a.1".to_owned()));
}
