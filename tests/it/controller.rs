//! The controller: what it collects and keeps, who may ask it, what operators do with it.

use bytes::Bytes;
use http::{Request, header};
use serde_json::{Value, json};
use tollgate::bus::{Bus, Link, Message, Role};
use tollgate::ledger::{Draft, Ledger};
use tollgate::settings;

use crate::kit::controller::{Controller, TOKEN};
use crate::kit::load::Load;
use crate::kit::nats::Nats;
use crate::kit::routes::answering;
use crate::kit::{Gateway, within};

/// A gateway is silent after 15 s.
const LONG: std::time::Duration = std::time::Duration::from_secs(60);

pub(crate) async fn bus(nats: &Nats) -> Bus {
    let words = settings::Bus { urls: tollgate::scalar::OneOrMany(vec![nats.url()]), ..settings::Bus::default() };
    let bus = tollgate::bus::open(&words, "test", Role::Operator).await.unwrap();
    within("a connection", bus.link().wait_for(|link| *link == Link::Up)).await.unwrap();
    bus
}

pub(crate) async fn member(nats: &Nats, node: &str) -> Gateway {
    Gateway::with("", |settings| {
        nats.routes(settings, node);
        // What a busy machine makes it turn away is no part of these tests.
        settings.set("overload.lag", "0s");
    })
    .await
}

fn document(text: &str) -> String {
    format!("format = 1\n{}", answering(text))
}

/// Puts a document in force without looking at it, as `push` would.
pub(crate) async fn slip_in(ledger: &Ledger, text: String) {
    let head = ledger.head().await.unwrap();
    let draft = Draft {
        text: text.into(),
        author: "nobody".to_owned(),
        reason: String::new(),
        requires: Default::default(),
        rollback_of: None,
    };
    ledger.push(draft, head.as_ref(), None).await.unwrap();
}

pub(crate) async fn push(controller: &Controller, text: &str, parent: u64) -> Value {
    let reply = controller.post("/documents/push", json!({ "text": text, "parent": parent, "author": "me" })).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    reply.json()
}

/// One node as the API shows it.
async fn node(controller: &Controller, name: &str) -> Option<Value> {
    controller.api("/nodes").await.as_array().unwrap().iter().find(|node| node["node"] == name).cloned()
}

async fn append(bus: &Bus, service: &str, body: Value) {
    let message =
        Message { subject: format!("tollgate.event.{service}.happened"), payload: Bytes::from(body.to_string()) };
    let id = format!("{:x}", fastrand::u128(..));
    eventually!(bus.append(message.clone(), &id).await);
}

#[tokio::test]
async fn nodes_their_revision_and_their_drift_are_shown() {
    let nats = Nats::start().await;
    let controller = Controller::start(&nats).await;
    eventually!(controller.api("/status").await["current"] == true);
    push(&controller, &document("one"), 0).await;
    let (one, _two) = tokio::join!(member(&nats, "n1"), member(&nats, "n2"));
    for name in ["n1", "n2"] {
        let node = eventually!(node(&controller, name).await.filter(|node| node["stand"] == "current"));
        assert_eq!((&node["revision"], &node["drift"]), (&1.into(), &false.into()), "{node}");
    }
    let certificates =
        eventually!(Some(controller.api("/certificates").await).filter(|all| all.as_array().unwrap().len() >= 2));
    assert!(certificates[0]["days_left"].is_i64(), "{certificates}");
    // What no gateway takes is no push of ours; somebody slips it in.
    let ledger = Ledger::new(bus(&nats).await, "tollgate");
    slip_in(&ledger, "format = 1\n[[route]]\nname = 'a'\n".to_owned()).await;
    let behind = eventually!(node(&controller, "n1").await.filter(|node| node["problem"].is_string()));
    assert!(
        behind["drift"] == true
            && behind["stand"] == "behind"
            && behind["problem"].as_str().unwrap().contains("goes nowhere"),
        "{behind}"
    );
    let page = controller.get("/").await.text().to_owned();
    assert!(page.contains("2 behind") && page.contains("n2"), "{page}");
    let load = Load::start(one.http(), "http://app.test/", 2);
    let rate = eventually!({
        let routes = controller.api("/routes").await;
        let route = routes.as_array().unwrap().iter().find(|route| route["name"] == "all").cloned();
        route.filter(|route| route["per_second"].as_f64().unwrap() > 10.0)
    });
    assert!(rate["p99_ms"].as_f64().unwrap() > 0.0, "{rate}");
    load.finish().await;
}

