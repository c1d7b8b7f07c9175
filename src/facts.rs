//! Facts: what is known about a request, under one list of names.
//!
//! Matching, keys of balancing and limits, templates and log fields all name facts the same way. A `Head` is the request
//! as the gateway understood it: normalised once, borrowed from wherever the bytes live, of no HTTP library's type but `http`.

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use http::{HeaderMap, HeaderName, Method};

mod certificate;
pub mod host;
pub mod path;
mod subject;
mod template;
pub use certificate::{CertificateField, ClientCertificate, SAN_KINDS};
pub use subject::{Proven, Subject, claim_text};
pub use template::{Piece, Template, TemplateError};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    Http,
    Https,
}

impl Scheme {
    pub fn as_str(self) -> &'static str {
        match self {
            Scheme::Http => "http",
            Scheme::Https => "https",
        }
    }
}

/// A request head as the gateway understood it.
#[derive(Clone, Copy, Debug)]
pub struct Head<'a> {
    pub method: &'a Method,
    pub scheme: Scheme,
    /// Lower case, without port and trailing dot; IPv6 addresses in brackets.
    pub host: &'a str,
    /// Normalised (`path::normalise`); begins with `/`, or is `*`.
    pub path: &'a str,
    /// Without the `?`. `None` when there was none.
    pub query: Option<&'a str>,
    pub headers: &'a HeaderMap,
    /// The true client, behind trusted proxies.
    pub client: IpAddr,
    /// Name of the listener.
    pub listener: &'a str,
    /// Server name of the TLS session.
    pub sni: Option<&'a str>,
    /// The one that the client showed in the handshake.
    pub client_certificate: Option<&'a ClientCertificate>,
    pub request_id: &'a str,
}

/// The name of a fact.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Fact {
    /// `client.ip`
    ClientIp,
    /// `request.method`
    Method,
    /// `request.scheme`
    Scheme,
    /// `request.host`
    Host,
    /// `request.path`: as matched
    Path,
    /// `request.query`: empty when there is none
    Query,
    /// `request.path_and_query`
    PathAndQuery,
    /// `request.id`
    RequestId,
    /// `route.name`
    RouteName,
    /// `listen.name`
    ListenName,
    /// `tls.sni`
    Sni,
    /// `tls.client.FIELD`: of the client's certificate; several names are joined by `,`
    ClientCertificate(CertificateField),
    /// `subject.name`, `subject.method`, `subject.source`, `subject.owner`: who asks, once that is proven
    Subject(SubjectField),
    /// `claim.NAME`: of a token; `claim.a.b` looks into objects
    Claim(Box<str>),
    /// `path.NAME`: what `{NAME}` of the pattern matched; `path.*`: what `*` matched, without the slash before it
    Capture(Box<str>),
    /// `header.NAME`: the first field of the name
    Header(HeaderName),
    /// `query.NAME`: the first parameter of the name, percent-decoded
    QueryParameter(Box<str>),
    /// `cookie.NAME`
    Cookie(Box<str>),
    /// `error.status`, `error.code`, `error.title`: in error pages
    Error(ErrorField),
}

/// What is known of who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SubjectField {
    Name,
    Method,
    Source,
    Owner,
}

/// What is known of an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorField {
    Status,
    Code,
    Title,
}

/// Where facts come from.
pub trait Facts {
    /// The value, or `None` if this request has none.
    fn fact(&self, fact: &Fact) -> Option<Cow<'_, str>>;
}

/// What `{name}` and `*` of a pattern matched.
pub trait Captures {
    fn capture(&self, name: &str) -> Option<&str>;
}

/// No captures: before a route is found.
impl Captures for () {
    fn capture(&self, _: &str) -> Option<&str> {
        None
    }
}

/// A head with what routing found out about it.
pub struct Known<'a, C: ?Sized> {
    pub head: &'a Head<'a>,
    pub route: Option<&'a str>,
    pub captures: &'a C,
    /// Who asks, once that is proven.
    pub subject: Option<&'a Subject>,
}

impl<C: Captures + ?Sized> Facts for Known<'_, C> {
    fn fact(&self, fact: &Fact) -> Option<Cow<'_, str>> {
        let head = self.head;
        Some(match fact {
            Fact::ClientIp => Cow::Owned(head.client.to_string()),
            Fact::Method => Cow::Borrowed(head.method.as_str()),
            Fact::Scheme => Cow::Borrowed(head.scheme.as_str()),
            Fact::Host => Cow::Borrowed(head.host),
            Fact::Path => Cow::Borrowed(head.path),
            Fact::Query => Cow::Borrowed(head.query.unwrap_or_default()),
            Fact::PathAndQuery => match head.query {
                Some(query) => Cow::Owned(format!("{}?{query}", head.path)),
                None => Cow::Borrowed(head.path),
            },
            Fact::RequestId => Cow::Borrowed(head.request_id),
            Fact::RouteName => Cow::Borrowed(self.route?),
            Fact::ListenName => Cow::Borrowed(head.listener),
            Fact::Sni => Cow::Borrowed(head.sni?),
            Fact::ClientCertificate(field) => head.client_certificate?.text(*field)?,
            Fact::Subject(field) => {
                let subject = self.subject.filter(|subject| subject.by != Proven::Anonymous)?;
                match field {
                    SubjectField::Name => Cow::Borrowed(Some(&*subject.name).filter(|name| !name.is_empty())?),
                    SubjectField::Method => Cow::Borrowed(subject.by.as_str()),
                    SubjectField::Source => Cow::Borrowed(&*subject.source),
                    SubjectField::Owner => Cow::Borrowed(subject.owner.as_deref()?),
                }
            }
            Fact::Claim(name) => claim_text(self.subject?.claim(name)?)?,
            Fact::Capture(name) => Cow::Borrowed(self.captures.capture(name)?),
            Fact::Header(name) => Cow::Borrowed(head.headers.get(name)?.to_str().ok()?),
            Fact::QueryParameter(name) => query_parameter(head.query?, name)?,
            Fact::Cookie(name) => Cow::Borrowed(cookie(head.headers, name)?),
            // Known where there is an error (`policy::ErrorPages`).
            Fact::Error(_) => return None,
        })
    }
}

