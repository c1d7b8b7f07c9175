//! The real gateway as a child process, in a directory of its own.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};
use tempfile::TempDir;

use super::tollgate::{Ran, command};
use super::{Authority, Client, PATIENCE, Reply, Settings, pause};

/// A running gateway. Ends with the test, and says what it logged if the test failed.
pub(crate) struct Gateway {
    child: Child,
    directory: Arc<TempDir>,
    ports: BTreeMap<String, String>,
    /// What `https` shows is signed by it.
    pub(crate) authority: Arc<Authority>,
    environment: Vec<(String, String)>,
    log: PathBuf,
}

/// Names in the certificate of the listener `https`.
const NAMES: [&str; 4] = ["app.test", "*.app.test", "other.test", "localhost"];

impl Gateway {
    pub(crate) async fn start(routes: &str) -> Gateway {
        Gateway::with(routes, |_| {}).await
    }

    /// With other settings than the usual ones.
    pub(crate) async fn with(routes: &str, change: impl FnOnce(&mut Settings)) -> Gateway {
        Gateway::try_with(routes, change).await.unwrap_or_else(|ran| panic!("exit {}: {}", ran.code, ran.said()))
    }

    /// The error is what it left behind when it did not come up.
    pub(crate) async fn try_with(routes: &str, change: impl FnOnce(&mut Settings)) -> Result<Gateway, Ran> {
        let directory = Arc::new(tempfile::Builder::new().prefix("tollgate-").tempdir().unwrap());
        let authority = Arc::new(Authority::new());
        let identity = authority.issue(&NAMES);
        let mut settings = Settings::new(directory.path());
        change(&mut settings);
        for (name, text) in [
            ("chain.pem", &identity.chain_pem),
            ("key.pem", &identity.key_pem),
            ("edge.toml", &settings.text()),
            ("routes.toml", &document(routes)),
        ] {
            std::fs::write(directory.path().join(name), text).unwrap();
        }
        Gateway::spawn(directory, authority, settings.environment, &[]).await
    }

    /// Another process on the same settings: after a stop, or with `--upgrade` beside the running one.
    pub(crate) async fn successor(&self, args: &[&str]) -> Result<Gateway, Ran> {
        Gateway::spawn(self.directory.clone(), self.authority.clone(), self.environment.clone(), args).await
    }

    async fn spawn(
        directory: Arc<TempDir>,
        authority: Arc<Authority>,
        environment: Vec<(String, String)>,
        args: &[&str],
    ) -> Result<Gateway, Ran> {
        let unique = fastrand::u64(..);
        let file = directory.path().join(format!("ports-{unique:x}.json"));
        let log = directory.path().join(format!("stderr-{unique:x}.log"));
        let child = command()
            .args(["run", "-c", "edge.toml"])
            .args(args)
            .current_dir(directory.path())
            .env("TOLLGATE_PORTS_FILE", &file)
            .env("RUST_BACKTRACE", "1")
            .envs(environment.iter().cloned())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let mut gateway = Gateway { child, directory, ports: BTreeMap::new(), authority, environment, log };
        let began = Instant::now();
        loop {
            if let Ok(text) = std::fs::read_to_string(&file) {
                gateway.ports = serde_json::from_str(&text).unwrap();
                if !gateway.ports.contains_key("health") || gateway.ready().await {
                    return Ok(gateway);
                }
            }
            if let Some(status) = gateway.child.try_wait().unwrap() {
                let code = status.code().unwrap_or(-1);
                return Err(Ran { code, stdout: String::new(), stderr: gateway.log() });
            }
            assert!(began.elapsed() < PATIENCE, "the gateway is not ready: {}", gateway.log());
            pause().await;
        }
    }

    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Address of a listener, or of `health` or `admin`.
    pub(crate) fn address(&self, name: &str) -> SocketAddr {
        let address = self.ports.get(name).unwrap_or_else(|| panic!("no `{name}` in {:?}", self.ports));
        address.parse().unwrap_or_else(|_| panic!("{address}"))
    }

    /// The cleartext HTTP/1 listener.
    pub(crate) fn http(&self) -> SocketAddr {
        self.address("http")
    }

    /// Asks the HTTP/1 listener, on a connection of its own.
    pub(crate) async fn get(&self, url: &str) -> Reply {
        super::get(self.http(), url).await
    }

    pub(crate) async fn h1(&self) -> Client {
        Client::h1(self.http()).await
    }

    pub(crate) async fn h2c(&self) -> Client {
        Client::h2c(self.address("h2c")).await
    }

    /// Over TLS, for `app.test` and names below it, `other.test` and `localhost`.
    pub(crate) async fn tls(&self, name: &str, alpn: &[&str]) -> Client {
        Client::tls(self.address("https"), name, self.authority.client(alpn)).await.unwrap()
    }

    pub(crate) async fn ready(&self) -> bool {
        let Ok(mut client) = Client::try_h1(self.address("health")).await else { return false };
        let request = http::Request::get("http://127.0.0.1/ready").body(super::empty()).unwrap();
        client.try_fetch(request).await.is_ok_and(|reply| reply.status == 200)
    }

    /// Its own log so far.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }

    pub(crate) fn running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// How it ended; fails when it does not within this time.
    pub(crate) async fn exited(&mut self, within: Duration) -> ExitStatus {
        let began = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(began.elapsed() < within, "still running after {within:?}: {}", self.log());
            pause().await;
        }
    }

    /// TERM, and out it goes with 0.
    pub(crate) async fn stop(&mut self) {
        self.signal(Signal::TERM);
        let status = self.exited(PATIENCE).await;
        assert_eq!(status.code(), Some(0), "{}", self.log());
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let lines = |text: String| text.lines().rev().take(60).map(str::to_owned).collect::<Vec<_>>();
            let log = lines(self.log());
            eprintln!("--- the gateway's log, its end\n{}", log.into_iter().rev().collect::<Vec<_>>().join("\n"));
            let access = std::fs::read_to_string(self.directory().join("access.log")).unwrap_or_default();
            eprintln!("--- access log\n{}", lines(access).into_iter().rev().collect::<Vec<_>>().join("\n"));
        }
        if matches!(self.child.try_wait(), Ok(None)) {
            self.signal(Signal::TERM);
            let began = Instant::now();
            // Drop cannot await; a gateway with streams open would use its whole grace period.
            while matches!(self.child.try_wait(), Ok(None)) && began.elapsed() < Duration::from_millis(300) {
                std::thread::sleep(Duration::from_millis(5));
            }
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// A document; `format = 1` stands before it unless it is there.
pub(crate) fn document(routes: &str) -> String {
    if routes.lines().any(|line| line.starts_with("format")) {
        routes.to_owned()
    } else {
        format!("format = 1\n{routes}")
    }
}
