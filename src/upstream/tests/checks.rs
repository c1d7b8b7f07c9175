//! Active checks against real servers, and what they do to a pool.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use bytes::Bytes;

use super::super::{EndpointState, Pool};
use super::origin::{Origin, certified, grpc_health};
use super::{addresses, adopt, eventually, pools, spec};

const QUICK: &str = "every = '20ms', timeout = '2s', rise = 2, fall = 2";

fn state(pool: &Pool, address: std::net::SocketAddr) -> EndpointState {
    let endpoints = pool.snapshot().endpoints;
    endpoints.iter().find(|endpoint| endpoint.address == address.to_string()).unwrap().state
}

async fn becomes(pool: &Pool, address: std::net::SocketAddr, wanted: EndpointState) {
    eventually(&format!("{address} is {wanted:?}"), || state(pool, address) == wanted).await;
}

#[tokio::test]
async fn an_http_check_follows_the_status() {
    let origin = Origin::h1().await;
    let pools = pools();
    let health = format!("{{ path = '/up?x=1', host = 'pets.test', expect = [200, 204], {QUICK} }}");
    let pool = adopt(&pools, &format!("address = '{}'\nhealth = {health}", origin.address));
    assert_eq!(state(&pool, origin.address), EndpointState::Healthy, "healthy until the first result");
    eventually("checked", || pool.snapshot().endpoints[0].checks_passed >= 2).await;
    origin.answer(201);
    becomes(&pool, origin.address, EndpointState::Unhealthy).await;
    assert_eq!(pool.snapshot().endpoints[0].check_failure.as_deref(), Some("status 201"));
    origin.answer(204);
    becomes(&pool, origin.address, EndpointState::Healthy).await;
    let seen = origin.seen.lock().unwrap()[0].clone();
    assert_eq!((seen.line.as_str(), seen.headers["host"].as_bytes()), ("GET /up?x=1 HTTP/1.1", &b"pets.test"[..]));
}

#[tokio::test]
async fn an_http_check_speaks_as_the_pool_does() {
    let pools = pools();
    let clear = Origin::h2().await;
    let (ca, tls) = certified("pets.test", &[b"h2"]);
    let secret = Origin::start(true, Some(tls), Bytes::new()).await;
    for (origin, extra) in
        [(&clear, String::new()), (&secret, format!("[tls]\nserver_name = 'pets.test'\nca = '''{ca}'''"))]
    {
        let text = format!("address = '{}'\nprotocol = 'h2'\nhealth = {{ {QUICK} }}\n{extra}", origin.address);
        let pool = adopt(&pools, &text);
        eventually("checked", || pool.snapshot().endpoints[0].checks_passed >= 1).await;
        assert!(origin.seen.lock().unwrap()[0].line.ends_with("HTTP/2.0"));
    }
    // Another name than the certificate's: the check fails as a request would.
    let text = format!(
        "address = '{}'\nprotocol = 'h2'\nhealth = {{ {QUICK} }}\n[tls]\nserver_name = 'other.test'\nca = '''{ca}'''",
        secret.address
    );
    let pool = adopt(&pools, &text);
    becomes(&pool, secret.address, EndpointState::Unhealthy).await;
    assert!(pool.snapshot().endpoints[0].check_failure.as_ref().unwrap().contains("certificate"));
}

#[tokio::test]
async fn a_tcp_check_wants_a_connection() {
    let origin = Origin::h1().await;
    let pools = pools();
    let pool = adopt(&pools, &format!("address = '{}'\nhealth = {{ kind = 'tcp', {QUICK} }}", origin.address));
    eventually("checked", || pool.snapshot().endpoints[0].checks_passed >= 2).await;
    origin.kill();
    becomes(&pool, origin.address, EndpointState::Unhealthy).await;
}

