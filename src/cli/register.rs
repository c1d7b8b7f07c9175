//! `tollgate register`: an endpoint of a service on the bus, for as long as something accepts connections there.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::time::Duration;

use rustix::process::{self, Pid};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::fleet::{Reach, asking};
use super::{Exit, load};
use crate::bus::found::{self, Registration, RegistrationError};
use crate::bus::names::{Fleet, level};
use crate::bus::{self, Bus, Role};
use crate::control::signals::{Signal, Signals};
use crate::scalar::Span;
use crate::settings::{Log, LogFormat};
use crate::telemetry::init_log;

/// Between two looks whether a service listens yet.
const LOOK: Duration = Duration::from_millis(200);
/// Between two looks whether it listens still.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// A connection takes no longer, or the service is slow.
const CONNECT: Duration = Duration::from_secs(2);
/// So often in a row it may be slow: one that has much to do is not taken away for it.
const SLOW_MAX: u32 = 5;
/// After the bus has forgotten the endpoint, gateways have heard of it so much later.
const SETTLE: Duration = Duration::from_millis(500);

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Name of the service, as in `discover = "bus:NAME"`.
    service: String,
    /// Where it listens, as gateways reach it: `1.2.3.4:80` or `[fdaa::3]:80`.
    address: SocketAddr,
    /// Name of this endpoint among those of the service: letters, digits, `-` and `_`. Default: the address.
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
    let id = id.clone().unwrap_or_else(|| level(&address.to_string()));
    let wrong = match (found::is_service(service), found::is_service(&id)) {
        (true, true) => registration.check().err(),
        (true, false) => Some(RegistrationError::Id(id.clone())),
        (false, _) => Some(RegistrationError::Service(service.clone())),
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
        if address.ip().to_canonical().is_loopback() && !words.is_local() {
            eprintln!("error: {}", RegistrationError::Loopback(*address));
            eprintln!("help: name the address at which gateways reach it");
            return Err(Exit::Usage);
        }
        let name = format!("tollgate service {service}");
        let bus = bus::open(&words, &name, Role::Service).await.map_err(|error| load::failed(&error.to_string()))?;
        let bucket = Fleet::new(words.fleet).found();
        let endpoint = Endpoint { bus, bucket, service: service.clone(), id, registration };
        let mut child = match command.split_first() {
            Some((program, arguments)) => Some(begin(program, arguments)?),
            None => None,
        };
        let pid = child.as_ref().and_then(Child::id).and_then(|id| Pid::from_raw(id.cast_signed()));
        let stop = CancellationToken::new();
        let mut keeping = std::pin::pin!(endpoint.keep(stop.clone()));
        let ended = tokio::select! {
            () = told_to_end(&mut signals, pid) => None,
            ended = end_of(&mut child) => Some(ended),
            () = &mut keeping => return Ok(Exit::Ok),
        };
        stop.cancel();
        // Gateways know before the service ends, unless somebody is in a hurry.
        let known = async {
            keeping.await;
            if child.is_some() {
                sleep(SETTLE).await;
            }
        };
        let hurry = tokio::select! {
            () = known => false,
            () = told_to_end(&mut signals, None) => true,
        };
        match (child, ended) {
            (None, _) => Ok(Exit::Ok),
            (Some(_), Some(ended)) => ended,
            (Some(mut child), None) => {
                pass(pid, if hurry { process::Signal::KILL } else { process::Signal::TERM });
                loop {
                    tokio::select! {
                        ended = child.wait() => return end(ended),
                        () = told_to_end(&mut signals, pid) => pass(pid, process::Signal::KILL),
                    }
                }
            }
        }
    })
}

fn begin(program: &OsString, arguments: &[OsString]) -> Result<Child, Exit> {
    // A terminal's Ctrl-C is for this process, which tells gateways first.
    let begun = Command::new(program).args(arguments).process_group(0).spawn();
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

/// What means something else is the service's.
async fn told_to_end(signals: &mut Signals, service: Option<Pid>) {
    loop {
        let signal = match signals.next().await {
            Signal::Terminate | Signal::Interrupt => return,
            Signal::Reload => process::Signal::HUP,
            Signal::HandOver => process::Signal::QUIT,
            Signal::ReopenLogs => process::Signal::USR1,
        };
        pass(service, signal);
    }
}

/// To a service that was not waited for yet: its id is still its own.
fn pass(service: Option<Pid>, signal: process::Signal) {
    if let Some(id) = service {
        let _ = process::kill_process(id, signal);
    }
}

/// Whether the service accepts connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    Open,
    Refused,
    /// It may have too much to do.
    Slow,
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
            let open = tokio::select! {
                open = self.look() => open == Seen::Open,
                () = stop.cancelled() => return,
            };
            if !open {
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
                let mut slow = 0;
                while slow < SLOW_MAX {
                    sleep(LOOK_AGAIN).await;
                    match self.look().await {
                        Seen::Open => slow = 0,
                        Seen::Slow => slow += 1,
                        Seen::Refused => break,
                    }
                }
            };
            let looking = async {
                tokio::select! {
                    () = looking => {}
                    () = stop.cancelled() => {}
                }
                away.cancel();
            };
            // Whatever can be wrong with it was told before.
            let _ = tokio::join!(registering, looking);
        }
    }

    async fn look(&self) -> Seen {
        match timeout(CONNECT, TcpStream::connect(self.registration.address)).await {
            Ok(Ok(_)) => Seen::Open,
            Ok(Err(_)) => Seen::Refused,
            Err(_) => Seen::Slow,
        }
    }
}
