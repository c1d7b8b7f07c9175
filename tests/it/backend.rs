//! The backend as its clients see it: accounts, rules, lists, files, bounds, pages, backups, leaving.

use std::time::Duration;

use http::Method;
use serde_json::{Value, json};

use crate::kit::backend::{ADMIN, Backend, Caller};
use crate::kit::tollgate::tollgate;
use crate::kit::{Client, PATIENCE, channel, empty, full};

const NOTES: &str = "/api/collections/notes/records";

fn rules(list: &str, read: &str, create: &str, update: &str, delete: &str) -> Value {
    json!({ "list": list, "read": read, "create": create, "update": update, "delete": delete })
}

async fn collection(admin: &Caller, name: &str, rules: Value) {
    let reply = admin.post("/api/collections", &json!({ "name": name, "rules": rules })).await;
    assert_eq!(reply.status, 201, "{reply:?}");
}

#[tokio::test]
async fn an_account_signs_up_logs_in_and_out() {
    let backend = Backend::start().await;
    let ada = backend.sign_up("Ada@Example.com").await;
    let me = ada.get("/api/auth/me").await.json();
    assert_eq!(
        (&me["email"], &me["role"], &me["id"]),
        (&"ada@example.com".into(), &"user".into(), &ada.id.clone().into())
    );
    let again = json!({ "email": "ada@example.com", "password": "another one" });
    backend.anyone().post("/api/auth/signup", &again).await.is_rejected(409, "taken");
    let ada = backend.log_in(("ada@example.com", "long enough")).await;
    assert_eq!(ada.post("/api/auth/logout", &json!({})).await.status, 204);
    ada.get("/api/auth/me").await.is_rejected(401, "auth_token");
    let renewal = json!({ "refresh_token": ada.refresh });
    backend.anyone().post("/api/auth/refresh", &renewal).await.is_rejected(401, "auth_token");
    backend.anyone().get("/api/auth/me").await.is_rejected(401, "auth_required");
    for (email, password) in [("no address", "long enough"), ("b@example.com", "short")] {
        let reply = backend.anyone().post("/api/auth/signup", &json!({ "email": email, "password": password })).await;
        reply.is_rejected(400, "invalid");
    }
}

#[tokio::test]
async fn a_refresh_token_that_comes_twice_ends_the_session() {
    let backend = Backend::start().await;
    let ada = backend.sign_up("ada@example.com").await;
    let renew =
        async |token: &str| backend.anyone().post("/api/auth/refresh", &json!({ "refresh_token": token })).await;
    let renewed = backend.caller(&renew(&ada.refresh).await.json());
    assert_ne!(renewed.refresh, ada.refresh);
    assert_eq!(renewed.get("/api/auth/me").await.status, 200);
    renew(&ada.refresh).await.is_rejected(401, "token_reused");
    renew(&renewed.refresh).await.is_rejected(401, "auth_token");
    renewed.get("/api/auth/me").await.is_rejected(401, "auth_token");
    renew("made up").await.is_rejected(401, "auth_token");
}

#[tokio::test]
async fn who_guesses_waits_whether_there_is_an_account_or_not() {
    let backend = Backend::with("[limits]\nfailures = 2").await;
    backend.sign_up("ada@example.com").await;
    for email in ["ada@example.com", "nobody@example.com"] {
        let guess = async |password: &str| {
            backend.anyone().post("/api/auth/login", &json!({ "email": email, "password": password })).await
        };
        for _ in 0..2 {
            guess("wrong wrong").await.is_rejected(401, "wrong_credentials");
        }
        let third = guess("long enough").await;
        third.is_rejected(429, "too_many_failures");
        assert_eq!(third.header("retry-after"), "1");
    }
}

