//! `tollgate run`: the gateway.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Exit;
use crate::config::{References, from_environment, print, read};
use crate::control::signals::Signals;
use crate::front::handover::{Inherited, take_over};
use crate::gateway::{Ended, Gateway, Options, StartError};
use crate::settings::Settings;
use crate::telemetry::init_log;

/// Set by harnesses that let the system choose ports (`address = "127.0.0.1:0"`).
const PORTS_FILE: &str = "TOLLGATE_PORTS_FILE";

/// Tasks that are still running at the end get this long.
const LAST: Duration = Duration::from_millis(500);

#[derive(Debug, clap::Args)]
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
    if let Err(error) = init_log(&settings.log) {
        eprintln!("error: log.level: {error}");
        return Exit::Invalid;
    }
    start(settings, args.upgrade, |_| {})
}

/// The settings of a file, or the report of its problems on stderr.
pub(super) fn settings(path: &Path) -> Result<Settings, Exit> {
    let name = path.display().to_string();
    let text = std::fs::read_to_string(path).map_err(|error| {
        eprintln!("error: cannot read {name}: {error}");
        eprintln!("help: name the boot settings with -c FILE; `tollgate dev` needs none");
        Exit::Failed
    })?;
    let references = References::resolve();
    let (settings, problems) = read::settings(&text, &references, &from_environment());
    if !problems.is_empty() {
        eprint!("{}", print::report(&name, &text, &problems));
    }
    match settings {
        Some(settings) if !problems.iter().any(crate::problem::Problem::is_error) => Ok(settings),
        _ => Err(Exit::Invalid),
    }
}

/// Runs a gateway until it is told to leave. `started` is called once it serves.
pub(super) fn start(settings: Settings, upgrade: bool, started: impl FnOnce(&Gateway)) -> Exit {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(settings.threads()).enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: no threads: {error}");
            return Exit::Failed;
        }
    };
    let exit = runtime.block_on(async {
        // From here on a signal means what it says, also while starting.
        let signals = match Signals::of_process() {
            Ok(signals) => signals,
            Err(error) => return failed(&error),
        };
        let mut options = Options { ports_file: std::env::var_os(PORTS_FILE).map(PathBuf::from), ..Options::default() };
        if upgrade {
            match inherit(&settings).await {
                Ok((inherited, successor)) => {
                    options.inherited = inherited;
                    options.successor = Some(successor);
                }
                Err(error) => return failed(&error),
            }
        }
        match Gateway::start(settings, options).await {
            Ok(gateway) => {
                started(&gateway);
                match gateway.run(signals).await {
                    Ended::Drained | Ended::CutOff => Exit::Ok,
                }
            }
            Err(error @ StartError::Document(_)) => {
                failed(&error);
                Exit::Invalid
            }
            Err(error) => failed(&error),
        }
    });
    runtime.shutdown_timeout(LAST);
    exit
}

async fn inherit(
    settings: &Settings,
) -> Result<(Inherited, crate::front::handover::Successor), Box<dyn std::error::Error>> {
    let path = settings.drain.handover.as_ref().ok_or("--upgrade needs `drain.handover` in the settings")?;
    Ok(take_over(path, settings.drain.handover_timeout.0).await?)
}

fn failed(error: &dyn std::fmt::Display) -> Exit {
    eprintln!("error: {error}");
    Exit::Failed
}
