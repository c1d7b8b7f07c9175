//! What lines look like, and what becomes of them when the writer cannot keep up.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::sync::mpsc;
use std::time::UNIX_EPOCH;

use serde_json::{Value, json};

use super::*;
use crate::rejection::Code;
use crate::scalar::OneOrMany;
use crate::telemetry::TraceContext;

const PATIENCE: Duration = Duration::from_secs(10);

fn settings(access: &str) -> settings::Log {
    settings::Log { access: access.to_owned(), ..settings::Log::default() }
}

fn log_to(sink: Sink) -> (AccessLog, Count) {
    let dropped = Count::default();
    let log = Log {
        queue: Some(Queue::start(sink, dropped.clone()).unwrap()),
        redact: Redact::new(["token"]),
        taps: broadcast::Sender::new(TAP_LINES),
        listeners: Arc::default(),
    };
    (AccessLog(Arc::new(log)), dropped)
}

fn line(entry: &Entry<'_>) -> Value {
    let mut out = Vec::new();
    entry.write(&Redact::new(["token"]), &mut out);
    assert_eq!(out.iter().filter(|byte| **byte == b'\n').count(), 1);
    serde_json::from_slice(&out).unwrap()
}

#[test]
fn a_line_holds_every_field() {
    let trace = TraceContext::parse("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
    let read = line(&Entry {
        at: UNIX_EPOCH + Duration::from_millis(1_772_366_400_250),
        request_id: "r1",
        trace,
        route: "api",
        revision: "abc",
        client: Some("2001:db8::7".parse().unwrap()),
        listener: "public",
        method: "GET",
        scheme: "https",
        host: "example.com",
        path: "/a\"b\u{1b}",
        query: Some("a=1&token=secret"),
        protocol: "HTTP/2",
        status: 502,
        code: Some(Code::UpstreamReset),
        cause: Some("connection reset"),
        bytes_in: 3,
        bytes_out: 4,
        upstream: Some("pocketbase"),
        endpoint: Some("[::1]:8090".parse().unwrap()),
        attempts: 2,
        durations: Durations {
            total: Duration::from_micros(12_345),
            connect: Some(Duration::from_micros(1)),
            upstream_head: Some(Duration::from_secs(2)),
        },
        subject: Some("alice"),
        tls: Some("TLSv1.3"),
        reused: true,
        upstream_reused: Some(false),
    });
    let expect = json!({
        "time": "2026-03-01T12:00:00.250Z", "request_id": "r1", "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736",
        "span_id": "00f067aa0ba902b7", "route": "api", "revision": "abc", "client": "2001:db8::7",
        "listener": "public", "method": "GET", "scheme": "https", "host": "example.com", "path": "/a\"b\u{1b}",
        "query": "a=1&token=***", "protocol": "HTTP/2", "status": 502, "code": "upstream_reset",
        "cause": "connection reset", "bytes_in": 3, "bytes_out": 4, "upstream": "pocketbase",
        "endpoint": "[::1]:8090", "attempts": 2, "total_ms": 12.345, "connect_ms": 0.001, "upstream_head_ms": 2000.0,
        "subject": "alice", "tls": "TLSv1.3", "reused": true, "upstream_reused": false,
    });
    assert_eq!(read, expect);
    let docs = include_str!("../../../docs/logging.md");
    for field in expect.as_object().unwrap().keys() {
        assert!(docs.contains(&format!("| `{field}` |")), "docs/logging.md lacks {field}");
    }
}

#[test]
fn what_is_not_known_is_left_out() {
    let read = line(&Entry { request_id: "r1", ..Entry::default() });
    let fields: BTreeSet<&str> = read.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(
        fields,
        BTreeSet::from(["attempts", "bytes_in", "bytes_out", "request_id", "reused", "status", "time", "total_ms"])
    );
}

#[test]
fn lines_reach_the_file_in_order_and_a_reopened_one_after_rotation() {
    let dir = tempfile::tempdir().unwrap();
    let (path, rotated) = (dir.path().join("access.log"), dir.path().join("access.log.1"));
    let log = AccessLog::open(&settings(path.to_str().unwrap()), Count::default()).unwrap();
    for i in 0..1_000 {
        log.record(&Entry { request_id: &i.to_string(), ..Entry::default() });
    }
    assert!(log.flush(PATIENCE));
    let text = std::fs::read_to_string(&path).unwrap();
    let ids = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["request_id"].clone());
    assert!(ids.eq((0..1_000).map(|i| Value::from(i.to_string()))));

    std::fs::rename(&path, &rotated).unwrap();
    log.reopen();
    log.record(&Entry { request_id: "after", ..Entry::default() });
    assert!(log.flush(PATIENCE));
    assert!(std::fs::read_to_string(&path).unwrap().contains("after"));
    assert!(!std::fs::read_to_string(&rotated).unwrap().contains("after"));
}