#[tokio::test]
async fn rules_decide_who_does_what() {
    let backend = Backend::start().await;
    let admin = backend.log_in(ADMIN).await;
    let (ada, bob, anyone) =
        (backend.sign_up("ada@example.com").await, backend.sign_up("bob@example.com").await, backend.anyone());
    ada.post("/api/collections", &json!({ "name": "mine", "rules": rules("user", "user", "user", "user", "user") }))
        .await
        .is_rejected(403, "forbidden");
    collection(&admin, "posts", rules("anyone", "anyone", "user", "owner", "admin")).await;
    let posts = "/api/collections/posts/records";

    anyone.post(posts, &json!({ "text": "x" })).await.is_rejected(401, "auth_required");
    let made = ada.post(posts, &json!({ "text": "hello", "n": 1 })).await;
    assert_eq!(made.status, 201, "{made:?}");
    let record = made.json();
    assert_eq!((&record["text"], &record["owner"]), (&"hello".into(), &ada.id.clone().into()));
    let place = made.header("location").to_owned();

    assert_eq!(anyone.get(&place).await.json(), record);
    assert_eq!(anyone.get(posts).await.json()["total"], 1);
    bob.patch(&place, &json!({ "text": "mine" })).await.is_rejected(404, "not_found");
    anyone.patch(&place, &json!({ "text": "mine" })).await.is_rejected(401, "auth_required");
    let changed = ada.patch(&place, &json!({ "text": "changed", "n": null })).await.json();
    assert_eq!((&changed["text"], changed.get("n")), (&"changed".into(), None));
    ada.delete(&place).await.is_rejected(403, "forbidden");
    assert_eq!(admin.delete(&place).await.status, 204);
    anyone.get(&place).await.is_rejected(404, "not_found");

    // Notes are their owner's: others do not learn that there are any.
    let note = ada.post(NOTES, &json!({ "text": "private" })).await.header("location").to_owned();
    bob.get(&note).await.is_rejected(404, "not_found");
    bob.delete(&note).await.is_rejected(404, "not_found");
    assert_eq!(bob.get(NOTES).await.json()["total"], 0);
    assert_eq!(ada.get(NOTES).await.json()["total"], 1);
    assert_eq!(admin.get(NOTES).await.json()["total"], 1);
    anyone.get(NOTES).await.is_rejected(401, "auth_required");
    ada.get("/api/collections/nothing/records").await.is_rejected(404, "not_found");
    for list in ["/api/collections", "/api/users", "/api/status"] {
        ada.get(list).await.is_rejected(403, "forbidden");
        assert_eq!(admin.get(list).await.status, 200);
    }
}

#[tokio::test]
async fn lists_are_filtered_sorted_and_paged() {
    let backend = Backend::start().await;
    let ada = backend.sign_up("ada@example.com").await;
    for (text, price, done) in [("milk", 3, true), ("Milk shake", 7, false), ("bread", 2, false), ("it's", 9, true)] {
        let made =
            ada.post(NOTES, &json!({ "text": text, "price": price, "done": done, "by": { "name": "ada" } })).await;
        assert_eq!(made.status, 201);
    }
    let texts = async |query: &str| {
        let reply = ada.get(&format!("{NOTES}?{query}")).await;
        assert_eq!(reply.status, 200, "{query}: {reply:?}");
        let texts: Vec<_> = reply.json()["items"].as_array().unwrap().iter().map(|item| item["text"].clone()).collect();
        Value::from(texts)
    };
    for (query, expect) in [
        ("sort=price", json!(["bread", "milk", "Milk shake", "it's"])),
        ("sort=-price&per_page=3", json!(["it's", "Milk shake", "milk"])),
        ("sort=-price&per_page=3&page=2", json!(["bread"])),
        ("filter=text%20~%20'milk'&sort=text", json!(["Milk shake", "milk"])),
        ("filter=price%3E2%26%26done=true&sort=price", json!(["milk", "it's"])),
        ("filter=(price%3C3||price%3E8)%26%26by.name='ada'&sort=price", json!(["bread", "it's"])),
        ("filter=text='it\\'s'", json!(["it's"])),
        ("filter=text='x'%20OR%20'1'='1'", Value::Null),
    ] {
        if expect.is_null() {
            ada.get(&format!("{NOTES}?{query}")).await.is_rejected(400, "bad_filter");
        } else {
            assert_eq!(texts(query).await, expect, "{query}");
        }
    }
    ada.get(&format!("{NOTES}?per_page=1000")).await.is_rejected(400, "invalid");
    ada.get(&format!("{NOTES}?colour=red")).await.is_rejected(400, "bad_request");
}

