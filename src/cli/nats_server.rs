//! A nats-server of our own, for `dev`: a process beside ours, begun again when it dies, gone when we are.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep};

use crate::durable;
use crate::tasks::Tasks;

/// Until it takes connections.
const UP: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(20);
/// Who kills it has time to look at what the others do without it.
const AGAIN: Duration = Duration::from_secs(5);

const MISSING: &str = "core-ha needs nats-server, 2.9 or newer, and there is none on the PATH\n\
    help: `apt install nats-server` (Debian has it in /usr/sbin), `brew install nats-server`, or \
    https://github.com/nats-io/nats-server/releases";

/// How it is started.
pub(super) struct Server {
    name: &'static str,
    config: PathBuf,
    log: PathBuf,
    /// What the configuration refers to.
    variables: BTreeMap<String, String>,
}

impl Server {
    /// Starts a server whose configuration names this address, and keeps it until the tasks are stopped. When this returns
    /// it takes connections. Configuration and log are in `dir`, for their owner only.
    pub(super) async fn start(
        name: &'static str,
        dir: &Path,
        text: &str,
        address: SocketAddr,
        variables: BTreeMap<String, String>,
        tasks: &Tasks,
    ) -> Result<(), String> {
        let (config, log) = (dir.join(format!("{name}.conf")), dir.join(format!("{name}.log")));
        durable::replace(&config, text.as_bytes()).map_err(|error| format!("{}: {error}", config.display()))?;
        let server = Server { name, config, log, variables };
        let mut child = server.spawn().map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => MISSING.to_owned(),
            _ => format!("nats-server ({name}) cannot be started: {error}"),
        })?;
        let deadline = Instant::now() + UP;
        while TcpStream::connect(address).await.is_err() {
            let ended = child.try_wait().map_err(|error| error.to_string())?;
            if ended.is_some() || Instant::now() > deadline {
                return Err(format!("nats-server ({name}) does not come up; its log is {}", server.log.display()));
            }
            sleep(LOOK).await;
        }
        tasks.spawn_forever("example.nats", server.keep(child));
        Ok(())
    }

    fn spawn(&self) -> io::Result<Child> {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(&self.log)?;
        Command::new("nats-server")
            .arg("-c")
            .arg(&self.config)
            .envs(&self.variables)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            // Ctrl-C is for us: the servers stay until the gateways have left.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
    }

    async fn keep(self, mut child: Child) {
        let name = self.name;
        loop {
            let status = child.wait().await;
            tracing::warn!(name, ?status, "a nats-server ended; it is begun again in {} s", AGAIN.as_secs());
            child = loop {
                sleep(AGAIN).await;
                match self.spawn() {
                    Ok(child) => break child,
                    Err(error) => tracing::error!(name, %error, "the nats-server cannot be started"),
                }
            };
        }
    }
}
