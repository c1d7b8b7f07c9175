//! The real controller as a child process, in a directory of its own that outlives it.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::time::Instant;

use http::{Request, header};
use rustix::process::{Pid, Signal};
use serde_json::Value;
use tempfile::TempDir;

use super::nats::Nats;
use super::tls::Identity;
use super::tollgate::command;
use super::{Authority, Client, PATIENCE, Reply, empty, full, pause};

/// What lets one in.
pub(crate) const TOKEN: &str = "a token that nobody guesses";

/// A running controller, or one that was killed. Ends with the test.
pub(crate) struct Controller {
    directory: Arc<TempDir>,
    running: Option<(Child, SocketAddr)>,
}

impl Controller {
    pub(crate) async fn start(nats: &Nats) -> Controller {
        Controller::with(nats, "", "").await
    }

    /// With more settings, and with rules.
    pub(crate) async fn with(nats: &Nats, settings: &str, alerts: &str) -> Controller {
        let mut controller = Controller::new();
        controller.write_settings(nats, &format!("token = {TOKEN:?}\n{settings}"), "");
        controller.write_alerts(alerts);
        controller.begin().await;
        controller
    }

    /// Over https, for clients of an authority; these settings say whether the token is another way in.
    pub(crate) async fn for_clients_of(nats: &Nats, settings: &str, clients: &Authority, own: &Identity) -> Controller {
        let mut controller = Controller::new();
        for (name, text) in [("clients.pem", &clients.pem), ("chain.pem", &own.chain_pem), ("key.pem", &own.key_pem)] {
            std::fs::write(controller.path().join(name), text).unwrap();
        }
        let certificate = "certificate = { chain = \"chain.pem\", key = \"key.pem\" }";
        controller.write_settings(nats, &format!("client_ca = \"clients.pem\"\n{settings}"), certificate);
        controller.write_alerts("");
        controller.begin().await;
        controller
    }

    fn new() -> Controller {
        let directory = Arc::new(tempfile::Builder::new().prefix("controller-").tempdir().unwrap());
        Controller { directory, running: None }
    }

    fn write_settings(&self, nats: &Nats, settings: &str, listen: &str) {
        let text = format!(
            "format = 1\ndata = \"data\"\nalerts = \"alerts.toml\"\n{settings}\n\
             [listen]\naddress = \"127.0.0.1:0\"\n{listen}\n[bus]\nurls = [{:?}]\n[log]\nformat = \"text\"\n",
            nats.url()
        );
        std::fs::write(self.path().join("controller.toml"), text).unwrap();
    }

    pub(crate) fn write_alerts(&self, alerts: &str) {
        std::fs::write(self.directory.path().join("alerts.toml"), format!("format = 1\n{alerts}")).unwrap();
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Begins again on the same directory.
    pub(crate) async fn begin(&mut self) {
        let file = self.path().join(format!("ports-{:x}.json", fastrand::u64(..)));
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.path().join("log")).unwrap();
        let mut child = command()
            .args(["controller", "-c", "controller.toml"])
            .current_dir(self.path())
            .env("TOLLGATE_PORTS_FILE", &file)
            .env("RUST_BACKTRACE", "1")
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let began = Instant::now();
        let address = loop {
            if let Ok(text) = std::fs::read_to_string(&file) {
                let ports: Value = serde_json::from_str(&text).unwrap();
                break ports["controller"].as_str().unwrap().parse().unwrap();
            }
            assert!(child.try_wait().unwrap().is_none() && began.elapsed() < PATIENCE, "not up: {}", self.log());
            pause().await;
        };
        self.running = Some((child, address));
    }

    /// As `kill -9`.
    pub(crate) fn kill(&mut self) {
        if let Some((mut child, _)) = self.running.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// TERM, and out it goes with 0.
    pub(crate) async fn stop(&mut self) {
        let (mut child, _) = self.running.take().unwrap();
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
        rustix::process::kill_process(pid, Signal::TERM).unwrap();
        let status = eventually!(child.try_wait().unwrap());
        assert_eq!(status.code(), Some(0), "{}", self.log());
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.path().join("log")).unwrap_or_default()
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.running.as_ref().unwrap().1
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address())
    }

    /// A request as it is, with nothing that lets one in.
    pub(crate) async fn send(&self, request: http::request::Builder, body: Option<&str>) -> Reply {
        let body = body.map_or_else(empty, |body| full(body.to_owned()));
        Client::h1(self.address()).await.fetch(request.body(body).unwrap()).await
    }

    pub(crate) async fn get(&self, path: &str) -> Reply {
        self.send(Request::get(self.url(path)).header(header::AUTHORIZATION, format!("Bearer {TOKEN}")), None).await
    }

    /// JSON of the API.
    pub(crate) async fn api(&self, path: &str) -> Value {
        let reply = self.get(&format!("/api{path}")).await;
        assert_eq!(reply.status, 200, "{path}: {reply:?}");
        reply.json()
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Reply {
        let request = Request::post(self.url(&format!("/api{path}")))
            .header(header::AUTHORIZATION, format!("Bearer {TOKEN}"))
            .header(header::CONTENT_TYPE, "application/json");
        self.send(request, Some(&body.to_string())).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Reply {
        let request = Request::delete(self.url(&format!("/api{path}")));
        self.send(request.header(header::AUTHORIZATION, format!("Bearer {TOKEN}")), None).await
    }

    /// Whether it is the one that acts.
    pub(crate) async fn acts(&self) -> bool {
        self.api("/status").await["active"] == true
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let end: Vec<&str> = log.lines().rev().take(40).collect();
            eprintln!("--- the controller's log, its end\n{}", end.into_iter().rev().collect::<Vec<_>>().join("\n"));
        }
        self.kill();
    }
}
