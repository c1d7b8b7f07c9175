//! Cross-origin requests (Fetch, HTTP extensions): which origins may ask, and what browsers are told of it.

use std::time::Duration;

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS,
    ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, VARY,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method};

use super::Reading;
use super::headers::HeaderSink;
use crate::config;
use crate::problem::Path;

const METHODS: &str = "GET, HEAD, POST, PUT, PATCH, DELETE";
const ASKED_MAX: usize = 4 << 10;

/// `cors`, compiled.
#[derive(Clone, Debug)]
pub struct Cors {
    any: bool,
    origins: Box<[Origin]>,
    methods: HeaderValue,
    /// `None`: those that are asked for.
    headers: Option<HeaderValue>,
    expose: Option<HeaderValue>,
    credentials: bool,
    max_age: HeaderValue,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Origin {
    Exact(Box<str>),
    /// `https://*.example.com:8443`: scheme with `://`, and what stands behind the star.
    Below(Box<str>, Box<str>),
}

impl Cors {
    /// `taken`: the methods that the route takes; empty for all.
    pub fn compile(words: &config::Cors, taken: &[Method], at: &Path, reading: &mut Reading<'_>) -> Cors {
        let config::Cors { origins, methods, headers, expose, credentials, max_age } = words;
        if origins.is_empty() {
            reading.error(&at.at("origins"), "no origin may ask", "write `https://app.example.com` or `*`");
        }
        let any = origins.iter().any(|origin| origin == "*");
        if any && *credentials {
            let help = "name the origins: with `*` any site could ask in the name of whoever visits it";
            reading.error(&at.at("credentials"), "credentials for any origin", help);
        }
        let mut compiled = Vec::new();
        for (index, text) in origins.iter().enumerate().filter(|(_, text)| *text != "*") {
            match origin(text) {
                Some(origin) => compiled.push(origin),
                None if text.contains("${") => {}
                None => {
                    let help = "write `https://app.example.com`, `https://*.example.com` or `*`: no path, no slash";
                    reading.error(&at.at("origins").at(index), format!("`{text}` is not an origin"), help);
                }
            }
        }
        let list = |names: &crate::scalar::OneOrMany<String>, word: &str, reading: &mut Reading<'_>| {
            for (index, text) in names.iter().enumerate() {
                if HeaderName::from_bytes(text.as_bytes()).is_err() {
                    reading.error(&at.at(word).at(index), format!("`{text}` is not a header name"), "write `x-name`");
                }
            }
            (!names.is_empty()).then(|| HeaderValue::try_from(names.0.join(", ").to_ascii_lowercase()).ok())?
        };
        let named = match methods.is_empty() {
            true if taken.is_empty() => METHODS.to_owned(),
            true => taken.iter().map(Method::as_str).collect::<Vec<_>>().join(", "),
            false => {
                for (index, text) in methods.iter().enumerate() {
                    if Method::from_bytes(text.as_bytes()).is_err()
                        || text.bytes().any(|byte| byte.is_ascii_lowercase())
                    {
                        reading.error(&at.at("methods").at(index), format!("`{text}` is not a method"), "write `PUT`");
                    }
                }
                methods.0.join(", ")
            }
        };
        Cors {
            any,
            origins: compiled.into(),
            methods: HeaderValue::try_from(named).unwrap_or(HeaderValue::from_static(METHODS)),
            // With credentials nothing is given that was not named.
            headers: list(headers, "headers", reading).or(credentials.then(|| HeaderValue::from_static(""))),
            expose: list(expose, "expose", reading),
            credentials: *credentials,
            max_age: HeaderValue::from(max_age.0.min(Duration::from_secs(86_400)).as_secs()),
        }
    }

    fn allows(&self, origin: &str) -> bool {
        self.any
            || self.origins.iter().any(|known| match known {
                Origin::Exact(text) => **text == *origin,
                Origin::Below(scheme, rest) => {
                    let front = origin.strip_prefix(&**scheme).and_then(|host| host.strip_suffix(&**rest));
                    let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.');
                    front.is_some_and(|front| !front.is_empty() && front.bytes().all(legal))
                }
            })
    }

    /// The method that a preflight is about: the browser asks whether it may ask.
    pub fn preflight_method(method: &Method, headers: &HeaderMap) -> Option<Method> {
        let asked = headers.get(ACCESS_CONTROL_REQUEST_METHOD).filter(|_| *method == Method::OPTIONS)?;
        Method::from_bytes(asked.as_bytes()).ok().filter(|_| headers.contains_key(ORIGIN))
    }

