//! What becomes of a request: the part of an explanation that test cases are compared with.

use std::borrow::Cow;

use http::StatusCode;
use serde::{Deserialize, Serialize};

use super::destination::Destination;
use super::pattern::PathCaptures;
use super::route::Route;
use super::table::Found;
use crate::facts::{Head, Subject};
use crate::policy::{Target, Unfilled};
use crate::rejection::Code;

/// What becomes of a request.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
pub struct Outcome {
    pub route: Option<String>,
    /// More than one with a split.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub upstreams: Vec<UpstreamShare>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mirror: Option<UpstreamShare>,
    /// Path and query that go upstream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Host that goes upstream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Of an answer the gateway gives by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// Of a rejection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<Cow<'static, str>>,
    /// Why it is rejected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub location: Option<String>,
}

/// How much of a route's traffic an upstream gets.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub struct UpstreamShare {
    pub upstream: String,
    pub percent: f64,
}

impl Outcome {
    /// Who asks is as it is said; `None`: nobody shows credentials.
    pub(super) fn of(found: &Found<'_>, head: &Head<'_>, subject: Option<&Subject>) -> Outcome {
        match found {
            Found::Route { route, captures } => Outcome::of_route(route, captures, head, subject),
            Found::Refused { route, cause } => Outcome {
                route: Some(route.name.to_string()),
                ..Outcome::rejected(Code::BadRequest, cause.to_string())
            },
            Found::MethodNotAllowed { allow } => {
                let cause = "the routes of the best path pattern take other methods".to_owned();
                let allow = allow.to_str().ok().map(str::to_owned);
                Outcome { allow, ..Outcome::rejected(Code::MethodNotAllowed, cause) }
            }
            Found::ToHttps { location } => Outcome {
                status: Some(StatusCode::PERMANENT_REDIRECT.as_u16()),
                location: location.to_str().ok().map(str::to_owned),
                ..Outcome::default()
            },
            Found::CertificateRequired => {
                Outcome::rejected(Code::Misdirected, "the host is for clients with a certificate".to_owned())
            }
            Found::NoRoute => Outcome::rejected(Code::NoRoute, "no route matches".to_owned()),
        }
    }

    pub(super) fn rejected(code: Code, cause: String) -> Outcome {
        let status = Some(code.status().as_u16());
        Outcome { status, code: Some(code.as_str().into()), cause: Some(cause), ..Outcome::default() }
    }

    fn of_route(route: &Route, captures: &PathCaptures, head: &Head<'_>, subject: Option<&Subject>) -> Outcome {
        let name = Some(route.name.to_string());
        let captured = route.captured(captures, head.path);
        let facts = route.facts(head, &captured, subject);
        let denied = |code, cause: String| Outcome { route: name.clone(), ..Outcome::rejected(code, cause) };
        if route.addresses.as_ref().is_some_and(|addresses| !addresses.allow(head.client)) {
            return denied(Code::AddressDenied, "the client's address may not ask".to_owned());
        }
        if let Some(access) = &route.access {
            match subject {
                None if !access.lets_anybody() => {
                    return denied(Code::AuthRequired, "the request has no credentials".to_owned());
                }
                Some(subject) => {
                    if let Some(missing) = access.missing(subject, &facts) {
                        return denied(Code::AuthForbidden, format!("{} does not suffice", missing.what()));
                    }
                }
                None => {}
            }
        }
        let refused = |unfilled: Unfilled| Outcome {
            route: name.clone(),
            ..Outcome::rejected(Code::BadRequest, unfilled.to_string())
        };
        let mut outcome = Outcome { route: name.clone(), ..Outcome::default() };
        let by_itself = |status: StatusCode| Some(status.as_u16());
        match &route.destination {
            Destination::Redirect(redirect) => match redirect.location(head, &facts) {
                Ok(location) => {
                    outcome.status = by_itself(redirect.status);
                    outcome.location = location.to_str().ok().map(str::to_owned);
                }
                Err(unfilled) => return refused(unfilled),
            },
            Destination::Respond(respond) => outcome.status = by_itself(respond.status),
            Destination::Upstream(pool) => {
                outcome.upstreams = vec![UpstreamShare { upstream: pool.name().to_string(), percent: 100.0 }];
            }
            Destination::Split(split) => outcome.upstreams = shares(split),
        }
        if !outcome.upstreams.is_empty() {
            let target = match &route.rewrite {
                None => Ok(Target { path_and_query: path_and_query(head), host: None }),
                Some(rewrite) => rewrite.apply(head, &facts),
            };
            match target {
                Ok(Target { path_and_query, host }) => {
                    outcome.path = Some(path_and_query);
                    outcome.host = Some(host.unwrap_or_else(|| head.host.to_owned()));
                }
                Err(unfilled) => return refused(unfilled),
            }
        }
        outcome.mirror = route
            .mirror
            .as_ref()
            .map(|mirror| UpstreamShare { upstream: mirror.pool.name().to_string(), percent: mirror.percent() });
        outcome
    }
}

fn shares(split: &super::split::Split) -> Vec<UpstreamShare> {
    let total: f64 = split.shares().iter().map(|share| f64::from(share.weight)).sum();
    split
        .shares()
        .iter()
        .filter(|share| share.weight > 0)
        .map(|share| UpstreamShare {
            upstream: share.pool.name().to_string(),
            percent: f64::from(share.weight) * 100.0 / total,
        })
        .collect()
}

fn path_and_query(head: &Head<'_>) -> String {
    match head.query {
        Some(query) => format!("{}?{query}", head.path),
        None => head.path.to_owned(),
    }
}
