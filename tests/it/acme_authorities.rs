//! What CAs ask and say: bound accounts, another CA when one fails, too many requests, when to renew.
//!
//! Pebble says none of the last two, so a second gateway stands before it and does.

use std::time::Duration;

use crate::kit::acme::{Rig, document, is_signed, names, shown};
use crate::kit::pebble::Pebble;
use crate::kit::{Gateway, Origin, Port, Settings};

const LONG: u64 = 7_776_000;
const KEY: (&str, &str) = ("kid-1", "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W");

#[tokio::test]
async fn accounts_are_bound_to_those_the_ca_knows() {
    let (origin, mut rig) = (Origin::text("ok"), Rig::new(LONG).await);
    rig.pebble = Pebble::with(rig.http.address(), rig.https.address(), rig.dns.address(), LONG, &[KEY]);
    rig.pebble.start(0).await;
    rig.knows("one.test");
    let document = document(&origin, &names(&["one.test"]));
    let with = |settings: &mut Settings, key: &str| {
        rig.settings(settings);
        settings.set("ca.pebble.external_account.id", KEY.0);
        settings.set("ca.pebble.external_account.key", key);
    };
    let wrong = Gateway::with(&document, |settings| with(settings, "d3Jvbmcga2V5")).await;
    eventually!(wrong.admin("/certs").await.json()["certificates"].to_string().contains("last_error"));
    assert!(!is_signed(&wrong, "one.test").await);
    drop(wrong);
    let gateway = Gateway::with(&document, |settings| with(settings, KEY.1)).await;
    eventually!(is_signed(&gateway, "one.test").await);
    assert!(!gateway.log().contains(KEY.1));
}

#[tokio::test]
async fn another_ca_is_asked_when_the_first_one_fails() {
    let (origin, mut rig) = (Origin::text("ok"), Rig::new(LONG).await);
    rig.pebble.start(0).await;
    rig.knows("one.test");
    let nobody = Port::free();
    let document = document(&origin, &names(&["one.test"]));
    let gateway = Gateway::with(&document, |settings| {
        rig.settings(settings);
        settings.set("ca.first.directory", format!("https://{}/dir", nobody.address()));
        settings.set("ca.first.retry", "100ms");
        settings.set("ca.first.fallback", "pebble");
    })
    .await;
    eventually!(is_signed(&gateway, "one.test").await);
    assert!(gateway.log().contains("\"ca\":\"first\""), "the first one was asked first");
    let kept = gateway.directory().join("state/acme/first/one.test.pem");
    assert!(kept.exists(), "it is kept under the CA that was named");
}

/// A gateway before the CA that answers some of its paths itself.
async fn front(rig: &Rig, port: &Port, more: &str) -> Gateway {
    let document = format!(
        "[upstream.ca]\naddress = \"{}\"\ntls = {{ ca = \"${{file:{}}}\", server_name = \"localhost\" }}\n\
         [[route]]\nname = \"all\"\nupstream = \"ca\"\n{more}",
        rig.pebble.address(),
        rig.pebble.root().display(),
    );
    Gateway::with(&document, |settings| {
        settings.at("listen", "https", "address", port.address().to_string());
    })
    .await
}

/// The settings of a gateway that asks the one before the CA.
fn behind(rig: &Rig, front: &Gateway, settings: &mut Settings) {
    rig.settings(settings);
    let root = front.directory().join("root.pem");
    std::fs::write(&root, &front.authority.pem).unwrap();
    settings.set("ca.pebble.root", root.display().to_string());
    settings.set("ca.pebble.directory", format!("https://localhost:{}/dir", front.address("https").port()));
}

const TOO_MANY: &str = r#"
[[route]]
name = "too-many"
match = { path = "/order-plz", method = "POST" }
respond = { status = 429, content_type = "application/problem+json", body = '{{"type":"urn:ietf:params:acme:error:rateLimited","detail":"too many","status":429}}' }
"#;

#[tokio::test]
async fn a_ca_that_is_asked_too_often_is_left_alone() {
    let (origin, mut rig) = (Origin::text("ok"), Rig::new(LONG).await);
    rig.pebble.start(0).await;
    rig.knows("one.test");
    let port = Port::free();
    let front = front(&rig, &port, TOO_MANY).await;
    let document = document(&origin, &names(&["one.test"]));
    let mut gateway = Gateway::with(&document, |settings| behind(&rig, &front, settings)).await;
    let next = async |gateway: &Gateway| {
        let all = gateway.admin("/certs").await.json()["certificates"].clone();
        let one = all.as_array().unwrap().iter().find(|one| one["name"] == "one.test").unwrap().clone();
        one["last_error"].as_str().map(|error| (error.to_owned(), one["next_order"].as_str().unwrap().to_owned()))
    };
    let (error, at) = eventually!(next(&gateway).await);
    assert!(error.contains("too many"), "{error}");
    let soon = std::time::SystemTime::now() + Duration::from_secs(3_000);
    assert!(at > rfc3339(soon), "an hour: {at}");
    // Not even a restart makes it ask again.
    gateway.stop().await;
    let gateway = gateway.successor(&[]).await.unwrap();
    let all = gateway.admin("/certs").await.text().to_owned();
    assert!(all.contains(&at), "{at} is not in {all}");
}

/// To the second: enough to compare.
fn rfc3339(at: std::time::SystemTime) -> String {
    let at = i64::try_from(at.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()).unwrap();
    let at = x509_parser::time::ASN1Time::from_timestamp(at).unwrap().to_datetime();
    format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}Z",
        at.year(),
        u8::from(at.month()),
        at.day(),
        at.hour(),
        at.minute(),
        at.second()
    )
}

/// RFC 9773. Of its own, the gateway would wait for more than two minutes.
#[tokio::test]
async fn the_ca_says_when_to_renew() {
    let (origin, mut rig) = (Origin::text("ok"), Rig::new(200).await);
    rig.pebble.start(0).await;
    rig.knows("one.test");
    let port = Port::free();
    let base = format!("https://localhost:{}", port.address().port());
    let more = format!(
        r#"
[[route]]
name = "directory"
match = {{ path = "/dir" }}
respond = {{ content_type = "application/json", body = '{{{{"newNonce":"{base}/nonce-plz","newAccount":"{base}/sign-me-up","newOrder":"{base}/order-plz","revokeCert":"{base}/revoke-cert","keyChange":"{base}/rollover-account-key","renewalInfo":"{base}/advice"}}}}' }}
[[route]]
name = "advice"
match = {{ path = "/advice/*" }}
response_headers = {{ set = {{ retry-after = "21600" }} }}
respond = {{ content_type = "application/json", body = '{{{{"suggestedWindow":{{{{"start":"2020-01-01T00:00:00Z","end":"2020-01-02T00:00:00Z"}}}}}}}}' }}
"#
    );
    let front = front(&rig, &port, &more).await;
    let document = document(&origin, &names(&["one.test"]));
    let gateway = Gateway::with(&document, |settings| behind(&rig, &front, settings)).await;
    eventually!(is_signed(&gateway, "one.test").await);
    let first = shown(&gateway, "one.test").await;
    eventually!(shown(&gateway, "one.test").await != first);
    assert!(is_signed(&gateway, "one.test").await);
}
