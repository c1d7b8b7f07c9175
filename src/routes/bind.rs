//! The words of one route, bound to what they name: upstreams, defaults, captures.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::compile::Env;
use super::conditions::Networks;
use super::destination::{Destination, Mirror};
use super::matching::Matching;
use super::pattern::Pattern;
use super::redirect::Redirect;
use super::respond::Respond;
use super::route::{Route, Stream, Timeouts};
use super::split::{Split, SplitBy};
use crate::config::{self, EncodedSlash};
use crate::facts::path::has_encoded_slash;
use crate::policy::{Edits, Presence, Reading, Rewrite, Side, headers};
use crate::problem::{Path, Problem, nearest};
use crate::scalar::Span;
use crate::upstream::Pool;

/// Default of `body.max`.
const BODY_MAX: u64 = 10 << 20;
/// Default of `retry.attempts`, and its most.
const ATTEMPTS: u8 = 2;
const ATTEMPTS_MAX: u8 = 10;
const WEIGHT_MAX: u32 = 10_000;

/// What routes are bound to.
pub(super) struct Binder<'d> {
    pub(super) env: &'d Env,
    pub(super) pools: BTreeMap<&'d str, Named>,
    pub(super) defaults: Defaults<'d>,
}

/// An upstream by name, and whether any route names it.
pub(super) struct Named {
    pub(super) pool: Arc<Pool>,
    pub(super) used: bool,
}

/// `[defaults]`, compiled once and shared.
pub(super) struct Defaults<'d> {
    words: &'d config::Defaults,
    request_headers: Edits,
    pub(super) response_headers: Edits,
}

impl<'d> Defaults<'d> {
    pub(super) fn bind(words: &'d config::Defaults, problems: &mut Vec<Problem>) -> Defaults<'d> {
        let at = Path::of(["defaults"]);
        let mut reading = Reading { captures: &|_| Presence::Never, problems };
        let mut edits = |words: &Option<config::HeaderEdits>, side, word| match words {
            Some(words) => Edits::compile(words, side, &at.at(word), &mut reading),
            None => Edits::default(),
        };
        let request_headers = edits(&words.request_headers, Side::Request, "request_headers");
        let response_headers = edits(&words.response_headers, Side::Response, "response_headers");
        timeouts(words.timeout.as_ref(), &at, problems);
        attempts(words.retry.as_ref(), &at, problems);
        stream(words.stream.as_ref(), &at, problems);
        Defaults { words, request_headers, response_headers }
    }
}

impl Binder<'_> {
    /// The route, and the client networks that the index needs beside it.
    pub(super) fn bind(
        &mut self,
        words: &config::Route,
        at: &Path,
        problems: &mut Vec<Problem>,
    ) -> Option<(Route, Vec<Networks>)> {
        // Every word is named, so that a new one does not compile until it is honoured here.
        let config::Route {
            name,
            matches,
            priority,
            upstream: _,
            split: _,
            split_by: _,
            redirect: _,
            respond: _,
            mirror,
            rewrite,
            request_headers,
            response_headers,
            timeout,
            retry,
            body,
            stream: stream_words,
            encoded_slash,
        } = words;
        check_name(name, at, problems);
        let no_captures = &|_: &str| Presence::Never;
        let mut reading = Reading { captures: no_captures, problems };
        let Matching { hosts, patterns, conditions, networks } =
            Matching::read(matches, &at.at("match"), self.env, &mut reading);
        let captures = |name: &str| presence(&patterns, name);
        let mut reading = Reading { captures: &captures, problems: reading.problems };

        let encoded_slash = encoded_slash.or(self.defaults.words.encoded_slash).unwrap_or_default();
        check_slashes(&patterns, encoded_slash, at, &mut reading);
        let destination = self.destination(words, at, &mut reading);
        let mirror = mirror.as_ref().and_then(|words| self.mirror(words, &at.at("mirror"), &mut reading));
        let rewrite = rewrite.as_ref().map(|words| {
            let rewrite = Rewrite::compile(words, &at.at("rewrite"), &mut reading);
            check_prefix(&rewrite, &patterns, at, &mut reading);
            rewrite
        });
        if rewrite.is_some() && matches!(destination, Some(Destination::Redirect(_) | Destination::Respond(_))) {
            reading.error(&at.at("rewrite"), "nothing goes upstream that could be rewritten", "leave `rewrite` out");
        }
        let request_headers = match request_headers {
            Some(words) => Edits::compile(words, Side::Request, &at.at("request_headers"), &mut reading),
            None => self.defaults.request_headers.clone(),
        };
        let response_headers = match response_headers {
            Some(words) => Edits::compile(words, Side::Response, &at.at("response_headers"), &mut reading),
            None => self.defaults.response_headers.clone(),
        };
        let Reading { problems, .. } = reading;
        let timeout = match timeout {
            Some(words) => timeouts(Some(words), at, problems),
            None => timeouts(self.defaults.words.timeout.as_ref(), at, &mut Vec::new()),
        };
        let attempts = match retry {
            Some(words) => attempts(Some(words), at, problems),
            None => attempts(self.defaults.words.retry.as_ref(), at, &mut Vec::new()),
        };
        let stream = match stream_words {
            Some(words) => stream(Some(words), at, problems),
            None => stream(self.defaults.words.stream.as_ref(), at, &mut Vec::new()),
        };
        let body_max = body.as_ref().or(self.defaults.words.body.as_ref()).map_or(BODY_MAX, |body| body.max.0);
        let route = Route {
            name: name.as_str().into(),
            destination: destination?,
            mirror,
            rewrite,
            request_headers,
            response_headers,
            timeout,
            attempts,
            body_max,
            stream,
            encoded_slash,
            removed: CancellationToken::new(),
            metrics: OnceLock::new(),
            hosts: hosts.into(),
            patterns: patterns.into(),
            conditions,
            priority: *priority,
        };
        Some((route, networks))
    }

