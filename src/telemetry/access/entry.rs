//! One request as the access log tells it. `docs/logging.md` documents every field.
//!
//! No header of a client is among the fields: Authorization, Cookie and many a custom header hold secrets.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::json::{Object, escape, key};
use super::{Redact, date};
use crate::rejection::Code;
use crate::telemetry::TraceContext;

/// One request. Empty texts and absent values are left out of the line.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    /// When the request ended.
    pub at: SystemTime,
    pub request_id: &'a str,
    pub trace: Option<TraceContext>,
    /// Empty before a route was found.
    pub route: &'a str,
    /// Of the table that the request read.
    pub revision: &'a str,
    /// The true client, behind trusted proxies.
    pub client: Option<IpAddr>,
    pub listener: &'a str,
    pub method: &'a str,
    pub scheme: &'a str,
    pub host: &'a str,
    pub path: &'a str,
    pub query: Option<&'a str>,
    /// `HTTP/1.1`, `HTTP/2`.
    pub protocol: &'a str,
    /// 0 when no answer was begun.
    pub status: u16,
    pub code: Option<Code>,
    /// Why, in words: of a rejection, or of an answer that was cut off.
    pub cause: Option<&'a str>,
    pub bytes_in: u64,
    pub bytes_out: u64,
    pub upstream: Option<&'a str>,
    pub endpoint: Option<SocketAddr>,
    pub attempts: u32,
    pub durations: Durations,
    /// Who was proven to ask.
    pub subject: Option<&'a str>,
    /// `TLSv1.3`
    pub tls: Option<&'a str>,
    /// An earlier request came over the same connection of the client.
    pub reused: bool,
    /// The request went over a connection to the endpoint that stood already.
    pub upstream_reused: Option<bool>,
}

/// How long the phases of a request took.
#[derive(Clone, Copy, Debug, Default)]
pub struct Durations {
    /// From the head of the request to the last byte of the answer.
    pub total: Duration,
    /// Getting a connection to the endpoint, the last attempt's.
    pub connect: Option<Duration>,
    /// From sending the request to the head of the answer.
    pub upstream_head: Option<Duration>,
}

impl Default for Entry<'_> {
    fn default() -> Self {
        Entry {
            at: UNIX_EPOCH,
            request_id: "",
            trace: None,
            route: "",
            revision: "",
            client: None,
            listener: "",
            method: "",
            scheme: "",
            host: "",
            path: "",
            query: None,
            protocol: "",
            status: 0,
            code: None,
            cause: None,
            bytes_in: 0,
            bytes_out: 0,
            upstream: None,
            endpoint: None,
            attempts: 0,
            durations: Durations::default(),
            subject: None,
            tls: None,
            reused: false,
            upstream_reused: None,
        }
    }
}

impl Entry<'_> {
    /// Appends the line, its line feed included.
    pub(super) fn write(&self, redact: &Redact, out: &mut Vec<u8>) {
        let Entry {
            at,
            request_id,
            trace,
            route,
            revision,
            client,
            listener,
            method,
            scheme,
            host,
            path,
            query,
            protocol,
            status,
            code,
            cause,
            bytes_in,
            bytes_out,
            upstream,
            endpoint,
            attempts,
            durations: Durations { total, connect, upstream_head },
            subject,
            tls,
            reused,
            upstream_reused,
        } = *self;
        let mut line = Object::begin(out);
        let time = line.name(key!("time"));
        time.push(b'"');
        date::push(time, at);
        time.push(b'"');
        line.text(key!("request_id"), request_id);
        if let Some(trace) = trace {
            line.hex(key!("trace_id"), &trace.trace_id);
            line.hex(key!("span_id"), &trace.span_id);
        }
        for (name, value) in [(key!("route"), route), (key!("revision"), revision)] {
            line.filled_text(name, value);
        }
        if let Some(client) = client {
            line.ip(key!("client"), client);
        }
        for (name, value) in [
            (key!("listener"), listener),
            (key!("method"), method),
            (key!("scheme"), scheme),
            (key!("host"), host),
            (key!("path"), path),
        ] {
            line.filled_text(name, value);
        }
        if let Some(query) = query {
            let out = line.name(key!("query"));
            out.push(b'"');
            redact.pieces(query, |piece| escape(out, piece));
            out.push(b'"');
        }
        line.filled_text(key!("protocol"), protocol);
        line.number(key!("status"), u64::from(status));
        line.maybe_text(key!("code"), code.map(Code::as_str));
        line.maybe_text(key!("cause"), cause);
        line.number(key!("bytes_in"), bytes_in);
        line.number(key!("bytes_out"), bytes_out);
        line.maybe_text(key!("upstream"), upstream);
        if let Some(endpoint) = endpoint {
            line.address(key!("endpoint"), endpoint);
        }
        line.number(key!("attempts"), u64::from(attempts));
        line.milliseconds(key!("total_ms"), total);
        for (name, duration) in [(key!("connect_ms"), connect), (key!("upstream_head_ms"), upstream_head)] {
            if let Some(duration) = duration {
                line.milliseconds(name, duration);
            }
        }
        line.maybe_text(key!("subject"), subject);
        line.maybe_text(key!("tls"), tls);
        line.boolean(key!("reused"), reused);
        if let Some(reused) = upstream_reused {
            line.boolean(key!("upstream_reused"), reused);
        }
        line.end();
        out.push(b'\n');
    }
}
