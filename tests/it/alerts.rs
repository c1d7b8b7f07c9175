//! Alerts and those who are told: each for themselves, in order, to the end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use http::Response;
use rustix::process::Signal;
use serde_json::Value;

use crate::controller::{bus, member, push, slip_in};
use crate::kit::controller::Controller;
use crate::kit::load::Load;
use crate::kit::nats::Nats;
use crate::kit::{Gateway, Origin, full, routes};

/// Windows are ten seconds long, in steps of ten.
const LONG: Duration = Duration::from_secs(90);

/// More than there ever were deliveries at once.
const MANY: usize = 20;

/// Whoever is told of alerts.
fn receiver() -> Origin {
    Origin::replying(|_| Response::new(full("thanks")))
}

/// The subject and the state of everything a receiver was told.
fn told(receiver: &Origin) -> Vec<(String, String)> {
    let text = |body: &Value, word: &str| body[word].as_str().unwrap().to_owned();
    let bodies = receiver.seen().into_iter().map(|seen| serde_json::from_slice::<Value>(&seen.body).unwrap());
    bodies.map(|body| (text(&body, "subject"), text(&body, "state"))).collect()
}

fn states(receiver: &Origin) -> Vec<String> {
    told(receiver).into_iter().map(|(_, state)| state).collect()
}

fn watched(name: &str, shop: &Origin) -> String {
    format!("[[watch]]\nname = \"{name}\"\nurl = \"http://{}/ready\"\nevery = \"500ms\"\n", shop.address())
}

fn silence(notify: &str) -> String {
    format!("[[alert]]\nname = \"gone\"\nwhen = {{ silence = {{}} }}\nclear = \"1s\"\nnotify = {notify}\n")
}

fn webhook(name: &str, receiver: &Origin) -> String {
    format!("[notify.{name}]\nwebhook = \"http://{}/hook\"\n", receiver.address())
}

#[tokio::test]
async fn one_that_does_not_answer_holds_up_nobody_else() {
    let nats = Nats::start().await;
    let deaf = Origin::scripted(|_| std::future::pending());
    let (ops, mut shop) = (receiver(), Origin::text("ready"));
    let settings: String = (0..MANY).map(|number| watched(&format!("shop{number}"), &shop)).collect();
    let rules = silence("[\"deaf\", \"ops\"]") + &webhook("deaf", &deaf) + "timeout = \"1h\"\n" + &webhook("ops", &ops);
    let controller = Controller::with(&nats, &settings, &rules).await;
    shop.kill().await;
    eventually!(states(&ops).len() == MANY);
    shop.revive();
    eventually!(states(&ops).iter().filter(|state| *state == "resolved").count() == MANY);
    assert_eq!((deaf.count(), states(&ops).len()), (1, 2 * MANY), "one at a time: {}", controller.log());
}

#[tokio::test]
async fn what_is_over_is_not_told_before_it_began() {
    let nats = Nats::start().await;
    let open = Arc::new(AtomicBool::new(false));
    let ops = Origin::replying({
        let open = open.clone();
        move |_| {
            let status = if open.load(Ordering::SeqCst) { 200 } else { 503 };
            Response::builder().status(status).body(full("")).unwrap()
        }
    });
    let mut shop = Origin::text("ready");
    let rules = silence("\"ops\"") + &webhook("ops", &ops);
    let controller = Controller::with(&nats, &watched("shop", &shop), &rules).await;
    shop.kill().await;
    eventually!(!states(&ops).is_empty());
    shop.revive();
    eventually!(controller.api("/alerts").await["alerts"][0]["stage"] == "resolved");
    let before = ops.count();
    eventually!(ops.count() > before);
    assert!(states(&ops).iter().all(|state| state == "firing"), "{:?}", states(&ops));
    open.store(true, Ordering::SeqCst);
    eventually!(states(&ops).last().is_some_and(|last| last == "resolved"));
    let all = states(&ops);
    assert_eq!(all.iter().filter(|state| *state == "resolved").count(), 1, "{all:?}");
}

#[tokio::test]
async fn a_rule_that_is_removed_is_told_to_be_over() {
    let nats = Nats::start().await;
    let (ops, other) = (receiver(), receiver());
    let mut shop = Origin::text("ready");
    let webhooks = webhook("ops", &ops) + &webhook("other", &other);
    let controller = Controller::with(&nats, &watched("shop", &shop), &(silence("\"ops\"") + &webhooks)).await;
    shop.kill().await;
    eventually!(states(&ops) == ["firing"]);
    controller.write_alerts(&webhooks);
    eventually!(states(&ops) == ["firing", "resolved"]);
    assert!(told(&other).is_empty(), "it was never concerned");
}

