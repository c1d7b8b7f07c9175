//! Tokens of the backend as others verify them: by the published keys, while these turn.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde_json::{Value, json};

use crate::kit::Gateway;
use crate::kit::backend::{ADMIN, Backend};
use crate::kit::{Client, empty};

async fn keys(backend: &Backend) -> JwkSet {
    serde_json::from_value(backend.anyone().get("/.well-known/jwks.json").await.json()).unwrap()
}

/// The claims, if one of the keys has signed them.
fn verified(keys: &JwkSet, token: &str) -> Option<Value> {
    let kid = jsonwebtoken::decode_header(token).unwrap().kid.unwrap();
    let key = DecodingKey::from_jwk(keys.find(&kid)?).unwrap();
    let mut validation = Validation::new(Algorithm::ES256);
    validation.set_issuer(&["tollgate-backend"]);
    validation.set_audience(&["api"]);
    jsonwebtoken::decode(token, &key, &validation).map(|decoded| decoded.claims).ok()
}

fn kid(token: &str) -> String {
    jsonwebtoken::decode_header(token).unwrap().kid.unwrap()
}

#[tokio::test]
async fn anyone_can_verify_a_token_by_the_published_keys() {
    let backend = Backend::start().await;
    let ada = backend.sign_up("ada@example.com").await;
    let token = ada.token.clone().unwrap();
    let claims = verified(&keys(&backend).await, &token).unwrap();
    assert_eq!((&claims["sub"], &claims["role"]), (&ada.id.clone().into(), &"user".into()));
    let (head, signature) = token.rsplit_once('.').unwrap();
    let forged = format!("{head}.{}", BASE64_URL_SAFE_NO_PAD.encode([1; 64]));
    assert!(verified(&keys(&backend).await, &forged).is_none() && !signature.is_empty());
    let provider = backend.anyone().get("/.well-known/openid-configuration").await.json();
    assert_eq!(
        (&provider["issuer"], &provider["jwks_uri"]),
        (&"tollgate-backend".into(), &"http://backend.test/.well-known/jwks.json".into())
    );
}

#[tokio::test]
async fn keys_turn_and_old_tokens_stay_good_until_they_end() {
    let backend = Backend::with("[token]\nrotate = \"3s\"\naccess = \"10m\"").await;
    let ada = backend.sign_up("ada@example.com").await;
    let old = ada.token.clone().unwrap();
    let published = eventually!(Some(keys(&backend).await).filter(|keys| keys.keys.len() > 1));
    let mut refresh = ada.refresh.clone();
    // The new key was published before anything was signed with it.
    let new = eventually!({
        let reply = ada.post("/api/auth/refresh", &json!({ "refresh_token": refresh })).await.json();
        refresh = reply["refresh_token"].as_str().unwrap().to_owned();
        let token = reply["access_token"].as_str().unwrap().to_owned();
        Some(token).filter(|token| kid(token) != kid(&old))
    });
    assert!(verified(&published, &new).is_some());
    // Another one is next, and the first is still there.
    let now = eventually!(Some(keys(&backend).await).filter(|keys| keys.keys.len() > 2));
    assert!(verified(&now, &old).is_some() && verified(&now, &new).is_some());
    assert_eq!(ada.get("/api/auth/me").await.status, 200);
}

#[tokio::test]
async fn keys_that_others_know_are_replaced_at_once_and_survive_a_restart() {
    let mut backend = Backend::start().await;
    let (admin, ada) = (backend.log_in(ADMIN).await, backend.sign_up("ada@example.com").await);
    ada.post("/api/keys/replace", &json!({})).await.is_rejected(403, "forbidden");
    assert_eq!(admin.post("/api/keys/replace", &json!({})).await.status, 204);
    ada.get("/api/auth/me").await.is_rejected(401, "auth_token");
    assert!(verified(&keys(&backend).await, &ada.token.clone().unwrap()).is_none());
    let renewed = backend.anyone().post("/api/auth/refresh", &json!({ "refresh_token": ada.refresh })).await;
    let token = backend.caller(&renewed.json()).token.unwrap();
    backend.stop().await;
    backend.again().await;
    assert!(verified(&keys(&backend).await, &token).is_some());
}

/// The whole way: the gateway takes the backend's tokens by its published keys.
#[tokio::test]
async fn a_gateway_verifies_what_the_backend_has_signed() {
    let backend = Backend::start().await;
    let address = backend.address();
    let routes = format!(
        "[upstream.backend]\naddress = \"{address}\"\n[issuer.backend]\nissuer = \"tollgate-backend\"\naudience = \"api\"\n\
         jwks = \"http://{address}/.well-known/jwks.json\"\n[[route]]\nname = \"me\"\nmatch.path = \"/api/auth/me\"\n\
         upstream = \"backend\"\nauth = {{ any = [{{ jwt = [\"backend\"] }}] }}"
    );
    let gateway = Gateway::start(&routes).await;
    let ada = backend.sign_up("ada@example.com").await;
    let ask = async |token: Option<&str>| {
        let request = http::Request::get("http://app.test/api/auth/me");
        let request = match token {
            Some(token) => request.header("authorization", format!("Bearer {token}")),
            None => request,
        };
        Client::h1(gateway.http()).await.fetch(request.body(empty()).unwrap()).await
    };
    eventually!(ask(ada.token.as_deref()).await.status == 200);
    assert_eq!(ask(None).await.status, 401);
}