/// The first value of a query parameter, percent-decoded (`+` stays `+`); `None` if it is not UTF-8.
pub fn query_parameter<'q>(query: &'q str, name: &str) -> Option<Cow<'q, str>> {
    query.split('&').find_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let key = percent_encoding::percent_decode_str(key).decode_utf8().ok()?;
        (key == name).then(|| percent_encoding::percent_decode_str(value).decode_utf8().ok())?
    })
}

/// The first value of a cookie (RFC 6265 5.4), quotes kept.
pub fn cookie<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get_all(http::header::COOKIE).iter().filter_map(|value| value.to_str().ok()).find_map(|value| {
        value.split(';').find_map(|pair| {
            let (key, value) = pair.trim_start().split_once('=')?;
            (key == name).then_some(value)
        })
    })
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a fact")]
pub struct UnknownFact(pub String);

impl UnknownFact {
    pub const HELP: &'static str = "facts are client.ip, request.method, request.scheme, request.host, request.path, \
        request.query, request.path_and_query, request.id, route.name, listen.name, tls.sni, \
        tls.client.subject (issuer, serial, fingerprint, san, certificate), subject.name \
        (method, source, owner), claim.NAME, path.NAME, header.NAME, query.NAME, cookie.NAME";
}

impl Fact {
    /// Whether it is known only once it is proven who asks.
    pub fn is_proven(&self) -> bool {
        matches!(self, Fact::Subject(_) | Fact::Claim(_))
    }
}

impl FromStr for Fact {
    type Err = UnknownFact;
    fn from_str(text: &str) -> Result<Fact, UnknownFact> {
        let unknown = || UnknownFact(text.to_owned());
        let (kind, name) = text.split_once('.').ok_or_else(unknown)?;
        if name.is_empty() {
            return Err(unknown());
        }
        Ok(match (kind, name) {
            ("client", "ip") => Fact::ClientIp,
            ("request", "method") => Fact::Method,
            ("request", "scheme") => Fact::Scheme,
            ("request", "host") => Fact::Host,
            ("request", "path") => Fact::Path,
            ("request", "query") => Fact::Query,
            ("request", "path_and_query") => Fact::PathAndQuery,
            ("request", "id") => Fact::RequestId,
            ("route", "name") => Fact::RouteName,
            ("listen", "name") => Fact::ListenName,
            ("tls", "sni") => Fact::Sni,
            ("tls", name) => {
                let field = name.strip_prefix("client.").and_then(CertificateField::named);
                Fact::ClientCertificate(field.ok_or_else(unknown)?)
            }
            ("subject", "name") => Fact::Subject(SubjectField::Name),
            ("subject", "method") => Fact::Subject(SubjectField::Method),
            ("subject", "source") => Fact::Subject(SubjectField::Source),
            ("subject", "owner") => Fact::Subject(SubjectField::Owner),
            ("claim", name) => Fact::Claim(name.into()),
            ("path", name) => Fact::Capture(name.into()),
            ("header", name) => Fact::Header(name.to_ascii_lowercase().parse().map_err(|_| unknown())?),
            ("query", name) => Fact::QueryParameter(name.into()),
            ("cookie", name) => Fact::Cookie(name.into()),
            ("error", "status") => Fact::Error(ErrorField::Status),
            ("error", "code") => Fact::Error(ErrorField::Code),
            ("error", "title") => Fact::Error(ErrorField::Title),
            _ => return Err(unknown()),
        })
    }
}

impl fmt::Display for Fact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Fact::ClientIp => "client.ip",
            Fact::Method => "request.method",
            Fact::Scheme => "request.scheme",
            Fact::Host => "request.host",
            Fact::Path => "request.path",
            Fact::Query => "request.query",
            Fact::PathAndQuery => "request.path_and_query",
            Fact::RequestId => "request.id",
            Fact::RouteName => "route.name",
            Fact::ListenName => "listen.name",
            Fact::Sni => "tls.sni",
            Fact::ClientCertificate(field) => return write!(f, "tls.client.{}", field.as_str()),
            Fact::Subject(SubjectField::Name) => "subject.name",
            Fact::Subject(SubjectField::Method) => "subject.method",
            Fact::Subject(SubjectField::Source) => "subject.source",
            Fact::Subject(SubjectField::Owner) => "subject.owner",
            Fact::Claim(name) => return write!(f, "claim.{name}"),
            Fact::Capture(name) => return write!(f, "path.{name}"),
            Fact::Header(name) => return write!(f, "header.{name}"),
            Fact::QueryParameter(name) => return write!(f, "query.{name}"),
            Fact::Cookie(name) => return write!(f, "cookie.{name}"),
            Fact::Error(ErrorField::Status) => "error.status",
            Fact::Error(ErrorField::Code) => "error.code",
            Fact::Error(ErrorField::Title) => "error.title",
        })
    }
}
