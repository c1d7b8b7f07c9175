//! A gateway in a process of its own, for `dev`: what happens on it is told as its own, and it dies alone.

use std::io;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, kill_process};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep};

use super::run::PORTS_FILE;
use crate::control::signals::Signal;

/// Until it serves. It may wait for the bus meanwhile.
const UP: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(20);

/// Gone when this is dropped, if it has not left before.
pub(super) struct GatewayProcess(Child);

impl GatewayProcess {
    /// Starts it with the settings of a file. When this returns it serves, and has written its ports. Its log goes where
    /// ours goes. `secret` is a variable that the settings refer to, and its value: it stands in no file.
    pub(super) async fn start(settings: &Path, secret: (&str, &str), ports: &Path) -> Result<GatewayProcess, String> {
        let said = |error: io::Error| format!("the gateway of {} cannot be started: {error}", settings.display());
        match std::fs::remove_file(ports) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(said(error)),
            _ => {}
        }
        let (name, value) = secret;
        let mut child = Command::new(std::env::current_exe().map_err(said)?)
            .args(["run", "-c"])
            .arg(settings)
            .env(PORTS_FILE, ports)
            .env(name, value)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            // Ctrl-C is for us, and handed on: a second one ends a gateway at once.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(said)?;
        let deadline = Instant::now() + UP;
        while !ports.exists() {
            if let Some(status) = child.try_wait().map_err(said)? {
                return Err(format!("the gateway of {} did not come up: {status}", settings.display()));
            }
            if Instant::now() > deadline {
                return Err(format!("the gateway of {} is not up after {UP:?}", settings.display()));
            }
            sleep(LOOK).await;
        }
        Ok(GatewayProcess(child))
    }

    /// Hands a signal on. One that has left is told nothing.
    pub(super) fn tell(&self, signal: Signal) {
        let Some(pid) = self.0.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw) else { return };
        let signal = match signal {
            Signal::Terminate => rustix::process::Signal::TERM,
            Signal::Interrupt => rustix::process::Signal::INT,
            Signal::Reload => rustix::process::Signal::HUP,
            Signal::HandOver => rustix::process::Signal::QUIT,
            Signal::ReopenLogs => rustix::process::Signal::USR1,
        };
        if let Err(error) = kill_process(pid, signal) {
            tracing::warn!(%error, "a gateway beside this one is not told what this one was told");
        }
    }

    /// Waits until it has left. May be dropped at any time.
    pub(super) async fn left(&mut self) -> io::Result<ExitStatus> {
        self.0.wait().await
    }
}
