//! Bounds in time and number that a route, or `[defaults]`, sets.

use std::time::Duration;

use super::route::{Stream, Timeouts};
use crate::config;
use crate::problem::{Path, Problem};
use crate::scalar::Span;

/// Default of `retry.attempts`, and its most.
const ATTEMPTS: u8 = 2;
const ATTEMPTS_MAX: u8 = 10;

pub(super) fn timeouts(words: Option<&config::Timeout>, at: &Path, problems: &mut Vec<Problem>) -> Timeouts {
    let (mut connect, mut head, mut idle, mut request) = (None, None, None, None);
    if let Some(words) = words {
        (connect, head, idle, request) = (words.connect, words.head, words.idle, words.request);
        let at = at.at("timeout");
        for (span, word) in [(connect, "connect"), (head, "head"), (idle, "idle"), (request, "request")] {
            check_span(span, &at.at(word), problems);
        }
    }
    let or = |span: Option<Span>, secs| span.map_or(Duration::from_secs(secs), |span| span.0);
    Timeouts { connect: or(connect, 2), head: or(head, 30), idle: or(idle, 60), request: request.map(|span| span.0) }
}

pub(super) fn attempts(words: Option<&config::Retry>, at: &Path, problems: &mut Vec<Problem>) -> u8 {
    let attempts = words.map_or(ATTEMPTS, |retry| retry.attempts);
    if !(1..=ATTEMPTS_MAX).contains(&attempts) {
        let message = format!("{attempts} attempts");
        problems.push(
            Problem::error(at.at("retry").at("attempts"), message)
                .help(format!("1 to {ATTEMPTS_MAX}; the first try counts, so 1 means no retries")),
        );
    }
    attempts
}

pub(super) fn stream(words: Option<&config::Stream>, at: &Path, problems: &mut Vec<Problem>) -> Stream {
    let Some(config::Stream { max_age, on_remove, on_expiry }) = words else {
        let (on_remove, on_expiry) = (config::OnRemove::default(), config::OnExpiry::default());
        return Stream { max_age: None, on_remove, on_expiry };
    };
    check_span(*max_age, &at.at("stream").at("max_age"), problems);
    Stream { max_age: max_age.map(|span| span.0), on_remove: *on_remove, on_expiry: *on_expiry }
}

pub(super) fn check_span(span: Option<Span>, at: &Path, problems: &mut Vec<Problem>) {
    if span.is_some_and(|span| span.0.is_zero()) {
        problems.push(Problem::error(at.clone(), "no time at all").help("write a duration above zero, such as `30s`"));
    }
}
