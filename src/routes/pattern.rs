//! Path patterns: `/exact`, `/users/{id}`, `/api/*`; and what they captured.

use std::fmt;
use std::str::FromStr;

use crate::facts::{Captures, path};

/// Most segments of a pattern, and most captures (`*` included): a lookup keeps them on its stack.
const SEGMENTS_MAX: usize = 64;
pub(super) const CAPTURES_MAX: usize = 8;

/// A legal pattern. Two patterns of the same shape differ in the names of their captures only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    text: Box<str>,
    pub(super) segments: Box<[Segment]>,
    /// Ends in `/*`.
    pub(super) rest: bool,
    /// Names of the captures in their order; `*` is the last.
    names: Box<[Box<str>]>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Segment {
    Literal(Box<str>),
    /// One segment that is not empty.
    Capture,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a path pattern: {cause}")]
pub struct PatternError {
    pub text: String,
    pub cause: PatternCause,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatternCause {
    #[error("it does not begin with `/`")]
    NotRooted,
    #[error("`*` stands only for the whole last segment, as in `/api/*`")]
    Star,
    #[error("`{{name}}` stands for a whole segment, its name is of letters, digits, `-` and `_`")]
    Capture,
    #[error("`{{{0}}}` is there twice")]
    Twice(String),
    #[error("requests never have this segment; it would be `{0}`")]
    NotNormal(String),
    #[error("a `.`, `..` or empty segment is never asked for")]
    Dots,
    #[error("{0}")]
    Path(path::PathError),
    #[error("it has more than {SEGMENTS_MAX} segments or {CAPTURES_MAX} captures")]
    TooLong,
}

impl Pattern {
    pub fn text(&self) -> &str {
        &self.text
    }

    pub fn has_capture(&self, name: &str) -> bool {
        self.names.iter().any(|known| &**known == name)
    }

    /// Names of the captures in their order; `*` is the last.
    pub(super) fn captures(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(|name| &**name)
    }

    /// Whether paths below a plain prefix can match: false means that stripping the prefix never does anything.
    pub(super) fn may_begin_with(&self, prefix: &str) -> bool {
        let mut wanted = prefix.split('/').skip(1).filter(|segment| !segment.is_empty());
        for segment in &self.segments {
            match (wanted.next(), segment) {
                (None, _) => return true,
                (Some(_), Segment::Capture) => {}
                (Some(wanted), Segment::Literal(literal)) if wanted == &**literal => {}
                (Some(_), Segment::Literal(_)) => return false,
            }
        }
        self.rest || wanted.next().is_none()
    }
}

impl FromStr for Pattern {
    type Err = PatternError;
    fn from_str(text: &str) -> Result<Pattern, PatternError> {
        parse(text).map_err(|cause| PatternError { text: text.to_owned(), cause })
    }
}

fn parse(text: &str) -> Result<Pattern, PatternCause> {
    let body = text.strip_prefix('/').ok_or(PatternCause::NotRooted)?;
    let (body, rest) = match body.strip_suffix('*') {
        Some("") => (None, true),
        Some(front) => (Some(front.strip_suffix('/').ok_or(PatternCause::Star)?), true),
        None => (Some(body), false),
    };
    let mut segments = Vec::new();
    let mut names: Vec<Box<str>> = Vec::new();
    let parts: Vec<&str> = body.map(|body| body.split('/').collect()).unwrap_or_default();
    for (index, part) in parts.iter().enumerate() {
        let open_end = part.is_empty() && !rest && index + 1 == parts.len();
        segments.push(match capture_name(part)? {
            Some(name) if names.iter().any(|known| &**known == name) => {
                return Err(PatternCause::Twice(name.to_owned()));
            }
            Some(name) => {
                names.push(name.into());
                Segment::Capture
            }
            None if open_end => Segment::Literal("".into()),
            None => Segment::Literal(literal(part)?.into()),
        });
    }
    if rest {
        names.push("*".into());
    }
    if segments.len() > SEGMENTS_MAX || names.len() > CAPTURES_MAX {
        return Err(PatternCause::TooLong);
    }
    Ok(Pattern { text: text.into(), segments: segments.into(), rest, names: names.into() })
}

fn capture_name(segment: &str) -> Result<Option<&str>, PatternCause> {
    if !segment.contains(['{', '}']) {
        return Ok(None);
    }
    let name = segment.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')).ok_or(PatternCause::Capture)?;
    let legal = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
    if legal { Ok(Some(name)) } else { Err(PatternCause::Capture) }
}

fn literal(segment: &str) -> Result<&str, PatternCause> {
    if segment.contains('*') {
        return Err(PatternCause::Star);
    }
    if matches!(segment, "" | "." | "..") {
        return Err(PatternCause::Dots);
    }
    if !segment.is_ascii() || segment.contains(' ') {
        let encoded = percent_encoding::utf8_percent_encode(segment, percent_encoding::CONTROLS).to_string();
        return Err(PatternCause::NotNormal(encoded.replace(' ', "%20")));
    }
    let rooted = format!("/{segment}");
    let normal = path::normalise(&rooted).map_err(PatternCause::Path)?.path;
    if normal == rooted { Ok(segment) } else { Err(PatternCause::NotNormal(normal.trim_start_matches('/').to_owned())) }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Where in the path the captures of the chosen pattern lie. Small, without borrows: a request keeps it beside its route.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PathCaptures {
    /// Which of the route's patterns matched.
    pub(super) pattern: u16,
    pub(super) spans: Spans,
}

/// Byte ranges of a path, on the stack.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Spans {
    len: u8,
    ranges: [(u32, u32); CAPTURES_MAX],
}

impl Spans {
    /// With one more. Beyond the capacity it is lost: patterns have at most `CAPTURES_MAX`.
    pub(super) fn push(&mut self, start: usize, end: usize) {
        if let Some(slot) = self.ranges.get_mut(usize::from(self.len)) {
            *slot = (u32::try_from(start).unwrap_or(u32::MAX), u32::try_from(end).unwrap_or(u32::MAX));
            self.len += 1;
        }
    }

    pub(super) fn pop(&mut self) {
        self.len = self.len.saturating_sub(1);
    }
}

/// Captures with the path they lie in and the pattern that names them.
#[derive(Clone, Copy, Debug)]
pub struct Captured<'a> {
    pub(super) pattern: Option<&'a Pattern>,
    pub(super) spans: &'a Spans,
    pub(super) path: &'a str,
}

impl Captures for Captured<'_> {
    fn capture(&self, name: &str) -> Option<&str> {
        let index = self.pattern?.names.iter().position(|known| &**known == name)?;
        let (start, end) = self.spans.ranges.get(..usize::from(self.spans.len))?.get(index)?;
        self.path.get(usize::try_from(*start).ok()?..usize::try_from(*end).ok()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_patterns() {
        for text in ["/", "/*", "/a", "/a/", "/a/*", "/{id}", "/{id}/x/*", "/a%2Fb", "/caf%C3%A9", "/v1.0"] {
            assert_eq!(text.parse::<Pattern>().expect(text).to_string(), text);
        }
    }

    #[test]
    fn refuses_patterns_that_match_nothing_or_mislead() {
        for text in [
            "", "a", "/a*", "/*/a", "/a/**", "//", "/a//b", "//*", "/./a", "/a/..", "/é", "/a b", "/%61", "/%zz",
            "/%00", "/a{id}", "/{id", "/{}", "/{a b}", "/{a}/{a}", "/a%2fb", "/a?b",
        ] {
            assert!(text.parse::<Pattern>().is_err(), "{text}");
        }
        assert!("/{a}/{b}/{c}/{d}/{e}/{f}/{g}/{h}".parse::<Pattern>().is_ok());
        assert!("/{a}/{b}/{c}/{d}/{e}/{f}/{g}/{h}/*".parse::<Pattern>().is_err());
        assert!("/a".repeat(65).parse::<Pattern>().is_err());
    }

    #[test]
    fn knows_which_prefixes_it_can_have() {
        for (pattern, prefix, expect) in [
            ("/api/*", "/api", true),
            ("/api/*", "/api/v1", true),
            ("/api", "/api", true),
            ("/api", "/api/v1", false),
            ("/{x}/b", "/api", true),
            ("/web/*", "/api", false),
            ("/*", "/api", true),
            ("/apix/*", "/api", false),
        ] {
            assert_eq!(pattern.parse::<Pattern>().expect(pattern).may_begin_with(prefix), expect, "{pattern} {prefix}");
        }
    }
}
