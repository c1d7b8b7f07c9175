//! Certificates of a fleet: one node orders, any answers the CA, all show it; and one that dies is succeeded.

use std::time::Duration;

use crate::kit::acme::{Rig, document, is_signed, names, shown};
use crate::kit::nats::Nats;
use crate::kit::{Gateway, Origin, Settings};

const SEAL: &str = "a seal of thirty-two characters or more";

/// With the CA, the bus and the seal; the ports the CA looks at are those of one gateway only.
fn member(rig: &Rig, nats: &Nats, settings: &mut Settings, node: &str, reached: bool) {
    rig.settings(settings);
    nats.bus(settings, node);
    settings.set("fleet.seal", SEAL);
    if !reached {
        settings.at("listen", "http", "address", "127.0.0.1:0");
        settings.at("listen", "https", "address", "127.0.0.1:0");
    }
}

#[tokio::test]
async fn one_node_orders_any_answers_and_all_install() {
    let (origin, mut rig, mut nats) = (Origin::text("ok"), Rig::new(7_776_000).await, Nats::made().await);
    rig.pebble.start(0).await;
    rig.knows("one.test");
    // The node that the CA reaches wants nothing itself; it answers for the one that orders.
    let reached =
        Gateway::with(&document(&origin, &[]), |settings| member(&rig, &nats, settings, "reached", true)).await;
    let document = document(&origin, &names(&["one.test"]));
    let orders = Gateway::with(&document, |settings| member(&rig, &nats, settings, "orders", false)).await;
    eventually!(is_signed(&orders, "one.test").await);
    let certificate = shown(&orders, "one.test").await;
    // Whoever wants it later has it at once, and orders nothing, with the CA away; also without a disk.
    rig.pebble.stop();
    reached.change(&document).await;
    // What was written a moment ago is everywhere within a second.
    eventually!(Duration::from_secs(1), shown(&reached, "one.test").await == certificate);
    let diskless = Gateway::with(&document, |settings| {
        member(&rig, &nats, settings, "diskless", false);
        settings.remove("state");
    })
    .await;
    assert_eq!(shown(&diskless, "one.test").await, certificate);
    assert!(!diskless.log().contains("certificate.obtained"), "{}", diskless.log());
    // What stands on the bus is of no use to who has no seal.
    let wrong = Gateway::with(&document, |settings| {
        member(&rig, &nats, settings, "wrong", false);
        settings.set("fleet.seal", "another seal of thirty-two characters").remove("state");
    })
    .await;
    assert!(!is_signed(&wrong, "one.test").await);
    eventually!(wrong.log().contains("was not sealed with this key"));
    // Without the bus a node with a disk starts with what it has mirrored.
    nats.kill();
    let mut orders = orders;
    orders.stop().await;
    let orders = orders.successor(&[]).await.unwrap();
    assert_eq!(shown(&orders, "one.test").await, certificate);
}

#[tokio::test]
async fn all_nodes_show_a_new_certificate_within_a_second() {
    let (origin, mut rig, nats) = (Origin::text("ok"), Rig::new(7_776_000).await, Nats::made().await);
    rig.pebble.start(0).await;
    rig.knows("one.test");
    let document = document(&origin, &names(&["one.test"]));
    let one = Gateway::with(&document, |settings| member(&rig, &nats, settings, "one", true)).await;
    let two = Gateway::with(&document, |settings| member(&rig, &nats, settings, "two", false)).await;
    eventually!({
        let (one, two) = (is_signed(&one, "one.test").await, is_signed(&two, "one.test").await);
        one || two
    });
    eventually!(Duration::from_secs(1), shown(&one, "one.test").await == shown(&two, "one.test").await);
    let obtained = |gateway: &Gateway| gateway.log().matches("certificate.obtained").count();
    assert_eq!(obtained(&one) + obtained(&two), 1, "one order for both");
}

#[tokio::test]
async fn a_node_that_dies_while_it_orders_is_succeeded() {
    let (origin, mut rig, nats) = (Origin::text("ok"), Rig::new(7_776_000).await, Nats::made().await);
    rig.knows("one.test");
    // The CA takes its time to look.
    rig.pebble.start(0).await;
    let document = document(&origin, &names(&["one.test"]));
    let bus = {
        let words = tollgate::settings::Bus {
            urls: tollgate::scalar::OneOrMany(vec![nats.url()]),
            ..tollgate::settings::Bus::default()
        };
        tollgate::bus::open(&words, "test", tollgate::bus::Role::Operator).await.unwrap()
    };
    // The lease of a node that is gone for good, as `kill -9` leaves it.
    let sealed = eventually!(bus.bucket("tollgate_sealed").await);
    sealed.put("lease.acme.pebble.one=test", "dead".into()).await.unwrap();
    let gateway = Gateway::with(&document, |settings| member(&rig, &nats, settings, "two", true)).await;
    assert!(!is_signed(&gateway, "one.test").await);
    eventually!(Duration::from_secs(60), is_signed(&gateway, "one.test").await);
    eventually!(sealed.entry("lease.acme.pebble.one=test").await.unwrap().is_none());
}
