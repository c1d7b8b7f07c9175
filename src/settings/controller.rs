//! Words of `controller.toml`: what `tollgate controller` is and keeps.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Bus, CertificateFiles, LogFormat, check};
use crate::problem::{Path, Problem};
use crate::scalar::{Secret, Size, Span};

/// Settings of the controller. A change needs a restart.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Controller {
    /// Version of the format. Must be 1.
    #[schemars(extend("const" = 1))]
    pub format: u32,
    /// Where dashboard and API are served.
    #[serde(default)]
    pub listen: Desk,
    /// Whoever shows this may do everything: typed in at the login, or as a bearer token for the API. At least 16 characters. Usually `"${file:/run/secrets/controller}"`. Required unless there is a `client_ca`.
    #[serde(default)]
    pub token: Option<Secret>,
    /// PEM file of the authority whose client certificates are let in without the token. Needs `listen.certificate`. Default: none.
    #[serde(default)]
    pub client_ca: Option<PathBuf>,
    /// Directory of the controller's own database. One controller, one directory. Default `controller`.
    #[serde(default = "data")]
    pub data: PathBuf,
    /// File of the alert rules, read again when it changes. Default `config/alerts.toml`.
    #[serde(default = "alerts")]
    pub alerts: PathBuf,
    /// The bus of the fleet.
    #[serde(default)]
    pub bus: Bus,
    /// Where documents are, and how they are pushed from the dashboard.
    #[serde(default)]
    pub documents: Documents,
    /// How much is kept.
    #[serde(default)]
    pub keep: Keep,
    /// Services whose readiness is watched, beside the gateways that report by themselves.
    #[serde(default)]
    pub watch: Vec<Watch>,
    /// The controller's own log, on stderr.
    #[serde(default)]
    pub log: OwnLog,
}

/// Where dashboard and API are served.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Desk {
    /// `address:port`. Default `127.0.0.1:8080`.
    #[serde(default = "address")]
    pub address: String,
    /// Serves https with this certificate. Default: none, http.
    #[serde(default)]
    pub certificate: Option<CertificateFiles>,
}

/// Where documents are, and how they are pushed from the dashboard.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Documents {
    /// Bucket of the documents. Default: the name of the fleet.
    #[serde(default)]
    pub bucket: Option<String>,
    /// Ed25519 key (PEM) that signs what is pushed here. Usually `"${file:/run/secrets/push.pem}"`. Default: nothing is signed.
    #[serde(default)]
    pub sign: Option<Secret>,
}

/// Bounds of the database: by age and by number, whichever is reached first.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Keep {
    /// Events older than this are removed. Default 7d.
    #[serde(default = "week")]
    pub events: Span,
    /// More events than this are not kept; the oldest go. Default 1000000.
    #[serde(default = "million")]
    pub events_number: u64,
    /// Request logs older than this are removed. Default 1d.
    #[serde(default = "day")]
    pub requests: Span,
    /// More lines of request logs than this are not kept; the oldest go. Default 1000000.
    #[serde(default = "million")]
    pub requests_number: u64,
    /// The longest event or line that is kept; longer ones are counted and left out. Default 64KiB.
    #[serde(default = "line")]
    pub line: Size,
}

/// A service whose readiness is watched.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Watch {
    /// Name, unique: in the dashboard and in alerts.
    pub name: String,
    /// URL that answers 200 while the service is ready, such as `http://core-backend.internal:8090/ready`.
    pub url: String,
    /// How often it is asked. Default 5s.
    #[serde(default = "five_seconds")]
    pub every: Span,
}

/// The controller's own log, on stderr.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OwnLog {
    /// `error`, `warn`, `info`, `debug`, or a filter such as `info,tollgate::controller=debug`. Default `info`.
    #[serde(default = "level")]
    pub level: String,
    /// `json` or `text`. Default `json`.
    #[serde(default)]
    pub format: LogFormat,
}

fn address() -> String {
    "127.0.0.1:8080".to_owned()
}
fn data() -> PathBuf {
    "controller".into()
}
fn alerts() -> PathBuf {
    "config/alerts.toml".into()
}
fn week() -> Span {
    Span::from_secs(7 * 24 * 3600)
}
fn day() -> Span {
    Span::from_secs(24 * 3600)
}
fn million() -> u64 {
    1_000_000
}
fn line() -> Size {
    Size(64 << 10)
}
fn five_seconds() -> Span {
    Span::from_secs(5)
}
fn level() -> String {
    "info".to_owned()
}

