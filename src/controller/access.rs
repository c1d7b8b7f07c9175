//! Who may come in: the token, a session that the token began, or a client certificate. Nobody else sees anything.
//!
//! Sessions are in memory: a restart ends them. A browser must not be made to act by another site: what changes something is
//! taken only from pages of the same origin.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aws_lc_rs::{constant_time, digest, rand};
use axum::extract::{Request, State as Extract};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Redirect, Response};
use tokio::time::Instant;

use super::State;
use crate::admin::{self, Peer};
use crate::scalar::Secret;
use crate::scalar::hex;

/// How long a session lasts.
const SESSION: Duration = Duration::from_secs(12 * 3600);
/// Sessions at once; beyond them the oldest ends.
const SESSIONS_MAX: usize = 1_000;
/// Wrong tokens from one address within `FAILURES_WITHIN`; beyond them none is looked at.
const FAILURES_MAX: u32 = 10;
const FAILURES_WITHIN: Duration = Duration::from_secs(60);
/// Addresses that are remembered; beyond them the oldest is forgotten.
const ADDRESSES_MAX: usize = 10_000;
const COOKIE: &str = "tollgate_session";
/// A browser takes a cookie of this name only over TLS and for this host alone.
const COOKIE_SECURE: &str = "__Host-tollgate_session";

/// What anybody may ask.
const OPEN: [&str; 3] = ["/health", "/ready", "/login"];

#[derive(Debug)]
pub(super) struct Access {
    /// SHA-256 of the token: comparing digests tells nothing about its length either.
    token: Option<digest::Digest>,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// By digest of what the cookie holds.
    sessions: BTreeMap<Vec<u8>, Instant>,
    failures: BTreeMap<Option<IpAddr>, (Instant, u32)>,
}

/// What became of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shown {
    Right,
    Wrong,
    /// Too many wrong ones: it was not looked at.
    NotNow,
}

