//! Pages asked over real sockets.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::config::References;
use crate::control::{Control, Setup, boot};
use crate::rejection::Code;
use crate::scalar::OneOrMany;
use crate::source::{self, Publisher, Trigger, Update};
use crate::telemetry::Entry;
use crate::{routes, settings};

const PATIENCE: Duration = Duration::from_secs(20);

const DOCUMENT: &str = r#"
format = 1
[upstream.pocketbase]
address = "127.0.0.1:1"
[[route]]
name = "api"
match = { host = "example.com", path = "/api/*", method = ["GET"], header = { x-a = "secret" } }
upstream = "pocketbase"
[[route]]
name = "hello"
match = { path = "/hello" }
respond = { body = "hello" }
"#;

/// A gateway's state, with its loop run by hand.
struct Running {
    state: State,
    publisher: Publisher,
    control: Control,
    shutdown: CancellationToken,
}

fn update(text: &str) -> Update {
    Update { text: text.into(), name: "routes.toml".to_owned(), trigger: Trigger::Noticed, revision: None }
}

async fn running() -> Running {
    let (publisher, source) = source::channel();
    publisher.publish(Ok(update(DOCUMENT)));
    let (tasks, metrics) = (Tasks::default(), Metrics::new());
    let pools = Arc::new(Pools::new(&settings::Dns::default(), tasks.clone()).unwrap());
    let setup = Setup {
        source,
        pools: pools.clone(),
        env: routes::Env { listeners: vec![routes::Listener::new("public", true)], ..routes::Env::default() },
        metrics: metrics.clone(),
        last_good: None,
        references: Arc::new(References::resolve),
        fallback: None,
        applying: std::sync::Arc::new(|_| ()),
    };
    let (control, handle) = boot(setup).await.unwrap();
    let log = settings::Log { access: "off".to_owned(), ..settings::Log::default() };
    let state = State {
        access: AccessLog::open(&log, metrics.log_lines_dropped.clone()).unwrap(),
        metrics,
        tasks,
        pools,
        live: handle.live().clone(),
        status: handle.watch(),
        drain: Drain::default(),
        revocations: Arc::default(),
        membership: None,
        overload: Arc::new(Overload::new(&settings::Overload::default())),
        certificates: Arc::new(Vec::new),
        listening: Arc::new(AtomicBool::new(true)),
    };
    Running { state, publisher, control, shutdown: CancellationToken::new() }
}

impl Running {
    async fn serve(&self, router: Router) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(serve(listener, router, self.shutdown.clone()));
        address
    }

    async fn admin(&self, token: Option<&str>) -> SocketAddr {
        self.serve(admin_router(self.state.clone(), guard(token))).await
    }
}

fn guard(token: Option<&str>) -> Guard {
    let settings = settings::Admin {
        address: "127.0.0.1:0".to_owned(),
        token: token.map(str::to_owned),
        hosts: OneOrMany(vec!["Edge.Internal".to_owned()]),
    };
    Guard::new(&settings).unwrap()
}

struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("{}\n{}", self.head, self.body))
    }

    /// A problem with this status and code.
    #[track_caller]
    fn refuses(&self, status: u16, code: &str) {
        assert_eq!(self.status, status, "{}", self.body);
        assert!(self.head.contains("content-type: application/problem+json"), "{}", self.head);
        assert_eq!((self.json()["code"].as_str(), self.json()["status"].as_u64()), (Some(code), Some(status.into())));
    }
}

/// Sends a head and perhaps a body as they are, and reads until the connection ends.
async fn exchange(mut stream: impl AsyncRead + AsyncWrite + Unpin, request: &str) -> Answer {
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await.unwrap().unwrap();
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{answer:?}"));
    Answer { status: head[9..12].parse().unwrap(), head: head.to_owned(), body: body.to_owned() }
}

async fn get(address: SocketAddr, path: &str, fields: &str) -> Answer {
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n{fields}\r\n");
    exchange(TcpStream::connect(address).await.unwrap(), &request).await
}

