//! A request that nobody has sent: what `explain`, `[[test]]` cases and the admin listener ask a table about.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr};

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use serde::{Deserialize, Serialize};

use super::host::{self, HostError};
use super::table::Table;
use crate::config::{GivenCertificate, TestCase};
use crate::facts::path::{self, PathError};
use crate::facts::{ClientCertificate, Head, Proven, Scheme, Subject};
use crate::problem::nearest;

/// What is asked, as text.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Question {
    /// `METHOD URL`.
    pub request: String,
    #[serde(default)]
    pub headers: Vec<(String, String)>,
    /// Client address. Default `127.0.0.1`.
    #[serde(default)]
    pub from: Option<String>,
    /// Name of the listener. Default: the first that is public.
    #[serde(default)]
    pub listen: Option<String>,
    /// The certificate that the client showed.
    #[serde(default)]
    pub client_certificate: Option<ClientCertificate>,
    /// Claims of whoever is proven to ask. Default: nobody shows credentials.
    #[serde(default)]
    pub claims: Option<serde_json::Map<String, serde_json::Value>>,
}

/// The question makes no sense: unlike a bad request, no client can ask it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuestionError {
    #[error("`{0}` is not `METHOD URL`, such as `GET https://example.com/api/x?y=1`")]
    Request(String),
    #[error("`{0}` is not an address")]
    From(String),
    #[error("`{name}` is not a header name, or its value not one line of text")]
    Header { name: String },
    #[error("there is no listener `{name}`{}", near.as_ref().map(|near| format!(" (did you mean `{near}`?)")).unwrap_or_default())]
    Listen { name: String, near: Option<String> },
}

/// The question, read.
#[derive(Debug)]
pub(super) struct Asking<'q> {
    method: Method,
    scheme: Scheme,
    authority: &'q str,
    raw_path: &'q str,
    query: Option<&'q str>,
    headers: HeaderMap,
    client: IpAddr,
    listener: Cow<'q, str>,
    client_certificate: Option<&'q ClientCertificate>,
    subject: Option<Subject>,
}

/// Why the gateway refuses the request before it looks for a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Malformed {
    #[error(transparent)]
    Host(#[from] HostError),
    #[error(transparent)]
    Path(#[from] PathError),
    #[error("`*` is for OPTIONS only")]
    Asterisk,
}

impl From<&TestCase> for Question {
    fn from(case: &TestCase) -> Question {
        let TestCase { request, given, expect: _ } = case;
        Question {
            request: request.clone(),
            headers: given.headers.iter().map(|(name, value)| (name.clone(), value.clone())).collect(),
            from: given.from.clone(),
            listen: given.listen.clone(),
            client_certificate: given.client_certificate.as_ref().map(shown),
            claims: given.claims.clone(),
        }
    }
}

fn shown(given: &GivenCertificate) -> ClientCertificate {
    let GivenCertificate { subject, san, fingerprint, issuer, serial } = given.clone();
    // Whoever writes a case means a certificate that is there.
    let fingerprint = if fingerprint.is_empty() { "0".repeat(64) } else { fingerprint };
    ClientCertificate { subject, issuer, serial, fingerprint, san: san.0, certificate: String::new() }
}

impl Question {
    /// Reads it. Headers that routes write, and names with `_`, are left out, as the gateway leaves them out of what
    /// clients send.
    pub(super) fn read(&self, table: &Table) -> Result<Asking<'_>, QuestionError> {
        let wrong = || QuestionError::Request(self.request.clone());
        let (method, url) = self.request.trim().split_once(' ').ok_or_else(wrong)?;
        let method = Method::from_bytes(method.as_bytes()).map_err(|_| wrong())?;
        let (scheme, rest) = match url.trim_start().split_once("://").ok_or_else(wrong)? {
            ("http", rest) => (Scheme::Http, rest),
            ("https", rest) => (Scheme::Https, rest),
            _ => return Err(wrong()),
        };
        let (authority, target) = rest.split_at(rest.find(['/', '?', '*']).unwrap_or(rest.len()));
        let (raw_path, query) = match target.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (target, None),
        };
        // RFC 9110 4.2.3: an empty path of a URL is `/`.
        let raw_path = if raw_path.is_empty() { "/" } else { raw_path };
        let client = match &self.from {
            Some(text) => text.parse().map_err(|_| QuestionError::From(text.clone()))?,
            None => IpAddr::V4(Ipv4Addr::LOCALHOST),
        };
        let listener = self.listener(table)?;
        let headers = self.read_headers(table)?;
        let client_certificate = self.client_certificate.as_ref();
        let subject = self.claims.clone().map(|claims| {
            let name = claims.get("sub").and_then(serde_json::Value::as_str).unwrap_or_default().to_owned();
            Subject { claims, ..Subject::new(Proven::Jwt, &name, &"given".into()) }
        });
        Ok(Asking {
            method,
            scheme,
            authority,
            raw_path,
            query,
            headers,
            client,
            listener,
            client_certificate,
            subject,
        })
    }

    fn read_headers(&self, table: &Table) -> Result<HeaderMap, QuestionError> {
        let mut headers = HeaderMap::new();
        for (name, value) in &self.headers {
            let wrong = || QuestionError::Header { name: name.clone() };
            let key = HeaderName::from_bytes(name.as_bytes()).map_err(|_| wrong())?;
            let value = HeaderValue::from_str(value).map_err(|_| wrong())?;
            if !name.contains('_') && !table.is_reserved(&key) {
                headers.append(key, value);
            }
        }
        Ok(headers)
    }

    fn listener<'a>(&'a self, table: &Table) -> Result<Cow<'a, str>, QuestionError> {
        let names = || table.listeners.iter().map(|listener| listener.name.as_str());
        match &self.listen {
            Some(name) if names().any(|known| known == name) => Ok(Cow::Borrowed(name)),
            Some(name) => {
                let near = nearest(name, names()).map(str::to_owned);
                Err(QuestionError::Listen { name: name.clone(), near })
            }
            None => {
                let public = table.listeners.iter().find(|listener| listener.public);
                Ok(Cow::Owned(public.map(|listener| listener.name.clone()).unwrap_or_default()))
            }
        }
    }
}

impl Asking<'_> {
    pub(super) fn subject(&self) -> Option<&Subject> {
        self.subject.as_ref()
    }

    /// Hands the head on as the gateway would understand it, or says why it would refuse it.
    pub(super) fn with_head<R>(&self, then: impl FnOnce(Result<&Head<'_>, Malformed>) -> R) -> R {
        let (host, path) = match self.normalise() {
            Ok(normal) => normal,
            Err(malformed) => return then(Err(malformed)),
        };
        then(Ok(&Head {
            method: &self.method,
            scheme: self.scheme,
            host: &host,
            path: &path,
            query: self.query,
            headers: &self.headers,
            client: self.client,
            listener: &self.listener,
            sni: (self.scheme == Scheme::Https && !host.starts_with('[')).then_some(&*host),
            client_certificate: self.client_certificate,
            request_id: "00000000000000000000000000000000",
        }))
    }

    fn normalise(&self) -> Result<(Cow<'_, str>, Cow<'_, str>), Malformed> {
        let host = host::normalise(self.authority)?;
        let path = path::normalise(self.raw_path)?.path;
        path::check_query(self.query.unwrap_or_default())?;
        if path == "*" && self.method != Method::OPTIONS {
            return Err(Malformed::Asterisk);
        }
        Ok((host, path))
    }
}