    /// What an answer says, whatever it is. An origin that may not ask is told nothing.
    pub fn apply(&self, request: &HeaderMap, sink: &mut dyn HeaderSink) {
        for name in [ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_EXPOSE_HEADERS] {
            // The gateway speaks for the route: an upstream's own word would be a second one.
            sink.remove(&name);
        }
        if !self.any || self.credentials {
            sink.add(&VARY, HeaderValue::from_static("origin"));
        }
        let Some(origin) = request.get(ORIGIN) else { return };
        if !origin.to_str().is_ok_and(|origin| self.allows(origin)) {
            return;
        }
        let allowed = if self.any { HeaderValue::from_static("*") } else { origin.clone() };
        sink.set(&ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
        if self.credentials {
            sink.set(&ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        }
        if let Some(expose) = &self.expose {
            sink.set(&ACCESS_CONTROL_EXPOSE_HEADERS, expose.clone());
        }
    }

    /// What the answer to a preflight says beside that.
    pub fn preflight(&self, request: &HeaderMap, sink: &mut dyn HeaderSink) {
        if !request.get(ORIGIN).and_then(|origin| origin.to_str().ok()).is_some_and(|origin| self.allows(origin)) {
            return;
        }
        sink.set(&ACCESS_CONTROL_ALLOW_METHODS, self.methods.clone());
        sink.set(&ACCESS_CONTROL_MAX_AGE, self.max_age.clone());
        let asked = request.get(ACCESS_CONTROL_REQUEST_HEADERS).filter(|asked| asked.len() <= ASKED_MAX);
        match (&self.headers, asked) {
            (Some(named), _) if !named.is_empty() => sink.set(&ACCESS_CONTROL_ALLOW_HEADERS, named.clone()),
            (None, Some(asked)) => sink.set(&ACCESS_CONTROL_ALLOW_HEADERS, asked.clone()),
            _ => {}
        }
    }
}

/// As browsers write it: in lower case, without the port of the scheme.
fn origin(text: &str) -> Option<Origin> {
    let text = text.to_ascii_lowercase();
    let (scheme, host) = text.split_once("://")?;
    let host = host.strip_suffix(if scheme == "https" { ":443" } else { ":80" }).unwrap_or(host);
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b':' | b'[' | b']');
    let bare = host.strip_prefix('*').unwrap_or(host);
    if !matches!(scheme, "http" | "https") || bare.is_empty() || !bare.bytes().all(legal) {
        return None;
    }
    match host.strip_prefix('*') {
        Some(rest) if rest.starts_with('.') => Some(Origin::Below(format!("{scheme}://").into(), rest.into())),
        Some(_) => None,
        None => Some(Origin::Exact(format!("{scheme}://{host}").into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Presence;

    fn cors(text: &str) -> (Cors, usize) {
        let words: config::Cors = toml::from_str(text).unwrap();
        let mut problems = Vec::new();
        let mut reading = Reading { captures: &|_| Presence::Never, problems: &mut problems };
        let cors = Cors::compile(&words, &[], &Path::default(), &mut reading);
        (cors, problems.len())
    }

    fn told(cors: &Cors, origin: &'static str) -> HeaderMap {
        let mut request = HeaderMap::new();
        request.insert(ORIGIN, HeaderValue::from_static(origin));
        request.insert(ACCESS_CONTROL_REQUEST_HEADERS, HeaderValue::from_static("x-a"));
        let mut answer = HeaderMap::new();
        answer.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("https://upstream.test"));
        cors.apply(&request, &mut answer);
        cors.preflight(&request, &mut answer);
        answer
    }

    #[test]
    fn only_origins_that_are_named_may_ask() {
        let (cors, problems) =
            cors("origins = ['https://a.test', 'https://*.b.test', 'http://c.test:8080']\ncredentials = true");
        assert_eq!(problems, 0);
        for (origin, allowed) in [
            ("https://a.test", true),
            ("http://a.test", false),
            ("https://a.test.evil.test", false),
            ("https://x.b.test", true),
            ("https://x.y.b.test", true),
            ("https://b.test", false),
            ("https://evil.test/.b.test", false),
            ("https://evil.test#.b.test", false),
            ("http://c.test:8080", true),
            ("http://c.test", false),
            ("null", false),
        ] {
            let answer = told(&cors, origin);
            let expect = allowed.then_some(origin);
            let got = answer.get(ACCESS_CONTROL_ALLOW_ORIGIN).map(|value| value.to_str().unwrap());
            assert_eq!(got, expect, "{origin}");
            assert_eq!(answer.contains_key(ACCESS_CONTROL_ALLOW_CREDENTIALS), allowed);
            assert_eq!(answer.get(VARY).unwrap(), "origin");
            assert!(!answer.contains_key(ACCESS_CONTROL_ALLOW_HEADERS), "with credentials only what is named");
        }
    }

    #[test]
    fn anybody_may_ask_without_credentials() {
        let (open, problems) = cors("origins = '*'\nexpose = ['X-Total']");
        let answer = told(&open, "https://a.test");
        assert_eq!((problems, answer.get(ACCESS_CONTROL_ALLOW_ORIGIN).unwrap().as_bytes()), (0, &b"*"[..]));
        assert_eq!(answer.get(ACCESS_CONTROL_ALLOW_HEADERS).unwrap(), "x-a");
        assert_eq!(answer.get(ACCESS_CONTROL_EXPOSE_HEADERS).unwrap(), "x-total");
        for text in
            ["origins = '*'\ncredentials = true", "origins = 'a.test'", "origins = 'https://a.test/'", "origins = []"]
        {
            assert!(cors(text).1 > 0, "{text}");
        }
    }
}
