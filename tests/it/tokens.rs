//! Tokens: keys from a real server, every kind of signature, every kind of forgery.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use http::Request;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

use crate::kit::tokens::{ISSUER, KeyServer, Signer, now};
use crate::kit::{Client, Gateway, Origin, Reply, empty, routes};

/// A gateway whose one route wants a token of the issuer `accounts`.
pub(crate) async fn guarded(issuer: &str, origin: &Origin, auth: &str, route: &str) -> Gateway {
    let auth = if auth.is_empty() { "{ any = [{ jwt = \"accounts\" }] }" } else { auth };
    let document = routes::with(origin.address(), "", &format!("auth = {auth}\n{route}"));
    Gateway::start(&format!("{issuer}{document}")).await
}

pub(crate) async fn ask(gateway: &Gateway, token: &str) -> Reply {
    ask_for(gateway, "http://app.test/", token).await
}

pub(crate) async fn ask_for(gateway: &Gateway, url: &str, token: &str) -> Reply {
    let request = Request::get(url).header("authorization", format!("Bearer {token}")).body(empty()).unwrap();
    gateway.h1().await.fetch(request).await
}

#[tokio::test]
async fn tokens_of_every_kind_of_key_pass() {
    let signers: Vec<Signer> = [
        Algorithm::ES256,
        Algorithm::ES384,
        Algorithm::EdDSA,
        Algorithm::RS256,
        Algorithm::RS384,
        Algorithm::PS256,
        Algorithm::PS384,
    ]
    .into_iter()
    .enumerate()
    .map(|(index, algorithm)| Signer::new(&format!("k{index}"), algorithm))
    .collect();
    let server = KeyServer::start(&signers.iter().collect::<Vec<_>>());
    let origin = Origin::text("in");
    let auth =
        "{ any = [{ jwt = \"accounts\" }], pass = { x-user-id = \"{claim.sub}\", x-scope = \"{claim.scope}\" } }";
    let gateway = guarded(&server.block(""), &origin, auth, "").await;
    for signer in &signers {
        let request = Request::get("http://app.test/")
            .header("authorization", format!("bearer {}", signer.token(json!({ "sub": signer.kid }))))
            .header("x-user-id", "root")
            .header("x-scope", "all")
            .body(empty())
            .unwrap();
        let reply = gateway.h1().await.fetch(request).await;
        assert_eq!((reply.status.as_u16(), reply.text()), (200, "in"), "{:?}: {}", signer.algorithm, gateway.log());
        let seen = origin.last();
        assert_eq!((seen.header("x-user-id"), seen.header("x-scope")), (signer.kid.clone(), String::new()));
        gateway.access_line(|line| line["subject"] == signer.kid.as_str()).await;
    }
    let nobody = gateway.get("http://app.test/").await;
    nobody.is_rejected(401, "auth_required");
    assert_eq!(nobody.header("www-authenticate"), "Bearer realm=\"api\"");
    let bad = ask(&gateway, "nonsense").await;
    bad.is_rejected(401, "auth_invalid");
    assert_eq!(bad.header("www-authenticate"), "Bearer realm=\"api\", error=\"invalid_token\"");
    let line = gateway.access_line(|line| line["code"] == "auth_invalid").await;
    assert!(line["cause"].as_str().unwrap().contains("three parts"), "{line}");
    assert!(!gateway.log().contains("nonsense") && !line.to_string().contains("nonsense"));
}

#[tokio::test]
async fn tokens_stand_in_cookies_and_queries_that_nobody_else_sees() {
    let signer = Signer::new("k1", Algorithm::EdDSA);
    let server = KeyServer::start(&[&signer]);
    let origin = Origin::text("in");
    let auth = "{ any = [{ jwt = \"accounts\", token = [{ cookie = \"session\" }, { query = \"tok\" }, { header = \"x-token\" }] }] }";
    let gateway = guarded(&server.block(""), &origin, auth, "").await;
    let token = signer.token(json!({}));

    let request = Request::get("http://app.test/a?b=1")
        .header("cookie", format!("theme=dark; session={token}; lang=de"))
        .body(empty())
        .unwrap();
    assert_eq!(gateway.h1().await.fetch(request).await.status, 200);
    assert_eq!(origin.last().header("cookie"), "theme=dark; lang=de");

    assert_eq!(gateway.get(&format!("http://app.test/a?b=1&t%6Fk={token}&c=2")).await.status, 200);
    assert_eq!(origin.last().target(), "/a?b=1&c=2");

    let request = Request::get("http://app.test/").header("x-token", &token).body(empty()).unwrap();
    assert_eq!(gateway.h1().await.fetch(request).await.status, 200);
    let reply = ask(&gateway, &token).await;
    reply.is_rejected(401, "auth_required");
    let log = gateway.access().iter().map(Value::to_string).collect::<String>();
    assert!(!log.contains(&token), "a token is in the access log");
}