#[tokio::test]
async fn a_gateway_that_is_gone_is_forgotten_and_no_other() {
    let nats = Nats::start().await;
    let controller = Controller::start(&nats).await;
    push(&controller, &document("one"), 0).await;
    let (mut one, mut two) = tokio::join!(member(&nats, "n1"), member(&nats, "n2"));
    // As the button on the fleet page does.
    let press = async |name: &str| {
        let request = Request::post(controller.url("/nodes/forget"))
            .header(header::AUTHORIZATION, format!("Bearer {TOKEN}"))
            .header(header::ORIGIN, format!("http://{}", controller.address()))
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
        controller.send(request, Some(&format!("node={name}"))).await
    };
    for name in ["n1", "n2"] {
        eventually!(node(&controller, name).await);
        assert_eq!(controller.delete(&format!("/nodes/{name}")).await.json()["code"], "node_lives");
    }
    assert!(press("n2").await.text().contains("still reports"));
    assert!(!controller.get("/").await.text().contains("/nodes/forget"));
    tokio::join!(one.stop(), two.stop());
    for name in ["n1", "n2"] {
        eventually!(LONG, node(&controller, name).await.unwrap()["stand"] == "left");
    }
    assert!(controller.get("/").await.text().contains("/nodes/forget"));
    assert_eq!(controller.delete("/nodes/n1").await.status, 200);
    eventually!(node(&controller, "n1").await.is_none());
    assert_eq!(controller.delete("/nodes/n1").await.json()["code"], "no_node");
    assert!(node(&controller, "n2").await.is_some());
    assert_eq!(press("n2").await.status, 303);
    eventually!(node(&controller, "n2").await.is_none());
}

#[tokio::test]
async fn ten_thousand_events_are_kept_once_over_a_kill() {
    const EVENTS: usize = 10_000;
    let nats = Nats::start().await;
    let mut controller = Controller::start(&nats).await;
    let bus = bus(&nats).await;
    append(&bus, "probe", json!({ "service": "probe" })).await;
    let sending = {
        let bus = bus.clone();
        tokio::spawn(async move {
            for number in 0..EVENTS {
                let body =
                    json!({ "service": "shop", "event": "sold", "trace_id": format!("{number:032x}"), "n": number });
                append(&bus, "shop", body).await;
            }
        })
    };
    // All pages: the newest ten thousand would look whole after everything was read a second time.
    let kept = async |controller: &Controller| {
        let (mut numbers, mut before) = (Vec::new(), Value::Null);
        loop {
            let page = if before.is_null() { String::new() } else { format!("&before={before}") };
            let found = controller.api(&format!("/events?service=shop&limit=10000{page}")).await;
            let events = found["found"].as_array().unwrap();
            numbers.extend(events.iter().map(|event| event["body"]["n"].as_u64().unwrap()));
            before = found["before"].clone();
            if before.is_null() {
                numbers.sort_unstable();
                return numbers;
            }
        }
    };
    for _ in 0..3 {
        let before = kept(&controller).await.len();
        eventually!(kept(&controller).await.len() > before + 300);
        controller.kill();
        controller.begin().await;
    }
    sending.await.unwrap();
    eventually!(kept(&controller).await.len() >= EVENTS);
    assert_eq!(kept(&controller).await, (0..EVENTS as u64).collect::<Vec<_>>(), "none lost, none doubled");
    let one = controller.api(&format!("/events?trace_id={:032x}", 4711)).await;
    assert_eq!((one["found"].as_array().unwrap().len(), &one["found"][0]["body"]["n"]), (1, &4711.into()));
    let page = controller.get(&format!("/events?trace_id={:032x}", 4711)).await;
    assert!(page.text().contains("n=4711"), "{}", page.text());
}