    fn destination(&mut self, words: &config::Route, at: &Path, reading: &mut Reading<'_>) -> Option<Destination> {
        let config::Route { upstream, split, split_by, redirect, respond, .. } = words;
        let there = [upstream.is_some(), split.is_some(), redirect.is_some(), respond.is_some()];
        match there.into_iter().filter(|is_there| *is_there).count() {
            0 => {
                let help = "write one of `upstream`, `split`, `redirect`, `respond`";
                reading.error(at, format!("route `{}` goes nowhere", words.name), help);
            }
            1 => {}
            _ => {
                let message = format!("route `{}` has more than one destination", words.name);
                reading.error(at, message, "keep one of `upstream`, `split`, `redirect`, `respond`");
            }
        }
        if split_by.is_some() && split.is_none() {
            reading.error(&at.at("split_by"), "`split_by` without `split`", "leave it out, or write `split`");
        }
        if let Some(name) = upstream {
            self.pool(name, &at.at("upstream"), reading).map(Destination::Upstream)
        } else if let Some(shares) = split {
            self.split(shares, split_by.as_ref(), at, reading).map(Destination::Split)
        } else if let Some(words) = redirect {
            Redirect::compile(words, &at.at("redirect"), reading).map(Destination::Redirect)
        } else {
            Respond::compile(respond.as_ref()?, &at.at("respond"), reading).map(Destination::Respond)
        }
    }

    fn pool(&mut self, name: &str, at: &Path, reading: &mut Reading<'_>) -> Option<Arc<Pool>> {
        if let Some(named) = self.pools.get_mut(name) {
            named.used = true;
            return Some(named.pool.clone());
        }
        let help = match nearest(name, self.pools.keys().copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("write a block `[upstream.{name}]`"),
        };
        reading.error(at, format!("there is no upstream `{name}`"), help);
        None
    }

    fn split(
        &mut self,
        words: &[config::Share],
        by: Option<&config::SplitBy>,
        at: &Path,
        reading: &mut Reading<'_>,
    ) -> Option<Split> {
        let split_at = at.at("split");
        let mut shares: Vec<(Arc<Pool>, u32)> = Vec::with_capacity(words.len());
        for (index, config::Share { upstream, weight }) in words.iter().enumerate() {
            let at = split_at.at(index);
            if *weight > WEIGHT_MAX {
                reading.error(&at.at("weight"), format!("{weight} is too much"), format!("0 to {WEIGHT_MAX}"));
            }
            let Some(pool) = self.pool(upstream, &at.at("upstream"), reading) else { continue };
            if shares.iter().any(|(known, _)| known.name() == pool.name()) {
                reading.error(&at.at("upstream"), format!("`{upstream}` is there twice"), "add the weights up");
            }
            shares.push((pool, *weight));
        }
        let by = by.and_then(|words| split_by(words, &at.at("split_by"), reading));
        let complete = shares.len() == words.len();
        let split = Split::new(shares, by);
        if split.is_none() && complete {
            reading.error(&split_at, "no share has weight", "give at least one upstream a weight above 0");
        }
        split
    }