#[tokio::test]
async fn what_is_required_of_claims_decides() {
    let signer = Signer::new("k1", Algorithm::ES256);
    let server = KeyServer::start(&[&signer]);
    let origin = Origin::text("in");
    let auth = "{ any = [{ jwt = \"accounts\" }], require = [{ claim = \"scope\", contains = \"read\" }, \
                { claim = \"org.plan\", one_of = [\"pro\", \"team\"] }, { claim = \"email\" }] }";
    let gateway = guarded(&server.block(""), &origin, auth, "").await;
    let full = json!({ "scope": "write read", "org": { "plan": "pro" }, "email": "a@b.test" });
    for (change, expect) in [
        (json!({}), 200),
        (json!({ "scope": ["read"] }), 200),
        (json!({ "scope": "readers" }), 403),
        (json!({ "scope": null }), 403),
        (json!({ "org": { "plan": "free" } }), 403),
        (json!({ "org": "pro" }), 403),
        (json!({ "email": null }), 403),
    ] {
        let mut claims = full.clone();
        claims.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        let reply = ask(&gateway, &signer.token(claims)).await;
        assert_eq!(reply.status.as_u16(), expect, "{change}: {reply:?}");
    }
    let reply = ask(&gateway, &signer.token(json!({}))).await;
    reply.is_rejected(403, "auth_forbidden");
    assert_eq!(reply.header("www-authenticate"), "Bearer realm=\"api\", error=\"insufficient_scope\", scope=\"read\"");
}

#[tokio::test]
async fn a_rotation_under_load_refuses_no_valid_token() {
    let (old, new) = (Signer::new("old", Algorithm::ES256), Signer::new("new", Algorithm::ES256));
    let server = KeyServer::start(&[&old]);
    let origin = Origin::text("in");
    let gateway = guarded(&server.block("cooldown = \"500ms\""), &origin, "", "").await;
    let (asked, stop) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let signed = Arc::new(std::sync::Mutex::new(old.token(json!({}))));
    let mut clients = Vec::new();
    for _ in 0..8 {
        let (asked, stop, signed, address) = (asked.clone(), stop.clone(), signed.clone(), gateway.http());
        clients.push(tokio::spawn(async move {
            let mut client = Client::h1(address).await;
            while !stop.load(Ordering::Relaxed) {
                let token = signed.lock().unwrap().clone();
                let request =
                    Request::get("http://app.test/").header("authorization", format!("Bearer {token}")).body(empty());
                let reply = client.fetch(request.unwrap()).await;
                assert_eq!(reply.status, 200, "{reply:?}");
                asked.fetch_add(1, Ordering::Relaxed);
            }
        }));
    }
    eventually!(asked.load(Ordering::Relaxed) > 200);
    let before = server.fetches();
    server.publish(&[&old, &new]);
    *signed.lock().unwrap() = new.token(json!({}));
    let so_far = asked.load(Ordering::Relaxed);
    eventually!(asked.load(Ordering::Relaxed) > so_far + 200);
    assert_eq!(server.fetches(), before + 1, "one fetch for all who waited");
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        client.await.unwrap();
    }
    // Its key is gone: what was verified by it is not remembered as good.
    server.publish(&[&new]);
    assert_eq!(ask(&gateway, &old.token(json!({ "jti": "again" }))).await.status, 200, "not fetched again yet");
    ask(&gateway, &Signer::new("unknown", Algorithm::ES256).token(json!({}))).await.is_rejected(401, "auth_invalid");
    ask(&gateway, &old.token(json!({ "jti": "again" }))).await.is_rejected(401, "auth_invalid");
    assert_eq!(ask(&gateway, &new.token(json!({}))).await.status, 200);
}