#[tokio::test]
async fn request_lines_are_found_and_what_is_lost_is_counted() {
    let nats = Nats::start().await;
    let mut controller = Controller::start(&nats).await;
    let bus = bus(&nats).await;
    let line = |n: u64, status: u64| json!({ "time": "2026-01-01T10:00:00.000Z", "status": status, "trace_id": format!("t{n}"), "route": "r", "client": "10.0.0.1" });
    let send = async |body: Value, id: &str| {
        let message = Message { subject: "tollgate.request.n1".to_owned(), payload: Bytes::from(body.to_string()) };
        eventually!(bus.append(message.clone(), id).await);
    };
    send(line(1, 200), "1").await;
    send(json!([line(2, 503), line(3, 429)]), "2").await;
    eventually!(controller.api("/logs").await["found"].as_array().unwrap().len() == 3);
    let found = controller.api("/logs?status=5xx").await;
    assert_eq!((&found["found"][0]["trace_id"], &found["found"][0]["node"]), (&"t2".into(), &"n1".into()), "{found}");
    assert!(controller.get("/logs?trace_id=t3").await.text().contains("429"));
    // What the stream drops while nobody reads is counted.
    controller.kill();
    for number in 0..5 {
        send(line(10 + number, 200), &format!("late {number}")).await;
    }
    let purged = crate::kit::nats::purge(&nats, "tollgate_requests", 6).await;
    assert!(purged, "the stream was not purged");
    controller.begin().await;
    eventually!(controller.api("/logs").await["found"].as_array().unwrap().len() == 5);
    assert_eq!(controller.api("/status").await["lost"]["request_gone_before_read"], 3);
    let metrics = controller.get("/metrics").await;
    assert!(metrics.text().contains("tollgate_controller_lost_total{reason=\"request_gone_before_read\"} 3"));
}

#[tokio::test]
async fn charts_outlive_the_controller() {
    let nats = Nats::start().await;
    let mut controller = Controller::start(&nats).await;
    push(&controller, &document("one"), 0).await;
    let gateway = member(&nats, "n1").await;
    eventually!(node(&controller, "n1").await.is_some_and(|node| !node["connections"].is_null()));
    let load = Load::start(gateway.http(), "http://app.test/", 2);
    let total = async |controller: &Controller, span: &str| {
        let points = controller.api(&format!("/series?route=all&span={span}")).await;
        points.as_array().unwrap().iter().map(|point| point["per_second"].as_f64().unwrap()).sum::<f64>()
    };
    eventually!(total(&controller, "15m").await > 1.0);
    load.finish().await;
    controller.stop().await;
    controller.begin().await;
    for span in ["15m", "24h"] {
        assert!(total(&controller, span).await > 0.1, "{span}");
    }
    let page = controller.get("/").await.text().to_owned();
    assert!(page.contains("<path class=\"line ok\" d=\"M"), "{page}");
}

#[tokio::test]
async fn nobody_gets_in_without_proof() {
    let nats = Nats::start().await;
    let controller = Controller::start(&nats).await;
    for path in ["/", "/routes", "/documents", "/logs"] {
        let reply = controller.send(Request::get(controller.url(path)), None).await;
        assert_eq!((reply.status.as_u16(), reply.header("location").starts_with("/login")), (303, true), "{path}");
    }
    for path in ["/api/nodes", "/api/documents", "/metrics", "/live/fleet"] {
        assert_eq!(controller.send(Request::get(controller.url(path)), None).await.status, 401, "{path}");
    }
    for path in ["/health", "/ready", "/login", "/assets/style.css"] {
        let reply = controller.send(Request::get(controller.url(path)), None).await;
        assert_eq!(reply.status, 200, "{path}");
        assert!(
            !reply.headers.contains_key("set-cookie")
                && reply.header("content-security-policy").contains("default-src 'none'")
        );
    }
    let origin = format!("http://{}", controller.address());
    let form = |path: &str, origin: &str| {
        Request::post(controller.url(path))
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header(header::ORIGIN, origin)
    };
    let right = format!("token={}&to=%2Froutes", TOKEN.replace(' ', "+"));
    assert_eq!(controller.send(form("/login", "http://evil.test"), Some(&right)).await.status, 403);
    assert_eq!(controller.send(form("/login", &origin), Some("token=guess")).await.status, 401);
    let entered = controller.send(form("/login", &origin), Some(&right)).await;
    assert_eq!((entered.status.as_u16(), entered.header("location")), (303, "/routes"), "{entered:?}");
    let cookie = entered.header("set-cookie").to_owned();
    assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict"), "{cookie}");
    let cookie = cookie.split(';').next().unwrap().to_owned();
    let with = |request: http::request::Builder| request.header(header::COOKIE, &cookie);
    assert_eq!(controller.send(with(Request::get(controller.url("/routes"))), None).await.status, 200);
    // Another site makes the browser send the cookie: nothing happens.
    let act = "action=check&parent=0&text=format+%3D+1";
    assert_eq!(controller.send(with(form("/documents", "http://evil.test")), Some(act)).await.status, 403);
    let unsaid = with(Request::post(controller.url("/documents")))
        .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
    assert_eq!(controller.send(unsaid, Some(act)).await.status, 403);
    let own = controller.send(with(form("/documents", &origin)), Some(act)).await;
    assert!(own.status == 200 && own.text().contains("Every gateway would take this."), "{own:?}");
    controller.send(with(form("/logout", &origin)), None).await;
    assert_eq!(controller.send(with(Request::get(controller.url("/routes"))), None).await.status, 303);
    for _ in 0..20 {
        controller.send(form("/login", &origin), Some("token=guess")).await;
    }
    assert_eq!(controller.send(form("/login", &origin), Some(&right)).await.status, 429);
}

