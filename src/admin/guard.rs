//! Who may ask the admin listener: a browser must not be made to, and a token may be required.
//!
//! A page that a browser shows can send requests to loopback under a name it controls (DNS rebinding), or from its own
//! origin. The first carries a foreign `Host`, the second an `Origin`; both are refused before anything is read.

use std::net::IpAddr;
use std::sync::Arc;

use aws_lc_rs::{constant_time, digest};
use axum::extract::{Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;

use super::problem;
use super::serve::LocalAddress;
use crate::settings;

/// What a request to the admin listener must show.
#[derive(Debug)]
pub struct Guard {
    /// Names beside loopback ones, lower case.
    hosts: Vec<String>,
    /// SHA-256 of the token: comparing digests tells nothing about its length either.
    token: Option<digest::Digest>,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GuardError {
    #[error("admin.token is empty: anyone could show it")]
    EmptyToken,
}

impl Guard {
    pub fn new(settings: &settings::Admin) -> Result<Guard, GuardError> {
        let token = match settings.token.as_deref().map(str::trim) {
            Some("") => return Err(GuardError::EmptyToken),
            token => token.map(|token| digest::digest(&digest::SHA256, token.as_bytes())),
        };
        Ok(Guard { hosts: settings.hosts.0.iter().map(|host| bare(host).to_ascii_lowercase()).collect(), token })
    }

    fn refuse(&self, request: &Request) -> Option<Response> {
        let local = request.extensions().get::<LocalAddress>().and_then(|LocalAddress(address)| *address);
        let Some(authority) = authority(request) else {
            return Some(problem::answer(StatusCode::BAD_REQUEST, "bad_host", "the request needs one valid Host"));
        };
        if !self.knows(authority.host(), local) {
            let detail = "this host name is not ours; add it to admin.hosts if it should be";
            return Some(problem::answer(StatusCode::FORBIDDEN, "foreign_host", detail));
        }
        if request.headers().get_all(header::ORIGIN).iter().any(|origin| !same_origin(origin, &authority)) {
            return Some(problem::answer(
                StatusCode::FORBIDDEN,
                "foreign_origin",
                "requests of other origins are refused",
            ));
        }
        if !self.admits(request.headers()) {
            let mut response =
                problem::answer(StatusCode::UNAUTHORIZED, "unauthorized", "the bearer token is missing or wrong");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            return Some(response);
        }
        let reads = matches!(*request.method(), Method::GET | Method::HEAD);
        if !reads && !is_json(request.headers()) {
            // A form of another site can send other types without asking first; this one it cannot.
            let detail = "the body must be application/json";
            return Some(problem::answer(StatusCode::UNSUPPORTED_MEDIA_TYPE, "not_json", detail));
        }
        None
    }

    fn knows(&self, host: &str, local: Option<IpAddr>) -> bool {
        let name = bare(host).to_ascii_lowercase();
        match name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
            Ok(address) => {
                let address = address.to_canonical();
                address.is_loopback()
                    || local.is_some_and(|local| local.to_canonical() == address)
                    || self.hosts.contains(&name)
            }
            Err(_) => name == "localhost" || name.ends_with(".localhost") || self.hosts.contains(&name),
        }
    }

    fn admits(&self, headers: &HeaderMap) -> bool {
        let Some(token) = &self.token else { return true };
        let shown = headers.get(header::AUTHORIZATION).and_then(|value| value.as_bytes().split_at_checked(7));
        let Some((scheme, shown)) = shown else { return false };
        let shown = digest::digest(&digest::SHA256, shown.trim_ascii());
        scheme.eq_ignore_ascii_case(b"bearer ")
            && constant_time::verify_slices_are_equal(token.as_ref(), shown.as_ref()).is_ok()
    }
}

pub(super) async fn check(State(guard): State<Arc<Guard>>, request: Request, next: Next) -> Response {
    match guard.refuse(&request) {
        Some(refusal) => refusal,
        None => next.run(request).await,
    }
}

/// The one `Host`; a target in absolute form must name the same.
pub fn authority(request: &Request) -> Option<Authority> {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let (host, None) = (hosts.next()?, hosts.next()) else { return None };
    let host: Authority = host.to_str().ok()?.parse().ok()?;
    match request.uri().authority() {
        Some(target) if *target != host => None,
        _ => Some(host).filter(|host| !host.as_str().contains('@')),
    }
}

/// An origin is a scheme and an authority; TLS may end before us, so the scheme does not count.
pub fn same_origin(origin: &HeaderValue, authority: &Authority) -> bool {
    let Some((scheme, rest)) = origin.to_str().ok().and_then(|origin| origin.split_once("://")) else { return false };
    matches!(scheme, "http" | "https") && rest.eq_ignore_ascii_case(authority.as_str())
}

fn is_json(headers: &HeaderMap) -> bool {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"))
}

/// A name without the dot that ends a fully qualified one.
fn bare(host: &str) -> &str {
    host.strip_suffix('.').unwrap_or(host)
}
