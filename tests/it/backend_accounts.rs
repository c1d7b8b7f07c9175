//! Accounts that are taken away while a request of theirs is under way.

use serde_json::json;

use crate::kit::backend::{ADMIN, Backend, Caller};
use crate::kit::raw::{Message, Raw};

const NOTES: &str = "/api/collections/notes/records";
const FORM: &str = "--x\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a\"\r\n\r\nbytes\r\n--x--\r\n";

/// A request whose body the backend waits for: it knows by now who asks.
struct Begun {
    raw: Raw,
    body: &'static str,
}

async fn begin(backend: &Backend, caller: &Caller, (path, kind): (&str, &str), body: &'static str) -> Begun {
    let mut raw = Raw::connect(backend.address()).await;
    let (token, length) = (caller.token.as_ref().unwrap(), body.len());
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: backend.test\r\nauthorization: Bearer {token}\r\ncontent-type: {kind}\r\n\
         content-length: {length}\r\nexpect: 100-continue\r\n\r\n"
    );
    assert!(raw.send(head).await);
    assert_eq!(raw.answer().await.status(), 100);
    Begun { raw, body }
}

impl Begun {
    async fn end(mut self) -> Message {
        assert!(self.raw.send(self.body).await);
        self.raw.answer().await
    }
}

#[tokio::test]
async fn an_account_that_was_taken_away_leaves_nothing_behind() {
    let backend = Backend::start().await;
    let (admin, ada) = (backend.log_in(ADMIN).await, backend.sign_up("ada@example.com").await);
    let json = "application/json";
    let upload = begin(&backend, &ada, ("/api/files", "multipart/form-data; boundary=x"), FORM).await;
    let record = begin(&backend, &ada, (NOTES, json), "{\"text\":\"x\"}").await;
    assert_eq!(admin.delete(&format!("/api/users/{}", ada.id)).await.status, 204);
    for begun in [upload, record] {
        let answer = begun.end().await;
        assert_eq!(answer.status(), 401, "{answer:?}");
        assert!(String::from_utf8_lossy(&answer.body).contains("auth_token"), "{answer:?}");
    }
    assert_eq!(admin.get(NOTES).await.json()["total"], 0);
    assert_eq!(admin.get("/api/status").await.json()["files"], 0);
    assert_eq!(std::fs::read_dir(backend.directory().join("data/files")).unwrap().count(), 0);
}

#[tokio::test]
async fn who_has_logged_out_changes_nothing_any_more() {
    let backend = Backend::start().await;
    let admin = backend.log_in(ADMIN).await;
    let all =
        r#"{"name":"mine","rules":{"list":"user","read":"user","create":"user","update":"user","delete":"user"}}"#;
    let collection = begin(&backend, &admin, ("/api/collections", "application/json"), all).await;
    assert_eq!(admin.post("/api/auth/logout", &json!({})).await.status, 204);
    assert_eq!(collection.end().await.status(), 401);
    let collections = backend.log_in(ADMIN).await.get("/api/collections").await.json();
    assert_eq!(collections["items"].as_array().unwrap().len(), 1, "{collections}");
}
