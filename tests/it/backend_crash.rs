//! `kill -9` at any moment: what was answered is there, and what happened is told once.

use std::collections::BTreeMap;
use std::time::Duration;

use async_nats::jetstream;
use futures_util::StreamExt as _;
use serde_json::{Value, json};

use crate::kit::backend::{Backend, Caller};
use crate::kit::nats::Nats;
use crate::kit::{Client, full};

const NOTES: &str = "/api/collections/notes/records";

/// Writes until the backend is gone; returns the ids that were answered.
async fn write(caller: Caller, backend: std::net::SocketAddr, name: usize) -> Vec<String> {
    let mut answered = Vec::new();
    let Ok(mut client) = Client::try_h1(backend).await else { return answered };
    for number in 0.. {
        let body = json!({ "text": format!("{name}-{number}") }).to_string();
        let request = caller.request(http::Method::POST, NOTES).header("content-type", "application/json");
        match client.try_fetch(request.body(full(body)).unwrap()).await {
            Ok(reply) if reply.status == 201 => answered.push(reply.json()["id"].as_str().unwrap().to_owned()),
            Ok(reply) => panic!("{reply:?}"),
            Err(_) => break,
        }
    }
    answered
}

/// Many write at once, and in the middle of it the process is killed. Returns what was answered.
async fn killed_while_writing(backend: &mut Backend, caller: &Caller, enough: i64) -> Vec<String> {
    let writers: Vec<_> = (0..8).map(|name| tokio::spawn(write(caller.clone(), backend.address(), name))).collect();
    eventually!(caller.get(&format!("{NOTES}?per_page=1")).await.json()["total"].as_i64().unwrap() >= enough);
    backend.kill().await;
    let mut answered = Vec::new();
    for writer in writers {
        answered.extend(writer.await.unwrap());
    }
    answered
}

/// Ids of all records.
async fn records(caller: &Caller) -> Vec<String> {
    let mut ids = Vec::new();
    for page in 1.. {
        let found = caller.get(&format!("{NOTES}?per_page=200&page={page}")).await.json();
        let items = found["items"].as_array().unwrap().clone();
        if items.is_empty() {
            break;
        }
        ids.extend(items.iter().map(|item| item["id"].as_str().unwrap().to_owned()));
    }
    ids
}

#[tokio::test]
async fn what_was_answered_is_there_after_kill_9() {
    let mut backend = Backend::start().await;
    let mut ada = backend.sign_up("ada@example.com").await;
    let mut answered = Vec::new();
    for round in 1..=3 {
        answered.extend(killed_while_writing(&mut backend, &ada, 100 * round).await);
        backend.again().await;
        ada = backend.log_in(("ada@example.com", "long enough")).await;
        let there = records(&ada).await;
        let lost: Vec<_> = answered.iter().filter(|id| !there.contains(id)).collect();
        assert!(lost.is_empty() && answered.len() >= 90, "{} answered, lost: {lost:?}", answered.len());
    }
}

/// Events of the stream until there are so many and no more come.
async fn events(nats: &Nats, number: usize) -> Vec<Value> {
    let jetstream = jetstream::new(async_nats::connect(nats.url()).await.unwrap());
    let stream = eventually!(jetstream.get_stream("tollgate_events").await);
    eventually!(stream.get_info().await.is_ok_and(|info| info.state.messages >= number as u64));
    let config = jetstream::consumer::pull::OrderedConfig::default();
    let consumer = stream.create_consumer(config).await.unwrap();
    let mut messages = consumer.messages().await.unwrap();
    let mut events = Vec::new();
    while let Ok(Some(message)) = tokio::time::timeout(Duration::from_secs(1), messages.next()).await {
        let message = message.unwrap();
        assert!(message.subject.starts_with("tollgate.event.backend."), "{}", message.subject);
        events.push(serde_json::from_slice(&message.payload).unwrap());
    }
    events
}

#[tokio::test]
async fn events_are_told_once_though_the_process_is_killed() {
    let nats = Nats::start().await;
    let mut backend = Backend::with(&format!("[bus]\nurls = [\"{}\"]", nats.url())).await;
    let ada = backend.sign_up("ada@example.com").await;
    killed_while_writing(&mut backend, &ada, 200).await;
    backend.again().await;
    let there = records(&backend.log_in(("ada@example.com", "long enough")).await).await;
    // Sign-up and login, beside one for each record.
    let events = events(&nats, there.len() + 2).await;
    let mut told: BTreeMap<&str, usize> = BTreeMap::new();
    for event in events.iter().filter(|event| event["event"] == "record.created") {
        *told.entry(event["record"].as_str().unwrap()).or_default() += 1;
    }
    let silent: Vec<_> = there.iter().filter(|id| told.get(id.as_str()) != Some(&1)).collect();
    assert!(silent.is_empty(), "not told once: {silent:?}");
    assert_eq!(told.len(), there.len(), "told, and not there");
}

#[tokio::test]
async fn events_wait_for_a_bus_that_is_away_and_carry_the_trace() {
    let mut nats = Nats::start().await;
    let backend = Backend::with(&format!("[bus]\nurls = [\"{}\"]", nats.url())).await;
    let ada = backend.sign_up("ada@example.com").await;
    nats.kill();
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let request = ada
        .request(http::Method::POST, NOTES)
        .header("content-type", "application/json")
        .header("traceparent", format!("00-{trace}-00f067aa0ba902b7-01"));
    let made = ada.send(request.body(full(r#"{"text":"x"}"#)).unwrap()).await.json();
    nats.begin().await;
    let events = events(&nats, 2).await;
    let event = events.iter().find(|event| event["event"] == "record.created").unwrap();
    assert_eq!((&event["trace_id"], &event["record"]), (&trace.into(), &made["id"]));
    assert_ne!(event["span_id"], "00f067aa0ba902b7", "a span of its own");
    assert_eq!((&event["service"], event["timestamp"].as_str().unwrap().len()), (&"backend".into(), 24));
    assert_eq!(event.get("text"), None, "what records hold is not told");
}