#[test]
fn a_file_that_cannot_be_opened_is_an_error() {
    assert!(AccessLog::open(&settings("/nowhere/at/all/access.log"), Count::default()).is_err());
}

/// Writes when told to: each message lets one batch through.
struct Gate(mpsc::Receiver<()>, Arc<std::sync::Mutex<Vec<u8>>>);

impl Write for Gate {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.recv().map_err(io::Error::other)?;
        self.1.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_stuck_writer_holds_up_nobody_and_loses_only_the_newest() {
    let (open, gate) = mpsc::channel();
    let written = Arc::default();
    let (log, dropped) = log_to(Sink::Test(Box::new(Gate(gate, Arc::clone(&written)))));
    let path = "x".repeat(10_000);
    let mut recorded = 0;
    while dropped.value() == 0 {
        log.record(&Entry { request_id: &recorded.to_string(), path: &path, ..Entry::default() });
        recorded += 1;
        assert!(recorded < 2_000, "the queue has no bound");
    }
    assert!(!log.flush(Duration::from_millis(1)));
    for _ in 0..3 {
        open.send(()).unwrap();
    }
    assert!(log.flush(PATIENCE));
    let written = written.lock().unwrap();
    let text = std::str::from_utf8(&written).unwrap();
    assert_eq!(text.lines().count() as u64, recorded - 1);
    assert!(text.contains("\"request_id\":\"0\"") && !text.contains(&format!("\"request_id\":\"{}\"", recorded - 1)));
}

#[test]
fn lines_that_cannot_be_written_are_counted() {
    let (open, gate) = mpsc::channel();
    drop(open);
    let (log, dropped) = log_to(Sink::Test(Box::new(Gate(gate, Arc::default()))));
    for _ in 0..5 {
        log.record(&Entry::default());
    }
    assert!(log.flush(PATIENCE));
    assert_eq!(dropped.value(), 5);
}

#[test]
fn the_last_clone_gone_still_writes_what_is_queued() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("access.log");
    let log = AccessLog::open(&settings(path.to_str().unwrap()), Count::default()).unwrap();
    log.record(&Entry { request_id: "last", ..Entry::default() });
    let queue = log.0.queue.clone().unwrap();
    drop(log);
    assert!(queue.flush(PATIENCE));
    assert!(std::fs::read_to_string(&path).unwrap().contains("last"));
}

#[tokio::test]
async fn a_tap_hears_lines_while_it_listens_even_when_the_log_is_off() {
    let quiet = settings::Log { redact_query: OneOrMany(vec!["token".to_owned()]), ..settings("off") };
    let log = AccessLog::open(&quiet, Count::default()).unwrap();
    log.record(&Entry { request_id: "before", ..Entry::default() });
    let mut tap = log.subscribe();
    log.record(&Entry { request_id: "heard", route: "api", status: 204, query: Some("token=x"), ..Entry::default() });
    let Some(Tapped::Line(line)) = tap.next().await else { panic!() };
    assert_eq!((&*line.route, line.status), ("api", 204));
    assert!(line.json.contains("heard") && line.json.contains("token=***") && !line.json.ends_with('\n'));

    for _ in 0..TAP_LINES + 3 {
        log.record(&Entry::default());
    }
    assert!(matches!(tap.next().await, Some(Tapped::Missed(3))));
    drop(tap);
    assert_eq!(log.0.listeners.load(Ordering::Relaxed), 0);
    let mut tap = log.subscribe();
    drop(log);
    assert!(tap.next().await.is_none());
}
