//! A service that decides: what it is asked, what is made of its answer. Who asks it is elsewhere.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use super::headers::editable;
use super::{Reading, Side};
use crate::config::{self, OnFailure};
use crate::facts::{Head, Proven, Subject};
use crate::problem::Path;

/// Headers of its answer that are passed on with it.
const PASSED_ON: [HeaderName; 6] = [
    http::header::LOCATION,
    http::header::WWW_AUTHENTICATE,
    http::header::SET_COOKIE,
    http::header::CONTENT_TYPE,
    http::header::CACHE_CONTROL,
    http::header::RETRY_AFTER,
];

/// `[forward_auth.NAME]`, compiled; its upstream is bound by the route.
#[derive(Debug)]
pub struct ForwardAuth {
    pub name: Arc<str>,
    pub upstream: String,
    pub path: String,
    send: Box<[HeaderName]>,
    pub take: Box<[HeaderName]>,
    pub timeout: Duration,
    pub on_failure: OnFailure,
    /// When it was last told that nobody decides, in seconds.
    told: AtomicU64,
}

/// What its answer means.
#[derive(Debug)]
pub enum Word {
    Pass(Arc<Subject>),
    /// Its answer goes to the client.
    Answer(StatusCode, HeaderMap),
    /// It has failed.
    Failed(String),
}

impl ForwardAuth {
    pub fn compile(name: &str, words: &config::ForwardAuth, at: &Path, reading: &mut Reading<'_>) -> ForwardAuth {
        let config::ForwardAuth { upstream, path, send, take, timeout, on_failure } = words;
        if !path.starts_with('/') || path.parse::<http::uri::PathAndQuery>().is_err() {
            reading.error(&at.at("path"), format!("`{path}` is not a path"), "write `/verify`");
        }
        if timeout.0.is_zero() {
            reading.error(&at.at("timeout"), "no time at all", "write at least 1ms");
        }
        let mut names = |words: &crate::scalar::OneOrMany<String>, word: &str| -> Box<[HeaderName]> {
            let all = words.iter().enumerate();
            all.filter_map(|(index, text)| editable(text, Side::Request, &at.at(word).at(index), reading)).collect()
        };
        ForwardAuth {
            name: name.into(),
            upstream: upstream.clone(),
            path: path.clone(),
            send: names(send, "send"),
            take: names(take, "take"),
            timeout: timeout.0,
            on_failure: *on_failure,
            told: AtomicU64::new(0),
        }
    }

    /// The headers of the question.
    pub fn question(&self, head: &Head<'_>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for name in &self.send {
            for value in head.headers.get_all(name) {
                headers.append(name, value.clone());
            }
        }
        let query = head.query.map(|query| format!("?{query}")).unwrap_or_default();
        for (name, value) in [
            ("x-forwarded-method", head.method.as_str().to_owned()),
            ("x-forwarded-proto", head.scheme.as_str().to_owned()),
            ("x-forwarded-host", head.host.to_owned()),
            ("x-forwarded-uri", format!("{}{query}", head.path)),
            ("x-forwarded-for", head.client.to_string()),
            ("x-request-id", head.request_id.to_owned()),
        ] {
            if let Ok(value) = HeaderValue::try_from(value) {
                headers.insert(HeaderName::from_static(name), value);
            }
        }
        headers
    }

    /// Whether the log should hear that nobody decides: once in ten seconds.
    pub fn tells(&self, now: u64) -> bool {
        let before = self.told.load(Ordering::Relaxed);
        now >= before + 10 && self.told.compare_exchange(before, now, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    pub fn judge(&self, status: StatusCode, headers: &HeaderMap) -> Word {
        if status.is_success() {
            let mut subject = Subject::new(Proven::Forward, "", &self.name);
            for name in &self.take {
                subject.headers.extend(headers.get_all(name).iter().map(|value| (name.clone(), value.clone())));
            }
            return Word::Pass(Arc::new(subject));
        }
        if status.is_server_error() {
            return Word::Failed(format!("`{}` answered {status}", self.name));
        }
        let mut passed = HeaderMap::new();
        for name in PASSED_ON {
            for value in headers.get_all(&name) {
                passed.append(name.clone(), value.clone());
            }
        }
        Word::Answer(status, passed)
    }
}
