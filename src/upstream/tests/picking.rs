//! Who takes a request: limits, tiers, panic, stickiness, what survives a change.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use super::super::tier::Plan;
use super::super::{PickError, hash_key};
use super::{adopt, adopt_spec, pools, spec, spec_in};
use crate::config::Eject;
use crate::scalar::Span;

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// Takes an endpoint out for a minute, whatever the pool thinks of it.
fn kill(pool: &super::Pool, which: &str) {
    let words = Eject { errors: 1, within: Span::from_secs(1), period: Span::from_secs(60) };
    let members = pool.members.load();
    let member = members.list.iter().find(|member| member.endpoint.address() == address(which)).unwrap();
    member.endpoint.outlier.eject(&words, pool.now());
}

/// How many of 60 picks each endpoint gets when every request ends at once.
fn shares(pool: &std::sync::Arc<super::Pool>) -> BTreeMap<String, usize> {
    let mut shares = BTreeMap::new();
    for _ in 0..60 {
        *shares.entry(pool.pick(None, &[]).unwrap().address().to_string()).or_default() += 1;
    }
    shares
}

fn only(text: &str) -> BTreeMap<String, usize> {
    BTreeMap::from([(text.to_owned(), 60)])
}

#[tokio::test]
async fn a_pool_is_empty_until_it_is_adopted() {
    let pools = pools();
    let pool = pools.pool("p");
    assert_eq!(pool.pick(None, &[]).map(drop), Err(PickError::NoEndpoint));
    assert!(pool.retry_permit().is_none());
    assert!(std::sync::Arc::ptr_eq(&pool, &adopt(&pools, "address = '127.0.0.1:80'")));
    assert_eq!(pool.pick(None, &[]).unwrap().address(), address("127.0.0.1:80"));
    assert_eq!((pool.snapshot().counts.no_endpoint, pool.snapshot().counts.picks), (1, 1));
}

#[tokio::test]
async fn counts_survive_a_change_of_weight_balance_and_neighbours() {
    let pools = pools();
    let pool = adopt(&pools, "address = [{ to = '127.0.0.1:1' }]");
    let lease = pool.pick(None, &[]).unwrap();
    let connection = lease.endpoint().connection_counted();
    adopt(
        &pools,
        "balance = 'random'\naddress = [{ to = '127.0.0.1:1', weight = 7, tier = 2 }, { to = '127.0.0.1:2', tier = 2 }]",
    );
    let endpoints = pool.snapshot().endpoints;
    assert_eq!((endpoints[0].in_flight, endpoints[0].connections, endpoints[0].weight), (1, 1, 7));
    assert_eq!((endpoints[1].in_flight, pool.in_flight()), (0, 1));
    drop((lease, connection));
    let endpoints = pool.snapshot().endpoints;
    assert_eq!((endpoints[0].in_flight, endpoints[0].connections, pool.in_flight()), (0, 0, 0));
}

#[tokio::test]
async fn a_retry_goes_elsewhere_while_there_is_an_elsewhere() {
    let pools = pools();
    let pool = adopt(&pools, "address = [{ to = '127.0.0.1:1' }, { to = '127.0.0.1:2', tier = 2 }]");
    let (one, two) = (address("127.0.0.1:1"), address("127.0.0.1:2"));
    assert_eq!(pool.pick(None, &[]).unwrap().address(), one);
    assert_eq!(pool.pick(None, &[one]).unwrap().address(), two);
    assert_eq!(pool.pick(None, &[two, one]).unwrap().address(), one);
}

#[tokio::test]
async fn the_breaker_refuses_beyond_its_bound_and_closes_when_a_request_ends() {
    let pools = pools();
    let pool = adopt(&pools, "address = '127.0.0.1:1'\nbreaker = { in_flight = 2 }");
    let leases = (pool.pick(None, &[]).unwrap(), pool.pick(None, &[]).unwrap());
    let open = PickError::BreakerOpen { retry_after: Duration::from_secs(1) };
    assert_eq!(pool.pick(None, &[]).map(drop), Err(open));
    assert_eq!(pool.pick_sticky(leases.0.sticky_token(), None, &[]).map(drop), Err(open));
    drop(leases.0);
    assert!(pool.pick(None, &[]).is_ok());
    assert_eq!(pool.snapshot().counts.breaker_open, 2);
}

