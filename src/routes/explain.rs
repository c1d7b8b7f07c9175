//! Why a request goes where it goes, and why every other route lost: the same lookup, not stopped at the first hit.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::ControlFlow;

use http::HeaderName;
use serde::{Deserialize, Serialize};

use super::conditions::Miss;
use super::fit::Fit;
use super::host::HostPattern;
use super::outcome::Outcome;
use super::question::{Question, QuestionError};
use super::route::Route;
use super::table::{Entry, Found, Table};
use crate::facts::{Captures, Head, Subject};
use crate::policy::Cors;
use crate::rejection::Code;

/// Why a request goes where it goes.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Explanation {
    pub revision: String,
    /// The request as the gateway understands it.
    pub request: Option<Understood>,
    pub outcome: Outcome,
    /// Why the route matched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<Why>,
    /// Every other route, in the order of the document.
    pub others: Vec<Other>,
}

/// The request as the gateway understands it.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Understood {
    pub method: String,
    pub scheme: Cow<'static, str>,
    pub host: String,
    pub path: String,
    pub query: Option<String>,
    pub client: String,
    pub listen: String,
}

/// Why the route matched, and what it does on the way.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Why {
    pub host: String,
    pub path: String,
    pub fit: String,
    pub captures: BTreeMap<String, String>,
    pub request_headers: HeaderChanges,
    pub response_headers: HeaderChanges,
    /// What is asked on the way, in its order.
    #[serde(default)]
    pub policies: Vec<String>,
}

/// Names only: values may be secrets.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct HeaderChanges {
    pub written: Vec<String>,
    pub removed: Vec<String>,
}

/// A route that the request did not take.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Other {
    pub route: String,
    /// What it fails on: `host`, `path`, `listen`, `header`, `query`, `cookie`, `client_certificate`, `from`, `method`, or
    /// `less_specific`.
    pub lost_by: Cow<'static, str>,
    pub text: String,
}

/// The furthest a route came. Greater is further.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Verdict {
    Missed { lost_by: &'static str, text: String },
    Matched { path: String, fit: Fit },
}

impl Table {
    /// Explains a request that was asked about as text.
    pub fn answer(&self, question: &Question) -> Result<Explanation, QuestionError> {
        let asking = question.read(self)?;
        Ok(asking.with_head(|head| match head {
            Ok(head) => self.explain(head, asking.subject()),
            Err(malformed) => Explanation {
                revision: self.revision.to_string(),
                request: None,
                outcome: Outcome::rejected(Code::BadRequest, malformed.to_string()),
                why: None,
                others: Vec::new(),
            },
        }))
    }

    /// Explains a request.
    pub fn explain(&self, head: &Head<'_>, subject: Option<&Subject>) -> Explanation {
        let found = self.find(head);
        let set = self.hosts.find(head.host);
        let set_host = set.and_then(|set| self.hosts.patterns().into_iter().find(|(_, root)| *root == set));
        let set_host = set_host.map_or(HostPattern::Any, |(host, _)| host);
        let verdicts = self.verdicts(head);
        let (chosen, why) = match &found {
            Found::Route { route, captures } => {
                let captured = route.captured(captures, head.path);
                let pattern = captured.pattern;
                let names = pattern.into_iter().flat_map(|pattern| pattern.captures());
                let captures = names
                    .filter_map(|name| Some((name.to_owned(), captured.capture(name)?.to_owned())))
                    .collect::<BTreeMap<_, _>>();
                let fit = self.fit_of(&verdicts, route);
                (Some(&route.name), Some(why(route, &set_host, pattern.map(ToString::to_string), fit, captures)))
            }
            Found::Refused { route, .. } => (Some(&route.name), None),
            Found::MethodNotAllowed { .. } | Found::NoRoute | Found::CertificateRequired | Found::ToHttps { .. } => {
                (None, None)
            }
        };
        let winner = match chosen {
            Some(name) => format!("route `{name}`"),
            None if matches!(found, Found::CertificateRequired) => "what the name asks of its clients".to_owned(),
            None if matches!(found, Found::ToHttps { .. }) => "the redirect of the name to https".to_owned(),
            None => "the pattern that decides: it takes other methods".to_owned(),
        };
        let others = self.routes.iter().zip(&verdicts).filter(|(route, _)| chosen != Some(&route.name));
        let others = others.map(|(route, verdict)| {
            let (lost_by, text) = match verdict {
                Some(Verdict::Missed { lost_by, text }) => (*lost_by, text.clone()),
                Some(Verdict::Matched { path, fit }) => {
                    ("less_specific", format!("`{path}` ({fit}) comes after {winner}"))
                }
                None => unvisited(route, head, &set_host),
            };
            Other { route: route.name.to_string(), lost_by: lost_by.into(), text }
        });
        Explanation {
            revision: self.revision.to_string(),
            request: Some(understood(head)),
            outcome: Outcome::of(&found, head, subject),
            why,
            others: others.collect(),
        }
    }