#[tokio::test]
async fn who_changes_what_somebody_else_has_changed_is_told() {
    let backend = Backend::start().await;
    let ada = backend.sign_up("ada@example.com").await;
    let made = ada.post(NOTES, &json!({ "text": "one" })).await;
    let (place, first) = (made.header("location").to_owned(), made.header("etag").to_owned());
    let patch = async |tag: &str| {
        let request =
            ada.request(Method::PATCH, &place).header("content-type", "application/json").header("if-match", tag);
        ada.send(request.body(full(r#"{"text":"two"}"#)).unwrap()).await
    };
    let second = patch(&first).await.header("etag").to_owned();
    assert_ne!(first, second);
    patch(&first).await.is_rejected(412, "changed");
    let read = ada.request(Method::GET, &place).header("if-none-match", &second).body(empty()).unwrap();
    let unchanged = ada.send(read).await;
    assert_eq!((unchanged.status.as_u16(), unchanged.body.len()), (304, 0));
    for wrong in [json!({ "id": "mine" }), json!({ "a b": 1 }), json!({ "owner": "somebody" })] {
        ada.post(NOTES, &wrong).await.is_rejected(400, "invalid");
    }
    ada.post(NOTES, &json!([1])).await.is_rejected(400, "bad_request");
}

#[tokio::test]
async fn what_is_too_large_or_of_another_kind_is_refused() {
    let backend = Backend::with("[limits]\nbody = \"2KiB\"\nrecord = \"1KiB\"").await;
    let ada = backend.sign_up("ada@example.com").await;
    ada.post(NOTES, &json!({ "text": "x".repeat(1100) })).await.is_rejected(413, "too_large");
    ada.post(NOTES, &json!({ "text": "x".repeat(3000) })).await.is_rejected(413, "too_large");
    let plain = ada.request(Method::POST, NOTES).header("content-type", "text/plain").body(full("{}")).unwrap();
    ada.send(plain).await.is_rejected(415, "wrong_type");
    ada.get("/nowhere").await.is_rejected(404, "not_found");
    ada.delete("/api/auth/me").await.is_rejected(405, "method_not_allowed");
}

#[tokio::test]
async fn files_come_back_as_attachments_to_whom_they_are_for() {
    let backend = Backend::with("[uploads]\nsize = \"100KiB\"\ntotal = \"150KiB\"").await;
    let (ada, bob) = (backend.sign_up("ada@example.com").await, backend.sign_up("bob@example.com").await);
    let page = b"<script>alert(1)</script>";
    let made = ada.upload("/api/files", "../a page.html", "text/html", page).await;
    assert_eq!(made.status, 201, "{made:?}");
    let about = made.json();
    assert_eq!((&about["name"], &about["size"]), (&"a page.html".into(), &page.len().into()));
    let place = format!("/api/files/{}", about["id"].as_str().unwrap());
    let reply = ada.get(&place).await;
    assert_eq!(reply.body.as_ref(), page);
    for (name, expect) in [
        ("content-type", "application/octet-stream"),
        ("content-disposition", "attachment; filename*=UTF-8''a%20page%2Ehtml"),
        ("x-content-type-options", "nosniff"),
    ] {
        assert_eq!(reply.header(name), expect);
    }
    bob.get(&place).await.is_rejected(404, "not_found");
    bob.delete(&place).await.is_rejected(404, "not_found");
    backend.anyone().get(&place).await.is_rejected(401, "auth_required");
    let public = ada.upload("/api/files?read=anyone", "a.png", "image/png", b"png").await.json();
    let reply = backend.anyone().get(&format!("/api/files/{}", public["id"].as_str().unwrap())).await;
    assert_eq!((reply.header("content-type"), reply.text()), ("image/png", "png"));

    ada.upload("/api/files", "a", "text/plain", &[b'x'; 101 << 10]).await.is_rejected(413, "too_large");
    assert_eq!(ada.upload("/api/files", "a", "text/plain", &[b'x'; 100 << 10]).await.status, 201);
    ada.upload("/api/files", "a", "text/plain", &[b'x'; 100 << 10]).await.is_rejected(507, "storage_full");
    backend.anyone().upload("/api/files", "a", "text/plain", b"x").await.is_rejected(401, "auth_required");
    assert_eq!(ada.delete(&place).await.status, 204);
    ada.get(&place).await.is_rejected(404, "not_found");
    let bytes = std::fs::read_dir(backend.directory().join("data/files")).unwrap().count();
    assert_eq!(bytes, 3, "what was refused has left nothing");
    ada.upload("/api/files", "a", "text/plain", &[b'x'; 43_009]).await.is_rejected(507, "storage_full"); // The bytes of what was removed are still there.
    assert_eq!(
        ada.upload("/api/files", "a", "text/plain", &[b'x'; 43_008]).await.status,
        201,
        "without what was removed just now"
    );
}

#[tokio::test]
async fn accounts_and_collections_go_with_what_is_theirs() {
    let backend = Backend::start().await;
    let admin = backend.log_in(ADMIN).await;
    let (ada, bob) = (backend.sign_up("ada@example.com").await, backend.sign_up("bob@example.com").await);
    collection(&admin, "lists", rules("anyone", "anyone", "user", "owner", "owner")).await;
    for who in [&ada, &bob] {
        assert_eq!(who.post("/api/collections/lists/records", &json!({ "of": who.id })).await.status, 201);
        assert_eq!(who.post(NOTES, &json!({ "text": "x" })).await.status, 201);
    }
    let file = ada.upload("/api/files?read=anyone", "a", "text/plain", b"x").await.json();
    let file = format!("/api/files/{}", file["id"].as_str().unwrap());
    let account = format!("/api/users/{}", ada.id);
    bob.delete(&account).await.is_rejected(403, "forbidden");
    admin.delete(&format!("/api/users/{}", admin.id)).await.is_rejected(400, "invalid");
    assert_eq!(admin.delete(&account).await.status, 204);
    admin.delete(&account).await.is_rejected(404, "not_found");
    ada.get("/api/auth/me").await.is_rejected(401, "auth_token");
    let renewal = json!({ "refresh_token": ada.refresh });
    backend.anyone().post("/api/auth/refresh", &renewal).await.is_rejected(401, "auth_token");
    backend.anyone().get(&file).await.is_rejected(404, "not_found");
    let left = backend.anyone().get("/api/collections/lists/records").await.json();
    assert_eq!((&left["total"], &left["items"][0]["of"]), (&1.into(), &bob.id.clone().into()), "{left}");
    // The address is free, and whoever takes it finds nothing.
    let ada = backend.sign_up("ada@example.com").await;
    assert_eq!(ada.get(NOTES).await.json()["total"], 0);

    let changed = json!({ "rules": rules("admin", "admin", "admin", "admin", "admin") });
    bob.patch("/api/collections/lists", &changed).await.is_rejected(403, "forbidden");
    admin.patch("/api/collections/none", &changed).await.is_rejected(404, "not_found");
    admin
        .patch("/api/collections/lists", &json!({ "rules": { "list": "user" } }))
        .await
        .is_rejected(400, "bad_request");
    assert_eq!(admin.patch("/api/collections/lists", &changed).await.status, 200);
    bob.get("/api/collections/lists/records").await.is_rejected(403, "forbidden");
    bob.delete("/api/collections/lists").await.is_rejected(403, "forbidden");
    assert_eq!(admin.delete("/api/collections/lists").await.status, 204);
    admin.get("/api/collections/lists/records").await.is_rejected(404, "not_found");
    let all = admin.get("/api/collections").await.json();
    assert_eq!(all["items"].as_array().unwrap().len(), 1, "{all}");
    assert_eq!(bob.get(NOTES).await.json()["total"], 1, "others stay");
}

#[tokio::test]
async fn pages_for_people_forbid_what_they_do_not_need() {
    let backend = Backend::start().await;
    for page in ["/", "/_/"] {
        let reply = backend.anyone().get(page).await;
        assert_eq!(reply.status, 200);
        let policy = reply.header("content-security-policy");
        assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
        assert!(!reply.text().contains("<script>") && !reply.text().contains("style="), "{}", reply.text());
        for link in reply.text().split(['"', '\'']).filter(|link| link.starts_with("/assets/")) {
            assert_eq!(backend.anyone().get(link).await.status, 200, "{link}");
        }
    }
    backend.anyone().get("/assets/../Cargo.toml").await.is_rejected(404, "not_found");
}

#[tokio::test]
async fn a_backup_of_the_running_service_brings_everything_back() {
    let mut backend = Backend::start().await;
    let ada = backend.sign_up("ada@example.com").await;
    let note = ada.post(NOTES, &json!({ "text": "before" })).await.header("location").to_owned();
    let file = ada.upload("/api/files", "a.txt", "text/plain", b"bytes").await.json();
    let said = backend.command(&["backup", "saved"]).exits(0).stdout;
    assert!(said.contains("1 files"), "{said}");
    backend.command(&["backup", "saved"]).exits(3);
    assert_eq!(ada.delete(&note).await.status, 204);
    let after = ada.post(NOTES, &json!({ "text": "after" })).await.header("location").to_owned();

    let refused = backend.command(&["restore", "saved"]).exits(3);
    assert!(refused.stderr.contains("--force"), "{}", refused.said());
    let refused = backend.command(&["restore", "saved", "--force"]).exits(3);
    assert!(refused.stderr.contains("another process"), "it runs: {}", refused.said());
    backend.stop().await;
    let said = backend.command(&["restore", "saved", "--force"]).exits(0).stdout;
    assert!(said.contains("what was there before"), "{said}");
    backend.again().await;
    let ada = backend.log_in(("ada@example.com", "long enough")).await;
    assert_eq!(ada.get(&note).await.json()["text"], "before");
    ada.get(&after).await.is_rejected(404, "not_found");
    assert_eq!(ada.get(&format!("/api/files/{}", file["id"].as_str().unwrap())).await.text(), "bytes");
}

#[tokio::test]
async fn leaving_finishes_what_was_begun() {
    let mut backend = Backend::with("[drain]\ndelay = \"1s\"").await;
    let ada = backend.sign_up("ada@example.com").await;
    assert_eq!(backend.anyone().get("/ready").await.status, 200);
    assert_eq!(backend.anyone().get("/health").await.status, 200);
    let (feed, body) = channel();
    let request = ada.request(Method::POST, NOTES).header("content-type", "application/json").body(body).unwrap();
    let mut client = Client::h1(backend.address()).await;
    let sending = tokio::spawn(async move { client.fetch(request).await });
    assert!(feed.data("{\"text\":").await);
    backend.signal(rustix::process::Signal::TERM);
    eventually!(backend.anyone().get("/ready").await.status == 503);
    eventually!(tokio::net::TcpStream::connect(backend.address()).await.is_err());
    assert!(feed.data("\"last\"}").await);
    drop(feed);
    assert_eq!(sending.await.unwrap().status, 201);
    assert_eq!(backend.exited(PATIENCE).await.code(), Some(0));
    let log = backend.directory().join("data/data.db-wal");
    assert_eq!(std::fs::metadata(log).map_or(0, |log| log.len()), 0, "the log is written into the database");
}

#[tokio::test]
async fn metrics_have_no_label_that_a_client_chose() {
    let backend = Backend::start().await;
    let ada = backend.sign_up("ada@example.com").await;
    let place = ada.post(NOTES, &json!({ "text": "x" })).await.header("location").to_owned();
    ada.get(&place).await;
    ada.get("/made/up").await;
    let text = backend.anyone().get("/metrics").await.text().to_owned();
    let route = "route=\"/api/collections/{collection}/records/{id}\"";
    assert!(text.contains(&format!("class=\"2xx\",method=\"GET\",{route}")), "{text}");
    assert!(text.contains("route=\"none\"") && text.contains("tollgate_backend_ready 1"), "{text}");
    assert!(!text.contains("made/up") && !text.contains(&ada.id) && !text.contains("notes"), "{text}");
    let log = backend.log();
    assert!(!log.contains("long enough") && !log.contains(&ada.refresh), "secrets are in no log");
}

#[test]
fn settings_are_checked_and_told_apart() {
    let directory = tempfile::tempdir().unwrap();
    let text = "format = 1\ndata = \"data\"\nlisten = \"nowhere\"\n[tokn]\n[uploads]\nsize = \"2GiB\"\n\
        [limits]\nrefresh_tokens = 49\n";
    std::fs::write(directory.path().join("backend.toml"), text).unwrap();
    let checked = tollgate(directory.path(), &["check", "backend.toml"]).exits(1).stdout;
    for expect in [
        "`nowhere` is not an address",
        "did you mean `token`",
        "this is less than `uploads.size`",
        "this would log out who is logged in",
    ] {
        assert!(checked.contains(expect), "{expect}: {checked}");
    }
    let began = std::time::Instant::now();
    tollgate(directory.path(), &["backend", "-c", "backend.toml"]).exits(1);
    assert!(began.elapsed() < Duration::from_secs(10));
    let schema = tollgate(directory.path(), &["schema", "backend"]).exits(0).json();
    assert_eq!(schema["title"], "Tollgate backend");
}
