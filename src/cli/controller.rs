//! `tollgate controller`: control plane and dashboard.

use std::path::PathBuf;

use super::Exit;
use super::run::{PORTS_FILE, boot_settings, failed, on_threads};
use crate::bus::{self, Role};
use crate::control::signals::{Signal, Signals};
use crate::controller::Controller;
use crate::settings;
use crate::tasks::Tasks;
use crate::telemetry::init_log;

/// Pages and streams: two are enough, and one may be busy with SQLite.
const THREADS: usize = 2;

#[derive(Debug, clap::Args)]
#[command(after_help = "Signals: TERM and INT end it. Alert rules are read again whenever their file changes.")]
pub(super) struct Args {
    /// Settings.
    #[arg(short, long, value_name = "FILE", default_value = "config/controller.toml")]
    config: PathBuf,
}

pub(super) fn run(args: &Args) -> Exit {
    let settings: settings::Controller = match boot_settings(&args.config) {
        Ok(settings) => settings,
        Err(exit) => return exit,
    };
    let log =
        settings::Log { level: settings.log.level.clone(), format: settings.log.format, ..settings::Log::default() };
    if let Err(error) = init_log(&log) {
        eprintln!("error: {}: log.level: {error}", args.config.display());
        return Exit::Invalid;
    }
    on_threads(THREADS, serve(settings))
}

async fn serve(settings: settings::Controller) -> Exit {
    // From here on a signal means what it says, also while starting.
    let mut signals = match Signals::of_process() {
        Ok(signals) => signals,
        Err(error) => return failed(&error),
    };
    let bus = match bus::open(&settings.bus, "tollgate controller", Role::Controller).await {
        Ok(bus) => bus,
        Err(error) => return failed(&error),
    };
    if settings.bus.servers().is_empty() {
        tracing::warn!("bus.urls names no server: this controller is alone and will see nothing");
    }
    let controller = match Controller::start(settings, bus, Tasks::default()).await {
        Ok(controller) => controller,
        Err(error) => return failed(&error),
    };
    let address = controller.address().to_string();
    if let Some(path) = std::env::var_os(PORTS_FILE).map(PathBuf::from) {
        let ports = serde_json::json!({ "controller": address }).to_string();
        if let Err(error) = crate::durable::replace(&path, ports.as_bytes()) {
            return failed(&format!("cannot write {}: {error}", path.display()));
        }
    }
    tracing::info!(version = env!("CARGO_PKG_VERSION"), address, "serving the dashboard");
    while !matches!(signals.next().await, Signal::Terminate | Signal::Interrupt) {}
    tracing::info!("leaving");
    controller.leave().await;
    Exit::Ok
}