impl Access {
    pub(super) fn new(token: Option<&Secret>) -> Access {
        Access { token: token.map(|token| hash(token.expose().trim().as_bytes())), inner: Mutex::default() }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at a token that somebody shows.
    pub(super) fn show(&self, token: &[u8], from: Option<IpAddr>) -> Shown {
        let mut inner = self.inner();
        let now = Instant::now();
        let begun = inner.failures.get(&from).copied().filter(|(since, _)| now - *since < FAILURES_WITHIN);
        let (since, failures) = begun.unwrap_or((now, 0));
        if failures >= FAILURES_MAX {
            return Shown::NotNow;
        }
        let shown = hash(token.trim_ascii());
        let right =
            |ours: &digest::Digest| constant_time::verify_slices_are_equal(ours.as_ref(), shown.as_ref()).is_ok();
        if self.token.as_ref().is_some_and(right) {
            inner.failures.remove(&from);
            return Shown::Right;
        }
        inner.failures.insert(from, (since, failures + 1));
        if inner.failures.len() > ADDRESSES_MAX
            && let Some(oldest) = inner.failures.iter().min_by_key(|(_, (since, _))| *since).map(|(from, _)| *from)
        {
            inner.failures.remove(&oldest);
        }
        Shown::Wrong
    }

    /// Begins a session; what the browser is to keep.
    fn begin(&self) -> Option<String> {
        let mut bytes = [0u8; 32];
        rand::fill(&mut bytes).ok()?;
        let secret = hex(&bytes);
        let mut inner = self.inner();
        let now = Instant::now();
        inner.sessions.retain(|_, ends| *ends > now);
        if inner.sessions.len() >= SESSIONS_MAX
            && let Some(oldest) = inner.sessions.iter().min_by_key(|(_, ends)| **ends).map(|(key, _)| key.clone())
        {
            inner.sessions.remove(&oldest);
        }
        inner.sessions.insert(hash(secret.as_bytes()).as_ref().to_vec(), now + SESSION);
        Some(secret)
    }

    pub(super) fn knows(&self, headers: &HeaderMap) -> bool {
        let Some(secret) = cookie(headers) else { return false };
        let key = hash(secret.as_bytes());
        self.inner().sessions.get(key.as_ref()).is_some_and(|ends| *ends > Instant::now())
    }

    fn end(&self, headers: &HeaderMap) {
        if let Some(secret) = cookie(headers) {
            self.inner().sessions.remove(hash(secret.as_bytes()).as_ref());
        }
    }
}

fn hash(bytes: &[u8]) -> digest::Digest {
    digest::digest(&digest::SHA256, bytes)
}

fn cookie(headers: &HeaderMap) -> Option<&str> {
    let all = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = all.flat_map(|value| value.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(name, _)| [COOKIE, COOKIE_SECURE].contains(name)).map(|(_, value)| value)
}

/// How somebody has proven who they are.
enum Proof {
    Session,
    Token,
    Certificate,
}

/// Lets in whom it should, and answers the others.
pub(super) async fn check(Extract(state): Extract<Arc<State>>, request: Request, next: Next) -> Response {
    let path = request.uri().path().to_owned();
    let reads = matches!(*request.method(), Method::GET | Method::HEAD);
    let open = OPEN.contains(&path.as_str()) || path.starts_with("/assets/");
    let proof = match proof(&state.access, &request) {
        Ok(proof) => proof,
        Err(Shown::NotNow) => return not_now(),
        Err(_) => return unauthorized(),
    };
    let acts = !reads && !matches!(proof, Some(Proof::Token));
    if acts && !is_same_origin(&request) {
        return admin::problem(StatusCode::FORBIDDEN, "foreign_origin", "requests of other origins are refused");
    }
    if proof.is_some() || open {
        return guarded(next.run(request).await);
    }
    if path.starts_with("/api/") || path == "/metrics" || path.starts_with("/live/") || !reads {
        return unauthorized();
    }
    let to: String = request.uri().path_and_query().map(|target| target.to_string()).unwrap_or_default();
    let to = percent_encoding::utf8_percent_encode(&to, percent_encoding::NON_ALPHANUMERIC);
    guarded(Redirect::to(&format!("/login?to={to}")).into_response())
}

fn proof(access: &Access, request: &Request) -> Result<Option<Proof>, Shown> {
    let peer = request.extensions().get::<Peer>().copied().unwrap_or_default();
    if peer.proven {
        return Ok(Some(Proof::Certificate));
    }
    let headers = request.headers();
    let shown = headers.get(header::AUTHORIZATION).and_then(|value| value.as_bytes().split_at_checked(7));
    match shown.filter(|(scheme, _)| scheme.eq_ignore_ascii_case(b"bearer ")) {
        Some((_, token)) => match access.show(token, peer.address) {
            Shown::Right => Ok(Some(Proof::Token)),
            refused => Err(refused),
        },
        None if access.knows(headers) => Ok(Some(Proof::Session)),
        None => Ok(None),
    }
}

/// Browsers say where what changes something comes from; who says nothing is no browser, and has a token to show.
fn is_same_origin(request: &Request) -> bool {
    let Some(authority) = admin::authority(request) else { return false };
    let mut origins = request.headers().get_all(header::ORIGIN).iter();
    match (origins.next(), origins.next()) {
        (Some(origin), None) => admin::same_origin(origin, &authority),
        _ => false,
    }
}

fn unauthorized() -> Response {
    let mut refusal = admin::problem(StatusCode::UNAUTHORIZED, "unauthorized", "the token is missing or wrong");
    refusal.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    guarded(refusal)
}

fn not_now() -> Response {
    let mut refusal =
        admin::problem(StatusCode::TOO_MANY_REQUESTS, "too_many_failures", "too many wrong tokens: wait a minute");
    refusal.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("60"));
    guarded(refusal)
}

/// What browsers may do with our pages. Nothing comes from elsewhere. 'unsafe-eval' is for Datastar, which makes functions of
/// the expressions in `data-` attributes; these are ours alone, since whatever is inserted is escaped.
const POLICY: &str = "default-src 'none'; script-src 'self' 'unsafe-eval'; style-src 'self'; img-src 'self' data:; \
    connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'";

