//! Words of `alerts.toml`: when the controller says that something is wrong, and to whom. Read again when the file changes.

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::check;
use super::controller::is_url;
use crate::problem::{Path, Problem, nearest};
use crate::scalar::{OneOrMany, Secret, Span};

/// Alert rules. A change is taken up within seconds; a file with a mistake changes nothing.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Alerts {
    /// Version of the format. Must be 1.
    #[schemars(extend("const" = 1))]
    pub format: u32,
    /// Rules.
    #[serde(default)]
    pub alert: Vec<Alert>,
    /// Whom alerts are told, by name.
    #[serde(default)]
    pub notify: BTreeMap<String, Notify>,
}

/// A rule. Every node, route, certificate or service that it is true of is an alert of its own.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Alert {
    /// Name, unique.
    pub name: String,
    /// What is wrong. Exactly one of `rate`, `latency`, `expiry`, `drift` and `silence`.
    pub when: When,
    /// It must be true for so long before the alert fires. Default 0s.
    #[serde(default = "at_once", rename = "for")]
    pub lasting: Span,
    /// It must be untrue for so long before the alert is over. Default 1m.
    #[serde(default = "minute")]
    pub clear: Span,
    /// Names of `[notify.NAME]` that are told when it fires and when it is over. An event is written in any case. Default: none.
    #[serde(default)]
    pub notify: OneOrMany<String>,
}

/// What is wrong.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "{ rate = { of = \"5xx\", above = 5 } }")]
pub struct When {
    /// Too large a share of the requests ends badly.
    #[serde(default)]
    pub rate: Option<Rate>,
    /// Requests take too long.
    #[serde(default)]
    pub latency: Option<Latency>,
    /// A certificate ends soon, or what was last done about it failed.
    #[serde(default)]
    pub expiry: Option<Expiry>,
    /// A gateway does not run the document that is in force.
    #[serde(default)]
    pub drift: Option<Drift>,
    /// A gateway has stopped reporting, or a watched service is not ready.
    #[serde(default)]
    pub silence: Option<Silence>,
}

/// Which requests count as bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Bad {
    /// Answers with a status of 500 to 599.
    #[serde(rename = "5xx")]
    Server,
    /// Answers with a status of 400 to 499.
    #[serde(rename = "4xx")]
    Client,
    /// Answers that the gateway gave by itself.
    Rejected,
}

/// Too large a share of the requests ends badly.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rate {
    /// `5xx`, `4xx`, or `rejected` (answered by the gateway itself).
    pub of: Bad,
    /// Percent of all requests.
    pub above: f64,
    /// Name of a route. Default: all requests together.
    #[serde(default)]
    pub route: Option<String>,
    /// Over so much time. 10s to 1h. Default 1m.
    #[serde(default = "minute")]
    pub over: Span,
    /// With fewer requests than this in that time nothing is said. Default 20.
    #[serde(default = "twenty")]
    pub requests: u64,
}

/// Requests take too long.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Latency {
    /// The 99th percentile is longer than this.
    pub above: Span,
    /// Name of a route. Default: all requests together.
    #[serde(default)]
    pub route: Option<String>,
    /// Over so much time. 10s to 1h. Default 1m.
    #[serde(default = "minute")]
    pub over: Span,
    /// With fewer requests than this in that time nothing is said. Default 20.
    #[serde(default = "twenty")]
    pub requests: u64,
}

/// A certificate ends soon, or what was last done about it failed.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Expiry {
    /// It ends within this. Default 7d.
    #[serde(default = "week")]
    pub within: Span,
}

/// A gateway does not run the document that is in force.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "{}")]
pub struct Drift {}

/// A gateway has stopped reporting, or a watched service is not ready.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Silence {
    /// Name of a gateway, or of a `[[watch]]` of controller.toml. Default: every one of them.
    #[serde(default)]
    pub of: Option<String>,
}

