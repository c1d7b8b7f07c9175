//! The bounds of the backend: what it holds, and how long it waits for clients that do not read.

use serde_json::json;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpSocket;

use crate::kit::backend::{ADMIN, Backend};

const NOTES: &str = "/api/collections/notes/records";

#[tokio::test]
async fn accounts_and_records_have_a_number() {
    let backend = Backend::with("[limits]\naccounts = 2\nrecords = 2").await;
    // The administrator is the other one.
    let ada = backend.sign_up("ada@example.com").await;
    let proof = json!({ "email": "bob@example.com", "password": "long enough" });
    let refused = backend.anyone().post("/api/auth/signup", &proof).await;
    refused.is_rejected(507, "storage_full");
    assert!(refused.text().contains("limits.accounts"), "{}", refused.text());
    let note = json!({ "text": "x" });
    let place = ada.post(NOTES, &note).await.header("location").to_owned();
    assert_eq!(ada.post(NOTES, &note).await.status, 201);
    let refused = ada.post(NOTES, &note).await;
    refused.is_rejected(507, "storage_full");
    assert!(refused.text().contains("limits.records"), "{}", refused.text());
    assert_eq!(ada.delete(&place).await.status, 204);
    assert_eq!(ada.post(NOTES, &note).await.status, 201, "there is room again");
    let collections = backend.log_in(ADMIN).await.get("/api/collections").await.json();
    assert_eq!(collections["items"][0]["records"], 2, "{collections}");
}

#[tokio::test]
async fn small_files_have_a_number() {
    let backend = Backend::with("[uploads]\nsize = \"16KiB\"\ntotal = \"16KiB\"").await;
    let ada = backend.sign_up("ada@example.com").await;
    let mut places = Vec::new();
    for _ in 0..4 {
        let made = ada.upload("/api/files", "a", "text/plain", b"").await;
        assert_eq!(made.status, 201, "{made:?}");
        places.push(format!("/api/files/{}", made.json()["id"].as_str().unwrap()));
    }
    let refused = ada.upload("/api/files", "a", "text/plain", b"").await;
    refused.is_rejected(507, "storage_full");
    assert!(refused.text().contains("uploads.total"), "{}", refused.text());
    // A removed one is on the disk for a while.
    assert_eq!(ada.delete(&places[0]).await.status, 204);
    ada.upload("/api/files", "a", "text/plain", b"").await.is_rejected(507, "storage_full");
    let bytes = std::fs::read_dir(backend.directory().join("data/files")).unwrap().count();
    assert_eq!(bytes, 4, "what was refused has left nothing");
}

#[tokio::test]
async fn a_full_database_takes_nothing_more_and_gives_room_again() {
    let backend = Backend::with("[limits]\ndatabase = \"400KiB\"").await;
    let ada = backend.sign_up("ada@example.com").await;
    let large = json!({ "text": "x".repeat(30_000) });
    let mut places = Vec::new();
    let refused = loop {
        let reply = ada.post(NOTES, &large).await;
        match reply.status.as_u16() {
            201 => places.push(reply.header("location").to_owned()),
            _ => break reply,
        }
        assert!(places.len() < 20, "there is no end");
    };
    refused.is_rejected(507, "storage_full");
    assert!(refused.text().contains("limits.database") && places.len() > 3, "{}", refused.text());
    ada.patch(&places[0], &json!({ "more": "x" })).await.is_rejected(507, "storage_full");
    let refused = ada.upload("/api/files", "a", "text/plain", b"x").await;
    refused.is_rejected(507, "storage_full");
    assert!(refused.text().contains("limits.database"), "{}", refused.text());
    assert_eq!(ada.patch(&places[0], &json!({ "text": "short" })).await.status, 200);
    let ada = backend.log_in(("ada@example.com", "long enough")).await;
    for place in &places {
        assert_eq!(ada.delete(place).await.status, 204);
    }
    assert_eq!(ada.post(NOTES, &large).await.status, 201);
}

#[tokio::test]
async fn a_client_that_does_not_read_loses_its_place() {
    const FILE: usize = 24 << 20;
    let backend = Backend::with("[uploads]\nsize = \"32MiB\"\n[limits]\nconnections = 1\nwrite_idle = \"500ms\"").await;
    let ada = backend.sign_up("ada@example.com").await;
    let made = ada.upload("/api/files?read=anyone", "a", "text/plain", &vec![b'x'; FILE]).await.json();
    let place = format!("/api/files/{}", made["id"].as_str().unwrap());
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut deaf = socket.connect(backend.address()).await.unwrap();
    deaf.write_all(format!("GET {place} HTTP/1.1\r\nhost: backend.test\r\n\r\n").as_bytes()).await.unwrap();
    // There is one place, and the deaf one has it.
    deaf.readable().await.unwrap();
    assert_eq!(backend.anyone().get(&place).await.body.len(), FILE);
    drop(deaf);
}
