//! Names followed through everything a name server may say.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;

use super::super::resolve::{Answer, Answers, Resolver};
use super::super::{NameState, PickError, Pool};
use super::dns::{NameServer, Say};
use super::{addresses, adopt, eventually, spec};

const QUICK: Duration = Duration::from_millis(20);

async fn server() -> (NameServer, super::Pools) {
    let server = NameServer::start().await;
    let pools = server.pools(QUICK, QUICK);
    (server, pools)
}

fn state(pool: &Pool) -> NameState {
    pool.snapshot().names[0].state
}

/// Enough further questions that what was said last has been heard and acted on.
async fn asked_again(server: &NameServer, name: &str) {
    let before = server.asked(name, RecordType::A);
    eventually("asked again", || server.asked(name, RecordType::A) >= before + 3).await;
}

#[tokio::test]
async fn every_address_of_both_families_is_an_endpoint() {
    let (server, pools) = server().await;
    let many: Vec<String> =
        (1..=50).map(|n| format!("10.0.0.{n}")).chain(["fd00::1".into(), "fd00::2".into()]).collect();
    server.addresses("many.test", &many.iter().map(String::as_str).collect::<Vec<_>>(), 1);
    let pool = adopt(&pools, "address = 'many.test:80'\nbalance = 'round_robin'");
    eventually("52 endpoints", || addresses(&pool).len() == 52).await;
    assert!(addresses(&pool).contains(&"[fd00::1]:80".to_owned()));
    let mut seen: Vec<_> = (0..52).map(|_| pool.pick(None, &[]).unwrap().address()).collect();
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 52);
}

#[tokio::test]
async fn what_is_gone_is_dropped_and_what_stays_keeps_its_counts() {
    let (server, pools) = server().await;
    server.addresses("a.test", &["10.0.0.1", "10.0.0.2"], 1);
    let pool = adopt(&pools, "address = 'a.test:80'");
    eventually("two endpoints", || addresses(&pool) == ["10.0.0.1:80", "10.0.0.2:80"]).await;
    let gone = ["10.0.0.2:80".parse().unwrap()];
    let lease = pool.pick(None, &gone).unwrap();
    server.addresses("a.test", &["10.0.0.1", "10.0.0.3"], 1);
    eventually("the other two", || addresses(&pool) == ["10.0.0.1:80", "10.0.0.3:80"]).await;
    assert_eq!(pool.snapshot().endpoints[0].in_flight, 1);
    drop(lease);
    assert_eq!(pool.snapshot().endpoints[0].in_flight, 0);
}

#[tokio::test]
async fn nxdomain_and_empty_answers_take_the_endpoints_away() {
    let (server, pools) = server().await;
    let pool = adopt(&pools, "address = 'a.test:80'");
    for empty in [Say::Code(ResponseCode::NXDomain), Say::Addresses(vec![], 1)] {
        server.addresses("a.test", &["10.0.0.1"], 1);
        eventually("there", || pool.pick(None, &[]).is_ok()).await;
        server.say("a.test", empty);
        eventually("gone", || pool.pick(None, &[]).map(drop) == Err(PickError::NoEndpoint)).await;
        assert_eq!(state(&pool), NameState::Empty);
    }
    server.addresses("a.test", &["0.0.0.0", "::"], 1);
    asked_again(&server, "a.test").await;
    assert!(addresses(&pool).is_empty(), "an address that would reach ourselves is none");
}

#[tokio::test]
async fn failures_keep_the_last_good_answer() {
    let (server, pools) = server().await;
    server.addresses("a.test", &["10.0.0.1", "fd00::1"], 1);
    let pool = adopt(&pools, "address = 'a.test:80'");
    eventually("there", || addresses(&pool).len() == 2).await;
    for failure in [Say::Code(ResponseCode::ServFail), Say::Code(ResponseCode::Refused), Say::Nothing] {
        server.say("a.test", failure.clone());
        eventually("noticed", || state(&pool) == NameState::Failing).await;
        asked_again(&server, "a.test").await;
        assert_eq!(addresses(&pool), ["10.0.0.1:80", "[fd00::1]:80"], "{failure:?}");
        server.addresses("a.test", &["10.0.0.1", "fd00::1"], 1);
        eventually("well again", || state(&pool) == NameState::Resolved).await;
    }
    assert!(pool.snapshot().counts.resolve_failures >= 3);
}

#[tokio::test]
async fn a_name_that_flaps_is_followed_and_ends_as_it_was_said_last() {
    let (server, pools) = server().await;
    let pool = adopt(&pools, "address = 'a.test:80'");
    for round in 0..12 {
        match round % 4 {
            0 => server.addresses("a.test", &["10.0.0.1"], 1),
            1 => server.say("a.test", Say::Code(ResponseCode::ServFail)),
            2 => server.addresses("a.test", &["10.0.0.2"], 1),
            _ => server.say("a.test", Say::Code(ResponseCode::NXDomain)),
        }
        let before = server.asked("a.test", RecordType::A);
        eventually("asked", || server.asked("a.test", RecordType::A) > before).await;
        assert!(addresses(&pool).len() <= 1);
    }
    server.addresses("a.test", &["10.0.0.9"], 1);
    eventually("settled", || addresses(&pool) == ["10.0.0.9:80"]).await;
}

