//! Passive ejection, in paused time.

use std::sync::Arc;
use std::time::Duration;

use super::super::{EndpointState, Outcome, Pool};
use super::{adopt, pools};

fn fail(pool: &Arc<Pool>, port: u16, outcome: Outcome) {
    let everyone = pool.snapshot().endpoints;
    let others: Vec<_> = everyone.iter().map(|endpoint| endpoint.address.parse().unwrap()).collect();
    let others: Vec<std::net::SocketAddr> =
        others.into_iter().filter(|a: &std::net::SocketAddr| a.port() != port).collect();
    let lease = pool.pick(None, &others).unwrap();
    lease.report(outcome);
}

fn states(pool: &Pool) -> Vec<EndpointState> {
    pool.snapshot().endpoints.iter().map(|endpoint| endpoint.state).collect()
}

const THREE: &str = "eject = { errors = 2, within = '10s', for = '30s' }\npanic_percent = 10
    address = [{ to = '127.0.0.1:1' }, { to = '127.0.0.1:2' }, { to = '127.0.0.1:3' }]";

#[tokio::test(start_paused = true)]
async fn failures_within_the_window_eject_then_the_weight_ramps_back() {
    use EndpointState::{Ejected, Healthy, Ramping};
    let pools = pools();
    let pool = adopt(&pools, THREE);
    fail(&pool, 1, Outcome::Connect);
    tokio::time::advance(Duration::from_secs(11)).await;
    fail(&pool, 1, Outcome::Reset);
    assert_eq!(states(&pool), [Healthy, Healthy, Healthy], "the first failure is out of the window");
    fail(&pool, 1, Outcome::Status(503));
    assert_eq!(states(&pool), [Ejected, Healthy, Healthy]);
    assert_eq!(pool.snapshot().endpoints[0].ejected_ms, Some(30_000));
    assert!((0..200).all(|_| pool.pick(None, &[]).unwrap().address().port() != 1));

    // The state outlives a change of the spec.
    adopt(&pools, &THREE.replace("'127.0.0.1:1'", "'127.0.0.1:1', weight = 1"));
    assert_eq!(states(&pool), [Ejected, Healthy, Healthy]);

    tokio::time::advance(Duration::from_secs(31)).await;
    assert_eq!(states(&pool), [Ramping, Healthy, Healthy]);
    let share = |pool: &Arc<Pool>| (0..3_000).filter(|_| pool.pick(None, &[]).unwrap().address().port() == 1).count();
    assert!((50..500).contains(&share(&pool)), "about a tenth of its third");
    tokio::time::advance(Duration::from_secs(30)).await;
    assert_eq!(states(&pool), [Healthy, Healthy, Healthy]);
    assert!((800..1_200).contains(&share(&pool)), "its third again");
    assert_eq!(pool.snapshot().counts.ejections, 1);
}

#[tokio::test(start_paused = true)]
async fn at_most_half_of_the_pool_is_ejected() {
    let pools = pools();
    let pool = adopt(&pools, &THREE.replace("]", ", { to = '127.0.0.1:4' }, { to = '127.0.0.1:5' }]"));
    for port in 1..=5 {
        fail(&pool, port, Outcome::Timeout);
        fail(&pool, port, Outcome::Timeout);
    }
    let ejected = states(&pool).iter().filter(|state| **state == EndpointState::Ejected).count();
    assert_eq!(ejected, 2);
}

#[tokio::test(start_paused = true)]
async fn the_last_endpoint_is_never_ejected() {
    let pools = pools();
    for (addresses, ejected) in
        [("[{ to = '127.0.0.1:1' }]", 0), ("[{ to = '127.0.0.1:1' }, { to = '127.0.0.1:2' }]", 1)]
    {
        let pool = adopt(&pools, &format!("eject = {{ errors = 1 }}\npanic_percent = 0\naddress = {addresses}"));
        for _ in 0..10 {
            pool.pick(None, &[]).unwrap().report(Outcome::Connect);
        }
        let out = states(&pool).iter().filter(|state| **state == EndpointState::Ejected).count();
        assert_eq!(out, ejected, "{addresses}");
        assert!(pool.pick(None, &[]).is_ok());
    }
}

#[tokio::test(start_paused = true)]
async fn only_failures_of_the_endpoint_count() {
    let pools = pools();
    let pool = adopt(&pools, THREE);
    for outcome in
        [Outcome::Success, Outcome::Status(200), Outcome::Status(404), Outcome::Status(500), Outcome::Status(505)]
    {
        for _ in 0..10 {
            fail(&pool, 1, outcome);
        }
    }
    assert_eq!(states(&pool), [EndpointState::Healthy; 3]);
    // Without `eject` nobody is ejected, not even who was.
    for _ in 0..2 {
        fail(&pool, 1, Outcome::Status(502));
    }
    assert_eq!(states(&pool)[0], EndpointState::Ejected);
    adopt(&pools, "address = [{ to = '127.0.0.1:1' }, { to = '127.0.0.1:2' }]");
    assert_eq!(states(&pool), [EndpointState::Healthy; 2]);
    let counts = pool.snapshot().counts;
    assert_eq!((counts.successes, counts.bad_statuses), (50, 2));
}
