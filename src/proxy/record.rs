//! The end of a request: counters, one log line, one span. Exactly once, also for a request that was dropped half-way.

use std::time::SystemTime;

use http::Version;
use pingora_error::Error;
use pingora_proxy::Session;

use super::answer::begun;
use super::ctx::Ctx;
use super::gate::Gate;
use crate::telemetry::access::{Durations, Entry};
use crate::upstream::Outcome;

/// In logs only: the client went away before there was an answer (nginx uses the same number).
const CLIENT_GONE: u16 = 499;

impl Gate {
    pub(super) fn record(&self, session: &Session, error: Option<&Error>, ctx: &mut Ctx) {
        let refused = ctx.route.is_none() && ctx.refusal().is_some();
        let status = match begun(session) {
            Some(head) => head.status.as_u16(),
            None if ctx.status != 0 => ctx.status,
            None => CLIENT_GONE,
        };
        let request = session.req_header();
        if ctx.upgraded && ctx.rejection.is_none() {
            ctx.rejection = ctx.flow.expired().map(super::failure::rejection_of_expired);
        }
        let gone = error.filter(|_| ctx.rejection.is_none()).map(ToString::to_string);
        let head = ctx.head(session);
        let protocol = match (ctx.http2, request.version) {
            (true, _) => "HTTP/2",
            (_, Version::HTTP_10) => "HTTP/1.0",
            _ => "HTTP/1.1",
        };
        // The head of a refused request was not understood: what stands in for it is not the client's.
        let (method, host, path, query) = match refused {
            true => ("", "", "", None),
            false => (head.method.as_str(), head.host, head.path, head.query),
        };
        // Of any route: one that was not found, or asks nobody, logs no credentials either.
        let bare = query.and_then(|query| super::forward::without(query, &self.live.load_full().credentials));
        let query = bare.as_deref().or(query);
        write(
            &self.telemetry,
            ctx,
            &Told { status, protocol, method, scheme: head.scheme.as_str(), host, path, query, cause: gone.as_deref() },
        );
        ctx.recorded = true;
    }
}

/// What only the session knew.
struct Told<'a> {
    status: u16,
    protocol: &'a str,
    method: &'a str,
    scheme: &'a str,
    host: &'a str,
    path: &'a str,
    query: Option<&'a str>,
    cause: Option<&'a str>,
}

fn write(telemetry: &crate::telemetry::Telemetry, ctx: &Ctx, told: &Told<'_>) {
    let code = ctx.rejection.as_ref().map(|rejection| rejection.code);
    let total = ctx.begun.elapsed();
    let at = SystemTime::now();
    let connection = ctx.connection.as_deref();
    let route = ctx.route.as_deref();
    match route.and_then(|route| route.metrics.get()) {
        Some(metrics) => metrics.finished(told.status, code, total, ctx.body_in, ctx.body_out),
        None => telemetry.metrics.unrouted().finished(told.status, code, total, ctx.body_in, ctx.body_out),
    }
    let entry = Entry {
        at,
        request_id: ctx.request_id.as_str(),
        trace: Some(ctx.trace),
        route: route.map_or("", |route| &route.name),
        revision: ctx.revision.as_deref().unwrap_or(""),
        client: Some(ctx.client),
        listener: connection.map_or("", |connection| &connection.listener.name),
        method: told.method,
        scheme: told.scheme,
        host: told.host,
        path: told.path,
        query: told.query,
        protocol: told.protocol,
        status: told.status,
        code,
        cause: ctx.rejection.as_ref().map(|rejection| &*rejection.cause).or(told.cause),
        bytes_in: ctx.body_in,
        bytes_out: ctx.body_out,
        upstream: ctx.pool.as_ref().map(|pool| &**pool.name()),
        endpoint: ctx.endpoint,
        attempts: u32::from(ctx.attempts),
        durations: Durations { total, connect: ctx.timings.connect, upstream_head: ctx.timings.head },
        subject: ctx.subject.as_ref().map(|subject| &*subject.name).filter(|name| !name.is_empty()),
        tls: connection.and_then(|connection| Some(connection.tls.as_ref()?.version)),
        reused: connection.is_some_and(|connection| connection.requests.load(std::sync::atomic::Ordering::Relaxed) > 1),
        upstream_reused: ctx.endpoint.map(|_| ctx.reused),
    };
    telemetry.access.record(&entry);
    telemetry.span(&entry, ctx.parent_span, &ctx.attempt_spans);
}

impl Drop for Ctx {
    fn drop(&mut self) {
        if self.recorded {
            return;
        }
        // Dropped by its clock, or with its connection: the session is gone, what the context holds is told.
        let expired = self.flow.expired();
        if self.rejection.is_none() {
            self.rejection = expired.map(super::failure::rejection_of_expired);
        }
        if let Some(lease) = self.lease.take()
            && self.flow.expired_by_upstream()
        {
            lease.report(Outcome::Timeout);
        }
        let status = if self.status == 0 { CLIENT_GONE } else { self.status };
        let telemetry = self.telemetry.clone();
        let (request, host) = (self.told.take(), self.host.take());
        let protocol = if self.http2 { "HTTP/2" } else { "HTTP/1.1" };
        let told = Told {
            status,
            protocol,
            method: request.as_ref().map_or("", |(method, _)| method.as_str()),
            scheme: "",
            host: host.as_deref().unwrap_or_default(),
            path: request.as_ref().map_or("", |(_, path)| path),
            query: None,
            cause: Some("the request was dropped"),
        };
        write(&telemetry, self, &told);
    }
}
