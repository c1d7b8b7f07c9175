//! Which names get certificates by ACME, and how those are proven that no port can: names of routes, several in one
//! certificate, wildcards, DNS, names that clients ask for.

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::Response;

use crate::kit::acme::{Rig, document, is_signed, issuer, names, shown};
use crate::kit::bind::{Bind, KEY};
use crate::kit::pebble::Pebble;
use crate::kit::{Gateway, Origin, Settings, empty, routes};

const LONG: u64 = 7_776_000;

/// The usual settings, but for the listener's own certificate.
fn automatic(rig: &Rig, settings: &mut Settings) {
    rig.settings(settings);
    settings.at("listen", "https", "certificate", "acme");
}

#[tokio::test]
async fn every_host_of_the_routes_gets_one_unless_it_says_otherwise() {
    let (origin, mut rig) = (Origin::text("ok"), Rig::new(LONG).await);
    rig.pebble.start(0).await;
    for name in ["one.test", "two.test", "mine.test", "inside.test"] {
        rig.knows(name);
    }
    let document = routes::with(origin.address(), "", "match = { host = [\"one.test\", \"*.wild.test\"] }")
        + "[[route]]\nname = \"mine\"\nmatch = { host = \"mine.test\" }\nupstream = \"origin\"\n\
           [[route]]\nname = \"inside\"\nmatch = { host = \"inside.test\", listen = \"http\" }\nupstream = \"origin\"\n\
           [[route]]\nname = \"local\"\nmatch = { host = \"app.localhost\" }\nupstream = \"origin\"\n\
           [host.\"mine.test\"]\ncertificate = \"internal\"\n";
    let gateway = Gateway::with(&document, |settings| automatic(&rig, settings)).await;
    eventually!(is_signed(&gateway, "one.test").await);
    for name in ["mine.test", "inside.test", "app.localhost", "a.wild.test", "stranger.test"] {
        let issuer = issuer(&gateway, name).await;
        assert!(issuer.contains("Tollgate local CA"), "{name}: {issuer}");
    }
    // A route that comes brings its certificate with it.
    let more = document + "[[route]]\nname = \"two\"\nmatch = { host = \"two.test\" }\nupstream = \"origin\"\n";
    gateway.change(&more).await;
    eventually!(is_signed(&gateway, "two.test").await);
    let listed = gateway.admin("/certs").await.json()["certificates"].to_string();
    assert!(listed.contains("one.test") && listed.contains("two.test"), "{listed}");
    assert!(gateway.log().contains("the CA proves wildcards by DNS only"));
}

#[tokio::test]
async fn several_names_stand_in_one_certificate() {
    let (origin, mut rig) = (Origin::text("ok"), Rig::new(LONG).await);
    rig.pebble.start(0).await;
    for name in ["one.test", "www.one.test", "more.one.test"] {
        rig.knows(name);
    }
    let document =
        routes::all_to(origin.address()) + "[host.\"one.test\"]\nalso = [\"www.one.test\"]\ncertificate = \"acme\"\n";
    let gateway = Gateway::with(&document, |settings| rig.settings(settings)).await;
    eventually!(is_signed(&gateway, "www.one.test").await);
    let first = shown(&gateway, "one.test").await;
    assert_eq!(shown(&gateway, "www.one.test").await, first);
    // One more name: the old one is shown until there is one with all three.
    let more = document.replace("also = [", "also = [\"more.one.test\", ");
    rig.pebble.stop();
    gateway.change(&more).await;
    assert_eq!(shown(&gateway, "www.one.test").await, first, "what is good is not taken away");
    assert!(issuer(&gateway, "more.one.test").await.contains("authority of a test"), "the listener's, as before");
    rig.pebble.start(0).await;
    eventually!(std::time::Duration::from_secs(60), is_signed(&gateway, "more.one.test").await);
    assert_ne!(shown(&gateway, "one.test").await, first);
    assert!(is_signed(&gateway, "www.one.test").await);
}