/// A rule that tells `ops`, and is over after a second.
fn rule(name: &str, when: &str, ops: &Origin) -> String {
    format!("[[alert]]\nname = \"{name}\"\nwhen = {{ {when} }}\nclear = \"1s\"\nnotify = \"ops\"\n")
        + &webhook("ops", ops)
}

/// A gateway that reports, before anything is wrong with it.
async fn reporting(nats: &Nats, controller: &Controller) -> Gateway {
    let gateway = member(nats, "n1").await;
    eventually!(!controller.api("/nodes").await.as_array().unwrap().is_empty());
    gateway
}

#[tokio::test]
async fn a_slow_route_is_an_alert_until_it_is_fast() {
    let nats = Nats::start().await;
    let ops = receiver();
    let slow = Arc::new(AtomicBool::new(true));
    let origin = Origin::scripted({
        let slow = slow.clone();
        move |_| {
            let slow = slow.clone();
            async move {
                if slow.load(Ordering::SeqCst) {
                    let never = std::future::pending::<()>();
                    let _ = tokio::time::timeout(Duration::from_millis(1_500), never).await;
                }
                Ok(Response::new(full("ok")))
            }
        }
    });
    let when = "latency = { above = \"1s\", over = \"10s\", requests = 5, route = \"all\" }";
    let controller = Controller::with(&nats, "", &rule("slow", when, &ops)).await;
    push(&controller, &format!("format = 1\n{}", routes::all_to(origin.address())), 0).await;
    let gateway = reporting(&nats, &controller).await;
    let load = Load::start(gateway.http(), "http://app.test/", 8);
    eventually!(LONG, told(&ops) == [("all".to_owned(), "firing".to_owned())]);
    let text = controller.api("/alerts").await["alerts"][0]["text"].as_str().unwrap().to_owned();
    assert!(text.starts_with("the 99th percentile of route all is "), "{text}");
    slow.store(false, Ordering::SeqCst);
    eventually!(LONG, states(&ops) == ["firing", "resolved"]);
    load.finish().await;
}

#[tokio::test]
async fn a_certificate_that_ends_soon_is_an_alert_until_it_is_replaced() {
    let nats = Nats::start().await;
    let ops = receiver();
    let controller = Controller::with(&nats, "", &rule("ending", "expiry = { within = \"7d\" }", &ops)).await;
    push(&controller, &format!("format = 1\n{}", routes::answering("one")), 0).await;
    let gateway = reporting(&nats, &controller).await;
    let shows = |days: u64| {
        let ends = SystemTime::now() + Duration::from_secs(days * 86_400);
        let identity = gateway.authority.issue_with(&["app.test"], |params| params.not_after = ends.into());
        for (name, text) in [("chain.pem", &identity.chain_pem), ("key.pem", &identity.key_pem)] {
            std::fs::write(gateway.directory().join(name), text).unwrap();
        }
        gateway.signal(Signal::HUP);
    };
    assert!(told(&ops).is_empty(), "nothing ends soon");
    shows(1);
    eventually!(LONG, states(&ops) == ["firing"]);
    assert!(told(&ops)[0].0.ends_with(" on n1"), "{:?}", told(&ops));
    let text = controller.api("/alerts").await["alerts"][0]["text"].as_str().unwrap().to_owned();
    assert!(text.starts_with("the certificate ends in 2"), "in some 24 hours: {text}");
    shows(90);
    eventually!(LONG, states(&ops) == ["firing", "resolved"]);
}

#[tokio::test]
async fn a_gateway_that_does_not_take_what_is_in_force_is_an_alert_until_it_does() {
    let nats = Nats::start().await;
    let ops = receiver();
    let controller = Controller::with(&nats, "", &rule("drift", "drift = {}", &ops)).await;
    let fine = |text: &str| format!("format = 1\n{}", routes::answering(text));
    push(&controller, &fine("one"), 0).await;
    let _gateway = reporting(&nats, &controller).await;
    eventually!(controller.api("/nodes").await[0]["stand"] == "current");
    // What no gateway takes is no push of ours; somebody slips it in.
    let ledger = tollgate::ledger::Ledger::new(bus(&nats).await, "tollgate");
    slip_in(&ledger, "format = 1\n[[route]]\nname = 'a'\n".to_owned()).await;
    eventually!(told(&ops) == [("n1".to_owned(), "firing".to_owned())]);
    let text = controller.api("/alerts").await["alerts"][0]["text"].as_str().unwrap().to_owned();
    assert!(text.starts_with("the gateway runs revision 1, not revision 2"), "{text}");
    push(&controller, &fine("three"), 2).await;
    eventually!(states(&ops) == ["firing", "resolved"]);
}
