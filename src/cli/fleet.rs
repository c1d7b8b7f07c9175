//! How commands reach the fleet: `push`, `pull`, `log`, `diff`, `rollback`, `status`.

use std::path::PathBuf;
use std::time::Duration;

use super::load::Files;
use super::{Exit, load};
use crate::bus::names::Fleet;
use crate::bus::{self, Bus, Link, Role};
use crate::ledger::{Ledger, LedgerError};
use crate::scalar::OneOrMany;
use crate::settings;
use crate::telemetry::init_log;

/// How long the bus may take to be reached.
const REACH: Duration = Duration::from_secs(10);

#[derive(Clone, Debug, clap::Args)]
pub(super) struct Reach {
    /// Boot settings whose [bus] is used. Default `config/edge.toml`, unless --nats names a server.
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// A server, `nats://host:4222`, instead of those that the settings name.
    #[arg(long, value_name = "URL", env = "TOLLGATE_NATS")]
    nats: Vec<String>,
    /// A .creds file: who pushes is rarely who serves.
    #[arg(long, value_name = "FILE", env = "TOLLGATE_NATS_CREDS")]
    creds: Option<PathBuf>,
    /// User name and password, as `NAME:PASSWORD`.
    #[arg(long, value_name = "USER", env = "TOLLGATE_NATS_USER", hide_env_values = true, conflicts_with = "creds")]
    user: Option<String>,
    /// PEM file of roots that the server is verified by.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Name of the fleet. Default: as the settings say, or `tollgate`.
    #[arg(long, value_name = "NAME")]
    fleet: Option<String>,
    /// Bucket of the documents. Default: as the settings say, or the name of the fleet.
    #[arg(long, value_name = "NAME")]
    bucket: Option<String>,
}

/// A fleet that was reached.
pub(super) struct Reached {
    pub(super) bus: Bus,
    pub(super) fleet: Fleet,
    pub(super) ledger: Ledger,
    /// The boot settings, if they were read: routes may name their listeners.
    pub(super) settings: Option<settings::Settings>,
}

impl Reach {
    pub(super) fn words(&self) -> Result<(settings::Bus, Option<String>, Option<settings::Settings>), Exit> {
        let read = match (self.nats.is_empty(), &self.config) {
            (false, None) => None,
            _ => Some(Files { config: self.config.clone(), routes: None }.settings()?),
        };
        let bucket = self.bucket.clone().or_else(|| read.as_ref().and_then(settings::Settings::bucket));
        let mut words = read.as_ref().and_then(|read| read.bus.clone()).unwrap_or_default();
        if !self.nats.is_empty() {
            words.urls = OneOrMany(self.nats.clone());
        }
        if let Some(creds) = &self.creds {
            words = settings::Bus { credentials: Some(creds.clone()), nkey: None, token: None, user: None, ..words };
        }
        if let Some(user) = &self.user {
            let Some((user, password)) = user.split_once(':') else {
                eprintln!("error: --user takes NAME:PASSWORD");
                return Err(Exit::Usage);
            };
            let password = Some(crate::scalar::Secret::new(password));
            let user = Some(user.to_owned());
            words = settings::Bus { user, password, credentials: None, nkey: None, token: None, ..words };
        }
        words.ca = self.ca.clone().or(words.ca);
        words.fleet = self.fleet.clone().unwrap_or(words.fleet);
        if !Fleet::is_name(&words.fleet) {
            eprintln!("error: `{}` is no name for a fleet: letters, digits, `-` and `_`", words.fleet);
            return Err(Exit::Usage);
        }
        if words.servers().is_empty() {
            eprintln!("error: no bus is named");
            eprintln!("help: --nats nats://host:4222, or -c FILE with urls under [bus]");
            return Err(Exit::Usage);
        }
        Ok((words, bucket, read))
    }

    /// Connects, and says on standard error why not.
    pub(super) async fn reach(&self) -> Result<Reached, Exit> {
        let (words, bucket, settings) = self.words()?;
        let name = format!("tollgate operator {}", author());
        let bus = bus::open(&words, &name, Role::Operator).await.map_err(|error| load::failed(&error.to_string()))?;
        let mut link = bus.link();
        let up = tokio::time::timeout(REACH, link.wait_for(|link| *link == Link::Up)).await;
        if !matches!(up, Ok(Ok(_))) {
            return Err(load::failed(&format!("the bus cannot be reached at {}", words.shown())));
        }
        drop(up);
        let fleet = Fleet::new(words.fleet.clone());
        let ledger = Ledger::new(bus.clone(), bucket.unwrap_or(words.fleet));
        Ok(Reached { bus, fleet, ledger, settings })
    }
}

/// Runs a command that asks the bus.
pub(super) fn asking(work: impl Future<Output = Result<Exit, Exit>>) -> Exit {
    // What of the documents could not be read and was passed over; the rest is the command's to say.
    let level = "off,tollgate::ledger=warn".to_owned();
    let _ = init_log(&settings::Log { format: settings::LogFormat::Text, level, ..settings::Log::default() });
    let built = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    match built {
        Ok(runtime) => {
            let exit = runtime.block_on(work).unwrap_or_else(|exit| exit);
            runtime.shutdown_timeout(Duration::from_millis(100));
            exit
        }
        Err(error) => load::failed(&format!("cannot start: {error}")),
    }
}

/// Says what the ledger said.
pub(super) fn told(error: &LedgerError) -> Exit {
    eprintln!("tollgate: {error}");
    match error {
        LedgerError::Lost { .. } => Exit::Refused,
        LedgerError::Bus(crate::bus::BusError::Missing(bucket)) => {
            eprintln!("help: nothing was ever pushed to bucket `{bucket}`; `tollgate push FILE` makes it");
            Exit::Failed
        }
        _ => Exit::Failed,
    }
}

/// Who acts, as the history shows it, unless told otherwise.
pub(super) fn author() -> String {
    let user = std::env::var("USER").or_else(|_| std::env::var("LOGNAME")).unwrap_or_else(|_| "somebody".to_owned());
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    format!("{user}@{host}")
}
