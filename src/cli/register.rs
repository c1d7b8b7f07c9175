//! `tollgate register`: an endpoint of a service on the bus, for as long as something accepts connections there.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::fleet::{Reach, asking};
use super::{Exit, load};
use crate::bus::found::{self, Registration};
use crate::bus::names::Fleet;
use crate::bus::{self, Bus, Role};
use crate::control::signals::{Signal, Signals};
use crate::scalar::Span;
use crate::settings::{Log, LogFormat};
use crate::telemetry::init_log;

/// Between two looks whether a service listens yet.
const LOOK: Duration = Duration::from_millis(200);
/// A connection takes no longer, or the service is away.
const CONNECT: Duration = Duration::from_secs(2);

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Name of the service, as in `discover = "bus:NAME"`.
    service: String,
    /// Where it listens, as gateways reach it: `1.2.3.4:80` or `[fdaa::3]:80`.
    address: SocketAddr,
    /// Name of this endpoint among those of the service. Default: the address.
    #[arg(long, value_name = "ID")]
    id: Option<String>,
    /// Share of the traffic of the service, 0 to 1000.
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    weight: u16,
    /// Region; gateways of the same one prefer it.
    #[arg(long, value_name = "NAME", env = "FLY_REGION")]
    region: Option<String>,
    /// How long gateways believe in it after it was last heard of, 3s to 300s.
    #[arg(long, value_name = "TIME", default_value = "15s")]
    term: Span,
    #[command(flatten)]
    reach: Reach,
    /// The service itself: it is started, told to end (SIGTERM) once gateways know, and waited for.
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

pub(super) fn run(args: &Args) -> Exit {
    let Args { service, address, id, weight, region, term, reach, command } = args;
    let region = region.clone().filter(|region| !region.is_empty());
    let registration = Registration { address: *address, weight: *weight, region, term_s: term.0.as_secs() };
    let wrong = match found::is_service(service) {
        true => registration.check().err(),
        false => Some(found::RegistrationError::Service(service.clone())),
    };
    if let Some(wrong) = wrong {
        eprintln!("error: {wrong}");
        return Exit::Usage;
    }
    // Its level is legal.
    let _ = init_log(&Log { format: LogFormat::Text, level: "warn,tollgate=info".to_owned(), ..Log::default() });
    asking(async {
        // From here on a signal means what it says, also while starting.
        let mut signals = Signals::of_process().map_err(|error| load::failed(&error.to_string()))?;
        let (words, _, _) = reach.words()?;
        let name = format!("tollgate service {service}");
        let bus = bus::open(&words, &name, Role::Service).await.map_err(|error| load::failed(&error.to_string()))?;
        let bucket = Fleet::new(words.fleet).found();
        let id = id.clone().unwrap_or_else(|| address.to_string());
        let endpoint = Endpoint { bus, bucket, service: service.clone(), id, registration };
        let mut child = match command.split_first() {
            Some((program, arguments)) => Some(begin(program, arguments)?),
            None => None,
        };
        let stop = CancellationToken::new();
        let mut keeping = std::pin::pin!(endpoint.keep(stop.clone()));
        let ended = tokio::select! {
            () = told_to_end(&mut signals) => None,
            ended = end_of(&mut child) => Some(ended),
            () = &mut keeping => return Ok(Exit::Ok),
        };
        stop.cancel();
        // Gateways know before the service ends.
        keeping.await;
        match (child, ended) {
            (None, _) => Ok(Exit::Ok),
            (Some(_), Some(ended)) => ended,
            (Some(mut child), None) => {
                if let Some(id) = child.id().and_then(|id| rustix::process::Pid::from_raw(id.cast_signed())) {
                    let _ = rustix::process::kill_process(id, rustix::process::Signal::TERM);
                }
                end(child.wait().await)
            }
        }
    })
}

fn begin(program: &OsString, arguments: &[OsString]) -> Result<Child, Exit> {
    let begun = Command::new(program).args(arguments).spawn();
    begun.map_err(|error| load::failed(&format!("{}: {error}", program.display())))
}

fn end(status: std::io::Result<std::process::ExitStatus>) -> Result<Exit, Exit> {
    match status {
        Ok(status) if status.success() => Ok(Exit::Ok),
        Ok(status) => Err(load::failed(&format!("the service ended: {status}"))),
        Err(error) => Err(load::failed(&format!("the service: {error}"))),
    }
}

async fn end_of(child: &mut Option<Child>) -> Result<Exit, Exit> {
    match child {
        Some(child) => end(child.wait().await),
        None => std::future::pending().await,
    }
}

async fn told_to_end(signals: &mut Signals) {
    while !matches!(signals.next().await, Signal::Terminate | Signal::Interrupt) {}
}

struct Endpoint {
    bus: Bus,
    bucket: String,
    service: String,
    id: String,
    registration: Registration,
}

impl Endpoint {
    /// Registered whenever something listens, until told to stop.
    async fn keep(&self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            if !self.is_open().await {
                tokio::select! {
                    () = sleep(LOOK) => continue,
                    () = stop.cancelled() => return,
                }
            }
            let away = stop.child_token();
            let Endpoint { bus, bucket, service, id, registration } = self;
            let registering =
                found::register(bus.clone(), bucket.clone(), service, id, registration.clone(), away.clone());
            let looking = async {
                while self.is_open().await {
                    tokio::select! {
                        () = sleep(Duration::from_secs(1)) => {}
                        () = stop.cancelled() => break,
                    }
                }
                away.cancel();
            };
            // Whatever can be wrong with it was told before.
            let _ = tokio::join!(registering, looking);
        }
    }

    async fn is_open(&self) -> bool {
        matches!(timeout(CONNECT, TcpStream::connect(self.registration.address)).await, Ok(Ok(_)))
    }
}
