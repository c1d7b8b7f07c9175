//! nats-server, a real one, with JetStream. It keeps its port while it is dead, and its store.

use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use super::tollgate::tollgate;
use super::{Port, Settings};

/// A server on a port of its own. Ends when dropped.
pub(crate) struct Nats {
    port: Port,
    directory: TempDir,
    config: String,
    /// Address and store stand in it.
    whole: bool,
    environment: Vec<(String, String)>,
    running: Option<Child>,
}

impl Nats {
    pub(crate) async fn start() -> Nats {
        Nats::with("").await
    }

    /// With what a fleet keeps on the bus, made as whoever pushes first makes it.
    pub(crate) async fn made() -> Nats {
        let nats = Nats::start().await;
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("routes.toml"), "format = 1\n").unwrap();
        tollgate(directory.path(), &["push", "routes.toml", "--nats", &nats.url()]).exits(0);
        nats
    }

    /// With more configuration than address and store.
    pub(crate) async fn with(config: &str) -> Nats {
        let directory = tempfile::Builder::new().prefix("nats-").tempdir().unwrap();
        let mut nats = Nats {
            port: Port::free(),
            directory,
            config: config.to_owned(),
            whole: false,
            environment: Vec::new(),
            running: None,
        };
        nats.begin().await;
        nats
    }

    /// With a configuration of its own, made for an address and a store, and variables that it refers to.
    pub(crate) async fn of(config: impl FnOnce(&str, &str) -> String, environment: &[(&str, &str)]) -> Nats {
        let directory = tempfile::Builder::new().prefix("nats-").tempdir().unwrap();
        let (port, store) = (Port::free(), directory.path().join("store"));
        let config = config(&port.address().to_string(), &store.display().to_string());
        let environment = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let mut nats = Nats { port, directory, config, whole: true, environment, running: None };
        nats.begin().await;
        nats
    }

    /// Begins again on the same port and store.
    pub(crate) async fn begin(&mut self) {
        let at = self.directory.path();
        let address = self.port.address();
        let config = match self.whole {
            true => self.config.clone(),
            false => format!(
                "listen: \"{address}\"\njetstream {{ store_dir: \"{store}\" }}\n{more}\n",
                store = at.join("store").display(),
                more = self.config
            ),
        };
        let file = at.join("nats.conf");
        std::fs::write(&file, config).unwrap();
        let log = std::fs::File::create(at.join("log")).unwrap();
        let running = Command::new("nats-server")
            .arg("-c")
            .arg(&file)
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .envs(self.environment.iter().cloned())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("nats-server: ./test installs it");
        self.running = Some(running);
        eventually!(tokio::net::TcpStream::connect(address).await);
    }

    /// As `kill -9`.
    pub(crate) fn kill(&mut self) {
        if let Some(mut running) = self.running.take() {
            let _ = running.kill();
            let _ = running.wait();
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("nats://{}", self.port.address())
    }

    /// Settings of a gateway whose document comes from here.
    pub(crate) fn routes(&self, settings: &mut Settings, node: &str) {
        let nats = toml::Table::from_iter([("wait".to_owned(), "500ms".into())]);
        let routes = toml::Table::from_iter([("nats".to_owned(), toml::Value::Table(nats))]);
        self.bus(settings, node);
        settings.set("routes", routes);
    }

    /// Settings of a gateway that takes part in the fleet here.
    pub(crate) fn bus(&self, settings: &mut Settings, node: &str) {
        settings.set("node.id", node).set("bus.urls", vec![self.url()]);
    }
}

impl Drop for Nats {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default();
            let end: Vec<&str> = log.lines().rev().take(20).collect();
            eprintln!("--- nats-server's log, its end\n{}", end.into_iter().rev().collect::<Vec<_>>().join("\n"));
        }
        self.kill();
    }
}

/// Drops what a stream holds before a sequence, as a server does when it has become too large.
pub(crate) async fn purge(nats: &Nats, stream: &str, before: u64) -> bool {
    let client = async_nats::connect(nats.url()).await.unwrap();
    let stream = async_nats::jetstream::new(client).get_stream(stream).await.unwrap();
    stream.purge().sequence(before).await.unwrap().success
}