impl Default for Desk {
    fn default() -> Desk {
        Desk { address: address(), certificate: None }
    }
}

impl Default for Keep {
    fn default() -> Keep {
        Keep { events: week(), events_number: million(), requests: day(), requests_number: million(), line: line() }
    }
}

impl Default for OwnLog {
    fn default() -> OwnLog {
        OwnLog { level: level(), format: LogFormat::default() }
    }
}

/// Characters of a token: a shorter one is guessed.
const TOKEN_MIN: usize = 16;

impl Controller {
    /// The bucket of the documents.
    pub fn bucket(&self) -> String {
        self.documents.bucket.clone().unwrap_or_else(|| self.bus.fleet.clone())
    }

    /// Adds every mistake of meaning.
    pub fn check(&self, problems: &mut Vec<Problem>) {
        let top = Path::default();
        let mut error =
            |path: Path, message: String, help: &str| problems.push(Problem::error(path, message).help(help));
        self.check_access(&mut error);
        self.bus.check(&top.at("bus"), &mut error);
        if self.documents.bucket.as_deref().is_some_and(|bucket| !crate::settings::is_fleet_name(bucket)) {
            let help = "letters, digits, `-` and `_`, and no more than 64 of them";
            error(top.at("documents").at("bucket"), "this is no name for a bucket".to_owned(), help);
        }
        let mut names = BTreeSet::new();
        for (index, watch) in self.watch.iter().enumerate() {
            let at = top.at("watch").at(index);
            if !check::is_name(&watch.name) {
                error(at.at("name"), format!("`{}` is not a name", watch.name), check::NAME_HELP);
            }
            if !names.insert(&watch.name) {
                let message = format!("another service is called `{}` too", watch.name);
                error(at.at("name"), message, "give each service a name of its own");
            }
            if !is_url(&watch.url) {
                let help = "write a URL such as \"http://10.0.0.5:8090/ready\"";
                error(at.at("url"), format!("`{}` is not a URL", watch.url), help);
            }
            if watch.every.0.as_millis() < 500 {
                error(at.at("every"), "the service would do nothing else".to_owned(), "write at least 500ms");
            }
        }
        let Keep { events, events_number, requests, requests_number, line } = &self.keep;
        for (word, none) in [
            ("events", events.0.is_zero()),
            ("events_number", *events_number == 0),
            ("requests", requests.0.is_zero()),
            ("requests_number", *requests_number == 0),
            ("line", line.0 == 0),
        ] {
            if none {
                error(top.at("keep").at(word), "nothing would be kept".to_owned(), "write more than zero");
            }
        }
        if !check::is_level(&self.log.level) {
            let help = "write error, warn, info, debug or trace, or filters such as \"info,tollgate::bus=debug\"";
            error(top.at("log").at("level"), format!("`{}` is not a log level", self.log.level), help);
        }
    }

    /// Never open by default: without a proof of who asks it does not start.
    fn check_access(&self, error: &mut dyn FnMut(Path, String, &str)) {
        let top = Path::default();
        if self.listen.address.parse::<SocketAddr>().is_err() {
            let at = top.at("listen").at("address");
            error(at, format!("`{}` is not an address to listen on", self.listen.address), check::ADDRESS_HELP);
        }
        match (&self.token, &self.client_ca) {
            (None, None) => {
                let help = "add token = \"${file:/run/secrets/controller}\", or a client_ca";
                error(top.at("token"), "anybody could push documents: there is no token".to_owned(), help);
            }
            (Some(token), _) => {
                let text = token.expose().trim();
                if text.len() < TOKEN_MIN && !text.contains("${") {
                    let help = "write at least 16 characters, such as those of `openssl rand -hex 16`";
                    error(top.at("token"), "the token could be guessed".to_owned(), help);
                }
            }
            (None, Some(_)) => {}
        }
        if self.client_ca.is_some() && self.listen.certificate.is_none() {
            let help = "add certificate = { chain = \"..\", key = \"..\" } to [listen]";
            error(top.at("client_ca"), "client certificates need https".to_owned(), help);
        }
    }
}

/// A URL of http or https. Of a reference that nobody has resolved that is believed.
pub(super) fn is_url(text: &str) -> bool {
    let sound = |uri: http::Uri| matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some();
    text.contains("${") || text.parse().is_ok_and(sound)
}
