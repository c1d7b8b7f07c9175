//! Certificates by ACME, from a real CA that looks for itself.

use std::path::Path;

use crate::kit::acme::{Rig, document, is_signed, issuer, names, shown};
use crate::kit::dns::Answer;
use crate::kit::pebble::Pebble;
use crate::kit::{Gateway, Origin, Port, get};

#[tokio::test]
async fn a_name_gets_a_certificate_and_keeps_it() {
    let (origin, mut rig) = (Origin::text("ok"), Rig::new(7_776_000).await);
    rig.pebble.start(0).await;
    rig.knows("one.test");
    let document = document(&origin, &names(&["one.test"]));
    let mut gateway = Gateway::with(&document, |settings| rig.settings(settings)).await;
    eventually!(is_signed(&gateway, "one.test").await);
    assert!(!is_signed(&gateway, "app.test").await, "others show the listener's");
    let first = shown(&gateway, "one.test").await;
    // The challenge is over: its path is the routes' again.
    let reply = get(gateway.http(), "http://one.test/.well-known/acme-challenge/x").await;
    assert_eq!(reply.text(), "ok");
    // After a restart the certificate is there at once, also without its CA.
    rig.pebble.stop();
    gateway.stop().await;
    let gateway = gateway.successor(&[]).await.unwrap();
    assert_eq!(shown(&gateway, "one.test").await, first);
    let key = gateway.directory().join("state/acme/pebble/one.test.pem");
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(key).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    let secret = std::fs::read_to_string(gateway.directory().join("state/acme/pebble/.account.json")).unwrap();
    let key = serde_json::from_str::<serde_json::Value>(&secret).unwrap()["credentials"]["key_pkcs8"].clone();
    assert!(key.as_str().is_some_and(|key| key.len() > 40 && !gateway.log().contains(key)), "{secret}");
}

/// The CA cannot reach one of the ports: the other way is tried.
#[tokio::test]
async fn both_kinds_of_challenge_are_answered() {
    for closed in ["http", "https"] {
        let (origin, mut rig) = (Origin::text("ok"), Rig::new(7_776_000).await);
        let elsewhere = Port::free();
        let (http, https) = match closed {
            "http" => (elsewhere.address(), rig.https.address()),
            _ => (rig.http.address(), elsewhere.address()),
        };
        rig.pebble = Pebble::new(http, https, rig.dns.address(), 7_776_000);
        rig.pebble.start(0).await;
        rig.knows("one.test");
        // Requests in the clear are sent to https, all but the CA's.
        let document = document(&origin, &names(&["one.test"])) + "http = \"redirect\"\n";
        let gateway = Gateway::with(&document, |settings| rig.settings(settings)).await;
        eventually!(is_signed(&gateway, "one.test").await);
    }
}

#[tokio::test]
async fn certificates_are_renewed_before_they_end() {
    let (origin, mut rig) = (Origin::text("ok"), Rig::new(6).await);
    rig.pebble.start(0).await;
    rig.knows("one.test");
    let document = document(&origin, &names(&["one.test"]));
    let gateway = Gateway::with(&document, |settings| rig.settings(settings)).await;
    eventually!(is_signed(&gateway, "one.test").await);
    let first = shown(&gateway, "one.test").await;
    eventually!(shown(&gateway, "one.test").await != first);
    assert!(is_signed(&gateway, "one.test").await);
}

#[tokio::test]
async fn a_ca_that_is_away_or_moody_delays_and_breaks_nothing() {
    let (origin, mut rig) = (Origin::text("ok"), Rig::new(7_776_000).await);
    rig.knows("one.test");
    let document = document(&origin, &names(&["one.test"]));
    let gateway = Gateway::with(&document, |settings| rig.settings(settings)).await;
    eventually!(gateway.log().contains("no certificate"));
    // Moved to the CA by an edit: what was shown before is shown until there is something else.
    gateway.change(&document.replace("\"acme\"", "\"internal\"")).await;
    let before = issuer(&gateway, "one.test").await;
    assert!(before.contains("Tollgate local CA"), "{before}");
    gateway.change(&document).await;
    assert_eq!(issuer(&gateway, "one.test").await, before);
    let mut client = gateway.tls("app.test", &["h2"]).await;
    assert_eq!(client.get("https://app.test/").await.status, 200, "what there is is served");
    // Of its nonces it refuses a part (three times as many as by default). The waits after failures have grown by now.
    rig.pebble.start(15).await;
    eventually!(std::time::Duration::from_secs(120), is_signed(&gateway, "one.test").await);
}

#[tokio::test]
async fn a_name_that_fails_holds_up_no_other() {
    let (origin, mut rig) = (Origin::text("ok"), Rig::new(7_776_000).await);
    rig.pebble.start(0).await;
    let mut all: Vec<String> = (0..50).map(|number| format!("h{number}.test")).collect();
    all.iter().for_each(|name| rig.knows(name));
    rig.dns.say("broken.test", Answer::NoSuchName);
    all.insert(0, "broken.test".to_owned());
    let gateway = Gateway::with(&document(&origin, &all), |settings| rig.settings(settings)).await;
    for name in all.iter().filter(|name| *name != "broken.test") {
        eventually!(std::time::Duration::from_secs(60), is_signed(&gateway, name).await);
    }
    assert!(!is_signed(&gateway, "broken.test").await);
    let kept = Path::new("state/acme/pebble/broken.test.json");
    let record = std::fs::read_to_string(gateway.directory().join(kept)).unwrap();
    assert!(!record.contains("\"failures\":0"), "its failures are remembered: {record}");
}

#[tokio::test]
async fn a_gateway_that_is_killed_in_the_middle_begins_again() {
    let (origin, mut rig) = (Origin::text("ok"), Rig::new(7_776_000).await);
    rig.pebble.start(0).await;
    let all: Vec<String> = (0..12).map(|number| format!("h{number}.test")).collect();
    all.iter().for_each(|name| rig.knows(name));
    let document = document(&origin, &all);
    let mut gateway = Gateway::with(&document, |settings| rig.settings(settings)).await;
    for _ in 0..3 {
        eventually!(gateway.directory().join("state/acme/pebble/.account.json").exists());
        gateway.signal(rustix::process::Signal::KILL);
        gateway.exited(crate::kit::PATIENCE).await;
        gateway = gateway.successor(&[]).await.unwrap();
    }
    for name in &all {
        eventually!(is_signed(&gateway, name).await);
    }
}
