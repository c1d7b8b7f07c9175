//! HTTP: which page is whose, the bounds around all of them, and connections from accept to close.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{DefaultBodyLimit, MatchedPath, Request, State as Shared};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{delete, get, patch, post};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::refusal::Refusal;
use super::stall::Impatient;
use super::state::State;
use super::{accounts, collections, files, pages, records, seeing, who};
use crate::telemetry::TraceContext;

/// Time to send a head; a connection without requests is closed after it, too. Longer than gateways keep idle connections.
const HEAD_TIMEOUT: Duration = Duration::from_secs(90);
/// Pause after a failed accept: descriptors may have run out.
const PAUSE: Duration = Duration::from_millis(100);
/// What stands around the bytes of a file in a form.
const FORM: usize = 16 << 10;
/// The page that may take as long as `uploads.time`.
const UPLOAD: &str = "/api/files";

pub(super) fn router(state: State) -> Router {
    let body = usize::try_from(state.words.limits.body.0).unwrap_or(usize::MAX);
    let upload = usize::try_from(state.words.uploads.size.0).unwrap_or(usize::MAX).saturating_add(FORM);
    let record = get(records::read).patch(records::update).delete(records::delete);
    Router::new()
        .route(UPLOAD, post(files::create).layer(DefaultBodyLimit::max(upload)))
        .route("/api/files/{id}", get(files::read).delete(files::delete))
        .route("/api/auth/signup", post(accounts::sign_up))
        .route("/api/auth/login", post(accounts::log_in))
        .route("/api/auth/refresh", post(accounts::refresh))
        .route("/api/auth/logout", post(accounts::log_out))
        .route("/api/auth/me", get(accounts::me))
        .route("/api/users", get(accounts::list))
        .route("/api/users/{id}", delete(accounts::delete))
        .route("/api/collections", get(collections::list).post(collections::create))
        .route("/api/collections/{collection}", patch(collections::update).delete(collections::delete))
        .route("/api/collections/{collection}/records", get(records::list).post(records::create))
        .route("/api/collections/{collection}/records/{id}", record)
        .route("/api/status", get(seeing::status))
        .route("/api/keys/replace", post(seeing::replace_keys))
        .route("/.well-known/jwks.json", get(seeing::jwks))
        .route("/.well-known/openid-configuration", get(seeing::configuration))
        .route("/health", get(seeing::health))
        .route("/ready", get(seeing::ready))
        .route("/metrics", get(seeing::metrics))
        .route("/", get(pages::notes))
        .route("/_/", get(pages::admin))
        .route("/assets/{name}", get(pages::asset))
        .fallback(|| async { Refusal::NotFound })
        .method_not_allowed_fallback(|| async { Refusal::Method })
        .layer(DefaultBodyLimit::max(body))
        .layer(middleware::from_fn_with_state(state.clone(), around))
        .with_state(state)
}

/// Around every request: its trace and id, its time, the answer to a refusal, one line in the log.
async fn around(Shared(state): Shared<State>, mut request: Request, next: Next) -> Response {
    let began = Instant::now();
    let trace = who::trace(request.headers());
    request.extensions_mut().insert(trace);
    let request_id = request_id(request.headers(), &trace);
    let route = request.extensions().get::<MatchedPath>().map_or("none", MatchedPath::as_str).to_owned();
    let method = request.method().clone();
    let limit = match route.as_str() {
        UPLOAD => state.words.uploads.time.0 + state.words.limits.time.0,
        _ => state.words.limits.time.0,
    };
    let answered = tokio::time::timeout(limit, next.run(request)).await;
    let mut response = answered.unwrap_or_else(|_| Refusal::Timeout.into_response());
    if let Some(refusal) = response.extensions_mut().remove::<Refusal>() {
        if let Refusal::Internal(error) = &refusal {
            tracing::error!(error, route, request_id, "a request failed");
        }
        let allow = response.headers_mut().remove(header::ALLOW);
        response = refusal.answer(&request_id);
        response.headers_mut().extend(allow.map(|allow| (header::ALLOW, allow)));
    }
    let headers = response.headers_mut();
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if let Ok(id) = HeaderValue::from_str(&request_id) {
        headers.insert("x-request-id", id);
    }
    let took = began.elapsed();
    state.metrics.request(&route, &method, response.status().as_u16(), took);
    let (status, took_us) = (response.status().as_u16(), took.as_micros() as u64);
    tracing::info!(%method, route, status, took_us, request_id, trace = trace.header_value(), "request");
    response
}

/// What the gateway calls the request, if it is a name; else the trace.
fn request_id(headers: &HeaderMap, trace: &TraceContext) -> String {
    let legal = |id: &&str| (1..=64).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    let told = headers.get("x-request-id").and_then(|id| id.to_str().ok()).filter(legal);
    told.map_or_else(|| trace.header_value().split('-').nth(1).unwrap_or_default().to_owned(), str::to_owned)
}

/// What connections may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) connections: usize,
    /// A client takes something of an answer within this.
    pub(super) write_idle: Duration,
    /// For requests under way when the service leaves.
    pub(super) grace: Duration,
}

/// Serves until `stop`, then lets requests under way finish for the grace period. Returns how many were cut off.
pub(super) async fn serve(listener: TcpListener, router: Router, bounds: Bounds, stop: CancellationToken) -> usize {
    let Bounds { connections, write_idle, grace } = bounds;
    let places = Arc::new(Semaphore::new(connections.clamp(1, Semaphore::MAX_PERMITS)));
    let mut connections = JoinSet::new();
    loop {
        let accepted = async {
            // The semaphore is never closed.
            let place = places.clone().acquire_owned().await.ok();
            (listener.accept().await, place)
        };
        let (accepted, place) = tokio::select! {
            accepted = accepted => accepted,
            Some(_) = connections.join_next() => continue,
            () = stop.cancelled() => break,
        };
        match accepted {
            Ok((stream, _)) => {
                let (router, stop) = (router.clone(), stop.clone());
                connections.spawn(async move {
                    converse(stream, write_idle, router, stop).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "the listener cannot accept");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
    drop(listener);
    let _ = tokio::time::timeout(grace, async { while connections.join_next().await.is_some() {} }).await;
    connections.len()
}

async fn converse(stream: TcpStream, write_idle: Duration, router: Router, stop: CancellationToken) {
    // Answers are short: they are not to wait for more.
    let _ = stream.set_nodelay(true);
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_headers(100)
        .serve_connection(TokioIo::new(Impatient::new(stream, write_idle)), TowerToHyperService::new(router));
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = &mut connection => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection broke");
    }
}
