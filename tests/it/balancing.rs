//! Which endpoint of an upstream gets a request.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use http::{Request, Response};
use tokio::sync::Semaphore;

use crate::kit::{Gateway, Origin, Reply, empty, full, routes};

const NAMES: [&str; 4] = ["a", "b", "c", "d"];

fn origins(count: usize) -> Vec<Origin> {
    NAMES.iter().take(count).map(|name| Origin::text(name)).collect()
}

fn all_to(origins: &[Origin], upstream: &str) -> String {
    let addresses: Vec<SocketAddr> = origins.iter().map(Origin::address).collect();
    routes::all_to_each(&addresses, upstream, "")
}

async fn ask(gateway: &Gateway, count: usize) -> BTreeMap<String, usize> {
    let (mut client, mut bodies) = (gateway.h1().await, BTreeMap::new());
    for _ in 0..count {
        let reply = client.get("http://app.test/").await;
        assert_eq!(reply.status, 200, "{reply:?}");
        *bodies.entry(reply.text().to_owned()).or_default() += 1;
    }
    bodies
}

async fn with_header(gateway: &Gateway, name: &str, value: &str) -> Reply {
    let request = Request::get("http://app.test/").header(name, value).body(empty()).unwrap();
    gateway.h1().await.fetch(request).await
}

#[tokio::test]
async fn round_robin_takes_turns() {
    let origins = origins(3);
    let gateway = Gateway::start(&all_to(&origins, "balance = \"round_robin\"")).await;
    let bodies = ask(&gateway, 30).await;
    assert_eq!(bodies, BTreeMap::from([("a".into(), 10), ("b".into(), 10), ("c".into(), 10)]));
}

#[tokio::test]
async fn round_robin_follows_weights_smoothly() {
    let origins = origins(3);
    let gateway = Gateway::start(&format!(
        r#"
        [upstream.origin]
        balance = "round_robin"
        address = [{{ to = "{}", weight = 3 }}, {{ to = "{}", weight = 1 }}, {{ to = "{}", weight = 0 }}]
        [[route]]
        name = "all"
        upstream = "origin"
        "#,
        origins[0].address(),
        origins[1].address(),
        origins[2].address()
    ))
    .await;
    for _ in 0..5 {
        assert_eq!(ask(&gateway, 4).await, BTreeMap::from([("a".into(), 3), ("b".into(), 1)]));
    }
}

#[tokio::test]
async fn random_uses_all() {
    let origins = origins(2);
    let gateway = Gateway::start(&all_to(&origins, "balance = \"random\"")).await;
    let bodies = ask(&gateway, 200).await;
    // 100 expected, standard deviation 7.
    assert!(bodies.values().all(|count| (50..150).contains(count)), "{bodies:?}");
}

#[tokio::test]
async fn least_requests_avoids_the_busy_one() {
    let gate = Arc::new(Semaphore::new(0));
    let permits = gate.clone();
    let busy = Origin::scripted(move |request| {
        let permits = permits.clone();
        async move {
            if request.uri().path() == "/slow" {
                let _ = permits.acquire().await;
            }
            Ok(Response::new(full("busy")))
        }
    });
    let gateway = Gateway::start(&routes::all_to(busy.address())).await;
    let mut waiting = Vec::new();
    for _ in 0..8 {
        let mut client = gateway.h1().await;
        waiting.push(tokio::spawn(async move { client.get("http://app.test/slow").await }));
    }
    eventually!(busy.count() == 8);
    let idle = Origin::text("idle");
    gateway.change(&routes::all_to_each(&[busy.address(), idle.address()], "", "")).await;
    assert_eq!(ask(&gateway, 20).await, BTreeMap::from([("idle".into(), 20)]));
    gate.add_permits(8);
    for one in waiting {
        assert_eq!(one.await.unwrap().text(), "busy");
    }
}

#[tokio::test]
async fn hash_keeps_keys_and_moves_few_when_one_leaves() {
    const KEYS: usize = 400;
    let origins = origins(4);
    let words = "balance = \"hash\"\nhash_by = \"header.x-key\"";
    let gateway = Gateway::start(&all_to(&origins, words)).await;
    let mut client = gateway.h1().await;
    let mut places = async || {
        let mut places = Vec::new();
        for key in 0..KEYS {
            let request = Request::get("http://app.test/").header("x-key", format!("key-{key}"));
            places.push(client.fetch(request.body(empty()).unwrap()).await.text().to_owned());
        }
        places
    };
    let before = places().await;
    assert_eq!(before, places().await, "the same key goes to the same endpoint");
    for name in NAMES {
        let share = before.iter().filter(|place| *place == name).count();
        assert!((KEYS / 8..KEYS / 2).contains(&share), "{name} has {share} of {KEYS}");
    }
    gateway.change(&all_to(&origins[..3], words)).await;
    let after = places().await;
    let moved = before.iter().zip(&after).filter(|(before, after)| before != after).count();
    assert!(moved <= KEYS / 4 + KEYS / 20, "{moved} of {KEYS} moved");
    assert!(!after.contains(&"d".to_owned()));
}

#[tokio::test]
async fn a_request_without_the_fact_is_balanced_anyhow() {
    let origins = origins(2);
    let gateway = Gateway::start(&all_to(&origins, "balance = \"hash\"\nhash_by = \"header.x-key\"")).await;
    assert_eq!(ask(&gateway, 40).await.len(), 2);
}

