//! Fixed answers. Values in a body are escaped for its content type: a query parameter is no way into a page.

use bytes::Bytes;
use http::{HeaderValue, StatusCode};

use crate::facts::{Facts, Template};
use crate::policy::{Escape, Presence, Reading};
use crate::problem::Path;

#[derive(Debug)]
pub struct Respond {
    pub status: StatusCode,
    pub content_type: HeaderValue,
    body: Body,
}

#[derive(Debug)]
enum Body {
    Fixed(Bytes),
    Template(Template, Escape),
}

impl Respond {
    /// The body; nothing where a fact is missing.
    pub fn body(&self, facts: &dyn Facts) -> Bytes {
        match &self.body {
            Body::Fixed(bytes) => bytes.clone(),
            Body::Template(template, escape) => escape.fill_known(template, facts).into(),
        }
    }

    pub(super) fn compile(words: &crate::config::Respond, at: &Path, reading: &mut Reading<'_>) -> Option<Respond> {
        let crate::config::Respond { status, body, content_type } = words;
        if !(200..=599).contains(status) {
            let help = "200 to 599; 1xx come before an answer, they are none";
            reading.error(&at.at("status"), format!("{status} is not the status of an answer"), help);
        }
        if matches!(status, 204 | 205 | 304) && !body.is_empty() {
            reading.error(&at.at("body"), format!("a {status} has no body"), "leave out the body (RFC 9110 15)");
        }
        let escape = escape_for(content_type);
        let content_type = HeaderValue::from_str(content_type).ok().filter(|value| !value.is_empty());
        if content_type.is_none() {
            reading.error(&at.at("content_type"), "not a content type", "it is like `text/html; charset=utf-8`");
        }
        let template = reading.template(body, &at.at("body"), Presence::Sometimes)?;
        let body = match template.fixed() {
            Some(fixed) => Body::Fixed(Bytes::copy_from_slice(fixed.as_bytes())),
            None => Body::Template(template, escape),
        };
        Some(Respond { status: StatusCode::from_u16(*status).ok()?, content_type: content_type?, body })
    }
}

fn escape_for(content_type: &str) -> Escape {
    let media = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match media.as_str() {
        _ if media.ends_with("/json") || media.ends_with("+json") || media.ends_with("javascript") => Escape::Json,
        _ if media.ends_with("/html") || media.ends_with("/xml") || media.ends_with("+xml") => Escape::Markup,
        _ => Escape::None,
    }
}
