//! Documents through the loop: what is applied, what is refused, what is kept.

use std::path::Path;
use std::time::Duration;

use super::*;
use crate::facts::Scheme;
use crate::routes::Found;
use crate::settings;
use crate::source::{self, Publisher, Trigger, Update};
use crate::tasks::{TaskGuard, Tasks};

const DEADLINE: Duration = Duration::from_secs(20);

/// A running loop, fed by hand.
struct Running {
    publisher: Publisher,
    handle: Handle,
    status: watch::Receiver<Arc<Status>>,
    metrics: Metrics,
    tasks: Tasks,
    _loop: TaskGuard,
}

fn update(text: &str) -> source::Yield {
    Ok(Update { text: text.into(), name: "routes.toml".to_owned(), trigger: Trigger::Noticed, revision: None })
}

fn missing() -> source::Yield {
    Err(SourceError::Missing("routes.toml".into()))
}

fn document(routes: &[&str]) -> String {
    let route = |name: &&str| {
        format!("[[route]]\nname = \"{name}\"\nmatch = {{ path = \"/{name}\" }}\nrespond = {{ body = \"{name}\" }}\n")
    };
    format!("format = 1\n{}", routes.iter().map(route).collect::<String>())
}

async fn try_start(first: source::Yield, state: Option<&Path>) -> Result<Running, BootError> {
    let (publisher, source) = source::channel();
    publisher.publish(first);
    let (tasks, metrics) = (Tasks::default(), Metrics::new());
    let setup = Setup {
        source,
        pools: Arc::new(Pools::new(&settings::Dns::default(), tasks.clone()).unwrap()),
        env: routes::Env { listeners: vec![routes::Listener::new("public", true)], ..routes::Env::default() },
        metrics: metrics.clone(),
        last_good: state.map(|dir| LastGood::open(dir).unwrap()),
        references: Arc::new(References::resolve),
        fallback: None,
        applying: std::sync::Arc::new(|_| ()),
    };
    let (control, handle) = boot(setup).await?;
    let status = handle.watch();
    let _loop = tasks.spawn("control", control.run());
    Ok(Running { publisher, handle, status, metrics, tasks, _loop })
}

async fn start(first: &str) -> Running {
    try_start(update(first), None).await.unwrap()
}

impl Running {
    /// Publishes, and waits until the loop has looked at it.
    async fn feed(&mut self, next: source::Yield) -> Arc<Status> {
        self.publisher.publish(next);
        self.looked().await
    }

    async fn looked(&mut self) -> Arc<Status> {
        tokio::time::timeout(DEADLINE, self.status.changed()).await.expect("the loop looks at it in time").unwrap();
        self.status.borrow_and_update().clone()
    }

