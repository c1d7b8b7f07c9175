//! What is done to every answer of a route, the upstream's and the gateway's own: presets, caching, edits; and how it is sent.

use std::sync::Arc;

use http::header::{CACHE_CONTROL, SERVER};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use super::Reading;
use super::compression::Compression;
use super::error_pages::ErrorPages;
use super::headers::{Edits, HeaderSink, Side};
use super::negotiation::{MediaTypes, Statuses};
use crate::config::{self, SecurityHeaders};
use crate::facts::Facts;
use crate::problem::Path;

const X_POWERED_BY: HeaderName = HeaderName::from_static("x-powered-by");

const BASIC: [(HeaderName, HeaderValue); 3] = [
    (http::header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (http::header::X_FRAME_OPTIONS, HeaderValue::from_static("SAMEORIGIN")),
    (http::header::REFERRER_POLICY, HeaderValue::from_static("strict-origin-when-cross-origin")),
];

const STRICT: [(HeaderName, HeaderValue); 7] = [
    (http::header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (http::header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
    (http::header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    (
        http::header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static("default-src 'self'; frame-ancestors 'none'; base-uri 'self'; object-src 'none'"),
    ),
    (HeaderName::from_static("cross-origin-opener-policy"), HeaderValue::from_static("same-origin")),
    (HeaderName::from_static("cross-origin-resource-policy"), HeaderValue::from_static("same-origin")),
    (
        HeaderName::from_static("permissions-policy"),
        HeaderValue::from_static("camera=(), geolocation=(), microphone=()"),
    ),
];

/// The response side of a route, or of `[defaults]`. Clones share.
#[derive(Clone, Debug, Default)]
pub struct Answers {
    pub edits: Edits,
    security: SecurityHeaders,
    cache: Arc<[CacheRule]>,
    pub server_timing: bool,
    pub compression: Option<Arc<Compression>>,
    pub pages: Arc<ErrorPages>,
}

#[derive(Debug)]
struct CacheRule {
    value: HeaderValue,
    types: MediaTypes,
    status: Statuses,
    replace: bool,
}

/// The words of it, wherever they stand.
pub struct AnswerWords<'w> {
    pub response_headers: Option<&'w config::HeaderEdits>,
    pub security_headers: Option<SecurityHeaders>,
    pub cache_control: Option<&'w [config::CacheControl]>,
    pub server_timing: Option<bool>,
    pub compression: Option<&'w config::Compression>,
    pub error_pages: Option<&'w [config::ErrorPage]>,
}

impl Answers {
    /// A word that is not there is that of the defaults.
    pub fn compile(words: &AnswerWords<'_>, defaults: &Answers, at: &Path, reading: &mut Reading<'_>) -> Answers {
        let AnswerWords { response_headers, security_headers, cache_control, server_timing, compression, error_pages } =
            words;
        Answers {
            edits: match response_headers {
                Some(words) => Edits::compile(words, Side::Response, &at.at("response_headers"), reading),
                None => defaults.edits.clone(),
            },
            security: security_headers.unwrap_or(defaults.security),
            cache: match cache_control {
                Some(words) => cache_rules(words, &at.at("cache_control"), reading),
                None => defaults.cache.clone(),
            },
            server_timing: server_timing.unwrap_or(defaults.server_timing),
            compression: match compression {
                Some(words) => Some(Arc::new(Compression::compile(words, &at.at("compression"), reading))),
                None => defaults.compression.clone(),
            },
            pages: match error_pages {
                Some(words) => Arc::new(ErrorPages::compile(words, &at.at("error_pages"), reading)),
                None => defaults.pages.clone(),
            },
        }
    }

    /// Presets and caching first: the author's own edits have the last word.
    pub fn apply(&self, status: StatusCode, facts: &dyn Facts, sink: &mut dyn HeaderSink) {
        let presets: &[(HeaderName, HeaderValue)] = match self.security {
            SecurityHeaders::None => &[],
            SecurityHeaders::Basic => &BASIC,
            SecurityHeaders::Strict => &STRICT,
        };
        if !presets.is_empty() {
            sink.remove(&SERVER);
            sink.remove(&X_POWERED_BY);
        }
        for (name, value) in presets {
            if !sink.headers().contains_key(name) {
                sink.set(name, value.clone());
            }
        }
        let fits = |rule: &&CacheRule, headers: &HeaderMap| {
            rule.status.has(status) && (rule.types.is_empty() || rule.types.has(headers))
        };
        if let Some(rule) = self.cache.iter().find(|rule| fits(rule, sink.headers()))
            && (rule.replace || !sink.headers().contains_key(CACHE_CONTROL))
        {
            sink.set(&CACHE_CONTROL, rule.value.clone());
        }
        self.edits.apply(facts, sink);
    }

    /// For those who read what a route does.
    pub fn described(&self) -> Vec<String> {
        let mut all = Vec::new();
        match self.security {
            SecurityHeaders::None => {}
            SecurityHeaders::Basic => all.push("security_headers basic".to_owned()),
            SecurityHeaders::Strict => all.push("security_headers strict".to_owned()),
        }
        all.extend((!self.cache.is_empty()).then(|| "cache_control".to_owned()));
        all.extend(self.compression.is_some().then(|| "compression".to_owned()));
        all.extend(self.server_timing.then(|| "server_timing".to_owned()));
        all.extend((!self.pages.is_empty()).then(|| "error_pages".to_owned()));
        all
    }
}

fn cache_rules(words: &[config::CacheControl], at: &Path, reading: &mut Reading<'_>) -> Arc<[CacheRule]> {
    let mut rules = Vec::with_capacity(words.len());
    for (index, words) in words.iter().enumerate() {
        let at = at.at(index);
        let config::CacheControl { value, types, status, replace } = words;
        let types = MediaTypes::compile(&types.0, &at.at("types"), reading);
        let status = Statuses::compile(&status.0, &at.at("status"), reading);
        match HeaderValue::from_str(value) {
            Ok(value) if !value.is_empty() => rules.push(CacheRule { value, types, status, replace: *replace }),
            _ => reading.error(&at.at("value"), "not a field value", "write `public, max-age=3600`"),
        }
    }
    rules.into()
}

/// `Server-Timing` (W3C): how long the request was here, and how long the upstream took to answer.
pub fn server_timing(here: std::time::Duration, upstream: Option<std::time::Duration>) -> Option<HeaderValue> {
    let millis = |span: std::time::Duration| span.as_secs_f64() * 1000.0;
    let own = here.saturating_sub(upstream.unwrap_or_default());
    let mut text = format!("gateway;dur={:.1}", millis(own));
    if let Some(upstream) = upstream {
        text.push_str(&format!(", upstream;dur={:.1}", millis(upstream)));
    }
    HeaderValue::try_from(text).ok()
}
