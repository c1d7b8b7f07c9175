//! Words of what answers say and how they are sent: compression, error pages, preset headers, caching.
//!
//! Every field's comment is user documentation: it becomes the JSON Schema and `docs/reference.md`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::scalar::{OneOrMany, Size};

/// Compression of answers (RFC 9110 8.4). What is compressed already stays as it is; what says `no-transform` too.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "{ algorithms = [\"zstd\", \"br\", \"gzip\"] }")]
pub struct Compression {
    /// Of those that the client takes, by its preference and then in this order; `[]` compresses nothing. Default `["zstd", "br", "gzip"]`.
    #[serde(default = "codings")]
    pub algorithms: OneOrMany<Coding>,
    /// Media types, `text/*` for all of a kind. Default: text, JSON, JavaScript, XML, SVG, WebAssembly and fonts that are not compressed by themselves; event streams only where `text/event-stream` is named. gRPC never.
    #[serde(default)]
    pub types: OneOrMany<String>,
    /// Answers that are known to be shorter stay as they are. Default 1KiB.
    #[serde(default = "min")]
    pub min: Size,
    /// Also answers to requests with `Authorization` or `Cookie`. Whoever can put text into such an answer and see its length can guess secrets in it (BREACH). Default false.
    #[serde(default)]
    pub with_credentials: bool,
}

/// A content coding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Coding {
    Zstd,
    Br,
    Gzip,
}

/// What stands in the place of an error. Facts beside the usual ones: `error.status`, `error.code`, `error.title`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "{ status = \"5xx\", html = \"..\" }")]
pub struct ErrorPage {
    /// Statuses: `404`, `4xx`, `5xx`. The first page of the list that has it is taken.
    pub status: OneOrMany<String>,
    /// For those who ask for HTML, as browsers do: a template, usually by `${file:..}`. Default: a plain page of the gateway.
    #[serde(default)]
    pub html: Option<String>,
    /// For all others: a template of JSON. Default: problem details (RFC 9457).
    #[serde(default)]
    pub json: Option<String>,
    /// Also in the place of what the upstream answers with this status, where it has a body whose length, or end, is told. Default false.
    #[serde(default)]
    pub upstream: bool,
}

/// Headers that tell browsers to be careful. What an answer says already stays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SecurityHeaders {
    /// None.
    #[default]
    None,
    /// `X-Content-Type-Options: nosniff`, `X-Frame-Options: SAMEORIGIN`, `Referrer-Policy: strict-origin-when-cross-origin`; `Server` and `X-Powered-By` are removed.
    Basic,
    /// The same with `X-Frame-Options: DENY` and `Referrer-Policy: no-referrer`, and `Content-Security-Policy: default-src 'self'; frame-ancestors 'none'; base-uri 'self'; object-src 'none'`, `Cross-Origin-Opener-Policy: same-origin`, `Cross-Origin-Resource-Policy: same-origin`, `Permissions-Policy: camera=(), geolocation=(), microphone=()`.
    Strict,
}

/// What caches are told (`Cache-Control`, RFC 9111 5.2).
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "{ value = \"public, max-age=3600\" }")]
pub struct CacheControl {
    /// The field: `public, max-age=31536000, immutable`.
    pub value: String,
    /// Media types of answers, `image/*` for all of a kind. Default: any.
    #[serde(default)]
    pub types: OneOrMany<String>,
    /// Statuses of answers: `200`, `2xx`. Default `["2xx"]`.
    #[serde(default = "good")]
    pub status: OneOrMany<String>,
    /// Stands above what the upstream says. Default false.
    #[serde(default)]
    pub replace: bool,
}

/// Who is turned away first when there is more than the gateway can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Importance {
    /// Never turned away.
    Critical,
    /// When turning away what is sheddable does not help.
    Normal,
    /// First.
    Sheddable,
}

fn codings() -> OneOrMany<Coding> {
    OneOrMany(vec![Coding::Zstd, Coding::Br, Coding::Gzip])
}
fn min() -> Size {
    Size(1 << 10)
}
fn good() -> OneOrMany<String> {
    OneOrMany(vec!["2xx".to_owned()])
}
