//! The words of one route, bound to what they name: upstreams, defaults, captures.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use tokio_util::sync::CancellationToken;

use super::bounds::{attempts, stream, timeouts};
use super::compile::Env;
use super::conditions::Networks;
use super::destination::Destination;
use super::matching::Matching;
use super::pattern::Pattern;
use super::route::Route;
use crate::config::{self, EncodedSlash};
use crate::facts::path::has_encoded_slash;
use crate::policy::{
    Access, Addresses, AnswerWords, Answers, Cors, Edits, Limit, Presence, Proof, Reading, Rewrite, Side, Sources,
};
use crate::problem::{Path, Problem, nearest};
use crate::scalar::OneOrMany;
use crate::upstream::Pool;

/// Default of `body.max`.
const BODY_MAX: u64 = 10 << 20;

/// What routes are bound to.
pub(super) struct Binder<'d> {
    pub(super) env: &'d Env,
    pub(super) pools: BTreeMap<&'d str, Named>,
    pub(super) defaults: Defaults<'d>,
    pub(super) sources: Sources<'d>,
    pub(super) limits: BTreeMap<&'d str, Arc<Limit>>,
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
    pub(super) answers: Answers,
    addresses: Option<Addresses>,
    pub(super) cors: Option<Arc<Cors>>,
    access: Option<Arc<Access>>,
}