#[tokio::test]
async fn keys_outlive_their_server_and_the_gateway() {
    let signer = Signer::new("k1", Algorithm::ES256);
    let mut server = KeyServer::start(&[&signer]);
    let origin = Origin::text("in");
    let mut gateway = guarded(&server.block("cooldown = \"50ms\"\nrefresh = \"100ms\""), &origin, "", "").await;
    assert_eq!(ask(&gateway, &signer.token(json!({}))).await.status, 200);
    server.origin.kill().await;
    eventually!(gateway.admin("/issuers").await.json()["issuers"]["accounts"]["last_error"].is_string());
    assert_eq!(ask(&gateway, &signer.token(json!({ "n": 2 }))).await.status, 200);
    gateway.stop().await;
    let gateway = gateway.successor(&[]).await.unwrap();
    assert_eq!(ask(&gateway, &signer.token(json!({ "n": 3 }))).await.status, 200, "{}", gateway.log());
    server.origin.revive();
    eventually!(gateway.admin("/issuers").await.json()["issuers"]["accounts"]["last_error"].is_null());
}

#[tokio::test]
async fn without_keys_nobody_passes_and_nobody_is_blamed() {
    let signer = Signer::new("k1", Algorithm::ES256);
    let mut server = KeyServer::start(&[&signer]);
    server.origin.kill().await;
    let origin = Origin::text("in");
    let gateway = guarded(&server.block("cooldown = \"50ms\""), &origin, "", "").await;
    let reply = ask(&gateway, &signer.token(json!({}))).await;
    reply.is_rejected(503, "auth_unavailable");
    assert!(!reply.header("retry-after").is_empty());
    assert_eq!(origin.count(), 0);
    server.origin.revive();
    eventually!(ask(&gateway, &signer.token(json!({}))).await.status == 200);
}