    /// Waits for what follows a change.
    async fn eventually(&self, what: &str, holds: impl Fn(&Running) -> bool) {
        let until = tokio::time::Instant::now() + DEADLINE;
        while !holds(self) {
            assert!(tokio::time::Instant::now() < until, "{what}");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    fn exposes(&self, text: &str) -> bool {
        self.metrics.render(&crate::telemetry::metrics::Readings::default()).contains(text)
    }

    fn serves(&self, name: &str) -> bool {
        let (headers, method, path) = (http::HeaderMap::new(), http::Method::GET, format!("/{name}"));
        let head = crate::facts::Head {
            method: &method,
            scheme: Scheme::Http,
            host: "example.com",
            path: &path,
            query: None,
            headers: &headers,
            client: [127, 0, 0, 1].into(),
            listener: "public",
            sni: None,
            client_certificate: None,
            request_id: "",
        };
        matches!(self.handle.live().load().find(&head), Found::Route { route, .. } if &*route.name == name)
    }
}

#[tokio::test]
async fn applies_what_is_good_and_tells_what_it_touched() {
    let mut running = start(&document(&["a", "b"])).await;
    let before = running.handle.status();
    assert!(running.serves("a") && !running.serves("c"));
    let status = running.feed(update(&document(&["b", "c"]))).await;
    assert!(!running.serves("a") && running.serves("c"));
    assert_ne!(status.revision, before.revision);
    assert_eq!(status.last_change.added.names, ["route c"]);
    assert_eq!(status.last_change.removed.names, ["route a"]);
    assert_eq!((status.routes, status.serving), (2, status::Serving::Source));
}

#[tokio::test]
async fn a_bad_document_changes_nothing_and_is_told_with_its_place() {
    let mut running = start(&document(&["a"])).await;
    let before = running.handle.status();
    let bad = format!("{}[[route]]\nname = \"b\"\nupstraem = \"x\"\n", document(&["a"]));
    let status = running.feed(update(&bad)).await;
    assert!(running.serves("a"));
    assert_eq!(status.revision, before.revision);
    assert!(!status.is_current());
    let problem = status.problems.iter().find(|problem| problem.message.contains("upstraem")).unwrap();
    assert_eq!((problem.file.as_str(), problem.line, problem.severity), ("routes.toml", 8, "error"));
    assert!(problem.help.as_deref().is_some_and(|help| help.contains("upstream")), "{problem:?}");

    let status = running.feed(update(&document(&["a"]))).await;
    assert!(status.is_current() && status.problems.is_empty(), "going back makes it good again");
    assert_eq!(status.applied_at_ms, before.applied_at_ms);
}

#[tokio::test]
async fn a_failing_test_of_the_document_refuses_it() {
    let mut running = start(&document(&["a"])).await;
    let case = |expect: &str| {
        let cases = format!("[[test]]\nrequest = \"GET http://x/b\"\nexpect = {{ route = \"{expect}\" }}\n");
        document(&["b"]) + &cases
    };
    let status = running.feed(update(&case("none"))).await;
    assert!(running.serves("a") && !running.serves("b"));
    assert_eq!(status.problems.first().map(|problem| problem.line), Some(8), "{:?}", status.problems);
    let status = running.feed(update(&case("b"))).await;
    assert!(running.serves("b") && status.is_current());
}

#[tokio::test]
async fn the_same_text_is_not_applied_again_unless_a_reference_changed() {
    let dir = tempfile::tempdir().unwrap();
    let secret = dir.path().join("secret");
    std::fs::write(&secret, "one").unwrap();
    let text =
        format!("format = 1\n[[route]]\nname = \"a\"\nrespond = {{ body = \"${{file:{}}}\" }}\n", secret.display());
    let mut running = start(&text).await;
    let first = running.handle.live().load_full();
    running.feed(update(&text)).await;
    assert!(Arc::ptr_eq(&first, &running.handle.live().load_full()));
    std::fs::write(&secret, "two").unwrap();
    running.feed(update(&text)).await;
    assert!(!Arc::ptr_eq(&first, &running.handle.live().load_full()));
    for line in ["changes_total{result=\"applied\"} 2", "changes_total{result=\"unchanged\"} 1"] {
        assert!(running.exposes(line), "{line}");
    }
}

#[tokio::test]
async fn a_source_without_a_document_changes_nothing_and_is_told() {
    let mut running = start(&document(&["a"])).await;
    let status = running.feed(missing()).await;
    assert!(running.serves("a"));
    assert!(status.source_error.as_deref().is_some_and(|error| error.contains("no such file")));
    let status = running.feed(update(&document(&["a"]))).await;
    assert!(status.is_current());
}

#[tokio::test]
async fn starts_with_the_last_good_document_and_says_so() {
    let state = tempfile::tempdir().unwrap();
    drop(try_start(update(&document(&["a"])), Some(state.path())).await.unwrap());
    for bad in [update("format = 1\nnonsense = 1\n"), missing()] {
        let mut running = try_start(bad, Some(state.path())).await.unwrap();
        let status = running.handle.status();
        assert!(running.serves("a"));
        assert_eq!(status.serving, status::Serving::LastGood);
        assert!(!status.is_current() && (status.source_error.is_some() || !status.problems.is_empty()));
        // The source goes on being followed.
        let status = running.feed(update(&document(&["b"]))).await;
        assert!(running.serves("b"));
        assert_eq!((status.serving, status.is_current()), (status::Serving::Source, true));
        running.feed(update(&document(&["a"]))).await;
        let kept = LastGood::open(state.path()).unwrap();
        let expect = document(&["a"]);
        running.eventually("kept", |_| kept.load().is_ok_and(|text| text.as_deref() == Some(&expect))).await;
    }
}

#[tokio::test]
async fn without_any_good_document_does_not_start() {
    let state = tempfile::tempdir().unwrap();
    let error = try_start(missing(), None).await.err().unwrap().to_string();
    assert!(error.contains("no such file"), "{error}");
    let error = try_start(update("format = 1\nnonsense = 1\n"), Some(state.path())).await.err().unwrap().to_string();
    assert!(error.contains("routes.toml:2:1") && error.contains("no last good"), "{error}");
    std::fs::write(LastGood::open(state.path()).unwrap().path(), "format = 1\n").unwrap();
    let error = try_start(missing(), Some(state.path())).await.err().unwrap().to_string();
    assert!(error.contains("not whole"), "{error}");
}

#[tokio::test]
async fn the_last_good_document_keeps_references_as_written() {
    let state = tempfile::tempdir().unwrap();
    let text = "format = 1\n[[route]]\nname = \"a\"\nrespond = { body = \"${HOME:-none}\" }\n";
    drop(try_start(update(text), Some(state.path())).await.unwrap());
    assert_eq!(LastGood::open(state.path()).unwrap().load().unwrap().as_deref(), Some(text));
}

#[tokio::test]
async fn a_route_that_leaves_lets_its_streams_know_only_if_it_drains() {
    let with = |name: &str, on_remove: &str| {
        format!(
            "[[route]]\nname = \"{name}\"\nmatch = {{ path = \"/{name}\" }}\nrespond = {{}}\nstream = {{ on_remove = \"{on_remove}\" }}\n"
        )
    };
    let mut running = start(&format!("format = 1\n{}{}", with("keeps", "keep"), with("drains", "drain"))).await;
    let table = running.handle.live().load_full();
    let (keeps, drains) = (table.route("keeps").unwrap(), table.route("drains").unwrap());
    running.feed(update(&format!("format = 1\n# new\n{}{}", with("keeps", "keep"), with("drains", "drain")))).await;
    assert!(!keeps.removed.is_cancelled() && !drains.removed.is_cancelled());
    running.feed(update(&document(&["a"]))).await;
    // Also for streams that began two tables ago.
    tokio::time::timeout(DEADLINE, drains.removed.cancelled()).await.expect("the removed route drains");
    assert!(!keeps.removed.is_cancelled());
}

#[tokio::test]
async fn series_come_and_leave_with_their_route() {
    let mut running = start(&document(&["a"])).await;
    let table = running.handle.live().load_full();
    let bound = table.route("a").unwrap().metrics.get().unwrap();
    assert!(Arc::ptr_eq(bound, &running.metrics.route("a")));
    bound.finished(200, None, std::time::Duration::ZERO, 0, 0);
    assert!(running.exposes("route=\"a\""));
    running.feed(update(&document(&["b"]))).await;
    running.eventually("the series leave", |running| !running.exposes("route=\"a\"")).await;
}

#[tokio::test]
async fn reload_runs_the_hooks_and_asks_the_source() {
    let running = start(&document(&["a"])).await;
    let (ran, mut runs) = tokio::sync::mpsc::unbounded_channel();
    running.handle.on_reload(Box::new(move || ran.send(()).unwrap()));
    running.handle.reload();
    tokio::time::timeout(DEADLINE, runs.recv()).await.unwrap().unwrap();
    tokio::time::timeout(DEADLINE, running.publisher.asked()).await.unwrap();
    running.tasks.stop().await;
}