#[tokio::test]
async fn a_sticky_cookie_keeps_a_client_until_its_endpoint_is_gone() {
    let mut origins = origins(3);
    let gateway = Gateway::start(&all_to(&origins, "sticky = { cookie = \"node\", max_age = \"1h\" }")).await;
    let first = gateway.get("http://app.test/").await;
    let set = first.header("set-cookie").to_owned();
    let cookie = set.split(';').next().unwrap().to_owned();
    assert!(cookie.starts_with("node=") && set.to_lowercase().contains("max-age=3600"), "{set}");
    for origin in &origins {
        let port = origin.address().port().to_string();
        assert!(!cookie.contains(&port) && !cookie.contains("127"), "{cookie} tells an address");
    }
    for _ in 0..10 {
        let again = with_header(&gateway, "cookie", &cookie).await;
        assert_eq!((again.text(), again.header("set-cookie")), (first.text(), ""));
    }
    let own = NAMES.iter().position(|name| *name == first.text()).unwrap();
    origins[own].kill().await;
    let moved = with_header(&gateway, "cookie", &cookie).await;
    assert_ne!(moved.text(), first.text());
    assert!(moved.header("set-cookie").starts_with("node="), "{moved:?}");
}

#[tokio::test]
async fn clients_without_the_cookie_are_spread() {
    let origins = origins(3);
    let words = "balance = \"round_robin\"\nsticky = { cookie = \"node\" }";
    let gateway = Gateway::start(&all_to(&origins, words)).await;
    assert_eq!(ask(&gateway, 30).await.len(), 3);
    let forged = with_header(&gateway, "cookie", "node=0000000000000000").await;
    assert_eq!(forged.status, 200);
    assert!(forged.header("set-cookie").starts_with("node="));
}

fn tiers(first: &Origin, second: &Origin) -> String {
    format!(
        r#"
        [upstream.origin]
        address = [{{ to = "{}", tier = 1 }}, {{ to = "{}", tier = 2 }}]
        health = {{ path = "/health", every = "50ms", timeout = "1s", rise = 1, fall = 1 }}
        [[route]]
        name = "all"
        upstream = "origin"
        "#,
        first.address(),
        second.address()
    )
}

#[tokio::test]
async fn the_next_tier_takes_over_and_gives_back() {
    let (mut near, far) = (Origin::text("near"), Origin::text("far"));
    let gateway = Gateway::start(&tiers(&near, &far)).await;
    assert_eq!(ask(&gateway, 20).await, BTreeMap::from([("near".into(), 20)]));
    near.kill().await;
    eventually!(gateway.get("http://app.test/").await.text() == "far");
    assert_eq!(ask(&gateway, 20).await, BTreeMap::from([("far".into(), 20)]));
    near.revive();
    eventually!(gateway.get("http://app.test/").await.text() == "near");
    assert_eq!(ask(&gateway, 20).await, BTreeMap::from([("near".into(), 20)]));
}

#[tokio::test]
async fn no_request_is_lost_while_a_tier_dies() {
    let (mut near, far) = (Origin::text("near"), Origin::text("far"));
    let gateway = Gateway::start(&tiers(&near, &far)).await;
    // No more at once than may always be tried again (`retry_budget.min`).
    let load = crate::kit::load::Load::start(gateway.http(), "http://app.test/", 3);
    load.more(50).await;
    near.kill().await;
    eventually!(far.seen().iter().any(|seen| seen.target() == "/"));
    load.more(50).await;
    let tally = load.finish().await.clean();
    assert_eq!(tally.bodies.keys().collect::<Vec<_>>(), ["far", "near"]);
}

#[tokio::test]
async fn the_own_region_comes_first() {
    let (here, there) = (Origin::text("here"), Origin::text("there"));
    let document = format!(
        r#"
        [upstream.origin]
        address = [{{ to = "{}", region = "ams" }}, {{ to = "{}", region = "fra" }}]
        health = {{ every = "50ms", rise = 1, fall = 1 }}
        [[route]]
        name = "all"
        upstream = "origin"
        "#,
        there.address(),
        here.address()
    );
    let gateway = Gateway::with(&document, |settings| {
        settings.set("node.region", "fra");
    })
    .await;
    assert_eq!(ask(&gateway, 20).await, BTreeMap::from([("here".into(), 20)]));
    let gateway = Gateway::start(&document).await;
    assert_eq!(ask(&gateway, 40).await.len(), 2, "without a region of its own all are alike");
}

#[tokio::test]
async fn counts_stay_under_the_name_across_changes() {
    let gate = Arc::new(Semaphore::new(0));
    let permits = gate.clone();
    let origin = Origin::scripted(move |_| {
        let permits = permits.clone();
        async move {
            let _ = permits.acquire().await;
            Ok(Response::new(full("done")))
        }
    });
    let gateway = Gateway::start(&routes::all_to(origin.address())).await;
    let mut client = gateway.h1().await;
    let waiting = tokio::spawn(async move { client.get("http://app.test/").await });
    let in_flight = "tollgate_upstream_in_flight_requests{upstream=\"origin\"}";
    eventually!(gateway.metric(in_flight).await == 1.0);
    gateway.change(&routes::with(origin.address(), "", "match = { path = \"/*\" }\npriority = 5")).await;
    assert_eq!(gateway.metric(in_flight).await, 1.0);
    gate.add_permits(1);
    assert_eq!(waiting.await.unwrap().text(), "done");
    eventually!(gateway.metric(in_flight).await == 0.0);
}

#[tokio::test]
async fn connections_are_kept_for_the_next_request() {
    let origins = origins(1);
    let gateway = Gateway::start(&all_to(&origins, "")).await;
    ask(&gateway, 20).await;
    let used: BTreeSet<usize> = origins[0].seen().iter().map(|seen| seen.connection).collect();
    assert_eq!(used.len(), 1, "{used:?}");
}
