//! The real backend as a child process, in a directory of its own, and a client of its API.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use http::{Method, Request};
use rustix::process::{Pid, Signal};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::tollgate::{Ran, command, tollgate};
use super::{Body, Client, PATIENCE, Reply, empty, full, pause};

pub(crate) const ADMIN: (&str, &str) = ("admin@example.com", "correct horse battery");

/// A running backend. Ends with the test, and says what it logged if the test failed.
pub(crate) struct Backend {
    child: Child,
    directory: TempDir,
    address: SocketAddr,
}

impl Backend {
    pub(crate) async fn start() -> Backend {
        Backend::with("").await
    }

    /// With more settings than the usual ones.
    pub(crate) async fn with(settings: &str) -> Backend {
        let directory = tempfile::Builder::new().prefix("backend-").tempdir().unwrap();
        let text = format!("format = 1\nlisten = \"127.0.0.1:0\"\ndata = \"data\"\n{settings}\n");
        std::fs::write(directory.path().join("backend.toml"), text).unwrap();
        let (child, address) = spawn(directory.path()).await;
        Backend { child, directory, address }
    }

    /// Another process on the same data, after this one has ended.
    pub(crate) async fn again(&mut self) {
        (self.child, self.address) = spawn(self.directory.path()).await;
    }

    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// `tollgate backend ..` on its settings.
    pub(crate) fn command(&self, args: &[&str]) -> Ran {
        let all: Vec<&str> = ["backend", "-c", "backend.toml"].iter().chain(args).copied().collect();
        tollgate(self.directory(), &all)
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }

    pub(crate) async fn exited(&mut self, within: Duration) -> ExitStatus {
        let began = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(began.elapsed() < within, "still running after {within:?}: {}", log(self.directory()));
            pause().await;
        }
    }

    /// As `kill -9`.
    pub(crate) async fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.exited(PATIENCE).await;
    }

    /// TERM, and out it goes with 0.
    pub(crate) async fn stop(&mut self) {
        self.signal(Signal::TERM);
        assert_eq!(self.exited(PATIENCE).await.code(), Some(0), "{}", log(self.directory()));
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn log(&self) -> String {
        log(self.directory())
    }

    /// Somebody without an account.
    pub(crate) fn anyone(&self) -> Caller {
        Caller { address: self.address, token: None, refresh: String::new(), id: String::new() }
    }

    pub(crate) async fn sign_up(&self, email: &str) -> Caller {
        let proof = json!({ "email": email, "password": "long enough" });
        let reply = self.anyone().post("/api/auth/signup", &proof).await;
        assert_eq!(reply.status, 201, "{reply:?}");
        self.caller(&reply.json())
    }

    pub(crate) async fn log_in(&self, (email, password): (&str, &str)) -> Caller {
        let reply = self.anyone().post("/api/auth/login", &json!({ "email": email, "password": password })).await;
        assert_eq!(reply.status, 200, "{reply:?}");
        self.caller(&reply.json())
    }

    /// Whoever these tokens are of.
    pub(crate) fn caller(&self, tokens: &Value) -> Caller {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let (token, refresh) = (Some(text(&tokens["access_token"])), text(&tokens["refresh_token"]));
        Caller { address: self.address, token, refresh, id: text(&tokens["user"]["id"]) }
    }
}

fn log(directory: &Path) -> String {
    std::fs::read_to_string(directory.join("stderr.log")).unwrap_or_default()
}

async fn spawn(directory: &Path) -> (Child, SocketAddr) {
    let ports = directory.join("ports.json");
    let _ = std::fs::remove_file(&ports);
    let log_file = std::fs::File::options().create(true).append(true).open(directory.join("stderr.log")).unwrap();
    let mut child = command()
        .args(["backend", "-c", "backend.toml"])
        .current_dir(directory)
        .env("TOLLGATE_PORTS_FILE", &ports)
        .env("TOLLGATE_ADMIN_EMAIL", ADMIN.0)
        .env("TOLLGATE_ADMIN_PASSWORD", ADMIN.1)
        .env("RUST_BACKTRACE", "1")
        .stdout(Stdio::null())
        .stderr(log_file)
        .spawn()
        .unwrap();
    let began = Instant::now();
    loop {
        if let Ok(text) = std::fs::read_to_string(&ports) {
            let ports: Value = serde_json::from_str(&text).unwrap();
            return (child, ports["http"].as_str().unwrap().parse().unwrap());
        }
        let ended = child.try_wait().unwrap();
        assert!(ended.is_none() && began.elapsed() < PATIENCE, "{ended:?}: {}", log(directory));
        pause().await;
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let end: Vec<&str> = log.lines().rev().take(40).collect();
            eprintln!("--- the backend's log, its end\n{}", end.into_iter().rev().collect::<Vec<_>>().join("\n"));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Somebody who asks, perhaps with an account.
#[derive(Clone)]
pub(crate) struct Caller {
    address: SocketAddr,
    pub(crate) token: Option<String>,
    pub(crate) refresh: String,
    pub(crate) id: String,
}

impl Caller {
    /// A request as it would be sent, to be changed.
    pub(crate) fn request(&self, method: Method, path: &str) -> http::request::Builder {
        let request = Request::builder().method(method).uri(format!("http://backend.test{path}"));
        match &self.token {
            Some(token) => request.header("authorization", format!("Bearer {token}")),
            None => request,
        }
    }

    pub(crate) async fn send(&self, request: Request<Body>) -> Reply {
        Client::h1(self.address).await.fetch(request).await
    }

    pub(crate) async fn get(&self, path: &str) -> Reply {
        self.send(self.request(Method::GET, path).body(empty()).unwrap()).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Reply {
        self.send(self.request(Method::DELETE, path).body(empty()).unwrap()).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Reply {
        self.json(Method::POST, path, body).await
    }

    pub(crate) async fn patch(&self, path: &str, body: &Value) -> Reply {
        self.json(Method::PATCH, path, body).await
    }

    async fn json(&self, method: Method, path: &str, body: &Value) -> Reply {
        let request = self.request(method, path).header("content-type", "application/json");
        self.send(request.body(full(body.to_string())).unwrap()).await
    }

    /// A form with one file.
    pub(crate) async fn upload(&self, path: &str, name: &str, kind: &str, bytes: &[u8]) -> Reply {
        let mut form = format!(
            "--x\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{name}\"\r\nContent-Type: {kind}\r\n\r\n"
        )
        .into_bytes();
        form.extend_from_slice(bytes);
        form.extend_from_slice(b"\r\n--x--\r\n");
        let request = self.request(Method::POST, path).header("content-type", "multipart/form-data; boundary=x");
        self.send(request.body(full(form)).unwrap()).await
    }
}
