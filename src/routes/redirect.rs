//! Redirects whose host is the author's: no value of a request can choose it.
//!
//! `to` is an origin (`scheme://authority`, or nothing) and the rest. In the authority stand only facts that are checked
//! hosts already, or others in front of a fixed suffix; in the rest everything is encoded but the request's own target.

use http::{HeaderValue, StatusCode};

use crate::facts::{Fact, Facts, Head, Piece, Template, host};
use crate::policy::{Escape, Presence, Reading, Unfilled};
use crate::problem::Path;
use crate::scalar::without_references;

#[derive(Debug)]
pub struct Redirect {
    pub status: StatusCode,
    origin: Option<(&'static str, Template)>,
    rest: Template,
}

impl Redirect {
    /// `Location`. A 400 if a fact is missing or the result would not be a URL of the origin.
    pub fn location(&self, head: &Head<'_>, facts: &dyn Facts) -> Result<HeaderValue, Unfilled> {
        if head.path == "*" {
            return Err(Unfilled::Path);
        }
        let mut location = String::new();
        if let Some((scheme, authority)) = &self.origin {
            let authority = Escape::None.fill(authority, facts)?;
            host::normalise(&authority).map_err(|_| Unfilled::Host)?;
            location.push_str(scheme);
            location.push_str(&authority);
        }
        let rest = Escape::Url.fill(&self.rest, facts)?;
        // `//x` would be another host.
        if self.origin.is_none() && (!rest.starts_with('/') || rest.starts_with("//")) {
            return Err(Unfilled::Path);
        }
        location.push_str(&rest);
        HeaderValue::try_from(location).map_err(|_| Unfilled::Path)
    }

    pub(super) fn compile(words: &crate::config::Redirect, at: &Path, reading: &mut Reading<'_>) -> Option<Redirect> {
        let crate::config::Redirect { to, status } = words;
        if !matches!(status, 301 | 302 | 303 | 307 | 308) {
            let help = "308 and 301 are permanent, 307 and 302 temporary, 303 turns into GET";
            reading.error(&at.at("status"), format!("{status} is not a redirect"), help);
        }
        let at = at.at("to");
        let to = without_references(to);
        let (origin, rest) = match split_scheme(&to) {
            Some((scheme, tail)) => {
                let (authority, rest) = split_authority(tail);
                let authority = reading.template(authority, &at, Presence::Always)?;
                check_authority(&authority, &at, reading)?;
                (Some((scheme, authority)), rest)
            }
            None => (None, &*to),
        };
        let rest = reading.template(rest, &at, Presence::Always)?;
        check_rest(origin.is_some(), &rest, &at, reading)?;
        Some(Redirect { status: StatusCode::from_u16(*status).ok()?, origin, rest })
    }
}

fn split_scheme(to: &str) -> Option<(&'static str, &str)> {
    ["https://", "http://"].into_iter().find_map(|scheme| Some((scheme, to.strip_prefix(scheme)?)))
}

/// The authority ends at `/`, `?`, `#` or at a fact that begins with `/`.
fn split_authority(tail: &str) -> (&str, &str) {
    let mut inside = false;
    let end = tail.char_indices().find(|(at, c)| {
        let from = tail.get(*at..).unwrap_or_default();
        let ends = match c {
            '/' | '?' | '#' => !inside,
            '{' => from.starts_with("{request.path}") || from.starts_with("{request.path_and_query}"),
            _ => false,
        };
        inside = (inside || *c == '{') && *c != '}';
        ends
    });
    tail.split_at(end.map_or(tail.len(), |(at, _)| at))
}

fn check_authority(authority: &Template, at: &Path, reading: &mut Reading<'_>) -> Option<()> {
    if let Some(fixed) = authority.fixed() {
        if let Err(error) = host::normalise(fixed) {
            reading.error(at, format!("`{fixed}`: {error}"), "a URL is like `https://example.com/path`");
            return None;
        }
        return Some(());
    }
    // From the right: behind a fixed `.suffix` facts only choose names below it.
    let mut suffix_fixed = false;
    for (index, piece) in authority.pieces().rev().enumerate() {
        match piece {
            Piece::Text(text) if index == 0 => suffix_fixed = text.starts_with('.') && text.len() > 1,
            Piece::Text(_) | Piece::Fact(Fact::Host | Fact::Sni) => {}
            Piece::Fact(_) if suffix_fixed => {}
            Piece::Fact(fact) => {
                let help =
                    "write the host as text or as `{request.host}`, or end it in text: `{path.tenant}.example.com`";
                reading.error(at, format!("`{{{fact}}}` would let the client choose the host"), help);
                return None;
            }
        }
    }
    Some(())
}

fn check_rest(has_origin: bool, rest: &Template, at: &Path, reading: &mut Reading<'_>) -> Option<()> {
    let legal = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic() && !b"\"<>\\^`{|}".contains(&byte));
    let mut pieces = rest.pieces();
    let first = pieces.next();
    let rooted = match first {
        Some(Piece::Text(text)) => text.starts_with('/') && !text.starts_with("//"),
        Some(Piece::Fact(fact)) => is_rooted(fact),
        None => has_origin,
    };
    let rooted = rooted || has_origin && matches!(first, Some(Piece::Text(text)) if text.starts_with(['?', '#']));
    if !rooted {
        let help = "write `https://example.com/path`, `/path` or `{request.path_and_query}`";
        reading.error(at, "neither a URL nor a path that begins with one `/`", help);
        return None;
    }
    for piece in rest.pieces() {
        if let Piece::Text(text) = piece
            && !legal(text)
        {
            reading.error(at, format!("`{text}` holds a character that a URL has not"), "percent-encode it");
            return None;
        }
    }
    if matches!((first, pieces.next()), (Some(Piece::Text("/")), Some(Piece::Fact(fact))) if is_rooted(fact)) {
        reading.error(at, "`/` before a path makes `//`", "leave out the slash");
        return None;
    }
    Some(())
}

fn is_rooted(fact: &Fact) -> bool {
    matches!(fact, Fact::Path | Fact::PathAndQuery)
}
