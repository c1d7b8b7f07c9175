//! `tollgate backend`: the minimal backend, its backups and their way back.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::run::{PORTS_FILE, failed, look, on_threads};
use super::{Exit, print};
use crate::backend::backup::{self, Existing};
use crate::backend::{Backend, StartError};
use crate::config::print::report_as;
use crate::config::{References, from_environment, read};
use crate::control::signals::{Signal, Signals};
use crate::durable;
use crate::scalar::Secret;
use crate::settings;
use crate::source;
use crate::tasks::Tasks;
use crate::telemetry::init_log;

const ADMIN_EMAIL: &str = "TOLLGATE_ADMIN_EMAIL";
const ADMIN_PASSWORD: &str = "TOLLGATE_ADMIN_PASSWORD";

#[derive(Debug, clap::Args)]
#[command(after_help = "Signals: TERM and INT finish the requests under way and end; a second INT ends at once.")]
pub(super) struct Args {
    /// Boot settings.
    #[arg(short, long, value_name = "FILE", default_value = "config/backend.toml", global = true)]
    config: PathBuf,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Copy database and files into a new directory, while the backend runs.
    Backup {
        /// The directory to make.
        to: PathBuf,
    },
    /// Put a backup in the place of the data directory, verified. The backend must not run.
    Restore {
        /// The directory of the backup.
        from: PathBuf,
        /// Data that is there already is put beside, under another name.
        #[arg(long)]
        force: bool,
    },
}

pub(super) fn run(args: &Args) -> Exit {
    let words = match words(&args.config) {
        Ok(words) => words,
        Err(exit) => return exit,
    };
    match &args.command {
        None => {
            let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
            on_threads(threads, serve(words))
        }
        Some(Command::Backup { to }) => match backup::write(&words.data, to) {
            Ok(manifest) => print(&format!(
                "{}: the database ({} bytes) and {} files\n",
                to.display(),
                manifest.database.size,
                manifest.files.len()
            )),
            Err(error) => failed(&error),
        },
        Some(Command::Restore { from, force }) => {
            let existing = if *force { Existing::Replace } else { Existing::Refuse };
            match backup::restore(from, &words.data, existing) {
                Ok(restored) => {
                    let data = words.data.display();
                    let mut text = format!("{data}: as it was at {}\n", restored.manifest.created);
                    if let Some(before) = restored.before {
                        text.push_str(&format!("{}: what was there before\n", before.display()));
                    }
                    print(&text)
                }
                Err(error @ backup::BackupError::There(_)) => {
                    eprintln!("help: --force puts it beside, under another name");
                    failed(&error)
                }
                Err(error) => failed(&error),
            }
        }
    }
}

/// The words of a file, the log begun as they want it; or the report of their problems on stderr.
fn words(path: &Path) -> Result<settings::backend::Backend, Exit> {
    let name = path.display().to_string();
    let text = source::file::read(path).map_err(|error| failed(&error))?;
    let (words, problems) =
        read::boot::<settings::backend::Backend>(&text, &References::resolve(), &from_environment());
    eprint!("{}", report_as(look(), &name, &text, &problems));
    let mut words = words.ok_or(Exit::Invalid)?;
    let log = settings::Log { level: words.log.level.clone(), format: words.log.format, ..settings::Log::default() };
    init_log(&log).map_err(|error| {
        eprintln!("error: {name}: log.level: {error}");
        Exit::Invalid
    })?;
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    if words.admin.email.as_ref().is_none_or(String::is_empty) {
        words.admin.email = variable(ADMIN_EMAIL);
    }
    if words.admin.password.as_ref().is_none_or(|password| password.expose().is_empty()) {
        words.admin.password = variable(ADMIN_PASSWORD).map(|password| Secret::new(&password));
    }
    Ok(words)
}

async fn serve(words: settings::backend::Backend) -> Exit {
    // From here on a signal means what it says, also while starting.
    let mut signals = match Signals::of_process() {
        Ok(signals) => signals,
        Err(error) => return failed(&error),
    };
    let tasks = Tasks::default();
    let backend = match Backend::start(words, None, &tasks).await {
        Ok(backend) => backend,
        Err(error @ StartError::Address(_)) => {
            failed(&error);
            return Exit::Invalid;
        }
        Err(error) => return failed(&error),
    };
    if let Some(path) = std::env::var_os(PORTS_FILE).map(PathBuf::from) {
        let ports = BTreeMap::from([("http", backend.address().to_string())]);
        let text = serde_json::to_vec(&ports).unwrap_or_default();
        if let Err(error) = durable::replace(&path, &text) {
            return failed(&format!("cannot write {}: {error}", path.display()));
        }
    }
    leave_when_told(&mut signals).await;
    let mut stopping = std::pin::pin!(backend.stop(&tasks));
    loop {
        tokio::select! {
            () = &mut stopping => return Exit::Ok,
            signal = signals.next() => if signal == Signal::Interrupt { return Exit::Ok },
        }
    }
}

async fn leave_when_told(signals: &mut Signals) {
    while !matches!(signals.next().await, Signal::Terminate | Signal::Interrupt) {}
}