#[tokio::test]
async fn a_flood_of_unknown_keys_is_one_fetch_per_cooldown() {
    let signer = Signer::new("k1", Algorithm::ES256);
    let server = KeyServer::start(&[&signer]);
    let origin = Origin::text("in");
    let failures = "[auth_failures]\nrate = \"100000/s\"\nburst = 100000\n";
    let gateway = guarded(&server.block("cooldown = \"400ms\""), &origin, "", failures).await;
    let began = Instant::now();
    let flood: Vec<_> = (0..600)
        .map(|index| {
            let header = format!(r#"{{"alg":"ES256","kid":"unknown-{index}"}}"#);
            let token = signer.raw(&header, &json!({ "iss": ISSUER, "aud": "api", "exp": now() + 60 }).to_string());
            let address = gateway.http();
            tokio::spawn(async move {
                let request =
                    Request::get("http://app.test/").header("authorization", format!("Bearer {token}")).body(empty());
                let reply = Client::h1(address).await.fetch(request.unwrap()).await;
                // So many are looked for at a time; others are told to come again.
                assert!(["auth_invalid", "auth_unavailable"].contains(&&*reply.code()), "{reply:?}");
            })
        })
        .collect();
    // Meanwhile those with good tokens do not wait.
    for n in 0..20 {
        assert_eq!(ask(&gateway, &signer.token(json!({ "n": n }))).await.status, 200);
    }
    for one in flood {
        one.await.unwrap();
    }
    let most = began.elapsed().as_millis() / 400 + 2;
    assert!((server.fetches() as u128) <= most, "{} fetches in {:?}", server.fetches(), began.elapsed());
    assert_eq!(origin.count(), 20);
}

#[tokio::test]
async fn providers_say_where_their_keys_are() {
    let signer = Signer::new("k1", Algorithm::ES256);
    let server = KeyServer::start(&[&signer]);
    server.pose_as("https://somebody.else.test");
    let origin = Origin::text("in");
    let block =
        format!("[issuer.accounts]\ndiscovery = \"{}\"\naudience = \"api\"\ncooldown = \"50ms\"\n", server.url());
    let gateway = guarded(&block, &origin, "", "").await;
    let token = signer.token(json!({ "iss": server.url() }));
    ask(&gateway, &token).await.is_rejected(503, "auth_unavailable");
    server.pose_as("");
    eventually!(ask(&gateway, &token).await.status == 200);
    ask(&gateway, &signer.token(json!({}))).await.is_rejected(401, "auth_invalid");
}

#[tokio::test]
async fn shared_secrets_are_for_hmac_alone() {
    let origin = Origin::text("in");
    let secret = "thirty-two bytes that nobody knows";
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("secret");
    std::fs::write(&file, format!("{secret}\n")).unwrap();
    let block = format!(
        "[issuer.accounts]\nissuer = \"{ISSUER}\"\naudience = \"api\"\nsecret = \"${{file:{}}}\"\n",
        file.display()
    );
    let gateway = guarded(&block, &origin, "", "").await;
    let claims = json!({ "iss": ISSUER, "aud": "api", "sub": "u1", "exp": now() + 600 });
    let signed = |algorithm, secret: &str| {
        jsonwebtoken::encode(&Header::new(algorithm), &claims, &EncodingKey::from_secret(secret.as_bytes())).unwrap()
    };
    assert_eq!(ask(&gateway, &signed(Algorithm::HS256, secret)).await.status, 200, "{}", gateway.log());
    ask(&gateway, &signed(Algorithm::HS512, secret)).await.is_rejected(401, "auth_invalid");
    ask(&gateway, &signed(Algorithm::HS256, "another")).await.is_rejected(401, "auth_invalid");
    assert!(!gateway.log().contains(secret) && !gateway.config().await.to_string().contains(secret));
}

#[tokio::test]
async fn claims_choose_among_what_routes_have() {
    let signer = Signer::new("k1", Algorithm::ES256);
    let server = KeyServer::start(&[&signer]);
    let (one, other) = (Origin::text("one"), Origin::text("other"));
    let document = format!(
        "{}[upstream.one]\naddress = \"{}\"\n[upstream.other]\naddress = \"{}\"\n\
         [limit.each]\nrate = \"2/h\"\nburst = 2\nkey = [\"claim.sub\"]\n\
         [[route]]\nname = \"all\"\nauth = {{ any = [{{ jwt = \"accounts\" }}] }}\nlimits = \"each\"\n\
         request_headers = {{ set = {{ x-plan = \"plan {{claim.plan}}\" }} }}\n\
         split = [{{ upstream = \"one\", weight = 1 }}, {{ upstream = \"other\", weight = 1 }}]\nsplit_by = {{ fact = \"claim.sub\" }}\n",
        server.block(""),
        one.address(),
        other.address()
    );
    let gateway = Gateway::start(&document).await;
    let mut places = std::collections::BTreeSet::new();
    for index in 0..16 {
        let token = signer.token(json!({ "sub": format!("u{index}"), "plan": "pro" }));
        let first = ask(&gateway, &token).await;
        assert_eq!(first.status, 200, "{first:?}");
        let second = ask(&gateway, &token).await;
        assert_eq!(first.text(), second.text(), "one share for one subject");
        places.insert(first.text().to_owned());
        ask(&gateway, &token).await.is_rejected(429, "limit");
    }
    assert_eq!(places.len(), 2);
    assert_eq!(one.last().header("x-plan"), "plan pro");
}

#[tokio::test]
async fn waiting_for_keys_ends() {
    // A key server that takes the connection and says nothing.
    let silent =
        crate::kit::RawOrigin::start(|mut connection, _| async move { while connection.message().await.is_some() {} });
    let signer = Signer::new("k1", Algorithm::ES256);
    let origin = Origin::text("in");
    let block = format!(
        "[issuer.accounts]\nissuer = \"{ISSUER}\"\naudience = \"api\"\njwks = \"http://{}/jwks\"\n",
        silent.address()
    );
    let began = Instant::now();
    let gateway = guarded(&block, &origin, "", "").await;
    assert!(began.elapsed() < Duration::from_secs(12), "{:?}", began.elapsed());
    ask(&gateway, &signer.token(json!({}))).await.is_rejected(503, "auth_unavailable");
}