async fn post(address: SocketAddr, path: &str, fields: &str, body: &str) -> Answer {
    let length = body.len();
    let head = format!("POST {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Length: {length}\r\n");
    exchange(TcpStream::connect(address).await.unwrap(), &format!("{head}{fields}\r\n{body}")).await
}

#[tokio::test]
async fn health_pages_answer_and_nothing_else_does() {
    let running = running().await;
    let address = running.serve(health_router(running.state.clone())).await;
    let health = get(address, "/health", "").await;
    assert_eq!((health.status, health.json()), (200, json!({ "status": "ok" })));
    running.state.metrics.route("hello").finished(404, Some(Code::NoRoute), std::time::Duration::ZERO, 0, 0);
    let metrics = get(address, "/metrics", "").await;
    assert!(metrics.head.contains("content-type: text/plain; version=0.0.4"), "{}", metrics.head);
    assert!(metrics.body.contains(r#"tollgate_rejections_total{route="hello",code="no_route"} 1"#));
    assert!(metrics.body.contains(r#"tollgate_upstream_endpoints{upstream="pocketbase",state="healthy"} 1"#));
    for path in ["/routes", "/config", "/tap", "/explain", "/"] {
        get(address, path, "").await.refuses(404, "not_found");
    }
    post(address, "/health", "", "").await.refuses(405, "method_not_allowed");
    let request = "GET /health HTTP/1.1\r\nHost: whatever.the.probe.says\r\nConnection: close\r\n\r\n";
    assert_eq!(exchange(TcpStream::connect(address).await.unwrap(), request).await.status, 200);
}

#[tokio::test]
async fn ready_says_503_before_listeners_are_up_and_while_draining() {
    let running = running().await;
    let address = running.serve(health_router(running.state.clone())).await;
    let ready = get(address, "/ready", "").await;
    let body = ready.json();
    assert_eq!((ready.status, &body["ready"], &body["last_change_ok"]), (200, &json!(true), &json!(true)));
    assert_eq!(body["revision"].as_str(), Some(&*running.state.live.load().revision));

    running.state.listening.store(false, std::sync::atomic::Ordering::Release);
    let unready = get(address, "/ready", "").await;
    assert_eq!((unready.status, &unready.json()["listening"]), (503, &json!(false)));
    running.state.listening.store(true, std::sync::atomic::Ordering::Release);

    running.state.drain.begin(&running.state.tasks, PATIENCE, Duration::ZERO);
    let leaving = get(address, "/ready", "").await;
    assert_eq!((leaving.status, &leaving.json()["draining"]), (503, &json!(true)));
}

#[tokio::test]
async fn a_refused_document_shows_with_its_place_while_the_last_good_one_serves() {
    let Running { state, publisher, control, shutdown } = running().await;
    let mut status = state.status.clone();
    tokio::spawn(control.run());
    publisher.publish(Ok(update("format = 1\n[[route]]\nname = \"x\"\nupstrem = \"pocketbase\"\n")));
    tokio::time::timeout(PATIENCE, status.wait_for(|status| !status.is_current())).await.unwrap().unwrap();

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(serve(listener, admin_router(state.clone(), guard(None)), shutdown.clone()));
    let config = get(address, "/config", "").await.json();
    let problem = &config["problems"][0];
    assert_eq!((&problem["file"], &problem["line"]), (&json!("routes.toml"), &json!(4)), "{config}");
    assert_eq!(config["revision"].as_str(), Some(&*state.live.load().revision));
    let ready = get(address, "/ready", "").await;
    assert_eq!((ready.status, &ready.json()["last_change_ok"]), (200, &json!(false)));
}

#[tokio::test]
async fn admin_pages_show_what_is_in_force() {
    let running = running().await;
    let address = running.admin(None).await;
    let routes = get(address, "/routes", "").await;
    let listed = &routes.json()["routes"][0];
    assert_eq!((&listed["route"], &listed["host"]), (&json!("api"), &json!("example.com")));
    assert_eq!((&listed["path"], &listed["destination"]), (&json!("/api/*"), &json!("upstream pocketbase")));
    assert!(!routes.body.contains("secret"), "values of conditions may be secrets: {}", routes.body);
    let upstreams = get(address, "/upstreams", "").await.json();
    assert_eq!(upstreams["upstreams"][0]["name"], "pocketbase");
    assert_eq!(upstreams["upstreams"][0]["endpoints"][0]["state"], "healthy");
    assert!(get(address, "/tasks", "").await.json()["tasks"].is_object());
    assert_eq!(get(address, "/config", "").await.json()["routes"], 2);
    get(address, "/nothing", "").await.refuses(404, "not_found");
    post(address, "/routes", "Content-Type: application/json\r\n", "{}").await.refuses(405, "method_not_allowed");
}

#[tokio::test]
async fn explain_asks_the_table_in_force() {
    let running = running().await;
    let address = running.admin(None).await;
    let json_type = "Content-Type: application/json; charset=utf-8\r\n";
    let asked = json!({ "url": "http://example.com/api/x", "headers": { "x-a": "secret" }, "from": "203.0.113.7" });
    let answer = post(address, "/explain", json_type, &asked.to_string()).await;
    assert_eq!((answer.status, &answer.json()["outcome"]["route"]), (200, &json!("api")), "{}", answer.body);
    let asked = json!({ "method": "GET", "url": "http://example.com/api/x" });
    let answer = post(address, "/explain", json_type, &asked.to_string()).await.json();
    assert_eq!((&answer["outcome"]["code"], &answer["others"][0]["lost_by"]), (&json!("no_route"), &json!("header")));

    let wrong = [json!({ "url": "nonsense" }), json!({ "url": "http://a/", "from": "x" })];
    for asked in wrong {
        post(address, "/explain", json_type, &asked.to_string()).await.refuses(400, "bad_question");
    }
    post(address, "/explain", json_type, r#"{"url":"http://a/","nonsense":1}"#).await.refuses(422, "bad_question");
    post(address, "/explain", json_type, &" ".repeat(BODY_MAX + 1)).await.refuses(413, "bad_question");
    post(address, "/explain", "Content-Type: text/plain\r\n", "{}").await.refuses(415, "not_json");
    get(address, "/explain", "").await.refuses(405, "method_not_allowed");
}

#[tokio::test]
async fn foreign_names_and_origins_are_refused() {
    let running = running().await;
    let address = running.admin(None).await;
    let port = address.port();
    let ask = async |head: String| {
        let request = format!("GET /health HTTP/1.1\r\nConnection: close\r\n{head}\r\n");
        exchange(TcpStream::connect(address).await.unwrap(), &request).await
    };
    for host in
        ["localhost", "LOCALHOST.", "a.localhost", "127.0.0.1", "[::1]", "127.1.2.3", "edge.internal", "Edge.Internal."]
    {
        assert_eq!(ask(format!("Host: {host}:{port}\r\n")).await.status, 200, "{host}");
    }
    for host in ["attacker.example", "localhost.attacker.example", "10.0.0.1", "0.0.0.0", "notlocalhost", "[::2]"] {
        ask(format!("Host: {host}:{port}\r\n")).await.refuses(403, "foreign_host");
    }
    for hosts in
        ["", "Host: a b\r\n", "Host: localhost\r\nHost: localhost\r\n", "Host: evil@localhost\r\n", "Host:\r\n"]
    {
        ask(hosts.to_owned()).await.refuses(400, "bad_host");
    }
    let host = format!("Host: localhost:{port}\r\n");
    for origin in [format!("http://localhost:{port}"), format!("https://localhost:{port}")] {
        assert_eq!(ask(format!("{host}Origin: {origin}\r\n")).await.status, 200, "{origin}");
    }
    for origin in ["null", "http://localhost", "http://attacker.example", "", "file://"] {
        ask(format!("{host}Origin: {origin}\r\n")).await.refuses(403, "foreign_origin");
    }
    let two = format!("{host}Origin: http://localhost:{port}\r\nOrigin: http://attacker.example\r\n");
    ask(two).await.refuses(403, "foreign_origin");
    let absolute = format!("GET http://attacker.example/health HTTP/1.1\r\nConnection: close\r\n{host}\r\n");
    exchange(TcpStream::connect(address).await.unwrap(), &absolute).await.refuses(400, "bad_host");
}

#[tokio::test]
async fn a_token_is_required_when_there_is_one() {
    let running = running().await;
    let address = running.admin(Some("s3cret\n")).await;
    for fields in
        ["", "Authorization: Bearer wrong\r\n", "Authorization: Basic s3cret\r\n", "Authorization: Bearer \r\n"]
    {
        let answer = get(address, "/health", fields).await;
        answer.refuses(401, "unauthorized");
        assert!(answer.head.contains("www-authenticate: Bearer"));
    }
    for fields in ["Authorization: Bearer s3cret\r\n", "authorization: bearer s3cret\r\n"] {
        assert_eq!(get(address, "/tasks", fields).await.status, 200);
    }
    let empty = settings::Admin { address: String::new(), token: Some(" ".to_owned()), hosts: OneOrMany::default() };
    assert_eq!(Guard::new(&empty).unwrap_err(), GuardError::EmptyToken);
}

#[tokio::test]
async fn a_socket_file_serves_as_well() {
    let running = running().await;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("admin.sock");
    let listener = UnixListener::bind(&path).unwrap();
    tokio::spawn(serve(listener, admin_router(running.state.clone(), guard(None)), running.shutdown.clone()));
    let request = "GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    assert_eq!(exchange(UnixStream::connect(&path).await.unwrap(), request).await.status, 200);
}

#[tokio::test]
async fn a_tap_shows_the_lines_it_asked_for_until_the_process_leaves() {
    let running = running().await;
    let address = running.admin(None).await;
    get(address, "/tap?status=abc", "").await.refuses(400, "bad_filter");
    get(address, "/tap?nonsense=1", "").await.refuses(400, "bad_filter");

    let mut stream = BufReader::new(TcpStream::connect(address).await.unwrap());
    let request = format!("GET /tap?route=api&status=5xx HTTP/1.1\r\nHost: {address}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        tokio::time::timeout(PATIENCE, stream.read_line(&mut head)).await.unwrap().unwrap();
    }
    assert!(head.contains("content-type: text/event-stream"), "{head}");
    for (id, route, status) in [("r1", "api", 200), ("r2", "hello", 502), ("r3", "api", 502)] {
        running.state.access.record(&Entry { request_id: id, route, status, ..Entry::default() });
    }
    let mut text = String::new();
    while !text.contains("\"r3\"") {
        tokio::time::timeout(PATIENCE, stream.read_line(&mut text)).await.unwrap().unwrap();
    }
    assert!(text.contains("data: {\"time\":") && !text.contains("\"r1\"") && !text.contains("\"r2\""), "{text}");

    running.shutdown.cancel();
    tokio::time::timeout(PATIENCE, stream.read_to_string(&mut text)).await.unwrap().unwrap();
    assert!(TcpStream::connect(address).await.is_err(), "the listener is gone");
}

#[tokio::test]
async fn taps_have_a_bound() {
    let running = running().await;
    let address = running.admin(None).await;
    let mut open = Vec::new();
    for _ in 0..TAPS_MAX {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(format!("GET /tap HTTP/1.1\r\nHost: {address}\r\n\r\n").as_bytes()).await.unwrap();
        let mut first = [0; 12];
        stream.read_exact(&mut first).await.unwrap();
        assert_eq!(&first, b"HTTP/1.1 200");
        open.push(stream);
    }
    get(address, "/tap", "").await.refuses(503, "too_many_taps");
}
