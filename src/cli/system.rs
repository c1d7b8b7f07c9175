//! The system around a gateway, in one process, for `dev`: a bus, the controller with its dashboard, the minimal backend.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use crate::backend::Backend;
use crate::bus::names::Fleet;
use crate::bus::{Bus, Local};
use crate::config::{References, read};
use crate::control::proposal;
use crate::controller::Controller;
use crate::ledger::Ledger;
use crate::scalar::hex;
use crate::tasks::Tasks;
use crate::{durable, settings};

/// What `dev` calls its fleet.
pub(super) const FLEET: &str = "tollgate";

/// The connections of controller and backend to the bus.
pub(super) struct Buses {
    pub(super) controller: Bus,
    pub(super) service: Bus,
}

impl Buses {
    /// One within the process, that everybody shares.
    pub(super) fn local() -> Buses {
        let bus = Bus::new(Local::default());
        Buses { controller: bus.clone(), service: bus }
    }
}

/// See the module.
pub(super) struct System {
    pub(super) bus: Bus,
    controller: Controller,
    backend: Option<(Backend, Tasks)>,
    pub(super) token: String,
}

/// Whether the backend is part of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Parts {
    Controller,
    ControllerAndBackend,
}

impl System {
    /// Starts everything. What it keeps is below `dir`; where the dashboard is stands in `dir/dashboard.json`.
    pub(super) async fn start(dir: &Path, dashboard: u16, parts: Parts, buses: Buses) -> Result<System, String> {
        let said = |error: &dyn std::fmt::Display| error.to_string();
        let Buses { controller: bus, service } = buses;
        Fleet::new(FLEET).make(&bus, FLEET).await.map_err(|error| said(&error))?;
        let backend = match parts {
            Parts::Controller => None,
            Parts::ControllerAndBackend => {
                let words: settings::backend::Backend =
                    words(&format!("format = 1\nlisten = \"127.0.0.1:0\"\ndata = {}\n", quoted(&dir.join("backend"))))?;
                let tasks = Tasks::default();
                let backend = Backend::start(words, Some(service), &tasks).await.map_err(|error| said(&error))?;
                Some((backend, tasks))
            }
        };
        let token = token(dir).map_err(|error| said(&error))?;
        let mut text = format!(
            "format = 1\ntoken = \"{token}\"\ndata = {}\nalerts = {}\nlisten = {{ address = \"127.0.0.1:{dashboard}\" }}\n",
            quoted(&dir.join("controller")),
            quoted(&dir.join("alerts.toml")),
        );
        if let Some((backend, _)) = &backend {
            let ready = format!("http://{}/ready", backend.address());
            text.push_str(&format!("[[watch]]\nname = \"backend\"\nurl = \"{ready}\"\n"));
        }
        let alerts = dir.join("alerts.toml");
        if !alerts.exists() {
            std::fs::write(&alerts, ALERTS).map_err(|error| said(&error))?;
        }
        let controller = Controller::start(words(&text)?, bus.clone(), Tasks::default());
        let controller = controller.await.map_err(|error| said(&error))?;
        let place = serde_json::json!({ "address": controller.address().to_string(), "token": token }).to_string();
        durable::replace(&dir.join("dashboard.json"), place.as_bytes()).map_err(|error| said(&error))?;
        Ok(System { bus, controller, backend, token })
    }

    pub(super) fn dashboard(&self) -> SocketAddr {
        self.controller.address()
    }

    pub(super) fn backend(&self) -> Option<SocketAddr> {
        self.backend.as_ref().map(|(backend, _)| backend.address())
    }

    /// Puts a document in force, as `tollgate push` does.
    pub(super) async fn push(&self, text: String, reason: &str) -> Result<(), String> {
        let ledger = Ledger::new(self.bus.clone(), FLEET);
        let draft = proposal::draft(Arc::from(text), "tollgate dev".to_owned(), reason.to_owned());
        let head = ledger.head().await.map_err(|error| error.to_string())?;
        ledger.push(draft, head.as_ref(), None).await.map(drop).map_err(|error| error.to_string())
    }

    pub(super) async fn stop(self) {
        self.controller.leave().await;
        if let Some((backend, tasks)) = self.backend {
            backend.stop(&tasks).await;
        }
    }
}

const ALERTS: &str = "# Alert rules; config/alerts.toml of Tollgate shows every word. Read again whenever it changes.\nformat = 1\n\n\
    [[alert]]\nname = \"errors\"\nwhen = { rate = { of = \"5xx\", above = 5 } }\n\n\
    [[alert]]\nname = \"silence\"\nwhen = { silence = {} }\nfor = \"10s\"\n";

fn words<T: read::Boot>(text: &str) -> Result<T, String> {
    let (words, problems) = read::boot::<T>(text, &References::symbolic(), &[]);
    words.ok_or_else(|| format!("{problems:?}"))
}

fn quoted(path: &Path) -> String {
    toml::Value::String(path.display().to_string()).to_string()
}

/// The dashboard's token: made once, kept for its owner.
fn token(dir: &Path) -> std::io::Result<String> {
    let path = dir.join("dashboard.token");
    if let Ok(text) = std::fs::read_to_string(&path) {
        return Ok(text.trim().to_owned());
    }
    let mut bytes = [0; 16];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| std::io::Error::other("no random bytes"))?;
    let token = hex(&bytes);
    durable::replace(&path, token.as_bytes())?;
    Ok(token)
}