    fn mirror(&mut self, words: &config::Mirror, at: &Path, reading: &mut Reading<'_>) -> Option<Mirror> {
        let config::Mirror { upstream, percent, body_max: _, compare_headers, timeout, in_flight } = words;
        if !(0.0..=100.0).contains(percent) {
            reading.error(&at.at("percent"), format!("{percent} is not a percentage"), "0 to 100");
        }
        check_span(Some(*timeout), &at.at("timeout"), reading.problems);
        if *in_flight == 0 {
            reading.error(&at.at("in_flight"), "nothing would be copied", "leave `mirror` out to copy nothing");
        }
        let compare = compare_headers.iter().enumerate();
        let compare = compare
            .filter_map(|(index, text)| headers::name(text, &at.at("compare_headers").at(index), reading))
            .collect();
        let pool = self.pool(upstream, &at.at("upstream"), reading)?;
        Some(Mirror::new(pool, words, compare, usize::try_from(*in_flight).ok()?))
    }
}

fn split_by(words: &config::SplitBy, at: &Path, reading: &mut Reading<'_>) -> Option<SplitBy> {
    match (&words.cookie, &words.fact) {
        (Some(cookie), None) => {
            let legal = http::HeaderName::from_bytes(cookie.as_bytes()).is_ok();
            if !legal {
                let help = "names are tokens (RFC 6265 4.1.1)";
                reading.error(&at.at("cookie"), format!("`{cookie}` is not the name of a cookie"), help);
            }
            legal.then(|| SplitBy::Cookie(cookie.as_str().into()))
        }
        (None, Some(fact)) => {
            // A fact is a template of nothing else: captures are checked the same way.
            let template = reading.template(&format!("{{{fact}}}"), &at.at("fact"), Presence::Sometimes)?;
            template.facts().next().cloned().map(SplitBy::Fact)
        }
        (Some(_), Some(_)) | (None, None) => {
            reading.error(at, "`split_by` is by one thing", "write either `cookie` or `fact`");
            None
        }
    }
}

fn presence(patterns: &[Pattern], name: &str) -> Presence {
    match patterns.iter().filter(|pattern| pattern.has_capture(name)).count() {
        0 => Presence::Never,
        count if count == patterns.len() => Presence::Always,
        _ => Presence::Sometimes,
    }
}

fn check_name(name: &str, at: &Path, problems: &mut Vec<Problem>) {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let help = if name.is_empty() || name.len() > 64 || !name.bytes().all(legal) {
        "letters, digits, `-`, `_` and `.`; 64 at most"
    } else if name == "none" {
        "`none` stands for no route in tests"
    } else {
        return;
    };
    problems.push(Problem::error(at.at("name"), format!("`{name}` is not a name")).help(help));
}

fn check_slashes(patterns: &[Pattern], encoded_slash: EncodedSlash, at: &Path, reading: &mut Reading<'_>) {
    for (index, pattern) in patterns.iter().enumerate() {
        if encoded_slash == EncodedSlash::Refuse && has_encoded_slash(pattern.text()) {
            let message = format!("`{pattern}` is never reached: %2F and %5C are refused");
            reading.error(&at.at("match").at("path").at(index), message, "write `encoded_slash = \"keep\"`");
        }
    }
}

fn check_prefix(rewrite: &Rewrite, patterns: &[Pattern], at: &Path, reading: &mut Reading<'_>) {
    if let Some(prefix) = rewrite.prefix()
        && !patterns.iter().any(|pattern| pattern.may_begin_with(prefix))
    {
        let problem = Problem::warning(at.at("rewrite"), format!("no path of this route begins with `{prefix}/`"));
        reading.problems.push(problem.help("the prefix is compared with the path as asked for"));
    }
}

fn timeouts(words: Option<&config::Timeout>, at: &Path, problems: &mut Vec<Problem>) -> Timeouts {
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

fn attempts(words: Option<&config::Retry>, at: &Path, problems: &mut Vec<Problem>) -> u8 {
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

fn stream(words: Option<&config::Stream>, at: &Path, problems: &mut Vec<Problem>) -> Stream {
    let Some(config::Stream { max_age, on_remove }) = words else {
        return Stream { max_age: None, on_remove: config::OnRemove::default() };
    };
    check_span(*max_age, &at.at("stream").at("max_age"), problems);
    Stream { max_age: max_age.map(|span| span.0), on_remove: *on_remove }
}

fn check_span(span: Option<Span>, at: &Path, problems: &mut Vec<Problem>) {
    if span.is_some_and(|span| span.0.is_zero()) {
        problems.push(Problem::error(at.clone(), "no time at all").help("write a duration above zero, such as `30s`"));
    }
}
