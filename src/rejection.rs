//! Rejections: answers the gateway gives by itself, each with a stable code.
//!
//! The code is the same in the answer, the log line, the metric label and `explain`; `docs/errors.md` documents each one.
//! A rejection says nothing about addresses or causes to the client; the cause goes to the log.

use std::borrow::Cow;
use std::time::Duration;

use http::StatusCode;

/// Why the gateway answered by itself. One variant per reason an operator can act on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Code {
    BadRequest,
    NoRoute,
    MethodNotAllowed,
    HeadTimeout,
    BodyTimeout,
    BodyTooLarge,
    UriTooLong,
    Misdirected,
    AddressDenied,
    AuthRequired,
    AuthInvalid,
    AuthForbidden,
    AuthUnavailable,
    Limit,
    Overload,
    HeadTooLarge,
    UpstreamConnect,
    UpstreamTls,
    UpstreamReset,
    UpstreamProtocol,
    NoEndpoint,
    BreakerOpen,
    ConnectionLimit,
    UpstreamTimeout,
    RequestTimeout,
    Loop,
    Internal,
}

impl Code {
    pub const ALL: [Code; 27] = [
        Code::BadRequest,
        Code::NoRoute,
        Code::MethodNotAllowed,
        Code::HeadTimeout,
        Code::BodyTimeout,
        Code::BodyTooLarge,
        Code::UriTooLong,
        Code::Misdirected,
        Code::AddressDenied,
        Code::AuthRequired,
        Code::AuthInvalid,
        Code::AuthForbidden,
        Code::AuthUnavailable,
        Code::Limit,
        Code::Overload,
        Code::HeadTooLarge,
        Code::UpstreamConnect,
        Code::UpstreamTls,
        Code::UpstreamReset,
        Code::UpstreamProtocol,
        Code::NoEndpoint,
        Code::BreakerOpen,
        Code::ConnectionLimit,
        Code::UpstreamTimeout,
        Code::RequestTimeout,
        Code::Loop,
        Code::Internal,
    ];