#[tokio::test]
async fn a_grpc_check_wants_serving() {
    let status = Arc::new(AtomicU16::new(1));
    let address = grpc_health(status.clone()).await;
    let pools = pools();
    let pool =
        adopt(&pools, &format!("address = '{address}'\nhealth = {{ kind = 'grpc', service = 'pets', {QUICK} }}"));
    eventually("checked", || pool.snapshot().endpoints[0].checks_passed >= 2).await;
    for (failure, says) in [(2, "serving status 2"), (0, "serving status 0"), (105, "grpc-status 5")] {
        status.store(failure, Ordering::Relaxed);
        becomes(&pool, address, EndpointState::Unhealthy).await;
        assert_eq!(pool.snapshot().endpoints[0].check_failure.as_deref(), Some(says));
        status.store(1, Ordering::Relaxed);
        becomes(&pool, address, EndpointState::Healthy).await;
    }
}

#[tokio::test]
async fn a_check_that_hangs_has_failed() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = silent.local_addr().unwrap();
    let pools = pools();
    let pool =
        adopt(&pools, &format!("address = '{address}'\nhealth = {{ every = '20ms', timeout = '50ms', fall = 1 }}"));
    becomes(&pool, address, EndpointState::Unhealthy).await;
    assert_eq!(pool.snapshot().endpoints[0].check_failure.as_deref(), Some("no result within 50ms"));
}

#[tokio::test]
async fn traffic_spills_over_when_a_tier_dies_and_returns_when_it_lives() {
    let (near, far) = (Origin::h1().await, Origin::h1().await);
    let pools = pools();
    let pool = adopt(
        &pools,
        &format!(
            "health = {{ {QUICK} }}\naddress = [{{ to = '{}' }}, {{ to = '{}', tier = 2 }}]",
            near.address, far.address
        ),
    );
    let goes_to = |address| move |pool: &Arc<Pool>| (0..20).all(|_| pool.pick(None, &[]).unwrap().address() == address);
    let (to_near, to_far) = (goes_to(near.address), goes_to(far.address));
    assert!(to_near(&pool));
    near.answer(503);
    eventually("spilled over", || to_far(&pool)).await;
    near.answer(200);
    eventually("returned", || to_near(&pool)).await;
}

#[tokio::test]
async fn checks_that_are_the_same_are_made_once() {
    let origin = Origin::h1().await;
    let pools = pools();
    let text = format!("address = '{}'\nhealth = {{ every = '1h' }}", origin.address);
    let other = text.replace("1h", "2h");
    let wanted = |texts: &[(&str, &String)]| -> Vec<_> {
        texts.iter().map(|(name, text)| (pools.pool(name), spec(text))).collect()
    };
    let checks = &pools.environment().checks;
    pools.adopt(&wanted(&[("a", &text), ("b", &text), ("c", &other)]));
    assert_eq!(checks.running(), 2);
    eventually("two checks", || origin.requests() == 2).await;
    pools.adopt(&wanted(&[("b", &text)]));
    assert_eq!(checks.running(), 1);
    pools.adopt(&[]);
    assert_eq!(checks.running(), 0);
    assert_eq!(origin.requests(), 2, "nothing was checked again because a pool left");
}

#[tokio::test]
async fn health_survives_other_changes_and_changes_of_the_check() {
    let (good, bad) = (Origin::h1().await, Origin::h1().await);
    bad.answer(500);
    let pools = pools();
    let text = |every: &str, weight: u8| {
        format!(
            "panic_percent = 0\nhealth = {{ every = '{every}', fall = 1 }}
         address = [{{ to = '{}' }}, {{ to = '{}', weight = {weight} }}]",
            good.address, bad.address
        )
    };
    let pool = adopt(&pools, &text("1h", 1));
    becomes(&pool, bad.address, EndpointState::Unhealthy).await;
    adopt(&pools, &text("1h", 9));
    assert_eq!(state(&pool, bad.address), EndpointState::Unhealthy);
    adopt(&pools, &text("2h", 9));
    assert_eq!(state(&pool, bad.address), EndpointState::Unhealthy, "until the new check says otherwise");
    assert_eq!(addresses(&pool).len(), 2);
    adopt(&pools, &text("2h", 9).replace("health", "#"));
    assert_eq!(state(&pool, bad.address), EndpointState::Healthy, "without checks nothing is unhealthy");
}