/// Somebody who is told.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Notify {
    /// URL that gets a POST with JSON for every alert that fires or is over. Tried again until it answers 2xx, for an hour at most.
    /// Whoever knows it can write there: it is shown nowhere, and `"${file:/run/secrets/webhook}"` keeps it out of this file.
    pub webhook: Secret,
    /// An answer is waited for so long. Default 5s.
    #[serde(default = "five_seconds")]
    pub timeout: Span,
}

fn at_once() -> Span {
    Span::from_secs(0)
}
fn minute() -> Span {
    Span::from_secs(60)
}
fn week() -> Span {
    Span::from_secs(7 * 24 * 3600)
}
fn five_seconds() -> Span {
    Span::from_secs(5)
}
fn twenty() -> u64 {
    20
}

impl When {
    /// The words that are there.
    fn given(&self) -> Vec<&'static str> {
        let When { rate, latency, expiry, drift, silence } = self;
        let all = [
            ("rate", rate.is_some()),
            ("latency", latency.is_some()),
            ("expiry", expiry.is_some()),
            ("drift", drift.is_some()),
            ("silence", silence.is_some()),
        ];
        all.into_iter().filter(|(_, given)| *given).map(|(word, _)| word).collect()
    }
}

impl Alerts {
    /// Adds every mistake of meaning.
    pub fn check(&self, problems: &mut Vec<Problem>) {
        let top = Path::default();
        let mut error =
            |path: Path, message: String, help: &str| problems.push(Problem::error(path, message).help(help));
        let mut names = BTreeSet::new();
        for (index, alert) in self.alert.iter().enumerate() {
            let at = top.at("alert").at(index);
            if !check::is_name(&alert.name) {
                error(at.at("name"), format!("`{}` is not a name", alert.name), check::NAME_HELP);
            }
            if !names.insert(&alert.name) {
                let message = format!("another alert is called `{}` too", alert.name);
                error(at.at("name"), message, "give each alert a name of its own");
            }
            let kinds = "one of rate, latency, expiry, drift and silence";
            match alert.when.given().as_slice() {
                [_] => {}
                [] => error(at.at("when"), "nothing is looked at".to_owned(), &format!("write {kinds}")),
                several => {
                    error(at.at("when"), format!("{} are given", several.join(" and ")), &format!("keep {kinds}"));
                }
            }
            for (index, name) in alert.notify.iter().enumerate().filter(|(_, name)| !self.notify.contains_key(*name)) {
                let near = nearest(name, self.notify.keys().map(String::as_str));
                let help = near.map_or_else(
                    || format!("add [notify.{name}] with a webhook"),
                    |near| format!("did you mean `{near}`?"),
                );
                error(at.at("notify").at(index), format!("there is no [notify.{name}]"), &help);
            }
            check_windows(&alert.when, &at.at("when"), &mut error);
        }
        for (name, Notify { webhook, timeout }) in &self.notify {
            let at = top.at("notify").at(name);
            if !is_url(webhook.expose()) {
                let help = "write a URL such as \"https://hooks.example.com/tollgate\"";
                error(at.at("webhook"), "this is no URL of http or https".to_owned(), help);
            }
            if timeout.0.is_zero() {
                error(at.at("timeout"), "no answer comes in no time".to_owned(), "write at least 1ms");
            }
        }
    }
}

fn check_windows(when: &When, at: &Path, error: &mut dyn FnMut(Path, String, &str)) {
    let windows = [
        ("rate", when.rate.as_ref().map(|rate| rate.over)),
        ("latency", when.latency.as_ref().map(|latency| latency.over)),
    ];
    for (word, over) in windows.into_iter().filter_map(|(word, over)| Some((word, over?))) {
        if !(10..=3600).contains(&over.0.as_secs()) {
            error(at.at(word).at("over"), format!("{over} cannot be looked at"), "write 10s to 1h");
        }
    }
    if let Some(rate) = &when.rate
        && !(0.0..100.0).contains(&rate.above)
    {
        let help = "write 0 to less than 100";
        error(at.at("rate").at("above"), format!("no share is above {} percent", rate.above), help);
    }
}
