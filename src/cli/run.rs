//! `tollgate run`: the gateway.

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::runtime::Builder;

use super::Exit;
use super::load::not_settings;
use crate::bus::Bus;
use crate::config::print::{Look, report_as};
use crate::config::{References, from_environment, read};
use crate::control::signals::{Signal, Signals};
use crate::front::handover::take_over;
use crate::gateway::{Ended, Gateway, Options, StartError};
use crate::settings::Settings;
use crate::source;
use crate::telemetry::init_log;

/// Set by harnesses that let the system choose ports (`address = "127.0.0.1:0"`).
pub(super) const PORTS_FILE: &str = "TOLLGATE_PORTS_FILE";
/// Threads that are still in a system call at the end get this long.
const LAST: Duration = Duration::from_millis(500);
const SIGNALS: &str = "Signals: TERM and INT drain (a second INT ends at once), HUP reads routes, what they refer to and \
    certificates again, QUIT hands the listening sockets to a gateway started with --upgrade, USR1 reopens logs.";

#[derive(Debug, clap::Args)]
#[command(after_help = SIGNALS)]
pub(super) struct Args {
    /// Boot settings.
    #[arg(short, long, value_name = "FILE", default_value = "config/edge.toml")]
    config: PathBuf,
    /// Take the listening sockets over from the running gateway at `drain.handover`, which leaves once this one serves.
    #[arg(long)]
    upgrade: bool,
}

pub(super) fn run(args: &Args) -> Exit {
    let settings = match settings(&args.config) {
        Ok(settings) => settings,
        Err(exit) => return exit,
    };
    let successor_of = match (args.upgrade, &settings.drain.handover) {
        (false, _) => None,
        (true, Some(path)) => Some(path.clone()),
        (true, None) => {
            eprintln!("error: --upgrade needs `drain.handover` in {}", args.config.display());
            return Exit::Usage;
        }
    };
    on_threads(settings.threads(), serve(settings, successor_of.as_deref(), None, || {}))
}

/// The words of a file that is read at boot; or the report of their problems on stderr.
pub(super) fn boot_settings<T: read::Boot>(path: &Path) -> Result<T, Exit> {
    let name = path.display().to_string();
    let text = source::file::read(path).map_err(|error| failed(&error))?;
    let (settings, problems) = read::boot(&text, &References::resolve(), &from_environment());
    eprint!("{}", report_as(look(), &name, &text, &problems));
    settings.ok_or(Exit::Invalid)
}

/// The settings of a file, the log begun as they want it; or the report of their problems on stderr.
pub(super) fn settings(path: &Path) -> Result<Settings, Exit> {
    let name = path.display().to_string();
    let text = source::file::read(path).map_err(|error| {
        eprintln!("error: {error}");
        eprintln!("help: name the boot settings with -c FILE; `tollgate dev` needs none");
        Exit::Failed
    })?;
    let (settings, problems) = read::settings(&text, &References::resolve(), &from_environment());
    if settings.is_none() && read::is_document(&text) {
        return Err(not_settings(&name));
    }
    eprint!("{}", report_as(look(), &name, &text, &problems));
    let settings = settings.ok_or(Exit::Invalid)?;
    init_log(&settings.log).map_err(|error| {
        eprintln!("error: {name}: log.level: {error}");
        Exit::Invalid
    })?;
    Ok(settings)
}

pub(super) fn look() -> Look {
    match std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none() {
        true => Look::Colour,
        false => Look::Plain,
    }
}

/// Runs the work on threads of its own, and leaves none behind.
pub(super) fn on_threads(threads: usize, work: impl Future<Output = Exit>) -> Exit {
    // One thread needs nothing of what shares work among several: 7 % of CPU per request.
    let mut builder = if threads == 1 { Builder::new_current_thread() } else { Builder::new_multi_thread() };
    let built = builder.worker_threads(threads).thread_name("tollgate").enable_all().build();
    let runtime = match built {
        Ok(runtime) => runtime,
        Err(error) => return failed(&format!("cannot start {threads} threads: {error}")),
    };
    let exit = runtime.block_on(work);
    runtime.shutdown_timeout(LAST);
    exit
}

/// Runs a gateway until it is told to leave, in the place of the one at `successor_of` if there is a path. `up` is called
/// once it serves.
/// `bus` stands in the place of the one that the settings name.
pub(super) async fn serve(
    settings: Settings,
    successor_of: Option<&Path>,
    bus: Option<Bus>,
    up: impl FnOnce(),
) -> Exit {
    // From here on a signal means what it says, also while starting.
    match Signals::of_process() {
        Ok(signals) => serve_until(signals, settings, successor_of, bus, up).await,
        Err(error) => failed(&error),
    }
}

/// As `serve`, told to leave by these signals.
pub(super) async fn serve_until(
    mut signals: Signals,
    settings: Settings,
    successor_of: Option<&Path>,
    bus: Option<Bus>,
    up: impl FnOnce(),
) -> Exit {
    let started = tokio::select! {
        started = start(settings, successor_of, bus) => started,
        () = told_to_leave(&mut signals) => return Exit::Ok,
    };
    match started {
        Ok(gateway) => {
            up();
            match gateway.run(signals).await {
                // Both are a way of leaving; the log says how many were cut off.
                Ended::Drained | Ended::CutOff => Exit::Ok,
            }
        }
        Err(error @ StartError::Document(_)) => {
            failed(&error);
            Exit::Invalid
        }
        Err(error) => failed(&error),
    }
}

async fn start(settings: Settings, successor_of: Option<&Path>, bus: Option<Bus>) -> Result<Gateway, StartError> {
    let ports_file = std::env::var_os(PORTS_FILE).map(PathBuf::from);
    let mut options = Options { ports_file, bus, ..Options::default() };
    if let Some(path) = successor_of {
        tracing::info!(socket = %path.display(), "hand-over: waiting for the running gateway, which is to be sent QUIT");
        let (inherited, successor) = take_over(path, settings.drain.handover_timeout.0).await?;
        options.inherited = inherited;
        options.successor = Some(successor);
    }
    Gateway::start(settings, options).await
}

/// While a gateway starts there is nothing to reload or hand over.
async fn told_to_leave(signals: &mut Signals) {
    while !matches!(signals.next().await, Signal::Terminate | Signal::Interrupt) {}
}

pub(super) fn failed(error: &dyn std::fmt::Display) -> Exit {
    eprintln!("error: {error}");
    Exit::Failed
}
