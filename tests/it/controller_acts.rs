//! What one of several controllers does: tells alerts, decides trials, once, whoever dies meanwhile.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use serde_json::Value;
use tollgate::ledger::{Draft, Judged, Ledger};

use crate::controller::{bus, member, push};
use crate::kit::controller::Controller;
use crate::kit::load::{Load, Tally};
use crate::kit::nats::Nats;
use crate::kit::{Gateway, Origin, full};

/// Windows and steps are ten seconds long.
pub(crate) const LONG: Duration = Duration::from_secs(90);

/// Whoever is told of alerts.
fn receiver() -> Origin {
    Origin::replying(|_| Response::new(full("thanks")))
}

/// The states that the receiver was told of an alert, in order.
fn told(receiver: &Origin, alert: &str) -> Vec<String> {
    let bodies = receiver.seen().into_iter().map(|seen| serde_json::from_slice::<Value>(&seen.body).unwrap());
    let ours = bodies.filter(|body| body["alert"] == alert);
    ours.map(|body| body["state"].as_str().unwrap().to_owned()).collect()
}

pub(crate) async fn events(controller: &Controller, event: &str) -> Vec<Value> {
    controller.api(&format!("/events?service=controller&event={event}")).await["found"].as_array().unwrap().clone()
}

fn answering(status: u16) -> String {
    format!("format = 1\n[[route]]\nname = \"all\"\nrespond = {{ status = {status}, body = \"x\" }}\n")
}

/// Which of two acts: first it, then the other.
async fn acting<'c>(one: &'c mut Controller, two: &'c mut Controller) -> (&'c mut Controller, &'c mut Controller) {
    eventually!(one.acts().await || two.acts().await);
    if one.acts().await { (one, two) } else { (two, one) }
}

#[tokio::test]
async fn an_alert_is_told_once_whoever_dies() {
    let nats = Nats::start().await;
    let receiver = receiver();
    let mut shop = Origin::text("ready");
    let settings =
        format!("[[watch]]\nname = \"shop\"\nurl = \"http://{}/ready\"\nevery = \"500ms\"\n", shop.address());
    let rules = format!(
        "[[alert]]\nname = \"gone\"\nwhen = {{ silence = {{ of = \"shop\" }} }}\nfor = \"1s\"\nclear = \"1s\"\nnotify = \"ops\"\n\
         [notify.ops]\nwebhook = \"http://{}/hook\"\n",
        receiver.address()
    );
    let mut one = Controller::with(&nats, &settings, &rules).await;
    let mut two = Controller::with(&nats, &settings, &rules).await;
    let (active, standby) = acting(&mut one, &mut two).await;
    shop.kill().await;
    eventually!(told(&receiver, "gone") == ["firing"]);
    eventually!(events(standby, "alert_firing").await.len() == 1);
    let alerts = standby.api("/alerts").await;
    assert_eq!(
        (&alerts["alerts"][0]["stage"], &alerts["alerts"][0]["subject"]),
        (&"firing".into(), &"shop".into()),
        "{alerts}"
    );
    assert!(standby.get("/alerts").await.text().contains("the service is not ready"));
    // What was told is written down right after it: then it may die.
    eventually!(standby.api("/alerts").await["alerts"][0]["told"] == serde_json::json!(["", "ops"]));
    // The URL of a webhook is a secret.
    let shown = standby.api("/alerts").await.to_string() + standby.get("/alerts").await.text() + &active.log();
    assert!(shown.contains("ops") && !shown.contains("/hook"), "{shown}");
    active.kill();
    eventually!(standby.acts().await);
    shop.revive();
    eventually!(told(&receiver, "gone").last().is_some_and(|last| last == "resolved"));
    assert_eq!(told(&receiver, "gone"), ["firing", "resolved"]);
    eventually!(events(standby, "alert_resolved").await.len() == 1);
    assert_eq!(events(standby, "alert_firing").await.len(), 1);
    // The one that comes back does not act, and has everything.
    active.begin().await;
    eventually!(events(active, "alert_resolved").await.len() == 1);
    assert!(!active.acts().await && standby.acts().await);
    // Going in peace hands the seat over at once.
    standby.stop().await;
    eventually!(active.acts().await);
    assert_eq!(told(&receiver, "gone").len(), 2);
}

#[tokio::test]
async fn too_many_errors_are_an_alert_until_they_end() {
    let nats = Nats::start().await;
    let receiver = receiver();
    let rules = format!(
        "[[alert]]\nname = \"errors\"\nwhen = {{ rate = {{ of = \"5xx\", above = 5, over = \"10s\", route = \"all\" }} }}\n\
         clear = \"1s\"\nnotify = [\"ops\"]\n\
         [notify.ops]\nwebhook = \"http://{}/hook\"\n",
        receiver.address()
    );
    let controller = Controller::with(&nats, "", &rules).await;
    push(&controller, &answering(200), 0).await;
    let gateway = member(&nats, "n1").await;
    let load = Load::start(gateway.http(), "http://app.test/", 2);
    load.more(200).await;
    push(&controller, &answering(500), 1).await;
    eventually!(LONG, told(&receiver, "errors") == ["firing"]);
    push(&controller, &answering(200), 2).await;
    eventually!(LONG, told(&receiver, "errors") == ["firing", "resolved"]);
    load.finish().await;
    // A mistake in the rules changes nothing and is shown; mended, they are taken up.
    controller.write_alerts("[[alert]]\nname = 'x'\nwhen = {}\n");
    let shown = eventually!(Some(controller.api("/alerts").await).filter(|shown| shown["problems"][0].is_object()));
    assert_eq!(shown["rules"]["alert"][0]["name"], "errors", "{shown}");
    assert!(controller.get("/alerts").await.text().contains("not in force"));
    controller.write_alerts("[[alert]]\nname = 'x'\nwhen = { drift = {} }\n");
    eventually!(controller.api("/alerts").await["rules"]["alert"][0]["name"] == "x");
}