fn guarded(mut response: Response) -> Response {
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        // The Origin of our own forms must stay.
        (header::REFERRER_POLICY, "same-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

/// Begins a session if the token is right: the answer that sets the cookie and leads on.
pub(super) fn log_in(state: &State, token: &str, to: &str, headers: &HeaderMap, peer: Peer) -> Result<Response, Shown> {
    match state.access.show(token.as_bytes(), peer.address) {
        Shown::Right => {}
        other => {
            tracing::warn!(from = ?peer.address, "a login failed");
            return Err(other);
        }
    }
    let secret = state.access.begin().ok_or(Shown::NotNow)?;
    // TLS may end before us: then the browser says https, and we do not see it otherwise.
    let https = headers.get(header::ORIGIN).is_some_and(|origin| origin.as_bytes().starts_with(b"https://"));
    let (name, secure) = if peer.encrypted || https { (COOKIE_SECURE, "; Secure") } else { (COOKIE, "") };
    let cookie = format!("{name}={secret}; Path=/; HttpOnly; SameSite=Strict; Max-Age={}{secure}", SESSION.as_secs());
    Ok(with_cookie(Redirect::to(inner_path(to)).into_response(), &cookie))
}

pub(super) fn log_out(state: &State, headers: &HeaderMap) -> Response {
    state.access.end(headers);
    let mut response = Redirect::to("/login").into_response();
    for (name, secure) in [(COOKIE, ""), (COOKIE_SECURE, "; Secure")] {
        response = with_cookie(response, &format!("{name}=; Path=/; HttpOnly; SameSite=Strict; Max-Age=0{secure}"));
    }
    response
}

fn with_cookie(mut response: Response, cookie: &str) -> Response {
    if let Ok(value) = HeaderValue::from_str(cookie) {
        response.headers_mut().append(header::SET_COOKIE, value);
    }
    response
}

/// A place of ours and not of another site.
fn inner_path(to: &str) -> &str {
    let ours = to.starts_with('/') && !to.starts_with("//") && !to.contains(['\\', '\r', '\n', '\t']);
    if ours { to } else { "/" }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access() -> Access {
        Access::new(Some(&Secret::new("a token of some length\n")))
    }

    #[tokio::test(start_paused = true)]
    async fn guessing_ends_after_ten_for_a_minute_and_for_that_address_only() {
        let access = access();
        let (one, other) = (Some([10, 0, 0, 1].into()), Some([10, 0, 0, 2].into()));
        for _ in 0..FAILURES_MAX {
            assert_eq!(access.show(b"guess", one), Shown::Wrong);
        }
        assert_eq!(access.show(b"a token of some length", one), Shown::NotNow);
        assert_eq!(access.show(b"a token of some length", other), Shown::Right);
        tokio::time::advance(FAILURES_WITHIN).await;
        assert_eq!(access.show(b"a token of some length", one), Shown::Right);
    }

    #[tokio::test(start_paused = true)]
    async fn sessions_end_and_are_bounded() {
        let access = access();
        let headers =
            |secret: &str| HeaderMap::from_iter([(header::COOKIE, format!("a=b; {COOKIE}={secret}").parse().unwrap())]);
        let first = access.begin().unwrap();
        assert!(access.knows(&headers(&first)) && !access.knows(&headers("other")));
        tokio::time::advance(Duration::from_secs(1)).await;
        for _ in 0..SESSIONS_MAX {
            access.begin().unwrap();
        }
        assert!(!access.knows(&headers(&first)), "the oldest went");
        let last = access.begin().unwrap();
        tokio::time::advance(SESSION).await;
        assert!(!access.knows(&headers(&last)));
        let again = access.begin().unwrap();
        access.end(&headers(&again));
        assert!(!access.knows(&headers(&again)));
    }

    #[test]
    fn without_a_token_none_is_right() {
        assert_eq!(Access::new(None).show(b"", None), Shown::Wrong);
    }

    #[test]
    fn a_login_leads_to_our_own_pages_only() {
        for (to, expect) in
            [("/routes?x=1", "/routes?x=1"), ("//evil", "/"), ("https://evil", "/"), ("/\\evil", "/"), ("", "/")]
        {
            assert_eq!(inner_path(to), expect, "{to}");
        }
    }
}