    /// The same walk as `find`, to its end: for each route what became of its best entry. `None`: never visited.
    fn verdicts(&self, head: &Head<'_>) -> Vec<Option<Verdict>> {
        let mut verdicts: Vec<Option<Verdict>> = vec![None; self.routes.len()];
        let preflight = Cors::preflight_method(head.method, head.headers);
        let asked = self.asked(head, preflight.as_ref());
        let Some(root) = self.hosts.find(head.host) else { return verdicts };
        let _ = self.trie.walk(root, head.path, &mut |leaf, _| {
            for entry in leaf {
                let Some((route, result)) = self.check(entry, &asked) else { continue };
                let slot = usize::try_from(entry.route).ok().and_then(|id| verdicts.get_mut(id));
                if let Some(slot) = slot.filter(|slot| !matches!(slot, Some(Verdict::Matched { .. }))) {
                    let verdict = verdict(route, entry, result, head);
                    if slot.is_none() || matches!(verdict, Verdict::Matched { .. }) {
                        *slot = Some(verdict);
                    }
                }
            }
            ControlFlow::<()>::Continue(())
        });
        verdicts
    }

    fn fit_of(&self, verdicts: &[Option<Verdict>], chosen: &Route) -> Fit {
        let verdict = self.routes.iter().zip(verdicts).find(|(route, _)| route.name == chosen.name);
        match verdict {
            Some((_, Some(Verdict::Matched { fit, .. }))) => *fit,
            _ => Fit::default(),
        }
    }
}

fn verdict(route: &Route, entry: &Entry, result: Result<(), Miss<'_>>, head: &Head<'_>) -> Verdict {
    let (lost_by, text) = match result {
        Ok(()) => {
            let path = route.patterns.get(usize::from(entry.pattern)).map(ToString::to_string);
            return Verdict::Matched { path: path.unwrap_or_default(), fit: entry.fit };
        }
        Err(Miss::Listen) if route.conditions.listen_named => {
            ("listen", format!("it does not answer on listener `{}`", head.listener))
        }
        Err(Miss::Listen) => ("listen", format!("listener `{}` is not public, and it does not name it", head.listener)),
        Err(Miss::Header(name)) => ("header", format!("header `{name}`")),
        Err(Miss::Query(name)) => ("query", format!("query parameter `{name}`")),
        Err(Miss::Cookie(name)) => ("cookie", format!("cookie `{name}`")),
        Err(Miss::ClientCertificate(field)) => {
            let what =
                if head.client_certificate.is_some() { "of the client's certificate" } else { "of a certificate" };
            ("client_certificate", format!("{} {what}", field.as_str()))
        }
        Err(Miss::From) => ("from", format!("client address {}", head.client)),
        Err(Miss::Method) => ("method", format!("method {}", head.method)),
    };
    Verdict::Missed { lost_by, text }
}

/// Why the walk never came to a route.
fn unvisited(route: &Route, head: &Head<'_>, set: &HostPattern) -> (&'static str, String) {
    if route.hosts.contains(set) {
        return ("path", list(&route.patterns));
    }
    match route.hosts.iter().find(|host| host.matches(head.host)) {
        Some(host) => ("host", format!("{host}; but {set} is more specific, and only its routes count")),
        None => ("host", list(&route.hosts)),
    }
}

fn list<T: ToString>(items: &[T]) -> String {
    let mut text = items.iter().take(3).map(ToString::to_string).collect::<Vec<_>>().join(", ");
    if items.len() > 3 {
        text.push_str(&format!(" and {} more", items.len() - 3));
    }
    text
}

fn why(route: &Route, host: &HostPattern, path: Option<String>, fit: Fit, captures: BTreeMap<String, String>) -> Why {
    let names = |names: &mut dyn Iterator<Item = &HeaderName>| names.map(|name| name.as_str().to_owned()).collect();
    let changes = |edits: &crate::policy::Edits| HeaderChanges {
        written: names(&mut edits.written()),
        removed: names(&mut edits.removed()),
    };
    Why {
        host: host.to_string(),
        path: path.unwrap_or_default(),
        fit: fit.to_string(),
        captures,
        request_headers: changes(&route.request_headers),
        response_headers: changes(&route.answers.edits),
        policies: policies(route),
    }
}

fn policies(route: &Route) -> Vec<String> {
    let mut all = Vec::new();
    all.extend(route.addresses.is_some().then(|| "addresses".to_owned()));
    all.extend(route.cors.is_some().then(|| "cors".to_owned()));
    all.extend(route.limits_before.iter().map(|limit| format!("limit {}", limit.name)));
    all.extend(route.access.as_ref().map(|access| format!("auth: {}", access.described())));
    all.extend(route.limits_after.iter().map(|limit| format!("limit {}", limit.name)));
    all.extend(route.importance.map(|importance| format!("importance {importance:?}").to_ascii_lowercase()));
    all.extend(route.answers.described());
    all
}

fn understood(head: &Head<'_>) -> Understood {
    Understood {
        method: head.method.to_string(),
        scheme: head.scheme.as_str().into(),
        host: head.host.to_owned(),
        path: head.path.to_owned(),
        query: head.query.map(str::to_owned),
        client: head.client.to_string(),
        listen: head.listener.to_owned(),
    }
}