impl<'d> Defaults<'d> {
    pub(super) fn bind(
        words: &'d config::Defaults,
        sources: &Sources<'_>,
        problems: &mut Vec<Problem>,
    ) -> Defaults<'d> {
        let at = Path::of(["defaults"]);
        let mut reading = Reading { captures: &|_| Presence::Never, problems };
        let request_headers = match &words.request_headers {
            Some(words) => Edits::compile(words, Side::Request, &at.at("request_headers"), &mut reading),
            None => Edits::default(),
        };
        let given = AnswerWords {
            response_headers: words.response_headers.as_ref(),
            security_headers: words.security_headers,
            cache_control: words.cache_control.as_ref().map(|words| words.0.as_slice()),
            server_timing: words.server_timing,
            compression: words.compression.as_ref(),
            error_pages: words.error_pages.as_ref().map(|words| words.0.as_slice()),
        };
        let answers = Answers::compile(&given, &Answers::default(), &at, &mut reading);
        let addresses =
            words.addresses.as_ref().map(|words| Addresses::compile(words, &at.at("addresses"), &mut reading));
        let cors = words.cors.as_ref().map(|words| Arc::new(Cors::compile(words, &[], &at.at("cors"), &mut reading)));
        let access = access(words.auth.as_ref(), sources, &at, &mut reading);
        timeouts(words.timeout.as_ref(), &at, problems);
        attempts(words.retry.as_ref(), &at, problems);
        stream(words.stream.as_ref(), &at, problems);
        Defaults { words, request_headers, answers, addresses, cors, access }
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
            addresses,
            cors,
            auth,
            limits,
            cache_control,
            security_headers,
            server_timing,
            compression,
            error_pages,
            importance,
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
        let given = AnswerWords {
            response_headers: response_headers.as_ref(),
            security_headers: *security_headers,
            cache_control: cache_control.as_ref().map(|words| words.0.as_slice()),
            server_timing: *server_timing,
            compression: compression.as_ref(),
            error_pages: error_pages.as_ref().map(|words| words.0.as_slice()),
        };
        let answers = Answers::compile(&given, &self.defaults.answers, at, &mut reading);
        let addresses = match addresses {
            Some(words) => Some(Addresses::compile(words, &at.at("addresses"), &mut reading)),
            None => self.defaults.addresses.clone(),
        };
        let taken = &conditions.methods;
        let cors = match (cors, &self.defaults.words.cors) {
            (Some(words), _) => Some(Arc::new(Cors::compile(words, taken, &at.at("cors"), &mut reading))),
            // What is wrong with it was told with the defaults.
            (None, Some(words)) if !taken.is_empty() && words.methods.is_empty() => {
                let mut reading = Reading { captures: &captures, problems: &mut Vec::new() };
                Some(Arc::new(Cors::compile(words, taken, &at.at("cors"), &mut reading)))
            }
            (None, _) => self.defaults.cors.clone(),
        };
        let access = match auth {
            Some(words) => access(Some(words), &self.sources, at, &mut reading),
            None => self.defaults.access.clone(),
        };
        let forward = self.forward(access.as_deref(), &mut reading);
        let limits = self.limits(limits.as_ref(), at, &captures, &mut reading);
        let (limits_after, limits_before): (Vec<_>, Vec<_>) = limits.into_iter().partition(|limit| limit.is_proven());
        if let (Some(limit), None) = (limits_after.first(), &access) {
            let message = format!("limit `{}` counts by who asks, and nobody proves it here", limit.name);
            let problem = Problem::warning(at.at("limits"), message);
            reading.problems.push(problem.help("write `auth`, or give the limit another key"));
        }
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
            strip: Box::default(),
            answers,
            importance: importance.or(self.defaults.words.importance),
            timeout,
            attempts,
            body_max,
            stream,
            encoded_slash,
            addresses,
            cors,
            access,
            forward,
            limits_before: limits_before.into(),
            limits_after: limits_after.into(),
            removed: CancellationToken::new(),
            metrics: OnceLock::new(),
            hosts: hosts.into(),
            patterns: patterns.into(),
            conditions,
            priority: *priority,
        };
        Some((route, networks))
    }

    /// The pools of the services that are asked.
    fn forward(&mut self, access: Option<&Access>, reading: &mut Reading<'_>) -> Box<[(Arc<str>, Arc<Pool>)]> {
        let services = access.into_iter().flat_map(|access| access.proofs.iter()).filter_map(|proof| match proof {
            Proof::Forward(service) => Some(service),
            _ => None,
        });
        let bound = services.filter_map(|service| {
            let at = Path::of(["forward_auth", &*service.name, "upstream"]);
            Some((service.name.clone(), self.pool(&service.upstream, &at, reading)?))
        });
        bound.collect()
    }

    fn limits(
        &self,
        words: Option<&OneOrMany<String>>,
        at: &Path,
        captures: &dyn Fn(&str) -> Presence,
        reading: &mut Reading<'_>,
    ) -> Vec<Arc<Limit>> {
        let (words, own) = match words {
            Some(words) => (Some(words), true),
            None => (self.defaults.words.limits.as_ref(), false),
        };
        let mut found = Vec::new();
        for (index, name) in words.into_iter().flat_map(|words| words.iter()).enumerate() {
            let at = if own { at.at("limits").at(index) } else { Path::of(["defaults", "limits", &index.to_string()]) };
            match self.limits.get(name.as_str()) {
                Some(limit) => {
                    if let Some(missing) = limit.captures().find(|name| captures(name) == Presence::Never) {
                        let message = format!("limit `{name}` counts by `path.{missing}`, which no path here captures");
                        reading.problems.push(Problem::warning(at, message));
                    }
                    found.push(limit.clone());
                }
                None => {
                    let help = match nearest(name, self.limits.keys().copied()) {
                        Some(near) => format!("did you mean `{near}`?"),
                        None => format!("write a block `[limit.{name}]`"),
                    };
                    reading.error(&at, format!("there is no limit `{name}`"), help);
                }
            }
        }
        found
    }
}

fn access(
    words: Option<&config::Auth>,
    sources: &Sources<'_>,
    at: &Path,
    reading: &mut Reading<'_>,
) -> Option<Arc<Access>> {
    match words? {
        config::Auth::None(_) => None,
        config::Auth::Some(words) => Some(Arc::new(Access::compile(words, sources, &at.at("auth"), reading))),
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