#[tokio::test]
async fn connection_limits_send_requests_elsewhere_then_refuse() {
    let pools = pools();
    let pool = adopt(
        &pools,
        "connections = { max = 1 }\naddress = [{ to = '127.0.0.1:1' }, { to = '127.0.0.1:2', tier = 2 }]",
    );
    let one = pool.pick(None, &[]).unwrap();
    let two = pool.pick(None, &[]).unwrap();
    assert_eq!((one.address().port(), two.address().port()), (1, 2));
    assert_eq!(pool.pick(None, &[]).map(drop), Err(PickError::ConnectionLimit));
    drop(two);
    assert_eq!(pool.pick(None, &[]).unwrap().address().port(), 2);
    assert_eq!(pool.in_flight(), 1);
}

#[tokio::test]
async fn an_http2_connection_carries_many_requests() {
    let pools = pools();
    let pool = adopt(&pools, "protocol = 'h2'\nconnections = { max = 2, streams = 3 }\naddress = '127.0.0.1:1'");
    let leases: Vec<_> = std::iter::from_fn(|| pool.pick(None, &[]).ok()).take(10).collect();
    assert_eq!(leases.len(), 6);
}

#[test]
fn racing_picks_never_exceed_a_limit() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let _inside = runtime.enter();
    let pools = pools();
    for balance in ["round_robin", "least_requests", "random", "hash"] {
        let pool = adopt(
            &pools,
            &format!(
                "balance = '{balance}'\nconnections = {{ max = 2 }}\nbreaker = {{ in_flight = 5 }}
             address = [{{ to = '127.0.0.1:1' }}, {{ to = '127.0.0.1:2', weight = 3 }}, {{ to = '127.0.0.1:3' }}]"
            ),
        );
        std::thread::scope(|scope| {
            for key in 0..4 {
                let pool = &pool;
                scope.spawn(move || {
                    for round in 0..500_u64 {
                        let leases: Vec<_> =
                            (0..3).filter_map(|n| pool.pick(Some(key * 7 + round + n), &[]).ok()).collect();
                        assert!(leases.iter().all(|lease| lease.endpoint().in_flight() <= 2));
                        assert!(pool.in_flight() <= 5);
                    }
                });
            }
        });
        assert_eq!(pool.in_flight(), 0);
        assert!(pool.snapshot().endpoints.iter().all(|endpoint| endpoint.in_flight == 0));
    }
}

#[tokio::test]
async fn the_own_region_comes_first_within_a_tier_and_lower_tiers_before_others() {
    let pools = pools();
    let text = "address = [
        { to = '127.0.0.1:1', region = 'fra' }, { to = '127.0.0.1:2', region = 'ams' },
        { to = '127.0.0.1:3', region = 'ams', tier = 2 },
    ]\neject = {}";
    let pool = adopt_spec(&pools, &spec_in(text, Some("ams")));
    assert_eq!(shares(&pool), only("127.0.0.1:2"));
    kill(&pool, "127.0.0.1:2");
    assert_eq!(shares(&pool), only("127.0.0.1:1"));
    kill(&pool, "127.0.0.1:1");
    assert_eq!(shares(&pool), only("127.0.0.1:3"));
    let pool = adopt_spec(&pools, &spec_in(text, Some("fra")));
    assert_eq!(pool.members.load().list[0].endpoint.address().port(), 1);
}

#[tokio::test]
async fn panic_ignores_health_when_too_few_are_healthy_in_the_tier_and_in_all() {
    let pools = pools();
    let pool = adopt(
        &pools,
        "eject = {}\naddress = [
        { to = '127.0.0.1:1' }, { to = '127.0.0.1:2' }, { to = '127.0.0.1:3' }, { to = '127.0.0.1:4', weight = 0 },
        { to = '127.0.0.1:5', tier = 2 }, { to = '127.0.0.1:6', tier = 2 },
    ]",
    );
    let plan = || pool.members.load().plan(pool.now());
    assert_eq!(plan(), Plan::Healthy { from: 0 });
    kill(&pool, "127.0.0.1:1");
    assert_eq!(plan(), Plan::Healthy { from: 0 });
    // A third of the tier, but three of five in all: the other tier shows that health is to be believed.
    kill(&pool, "127.0.0.1:2");
    assert_eq!(plan(), Plan::Healthy { from: 0 });
    kill(&pool, "127.0.0.1:5");
    assert_eq!(plan(), Plan::Panic { from: 0 });
    assert_eq!(shares(&pool).keys().collect::<Vec<_>>(), ["127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"]);
    // A tier that is dead is left, however many of all are dead.
    kill(&pool, "127.0.0.1:3");
    assert_eq!(plan(), Plan::Healthy { from: 1 });
    assert_eq!(shares(&pool), only("127.0.0.1:6"));
    kill(&pool, "127.0.0.1:6");
    assert_eq!(plan(), Plan::Everyone);
    assert_eq!(shares(&pool).len(), 5, "everyone with weight");
    assert!(pool.snapshot().counts.panic_picks >= 120);
    adopt(&pools, "eject = {}\npanic_percent = 0\naddress = [{ to = '127.0.0.1:1' }, { to = '127.0.0.1:2' }]");
    assert_eq!(pool.pick(None, &[]).map(drop), Err(PickError::NoEndpoint));
}

