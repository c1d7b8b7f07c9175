//! Mirrors: a copy of a request for another upstream, its answer compared with the real one and thrown away.
//!
//! Nothing here can slow or fail the request: the copy is collected while the body streams (up to a bound, else given up)
//! and sent by a task of its own after the real answer is done.

use std::sync::Arc;

use aws_lc_rs::digest;
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method, StatusCode};
use pingora_http::RequestHeader;
use pingora_proxy::Session;
use tokio::sync::OwnedSemaphorePermit;

use crate::routes::Route;
use crate::tasks::Tasks;
use crate::telemetry::metrics::MirrorResult;
use crate::upstream::exchange;

/// Of the differences found, this share is written to the log; all are counted.
const SAMPLED_OF: u64 = 20;

/// Starts copies.
pub(crate) struct Mirrors {
    tasks: Tasks,
}

/// A request that is being copied.
pub(crate) struct Copying {
    route: Arc<Route>,
    permit: OwnedSemaphorePermit,
    tasks: Tasks,
    head: Option<http::request::Parts>,
    body: BytesMut,
    body_max: usize,
    status: Option<StatusCode>,
    headers: HeaderMap,
    answer: Digest,
    overflown: bool,
    /// The request's body came to its end.
    whole: bool,
}

/// A running hash of the first bytes of a body.
struct Digest {
    context: digest::Context,
    left: usize,
}

impl Digest {
    fn new(left: usize) -> Digest {
        Digest { context: digest::Context::new(&digest::SHA256), left }
    }

    fn add(&mut self, bytes: &[u8]) {
        let n = bytes.len().min(self.left);
        self.context.update(bytes.get(..n).unwrap_or_default());
        self.left -= n;
    }

    fn finish(self) -> [u8; 32] {
        self.context.finish().as_ref().try_into().unwrap_or([0; 32])
    }
}

impl Mirrors {
    pub(crate) fn new(tasks: Tasks) -> Mirrors {
        Mirrors { tasks }
    }

    /// Whether this request is copied. Upgrades are not: there is nothing to compare.
    pub(super) fn begin(&self, session: &Session, route: &Arc<Route>) -> Option<Box<Copying>> {
        let mirror = route.mirror.as_ref()?;
        let request = session.req_header();
        if !mirror.sampled() || request.headers.contains_key(http::header::UPGRADE) || request.method == Method::CONNECT
        {
            return None;
        }
        let metrics = route.metrics.get();
        let Some(permit) = mirror.permit() else {
            if let Some(metrics) = metrics {
                metrics.mirrored(MirrorResult::Skipped);
            }
            return None;
        };
        Some(Box::new(Copying {
            route: route.clone(),
            permit,
            tasks: self.tasks.clone(),
            head: None,
            body: BytesMut::new(),
            body_max: mirror.body_max,
            status: None,
            headers: HeaderMap::new(),
            answer: Digest::new(mirror.body_max),
            overflown: false,
            whole: false,
        }))
    }
}

impl Copying {
    /// The head as it went upstream. Called again for every attempt: the body then begins anew.
    pub(super) fn head(&mut self, upstream: &RequestHeader) {
        self.head = Some(upstream.as_owned_parts());
        self.body.clear();
        (self.overflown, self.whole) = (false, false);
    }

    pub(super) fn body(&mut self, piece: Option<&Bytes>, end: bool) {
        self.whole |= end;
        let Some(piece) = piece else { return };
        if self.overflown || self.body.len() + piece.len() > self.body_max {
            self.overflown = true;
            self.body = BytesMut::new();
            return;
        }
        self.body.extend_from_slice(piece);
    }

    /// A copy of half a request would be another request.
    pub(super) fn is_whole(&self) -> bool {
        self.whole
    }

    pub(super) fn answer_head(&mut self, status: StatusCode, headers: &HeaderMap) {
        self.status = Some(status);
        let Some(mirror) = &self.route.mirror else { return };
        for name in &mirror.compare_headers {
            for value in headers.get_all(name) {
                self.headers.append(name, value.clone());
            }
        }
    }

    pub(super) fn answer_body(&mut self, piece: Option<&Bytes>) {
        if let Some(piece) = piece {
            self.answer.add(piece);
        }
    }

    /// The real answer is done: sends the copy.
    pub(super) fn send(self: Box<Self>, request_id: String) {
        let tasks = self.tasks.clone();
        tasks.spawn_detached("mirror", async move { self.run(request_id).await });
    }

    async fn run(self: Box<Self>, request_id: String) {
        let Copying { route, permit, head, body, status, headers, answer, overflown, .. } = *self;
        let _permit = permit;
        let (Some(mirror), Some(mut parts), Some(status)) = (&route.mirror, head, status) else { return };
        let count = |result| {
            if let Some(metrics) = route.metrics.get() {
                metrics.mirrored(result);
            }
        };
        if overflown {
            return count(MirrorResult::Skipped);
        }
        parts.headers.remove(http::header::TRANSFER_ENCODING);
        parts.headers.remove(http::header::EXPECT);
        let request = http::Request::from_parts(parts, body.freeze());
        let copy = match exchange(&mirror.pool, request, mirror.timeout, mirror.body_max).await {
            Ok(copy) => copy,
            Err(error) => {
                tracing::debug!(route = %route.name, upstream = %mirror.pool.name(), %error, "mirror failed");
                return count(MirrorResult::Failed);
            }
        };
        let mut copied = Digest::new(mirror.body_max);
        copied.add(copy.body());
        let found = if copy.status() != status {
            MirrorResult::StatusDiffers
        } else if mirror.compare_headers.iter().any(|name| !same(&headers, copy.headers(), name)) {
            MirrorResult::HeadersDiffer
        } else if answer.finish() != copied.finish() {
            MirrorResult::BodyDiffers
        } else {
            MirrorResult::Same
        };
        count(found);
        if found == MirrorResult::Same {
            return;
        }
        if fastrand::u64(..SAMPLED_OF) == 0 || status.as_u16() / 100 != copy.status().as_u16() / 100 {
            tracing::info!(
                route = %route.name, upstream = %mirror.pool.name(), request_id, what = found.as_str(),
                status = status.as_u16(), mirrored = copy.status().as_u16(), "mirror differs"
            );
        }
    }
}

fn same(a: &HeaderMap, b: &HeaderMap, name: &http::HeaderName) -> bool {
    a.get_all(name).iter().eq(b.get_all(name).iter())
}
