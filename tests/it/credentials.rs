//! What becomes of credentials: those in doubt are refused, and no upstream takes for proven what nobody has proven.

use http::{HeaderValue, Request};
use jsonwebtoken::Algorithm;
use serde_json::json;

use crate::kit::tokens::{KeyServer, Signer};
use crate::kit::{Gateway, Origin, Reply, empty, routes};

async fn fetch(gateway: &Gateway, path: &str, headers: &[(&str, &[u8])]) -> Reply {
    let mut request = Request::get(format!("http://app.test{path}"));
    for (name, value) in headers {
        request = request.header(*name, HeaderValue::from_bytes(value).unwrap());
    }
    gateway.h1().await.fetch(request.body(empty()).unwrap()).await
}

fn sha256(text: &str) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes());
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A gateway whose route takes tokens, keys (in a header or as a password), or whatever `more` says.
async fn guarded(server: &KeyServer, origin: &Origin, more: &str, words: &str) -> Gateway {
    let document = format!(
        "{}[api_keys.a]\nheader = \"x-api-key\"\nbasic = true\nquery = \"key\"\n\
         keys = [{{ name = \"one\", sha256 = \"{}\", claims = {{ scope = \"read\" }} }}]\n{}",
        server.block(""),
        sha256("k1"),
        routes::with(
            origin.address(),
            "",
            &format!("auth = {{ any = [{{ jwt = \"accounts\" }}, {{ api_key = \"a\" }}{more}]{words} }}")
        )
    );
    Gateway::start(&document).await
}

#[tokio::test]
async fn only_what_has_proven_who_asks_goes_upstream() {
    let signer = Signer::new("k1", Algorithm::ES256);
    let server = KeyServer::start(&[&signer]);
    let origin = Origin::text("in");
    let gateway = guarded(&server, &origin, "", "").await;
    let good = format!("Bearer {}", signer.token(json!({})));
    let forged = format!("Bearer {}", Signer::new("k1", Algorithm::ES256).token(json!({ "sub": "admin" })));
    let basic = b"Basic YTprMQ==";

    assert_eq!(fetch(&gateway, "/", &[("authorization", good.as_bytes())]).await.status, 200);
    assert_eq!(origin.last().header("authorization"), good, "a proven token may be looked at again");
    // A key passes; the forged token beside it must not look as if it had.
    let reply = fetch(&gateway, "/", &[("authorization", forged.as_bytes()), ("x-api-key", b"k1")]).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    assert_eq!((origin.last().header("authorization"), origin.last().header("x-api-key")), ("".into(), "".into()));
    assert_eq!(fetch(&gateway, "/", &[("authorization", basic)]).await.status, 200);
    assert_eq!(origin.last().header("authorization"), "");
    // A token passes; a key beside it is none of the upstream's business.
    fetch(&gateway, "/", &[("authorization", good.as_bytes()), ("x-api-key", b"other")]).await;
    assert_eq!((origin.last().header("authorization"), origin.last().header("x-api-key")), (good.clone(), "".into()));

    let gateway = guarded(&server, &origin, "", ", forward_credentials = true").await;
    assert_eq!(fetch(&gateway, "/?key=k1&a=1", &[("x-api-key", b"k1")]).await.status, 200);
    assert_eq!((origin.last().header("x-api-key").as_str(), origin.last().target()), ("k1", "/?a=1"));
}

#[tokio::test]
async fn what_is_in_doubt_is_refused_where_nobody_would_pass() {
    let signer = Signer::new("k1", Algorithm::ES256);
    let server = KeyServer::start(&[&signer]);
    let origin = Origin::text("in");
    let gateway = guarded(&server, &origin, ", { anonymous = true }", "").await;
    assert_eq!(fetch(&gateway, "/", &[]).await.status, 200);
    let seen = origin.count();
    let good = format!("Bearer {}", signer.token(json!({})));
    for headers in [
        vec![("authorization", &b"Bearer\tforged"[..])],
        vec![("authorization", b"Bearer \xe9")],
        vec![("authorization", b"Bearer")],
        vec![("authorization", b"Basic YTpi"), ("authorization", b"Bearer forged")],
        vec![("authorization", good.as_bytes()), ("authorization", good.as_bytes())],
        vec![("x-api-key", b"k1"), ("x-api-key", b"k1")],
        vec![("x-api-key", b"")],
    ] {
        let reply = fetch(&gateway, "/", &headers).await;
        reply.is_rejected(401, "auth_invalid");
    }
    fetch(&gateway, "/?key=k1&key=k1", &[]).await.is_rejected(401, "auth_invalid");
    assert_eq!(origin.count(), seen);
    // What is nobody's here passes as it is.
    assert_eq!(fetch(&gateway, "/", &[("authorization", b"Digest x")]).await.status, 200);
}

#[tokio::test]
async fn keys_may_have_claims_and_facts_may_be_required() {
    let signer = Signer::new("k1", Algorithm::ES256);
    let server = KeyServer::start(&[&signer]);
    let origin = Origin::text("in");
    let words = ", require = [{ claim = \"scope\", contains = \"read\" }, { fact = \"subject.name\", one_of = [\"one\", \"u1\"] }]";
    let gateway = guarded(&server, &origin, "", words).await;
    assert_eq!(fetch(&gateway, "/", &[("x-api-key", b"k1")]).await.status, 200);
    for (claims, expect) in [
        (json!({ "scope": "read" }), 200),
        (json!({ "scope": "write" }), 403),
        (json!({ "scope": "read", "sub": "u2" }), 403),
    ] {
        let token = format!("Bearer {}", signer.token(claims.clone()));
        assert_eq!(fetch(&gateway, "/", &[("authorization", token.as_bytes())]).await.status, expect, "{claims}");
    }
    let line = gateway.access_line(|line| line["code"] == "auth_forbidden" && line["subject"] == "u2").await;
    assert_eq!(line["cause"], "fact `subject.name` does not suffice");
}

#[tokio::test]
async fn credentials_of_queries_are_in_no_log_and_no_redirect() {
    let document = format!(
        "[api_keys.a]\nquery = \"pass\"\nkeys = [{{ name = \"one\", sha256 = \"{}\" }}]\n\
         [[route]]\nname = \"moved\"\nmatch = {{ path = \"/moved\" }}\nauth = {{ any = [{{ api_key = \"a\" }}] }}\n\
         redirect = {{ to = \"https://other.test{{request.path_and_query}}\" }}\n",
        sha256("s3cret")
    );
    let gateway = Gateway::start(&document).await;
    let moved = fetch(&gateway, "/moved?a=1&pass=s3cret", &[]).await;
    assert_eq!(moved.header("location"), "https://other.test/moved?a=1");
    fetch(&gateway, "/nowhere?pass=s3cret&b=2", &[]).await.is_rejected(404, "no_route");
    let line = gateway.access_line(|line| line["path"] == "/nowhere").await;
    assert_eq!(line["query"], "b=2");
    let log = std::fs::read_to_string(gateway.directory().join("access.log")).unwrap() + &gateway.log();
    assert!(!log.contains("s3cret"), "{log}");
}
