//! Names that are the gateway's: request headers that routes write, query parameters that hold credentials.

use std::collections::BTreeSet;

use http::HeaderName;

use super::route::Route;
use crate::config::{Document, Match};
use crate::problem::{Path, Problem};

/// Request headers that clients have uses of their own for.
const CLIENTS_OWN: [&str; 10] = [
    "accept",
    "accept-encoding",
    "accept-language",
    "authorization",
    "content-type",
    "cookie",
    "origin",
    "range",
    "referer",
    "user-agent",
];

/// Query parameters that some route takes credentials from.
pub(super) fn credentials(routes: &[Route]) -> Box<[Box<str>]> {
    let access = routes.iter().filter_map(|route| route.access.as_ref());
    let names: BTreeSet<Box<str>> = access.flat_map(|access| access.hidden.query.iter().cloned()).collect();
    names.into_iter().collect()
}

/// Names of the request headers that routes write, `_` as `-`. A header that credentials stand in is not among them, for
/// there are routes that have to look at it: those that do not take it out by themselves.
pub(super) fn reserved(routes: &mut [Route]) -> Box<[Box<str>]> {
    let names = |names: &mut dyn Iterator<Item = &HeaderName>| -> BTreeSet<String> {
        names.map(|name| name.as_str().to_owned()).collect()
    };
    let credentials = names(&mut routes.iter().flat_map(credential_headers));
    let written = names(&mut routes.iter().flat_map(Route::reserves));
    for route in routes.iter_mut() {
        let read = names(&mut credential_headers(route));
        let contested = written.intersection(&credentials).filter(|name| !read.contains(*name));
        route.strip = contested.filter_map(|name| name.parse().ok()).collect();
    }
    let dashed: BTreeSet<Box<str>> =
        written.difference(&credentials).map(|name| name.replace('_', "-").into()).collect();
    dashed.into_iter().collect()
}

fn credential_headers(route: &Route) -> impl Iterator<Item = &HeaderName> {
    route.access.iter().flat_map(|access| access.credential_headers())
}

pub(super) fn check_reserved(document: &Document, reserved: &[Box<str>], problems: &mut Vec<Problem>) {
    let is_reserved = |name: &str| {
        let dashed = name.to_ascii_lowercase().replace('_', "-");
        reserved.iter().any(|known| **known == *dashed)
    };
    for (number, route) in document.route.iter().enumerate().filter(|_| !reserved.is_empty()) {
        let path = || Path::of(["route".to_owned(), number.to_string()]);
        let Match { header, .. } = &route.matches;
        for name in header.keys().filter(|name| is_reserved(name)) {
            let path = path().at("match").at("header").at(name);
            let message = format!("no request has `{name}`: a route sets it, so it is removed from what clients send");
            problems.push(Problem::warning(path, message).help("match another header, or set another one"));
        }
        let Some(edits) = &route.request_headers else { continue };
        for (word, name) in edits.set.keys().map(|name| ("set", name)).chain(edits.add.keys().map(|name| ("add", name)))
        {
            if CLIENTS_OWN.contains(&name.to_ascii_lowercase().as_str()) {
                let path = path().at("request_headers").at(word).at(name);
                let message = format!("`{name}` is removed from what clients send, on every route");
                problems.push(
                    Problem::warning(path, message).help("a header that any route sets is only the gateway's to set"),
                );
            }
        }
    }
}
