//! Tokens that end, or are revoked: what was opened with them, here and after a restart.

use http::Request;
use jsonwebtoken::Algorithm;
use serde_json::{Value, json};

use crate::kit::tokens::{KeyServer, Signer, now};
use crate::kit::websocket::{WebSocket, echo};
use crate::kit::{Client, Gateway, Origin, Reply, empty, full, routes};
use crate::tokens::ask_for;

#[tokio::test]
async fn open_streams_end_with_what_opened_them() {
    let signer = Signer::new("k1", Algorithm::ES256);
    let server = KeyServer::start(&[&signer]);
    let origin = echo();
    for (word, closes) in [("close", true), ("keep", false)] {
        let document = routes::with(
            origin.address(),
            "",
            &format!(
                "auth = {{ any = [{{ jwt = \"accounts\", token = {{ query = \"token\" }} }}] }}\nstream = {{ on_expiry = \"{word}\" }}"
            ),
        );
        let gateway = Gateway::start(&format!("{}{document}", server.block("leeway = \"0s\""))).await;
        let token = signer.token(json!({ "exp": now() + 3 }));
        let url = format!("ws://app.test/?token={token}");
        let mut socket = WebSocket::connect(gateway.http(), &url).await;
        socket.echoes("hello").await;
        eventually!(ask_for(&gateway, &format!("http://app.test/?token={token}"), "").await.status == 401);
        if closes {
            assert_eq!(socket.next().await, None);
        } else {
            socket.echoes("still here").await;
        }
    }
}

async fn revoke(gateway: &Gateway, revocation: Value) -> Reply {
    let request = Request::post("http://127.0.0.1/revocations")
        .header("content-type", "application/json")
        .body(full(revocation.to_string()))
        .unwrap();
    Client::h1(gateway.address("admin")).await.fetch(request).await
}

#[tokio::test]
async fn revoked_tokens_are_refused_at_once_and_after_a_restart() {
    let signer = Signer::new("k1", Algorithm::ES256);
    let server = KeyServer::start(&[&signer]);
    let origin = echo();
    let plain = Origin::text("in");
    let document = format!(
        "{}[upstream.plain]\naddress = \"{}\"\n[[route]]\nname = \"plain\"\nmatch = {{ path = \"/plain\" }}\nupstream = \"plain\"\nauth = {{ any = [{{ jwt = \"accounts\" }}] }}\n{}",
        server.block(""),
        plain.address(),
        routes::with(origin.address(), "", "auth = { any = [{ jwt = \"accounts\", token = { query = \"token\" } }] }"),
    );
    let mut gateway = Gateway::start(&document).await;
    let stolen = signer.token(json!({ "jti": "t1" }));
    let kept = signer.token(json!({ "jti": "t2" }));
    let url = |token: &str| format!("ws://app.test/?token={token}");
    let mut thief = WebSocket::connect(gateway.http(), &url(&stolen)).await;
    let mut owner = WebSocket::connect(gateway.http(), &url(&kept)).await;
    assert_eq!(ask_for(&gateway, "http://app.test/plain", &stolen).await.status, 200);

    let told =
        revoke(&gateway, json!({ "jti": "t1", "issuer": "accounts", "expires": now() + 600, "reason": "stolen" }))
            .await;
    assert_eq!(told.status, 201, "{told:?}");
    let id = told.json()["id"].as_str().unwrap().to_owned();
    ask_for(&gateway, "http://app.test/plain", &stolen).await.is_rejected(401, "auth_invalid");
    assert_eq!(ask_for(&gateway, "http://app.test/plain", &kept).await.status, 200);
    assert_eq!(thief.next().await, None, "what is open ends");
    owner.echoes("still here").await;
    let line = gateway.access_line(|line| line["cause"] == "token: it is revoked").await;
    assert_eq!(line["code"], "auth_invalid");

    // Under another document too, and after a restart.
    gateway
        .change(&format!(
            "{document}[[route]]\nname = \"more\"\nmatch = {{ path = \"/more\" }}\nrespond = {{ body = \"more\" }}\n"
        ))
        .await;
    ask_for(&gateway, "http://app.test/plain", &stolen).await.is_rejected(401, "auth_invalid");
    gateway.stop().await;
    let gateway = gateway.successor(&[]).await.unwrap();
    ask_for(&gateway, "http://app.test/plain", &stolen).await.is_rejected(401, "auth_invalid");
    let all = gateway.admin("/revocations").await.json();
    assert_eq!(all["revocations"][&id]["reason"], "stolen", "{all}");

    let request = Request::delete(format!("http://127.0.0.1/revocations/{id}"))
        .header("content-type", "application/json")
        .body(empty())
        .unwrap();
    assert_eq!(Client::h1(gateway.address("admin")).await.fetch(request).await.status, 204);
    assert_eq!(ask_for(&gateway, "http://app.test/plain", &stolen).await.status, 200);

    for (words, code) in [
        (json!({}), "not_revoked"),
        (json!({ "jti": "t1", "issuer": "acounts" }), "unknown_issuer"),
        (json!({ "jti": "t1", "expires": 1 }), "not_revoked"),
        (json!({ "token": "t1" }), "bad_revocation"),
    ] {
        let told = revoke(&gateway, words.clone()).await;
        assert_eq!((told.status.as_u16(), told.json()["code"].as_str()), (422, Some(code)), "{words}: {told:?}");
    }
    assert_eq!(revoke(&gateway, json!({ "issued_before": now() + 1 })).await.status, 201);
    ask_for(&gateway, "http://app.test/plain", &kept).await.is_rejected(401, "auth_invalid");
}