#[tokio::test]
async fn an_answer_holds_for_its_ttl_between_the_bounds() {
    let server = NameServer::start().await;
    let pools = server.pools(QUICK, Duration::from_secs(60));
    server.addresses("second.test", &["10.0.0.1"], 1);
    server.addresses("hour.test", &["10.0.0.1"], 3_600);
    server.addresses("zero.test", &["10.0.0.1"], 0);
    let targets = "address = [{ to = 'second.test:1' }, { to = 'hour.test:2' }, { to = 'zero.test:3' }]";
    let began = Instant::now();
    let pool = adopt(&pools, targets);
    eventually("resolved", || addresses(&pool).len() == 3).await;
    eventually("zero is read as the minimum", || server.asked("zero.test", RecordType::A) > 5).await;
    eventually("asked again after a second", || server.asked("second.test", RecordType::A) == 2).await;
    assert!(began.elapsed() >= Duration::from_millis(990), "{:?}", began.elapsed());
    assert_eq!(server.asked("hour.test", RecordType::A), 1);
    assert_eq!(server.asked("hour.test", RecordType::AAAA), 1);
}

#[tokio::test]
async fn a_pool_may_start_empty_and_fills_when_the_name_appears() {
    let (server, pools) = server().await;
    server.say("a.test", Say::Nothing);
    let pool = adopt(&pools, "address = 'a.test:80'");
    assert_eq!(pool.pick(None, &[]).map(drop), Err(PickError::NoEndpoint));
    eventually("failing", || state(&pool) == NameState::Failing).await;
    server.addresses("a.test", &["10.0.0.1"], 1);
    eventually("there", || pool.pick(None, &[]).is_ok()).await;
}

#[tokio::test]
async fn warming_resolves_before_the_pool_is_used_and_waits_no_longer_than_told() {
    let (server, pools) = server().await;
    server.addresses("a.test", &["10.0.0.1"], 1);
    let wanted = [(pools.pool("p"), spec("address = [{ to = 'a.test:80' }, { to = 'b.test:80' }]"))];
    pools.warm(&wanted, Duration::from_secs(10)).await;
    assert!(addresses(&wanted[0].0).is_empty(), "warming does not put a pool to use");
    pools.adopt(&wanted);
    assert_eq!(addresses(&wanted[0].0), ["10.0.0.1:80"]);

    server.say("slow.test", Say::Nothing);
    let slow = [(pools.pool("slow"), spec("address = 'slow.test:80'"))];
    let began = Instant::now();
    pools.warm(&slow, Duration::from_millis(50)).await;
    assert!(began.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn a_change_keeps_the_addresses_of_names_it_keeps() {
    let (server, pools) = server().await;
    server.addresses("a.test", &["10.0.0.1"], 1);
    let pool = adopt(&pools, "address = 'a.test:80'");
    eventually("there", || addresses(&pool).len() == 1).await;
    server.say("a.test", Say::Code(ResponseCode::ServFail));
    adopt(&pools, "address = [{ to = 'a.test:81', tier = 2 }, { to = '127.0.0.1:80' }]");
    assert_eq!(addresses(&pool), ["127.0.0.1:80", "10.0.0.1:81"]);
    // A name that is not wanted any more is not asked for any more; neither is that of a pool nobody holds.
    adopt(&pools, "address = '127.0.0.1:80'");
    assert!(pool.snapshot().names.is_empty());
    let tasks = |pools: &super::Pools| pools.environment().tasks.running().get("resolve").copied().unwrap_or(0);
    eventually("no task left", || tasks(&pools) == 0).await;
    adopt(&pools, "address = 'a.test:80'");
    assert_eq!(tasks(&pools), 1);
    let held: Arc<Pool> = pool;
    pools.adopt(&[]);
    eventually("no task left", || tasks(&pools) == 0).await;
    drop(held);
}

#[tokio::test]
async fn localhost_needs_no_name_server() {
    let (server, pools) = server().await;
    let pool = adopt(&pools, "address = 'localhost:80'");
    eventually("there", || addresses(&pool) == ["127.0.0.1:80", "[::1]:80"]).await;
    assert_eq!(server.asked("localhost", RecordType::A), 0);
}

#[tokio::test]
async fn a_search_goes_on_after_an_empty_answer_and_stops_at_a_failure() {
    let server = NameServer::start().await;
    let resolver = Resolver::new(&server.settings(QUICK, QUICK)).unwrap().searching(&["one.test", "two.test"]);
    let v4 = |answers: Answers| answers.v4;
    server.addresses("db.two.test", &["10.0.0.2"], 1);
    assert_eq!(
        v4(resolver.lookup("db", false).await),
        Answer::Addresses { addresses: vec!["10.0.0.2".parse().unwrap()], ttl: QUICK }
    );
    server.say("db.one.test", Say::Code(ResponseCode::ServFail));
    assert!(matches!(v4(resolver.lookup("db", false).await), Answer::Failed { .. }));
    assert!(matches!(v4(resolver.lookup("db", true).await), Answer::Empty { .. }));
}
