//! What happened on gateways, as the fleet hears of it.

use serde_json::{Value, json};

use crate::controller::{member, push};
use crate::kit::controller::Controller;
use crate::kit::nats::Nats;
use crate::kit::routes::answering;

async fn events(controller: &Controller, event: &str) -> Vec<Value> {
    let found = controller.api(&format!("/events?service=gateway&event={event}")).await;
    found["found"].as_array().unwrap().iter().map(|event| event["body"].clone()).collect()
}

#[tokio::test]
async fn what_happens_on_a_gateway_is_kept_for_whoever_asks() {
    let mut nats = Nats::start().await;
    let controller = Controller::start(&nats).await;
    push(&controller, &format!("format = 1\n{}", answering("one")), 0).await;
    let mut gateway = member(&nats, "n1").await;
    let serving = eventually!(events(&controller, "gateway.serving").await.pop());
    assert_eq!((&serving["node"], &serving["level"]), (&json!("n1"), &json!("info")));
    let applied = eventually!(events(&controller, "config.applied").await.pop());
    assert!(applied["added"].as_str().unwrap().contains("route all"), "{applied}");

    // What happens while the bus is away is told when it is there again, once.
    nats.kill();
    eventually!(gateway.health("/ready").await.text().contains("\"bus\":\"down\""));
    let reply = crate::shared::revoke(&gateway, "POST", "/revocations", Some(json!({ "jti": "a" }))).await;
    assert_eq!(reply, 201);
    nats.begin().await;
    let revoked = eventually!(events(&controller, "revocation.added").await.pop());
    assert_eq!(revoked["node"], "n1");
    gateway.stop().await;
    eventually!(!events(&controller, "gateway.gone").await.is_empty());
    assert_eq!(events(&controller, "revocation.added").await.len(), 1);
}

#[test]
fn the_documentation_lists_every_event_and_no_other() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut open = vec![root.join("src")];
    let mut told = std::collections::BTreeSet::new();
    while let Some(next) = open.pop() {
        if next.ends_with("src/backend") || next.ends_with("src/controller") {
            continue;
        }
        if next.is_dir() {
            open.extend(std::fs::read_dir(next).unwrap().map(|entry| entry.unwrap().path()));
            continue;
        }
        let text = std::fs::read_to_string(next).unwrap();
        let text = text.split("#[cfg(test)]").next().unwrap();
        told.extend(text.split("event = \"").skip(1).map(|rest| rest.split('"').next().unwrap().to_owned()));
    }
    let page = std::fs::read_to_string(root.join("docs/logging.md")).unwrap();
    let rows = page.split("## Events").nth(1).unwrap().lines().filter(|line| line.starts_with("| `"));
    let listed =
        rows.flat_map(|row| row.split('|').nth(1).unwrap().split(", ").map(|name| name.trim().trim_matches('`')));
    let listed: std::collections::BTreeSet<String> = listed.map(str::to_owned).collect();
    assert_eq!(told, listed);
}