#[tokio::test]
async fn a_controller_without_a_token_does_not_start() {
    let directory = tempfile::tempdir().unwrap();
    let run = |text: &str| {
        std::fs::write(directory.path().join("controller.toml"), text).unwrap();
        crate::kit::tollgate::tollgate(directory.path(), &["controller", "-c", "controller.toml"])
    };
    for text in
        ["format = 1\n[listen]\n", "format = 1\ntoken = ''\n[listen]\n", "format = 1\ntoken = 'short'\n[listen]\n"]
    {
        let ran = run(text).exits(1);
        assert!(ran.stderr.contains("token"), "{text}: {}", ran.stderr);
    }
}

#[tokio::test]
async fn documents_are_checked_compared_pushed_and_rolled_back() {
    let nats = Nats::start().await;
    let controller = Controller::start(&nats).await;
    assert_eq!(controller.get("/api/documents").await.status, 404);
    let checked = controller
        .post("/documents/check", json!({ "text": "format = 1\n[[route]]\nname = 'a'\nupstrem = 'b'\n" }))
        .await
        .json();
    assert_eq!((&checked["ok"], &checked["problems"][0]["line"]), (&false.into(), &4.into()), "{checked}");
    let bad = controller.post("/documents/push", json!({ "text": "format = 2", "parent": 0 })).await;
    assert_eq!((bad.status.as_u16(), &bad.json()["code"]), (422, &"invalid".into()), "{bad:?}");
    let (one, two) = (document("one"), document("two"));
    assert_eq!(push(&controller, &one, 0).await["revision"], 1);
    let diff = controller.post("/documents/diff", json!({ "text": two })).await.json();
    assert!(diff["diff"].as_str().unwrap().contains("+respond = { body = \"two\" }"), "{diff}");
    let asked = json!({ "question": { "request": "GET http://h/x" }, "text": two });
    assert_eq!(controller.post("/documents/explain", asked).await.json()["outcome"]["route"], "all");
    push(&controller, &two, 1).await;
    let lost = controller.post("/documents/push", json!({ "text": document("three"), "parent": 1 })).await;
    let told = lost.json();
    assert_eq!((lost.status.as_u16(), &told["code"], &told["in_force"]), (409, &"lost".into(), &2.into()), "{told}");
    assert!(told["diff"].as_str().unwrap().contains("+respond = { body = \"two\" }"), "{told}");
    let back = controller.post("/documents/rollback", json!({ "revision": 1, "parent": 2 })).await.json();
    assert_eq!((&back["revision"], &back["rollback_of"]), (&3.into(), &1.into()), "{back}");
    assert_eq!(controller.api("/documents").await["text"], one);
    assert_eq!(controller.api("/documents/2").await["text"], two);
    let history = controller.api("/history").await;
    assert_eq!(history["revisions"].as_array().unwrap().len(), 3, "{history}");
    let page = controller.get("/documents").await.text().to_owned();
    assert!(page.contains("back to revision 1") && page.contains("made from revision 3"), "{page}");
}