    /// The stable name: in answers, logs, metrics and documentation.
    pub const fn as_str(self) -> &'static str {
        self.row().0
    }

    pub const fn status(self) -> StatusCode {
        self.row().1
    }

    /// The status of a gRPC answer (grpc/statuscodes: 3 invalid argument, 4 deadline, 5 not found, 8 exhausted, 12
    /// unimplemented, 13 internal, 14 unavailable).
    pub const fn grpc_status(self) -> u8 {
        self.row().2
    }

    /// The RFC 9209 error type, where the failure lies behind the gateway or is told by that vocabulary.
    pub const fn proxy_status(self) -> Option<&'static str> {
        self.row().3
    }

    /// One sentence for the client.
    pub const fn title(self) -> &'static str {
        self.row().4
    }

    const fn row(self) -> (&'static str, StatusCode, u8, Option<&'static str>, &'static str) {
        use StatusCode as S;
        match self {
            Code::BadRequest => {
                ("bad_request", S::BAD_REQUEST, 3, Some("http_request_error"), "The request is malformed or ambiguous.")
            }
            Code::NoRoute => ("no_route", S::NOT_FOUND, 5, None, "Nothing is served here."),
            Code::MethodNotAllowed => {
                ("method_not_allowed", S::METHOD_NOT_ALLOWED, 12, None, "The method is not allowed here.")
            }
            Code::HeadTimeout => {
                ("head_timeout", S::REQUEST_TIMEOUT, 4, None, "The request head took too long to arrive.")
            }
            Code::BodyTimeout => {
                ("body_timeout", S::REQUEST_TIMEOUT, 4, None, "The request body took too long to arrive.")
            }
            Code::BodyTooLarge => ("body_too_large", S::PAYLOAD_TOO_LARGE, 8, None, "The request body is too large."),
            Code::UriTooLong => ("uri_too_long", S::URI_TOO_LONG, 3, None, "The request line is too long."),
            Code::Misdirected => {
                ("misdirected", S::MISDIRECTED_REQUEST, 14, None, "This connection does not serve that host.")
            }
            Code::AddressDenied => ("address_denied", S::FORBIDDEN, 7, None, "This address may not ask here."),
            Code::AuthRequired => ("auth_required", S::UNAUTHORIZED, 16, None, "Credentials are needed."),
            Code::AuthInvalid => ("auth_invalid", S::UNAUTHORIZED, 16, None, "The credentials are not good."),
            Code::AuthForbidden => ("auth_forbidden", S::FORBIDDEN, 7, None, "The credentials do not suffice."),
            Code::AuthUnavailable => {
                ("auth_unavailable", S::SERVICE_UNAVAILABLE, 14, None, "Credentials cannot be verified at the moment.")
            }
            Code::Limit => ("limit", S::TOO_MANY_REQUESTS, 8, None, "Too many requests."),
            Code::Overload => ("overload", S::SERVICE_UNAVAILABLE, 14, None, "The gateway has too much to do."),
            Code::HeadTooLarge => {
                ("head_too_large", S::REQUEST_HEADER_FIELDS_TOO_LARGE, 8, None, "The request head is too large.")
            }
            Code::UpstreamConnect => {
                ("upstream_connect", S::BAD_GATEWAY, 14, Some("connection_refused"), "The service cannot be reached.")
            }
            Code::UpstreamTls => {
                ("upstream_tls", S::BAD_GATEWAY, 14, Some("tls_protocol_error"), "No secure connection to the service.")
            }
            Code::UpstreamReset => (
                "upstream_reset",
                S::BAD_GATEWAY,
                14,
                Some("connection_terminated"),
                "The service broke the connection off.",
            ),
            Code::UpstreamProtocol => (
                "upstream_protocol",
                S::BAD_GATEWAY,
                14,
                Some("http_protocol_error"),
                "The service gave an invalid answer.",
            ),
            Code::NoEndpoint => (
                "no_endpoint",
                S::SERVICE_UNAVAILABLE,
                14,
                Some("destination_unavailable"),
                "The service has no endpoint at the moment.",
            ),
            Code::BreakerOpen => {
                ("breaker_open", S::SERVICE_UNAVAILABLE, 14, Some("connection_limit_reached"), "The service is busy.")
            }
            Code::ConnectionLimit => (
                "connection_limit",
                S::SERVICE_UNAVAILABLE,
                14,
                Some("connection_limit_reached"),
                "The service is busy.",
            ),
            Code::UpstreamTimeout => (
                "upstream_timeout",
                S::GATEWAY_TIMEOUT,
                4,
                Some("http_response_timeout"),
                "The service took too long to answer.",
            ),
            Code::RequestTimeout => {
                ("request_timeout", S::GATEWAY_TIMEOUT, 4, Some("http_response_timeout"), "The request took too long.")
            }
            Code::Loop => {
                ("loop", S::LOOP_DETECTED, 13, Some("proxy_loop_detected"), "The request came back to this gateway.")
            }
            Code::Internal => {
                ("internal", S::INTERNAL_SERVER_ERROR, 13, Some("proxy_internal_error"), "The gateway failed.")
            }
        }
    }
}

/// An answer the gateway gives by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    pub code: Code,
    /// The cause, for the log only.
    pub cause: Cow<'static, str>,
    /// `Retry-After`.
    pub retry_after: Option<Duration>,
    /// `Allow`, with 405.
    pub allow: Option<http::HeaderValue>,
    /// `WWW-Authenticate`, with 401 and 403.
    pub challenges: Vec<http::HeaderValue>,
}

impl Rejection {
    pub fn new(code: Code, cause: impl Into<Cow<'static, str>>) -> Rejection {
        Rejection { code, cause: cause.into(), retry_after: None, allow: None, challenges: Vec::new() }
    }

    pub fn retry_after(mut self, after: Duration) -> Rejection {
        self.retry_after = Some(after);
        self
    }

    /// The body of the answer: RFC 9457.
    pub fn problem_json(&self, request_id: &str) -> String {
        let status = self.code.status().as_u16();
        serde_json::json!({
            "type": "about:blank",
            "title": self.code.title(),
            "status": status,
            "code": self.code.as_str(),
            "request_id": request_id,
        })
        .to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_distinct_and_complete() {
        let names: std::collections::BTreeSet<_> = Code::ALL.iter().map(|code| code.as_str()).collect();
        assert_eq!(names.len(), Code::ALL.len());
        for code in Code::ALL {
            assert!(code.status().as_u16() >= 400, "{code:?}");
        }
    }

    #[test]
    fn every_code_is_documented() {
        let text = include_str!("../docs/errors.md");
        for code in Code::ALL {
            let (name, status, grpc) = (code.as_str(), code.status().as_u16(), code.grpc_status());
            let section = format!("\n## `{name}`\n\nStatus {status}, gRPC {grpc}. ");
            assert!(text.contains(&section), "docs/errors.md lacks {section:?}");
            assert!(text.contains(&format!("| [`{name}`](#{name}) | {status} | {grpc} |")), "its table lacks {name}");
        }
    }
}