/// The CA asks BIND, and the gateway writes to it; the server refuses who has another key.
#[tokio::test]
async fn wildcards_are_proven_by_signed_updates() {
    let (origin, mut rig) = (Origin::text("ok"), Rig::new(LONG).await);
    let bind = Bind::start("dyn.test").await;
    rig.pebble = Pebble::new(rig.http.address(), rig.https.address(), bind.address(), LONG);
    rig.pebble.start(0).await;
    let document = routes::all_to(origin.address())
        + "[host.\"dyn.test\"]\nalso = [\"*.dyn.test\", \"a.b.dyn.test\"]\ncertificate = \"acme\"\n";
    let by_updates = |settings: &mut Settings, secret: &str| {
        rig.settings(settings);
        settings.set("ca.pebble.dns.server", bind.address());
        settings.set("ca.pebble.dns.key.name", KEY.0);
        settings.set("ca.pebble.dns.key.secret", secret);
    };
    let wrong = Gateway::with(&document, |settings| by_updates(settings, "d3Jvbmc=")).await;
    eventually!(wrong.admin("/certs").await.text().contains("refused the update"));
    assert!(!wrong.log().contains("d3Jvbmc"));
    drop(wrong);
    let gateway = Gateway::with(&document, |settings| by_updates(settings, KEY.1)).await;
    eventually!(is_signed(&gateway, "dyn.test").await);
    let certificate = shown(&gateway, "x.dyn.test").await;
    assert_eq!(shown(&gateway, "dyn.test").await, certificate);
    assert_eq!(shown(&gateway, "a.b.dyn.test").await, certificate);
    assert_eq!(bind.texts("_acme-challenge.dyn.test"), Vec::<String>::new(), "records are taken back");
    // What a gateway that was killed has written down, the next one takes back.
    let mut gateway = gateway;
    gateway.signal(rustix::process::Signal::KILL);
    gateway.exited(crate::kit::PATIENCE).await;
    bind.add("_acme-challenge.left.dyn.test", "bGVmdA");
    let records = gateway.directory().join("state/acme/.records");
    let left = serde_json::json!({ "ca": "pebble", "name": "_acme-challenge.left.dyn.test", "value": "bGVmdA" });
    std::fs::write(records.join("bGVmdA"), left.to_string()).unwrap();
    let gateway = gateway.successor(&[]).await.unwrap();
    eventually!(bind.texts("_acme-challenge.left.dyn.test").is_empty());
    eventually!(!records.join("bGVmdA").exists());
    assert!(!gateway.log().contains(KEY.1));
}

#[tokio::test]
async fn names_are_proven_by_a_program_of_the_operator() {
    let (origin, mut rig) = (Origin::text("ok"), Rig::new(LONG).await);
    let bind = Bind::start("dyn.test").await;
    rig.pebble = Pebble::new(rig.http.address(), rig.https.address(), bind.address(), LONG);
    rig.pebble.start(0).await;
    let directory = tempfile::tempdir().unwrap();
    let (hook, calls) = (directory.path().join("hook"), directory.path().join("calls"));
    let (ip, port) = bind.address().split_once(':').map(|(ip, port)| (ip.to_owned(), port.to_owned())).unwrap();
    let script = format!(
        "#!/bin/sh\necho \"$2 $3\" >> {calls}\ncase $2 in set) verb='update add' ttl=1;; clear) verb='update delete' ttl=;; esac\n\
         printf 'server {ip} {port}\\n%s %s %s TXT \"%s\"\\nsend\\n' \"$verb\" \"$3\" \"$ttl\" \"$4\" | nsupdate -y hmac-sha256:{}:{}\n",
        KEY.0,
        KEY.1,
        calls = calls.display(),
    );
    std::fs::write(&hook, script).unwrap();
    std::fs::set_permissions(&hook, std::fs::Permissions::from_mode(0o755)).unwrap();
    let failing = directory.path().join("failing");
    std::fs::write(&failing, "#!/bin/sh\necho 'the provider says no' >&2\nexit 3\n").unwrap();
    std::fs::set_permissions(&failing, std::fs::Permissions::from_mode(0o755)).unwrap();
    let document = document(&origin, &names(&["*.dyn.test"]));
    let with = |settings: &mut Settings, program: &std::path::Path| {
        rig.settings(settings);
        let command = toml::Value::Array(vec![program.display().to_string().into(), "zone-1".into()]);
        settings.set("ca.pebble.dns.command", command);
    };
    let gateway = Gateway::with(&document, |settings| with(settings, &failing)).await;
    eventually!(gateway.admin("/certs").await.text().contains("the provider says no"));
    drop(gateway);
    let gateway = Gateway::with(&document, |settings| with(settings, &hook)).await;
    eventually!(is_signed(&gateway, "dyn.test").await || shown_is_wild(&gateway).await);
    eventually!(std::fs::read_to_string(&calls).unwrap().contains("clear _acme-challenge.dyn.test"));
    let calls = std::fs::read_to_string(&calls).unwrap();
    assert!(calls.starts_with("set _acme-challenge.dyn.test\n"), "{calls}");
}