/// Two gateways under load, one of them on trial.
pub(crate) struct Trial {
    pub(crate) nats: Nats,
    pub(crate) one: Controller,
    two: Controller,
    _gateways: [Gateway; 2],
    loads: [Load; 2],
    ledger: Ledger,
}

impl Trial {
    pub(crate) async fn begin(status: u16) -> Trial {
        let nats = Nats::start().await;
        let (one, two) = tokio::join!(Controller::start(&nats), Controller::start(&nats));
        push(&one, &answering(200), 0).await;
        let gateways: [Gateway; 2] = tokio::join!(member(&nats, "n1"), member(&nats, "n2")).into();
        let loads = [0, 1].map(|number: usize| Load::start(gateways[number].http(), "http://app.test/", 1));
        eventually!(
            one.api("/nodes").await.as_array().unwrap().iter().filter(|node| !node["rate"].is_null()).count() == 2
        );
        let ledger = Ledger::new(bus(&nats).await, "tollgate");
        let head = ledger.head().await.unwrap().unwrap();
        let text = format!("{}# on trial\n", answering(status));
        let (author, reason) = ("me".to_owned(), "a trial".to_owned());
        let draft = Draft { text: text.into(), author, reason, requires: BTreeSet::new(), rollback_of: None };
        // Latencies of a busy machine say nothing.
        let judged = Judged { sample: 100, slower_percent: 100_000, ..Judged::default() };
        ledger.begin(draft, &head, BTreeSet::from(["n1".to_owned()]), judged, None).await.unwrap();
        Trial { nats, one, two, _gateways: gateways, loads, ledger }
    }

    pub(crate) async fn head(&self) -> u64 {
        self.ledger.head().await.unwrap().unwrap().pointer.revision
    }

    /// The trial is gone, and nothing is left to be done or told about it.
    pub(crate) async fn over(&self) -> bool {
        let shared = self.ledger.bus().bucket("tollgate_shared").await.unwrap();
        self.ledger.canary().await.unwrap().is_none() && shared.entry("canary.decision").await.unwrap().is_none()
    }

    /// Ends everything; what came of the load on each gateway.
    pub(crate) async fn end(self) -> Vec<Tally> {
        let [one, two] = self.loads;
        let tallies = vec![one.finish().await, two.finish().await];
        drop(self.nats);
        tallies
    }
}

#[tokio::test]
async fn a_trial_that_is_no_worse_is_promoted_once_though_its_judge_dies() {
    let mut trial = Trial::begin(200).await;
    let shown = eventually!(Some(trial.one.api("/status").await).filter(|status| status["trial"].is_object()));
    assert_eq!(shown["trial"]["canary"]["nodes"], serde_json::json!(["n1"]), "{shown}");
    let (active, standby) = acting(&mut trial.one, &mut trial.two).await;
    active.kill();
    eventually!(LONG, events(standby, "canary_promoted").await.len() == 1);
    active.begin().await;
    eventually!(trial.over().await);
    let one = &trial.one;
    eventually!(events(one, "canary_promoted").await.len() == 1);
    let event = events(one, "canary_promoted").await[0]["body"].clone();
    assert!(
        event["trial"]["requests"].as_u64() >= Some(100) && event["elsewhere"]["requests"].as_u64() >= Some(100),
        "{event}"
    );
    let history = one.api("/history").await;
    assert_eq!(history["trials"].as_array().unwrap().len(), 1, "{history}");
    assert_eq!((trial.head().await, trial.over().await), (2, true));
    trial.end().await;
}

#[tokio::test]
async fn a_trial_that_is_worse_is_taken_back() {
    let trial = Trial::begin(500).await;
    let event = eventually!(LONG, events(&trial.one, "canary_taken_back").await.pop())["body"].clone();
    assert!(event["why"].as_str().unwrap().starts_with("answers with 5xx"), "{event}");
    eventually!(trial.over().await);
    assert_eq!(trial.head().await, 1);
    assert_eq!(events(&trial.one, "canary_taken_back").await.len(), 1);
    eventually!(trial.one.api("/nodes").await.as_array().unwrap().iter().all(|node| node["stand"] == "current"));
    assert!(trial.one.get("/documents").await.text().contains("taken back"));
    trial.end().await;
}

#[tokio::test]
async fn events_of_others_reach_every_controller() {
    let nats = Nats::start().await;
    let (one, two) = tokio::join!(Controller::start(&nats), Controller::start(&nats));
    let bus = bus(&nats).await;
    let message = tollgate::bus::Message {
        subject: "tollgate.event.shop.sold".to_owned(),
        payload: Bytes::from_static(b"{\"trace_id\":\"t\"}"),
    };
    eventually!(bus.append(message.clone(), "one").await);
    for controller in [&one, &two] {
        eventually!(controller.api("/events?trace_id=t").await["found"].as_array().unwrap().len() == 1);
    }
}