#[tokio::test]
async fn a_cookie_leads_back_to_its_endpoint_until_that_is_out() {
    let pools = pools();
    let pool = adopt(
        &pools,
        "eject = {}\nsticky = { cookie = 'c' }\naddress = [
        { to = '127.0.0.1:1' }, { to = '127.0.0.1:2' }, { to = '127.0.0.1:3' }]",
    );
    let token = pool.pick(None, &[address("127.0.0.1:1"), address("127.0.0.1:2")]).unwrap().sticky_token();
    for _ in 0..20 {
        assert_eq!(pool.pick_sticky(token, None, &[]).unwrap().address(), address("127.0.0.1:3"));
    }
    assert_ne!(pool.pick_sticky(token, None, &[address("127.0.0.1:3")]).unwrap().address(), address("127.0.0.1:3"));
    kill(&pool, "127.0.0.1:3");
    assert_ne!(pool.pick_sticky(token, None, &[]).unwrap().address(), address("127.0.0.1:3"));
    assert_eq!(spec("address = '127.0.0.1:1'\nsticky = { cookie = 'c' }").sticky().unwrap().cookie, "c");
}

#[tokio::test]
async fn a_cookie_from_a_time_of_need_does_not_keep_a_client_in_a_later_tier() {
    let pools = pools();
    let pool = adopt(
        &pools,
        "eject = {}\nsticky = { cookie = 'c' }\naddress = [{ to = '127.0.0.1:1' }, { to = '127.0.0.1:2', tier = 2 }]",
    );
    let token = pool.pick(None, &[address("127.0.0.1:1")]).unwrap().sticky_token();
    assert_eq!(pool.pick_sticky(token, None, &[]).unwrap().address(), address("127.0.0.1:1"));
    kill(&pool, "127.0.0.1:1");
    assert_eq!(pool.pick_sticky(token, None, &[]).unwrap().address(), address("127.0.0.1:2"));
}

#[tokio::test]
async fn every_gateway_hashes_a_key_to_the_same_endpoint() {
    let text = "balance = 'hash'\naddress = [{ to = '127.0.0.1:1' }, { to = '127.0.0.1:2' }, { to = '127.0.0.1:3' }]";
    let (here, there) = (pools(), pools());
    let (here, there) = (adopt(&here, text), adopt(&there, text));
    let chosen = |pool: &std::sync::Arc<super::Pool>, key: &str| {
        pool.pick(Some(hash_key(key.as_bytes())), &[]).unwrap().address()
    };
    let keys: Vec<String> = (0..200).map(|n| format!("198.51.100.{n}")).collect();
    assert!(keys.iter().all(|key| chosen(&here, key) == chosen(&there, key)));
    let mut seen: Vec<_> = keys.iter().map(|key| chosen(&here, key)).collect();
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 3);
    // Known values: a release that changed them would move every client at once.
    assert_eq!(hash_key(b""), 0xcbf2_9ce4_8422_2325);
    assert_eq!(hash_key(b"a"), 0xaf63_dc4c_8601_ec8c);
}

#[tokio::test]
async fn retries_stay_within_the_budget() {
    let pools = pools();
    let pool = adopt(&pools, "address = '127.0.0.1:1'\nretry_budget = { percent = 50, min = 1 }");
    let _leases: Vec<_> = (0..6).map(|_| pool.pick(None, &[]).unwrap()).collect();
    let permits: Vec<_> = std::iter::from_fn(|| pool.retry_permit()).take(9).collect();
    assert_eq!((permits.len(), pool.snapshot().retries_in_flight), (3, 3));
    drop(permits);
    assert!(pool.retry_permit().is_some());
    assert_eq!((pool.snapshot().counts.retries, pool.snapshot().counts.retries_refused), (4, 1));
}

#[tokio::test]
async fn a_pool_that_is_dropped_keeps_serving_those_who_hold_it() {
    let pools = pools();
    let pool = adopt(&pools, "address = '127.0.0.1:1'\nhealth = { kind = 'tcp' }");
    pools.adopt(&[]);
    assert!(pools.adopted().is_empty());
    assert!(pool.pick(None, &[]).is_ok());
    let old = std::sync::Arc::downgrade(&pool);
    drop(pool);
    assert!(old.upgrade().is_none());
}