async fn shown_is_wild(gateway: &Gateway) -> bool {
    issuer(gateway, "x.dyn.test").await.contains("Pebble")
}

#[tokio::test]
async fn names_that_clients_ask_for_get_one_if_they_may() {
    let (origin, mut rig) = (Origin::text("ok"), Rig::new(LONG).await);
    rig.pebble.start(0).await;
    for name in ["a.shop.test", "b.shop.test", "asked.test", "refused.test", "late.shop.test"] {
        rig.knows(name);
    }
    let questions = Arc::new(AtomicUsize::new(0));
    let counted = questions.clone();
    let service = Origin::replying(move |seen| {
        counted.fetch_add(1, Ordering::Relaxed);
        let yes = seen.target() == "/allowed?domain=asked.test";
        Response::builder().status(if yes { 200 } else { 404 }).body(empty()).unwrap()
    });
    let mut gateway = Gateway::with(&routes::all_to(origin.address()), |settings| {
        rig.settings(settings);
        settings.at("listen", "https", "certificate", "internal");
        settings.set("limits.handshake_timeout", "20s");
        settings.set("on_demand.allow", "*.shop.test");
        settings.set("on_demand.ask", format!("http://{}/allowed", service.address()));
        settings.set("on_demand.names", 3);
    })
    .await;
    // The handshake waits for it.
    let first = tokio::join!(is_signed(&gateway, "a.shop.test"), is_signed(&gateway, "a.shop.test"));
    assert_eq!(first, (true, true), "those who ask together wait for the same one");
    let one = shown(&gateway, "a.shop.test").await;
    assert!(is_signed(&gateway, "asked.test").await);
    assert_eq!(questions.load(Ordering::Relaxed), 1);
    for _ in 0..3 {
        assert!(!is_signed(&gateway, "refused.test").await);
    }
    assert_eq!(questions.load(Ordering::Relaxed), 2, "a refusal is remembered");
    assert!(!is_signed(&gateway, "deep.a.shop.test").await);
    assert!(is_signed(&gateway, "b.shop.test").await);
    assert!(!is_signed(&gateway, "late.shop.test").await, "there are three names");
    let mut client = crate::kit::Client::tls(
        gateway.address("https"),
        "app.test",
        crate::kit::tls::trusting(&std::fs::read_to_string(gateway.directory().join("state/local-ca.pem")).unwrap()),
    )
    .await
    .unwrap();
    client.get("https://a.shop.test/").await.is_rejected(421, "misdirected");
    // Kept: after a restart it is there without the CA, and without whoever is asked.
    rig.pebble.stop();
    drop(service);
    gateway.stop().await;
    let gateway = gateway.successor(&[]).await.unwrap();
    assert_eq!(shown(&gateway, "a.shop.test").await, one);
    assert!(is_signed(&gateway, "asked.test").await);
}
