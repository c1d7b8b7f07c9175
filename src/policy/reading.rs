//! Reading templates out of a document, and filling values in so that they cannot leave their place.
//!
//! Values come from clients. In a path, a query or a URL each one is percent-encoded down to unreserved characters, but
//! for facts that are part of the request's own target: those are legal there and keep their encoding.

use std::borrow::Cow;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::Unfilled;
use crate::facts::{Fact, Facts, Piece, Template};
use crate::problem::{Path, Problem};
use crate::scalar::without_references;

/// All but RFC 3986 unreserved.
const COMPONENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Whether the patterns of a route have a capture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    Never,
    Sometimes,
    Always,
}

/// What reading a template needs to know: who has which captures, and where problems go.
pub struct Reading<'a> {
    pub captures: &'a dyn Fn(&str) -> Presence,
    pub problems: &'a mut Vec<Problem>,
}

/// How values are written where they go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Escape {
    /// As they are: headers, plain text.
    None,
    /// One component of a URL.
    Component,
    /// A URL: as `Component`, but facts of the target keep their encoding.
    Url,
    /// Text of an HTML or XML document.
    Markup,
    /// Inside a JSON (or JavaScript) string.
    Json,
}

impl Reading<'_> {
    pub fn error(&mut self, path: &Path, message: impl Into<String>, help: impl Into<String>) {
        self.problems.push(Problem::error(path.clone(), message).help(help));
    }

    /// A template whose captures exist. With `Presence::Always`, each must be there whichever pattern matched.
    pub fn template(&mut self, text: &str, path: &Path, captures: Presence) -> Option<Template> {
        let template: Template = match without_references(text).parse() {
            Ok(template) => template,
            Err(error) => {
                self.error(path, error.to_string(), error.help());
                return None;
            }
        };
        for fact in template.facts() {
            let Fact::Capture(name) = fact else { continue };
            let message = match (self.captures)(name) {
                Presence::Never => format!("no path of this route captures `{name}`"),
                Presence::Sometimes if captures == Presence::Always => {
                    format!("not every path of this route captures `{name}`")
                }
                Presence::Sometimes | Presence::Always => continue,
            };
            let help = match &**name {
                "*" => "end `match.path` in `/*`".to_owned(),
                name => format!("write `{{{name}}}` as a segment of `match.path`"),
            };
            self.error(path, message, help);
            return None;
        }
        Some(template)
    }
}

impl Escape {
    /// Appends a value.
    pub fn write(self, fact: &Fact, value: &str, out: &mut String) {
        match self {
            Escape::None => out.push_str(value),
            Escape::Url if is_of_target(fact) => out.push_str(value),
            Escape::Component | Escape::Url => out.extend(utf8_percent_encode(value, COMPONENT)),
            Escape::Markup => write_markup(value, out),
            Escape::Json => write_json(value, out),
        }
    }

    /// The whole template; every fact must be there.
    pub fn fill(self, template: &Template, facts: &dyn Facts) -> Result<String, Unfilled> {
        template.render_with(facts, |fact, value, out| self.write(fact, value, out)).ok_or(Unfilled::Missing)
    }

    /// The template with nothing where a fact is missing.
    pub fn fill_known(self, template: &Template, facts: &dyn Facts) -> String {
        let mut out = String::new();
        for piece in template.pieces() {
            match piece {
                Piece::Text(text) => out.push_str(text),
                Piece::Fact(fact) => self.write(fact, &facts.fact(fact).unwrap_or_default(), &mut out),
            }
        }
        out
    }
}

/// A template as a component of a URL: its own text is encoded too.
pub(super) fn filled_component(template: &Template, facts: &dyn Facts) -> Option<String> {
    Some(component(&template.render(facts)?).into_owned())
}

/// Text as a component of a URL.
pub(super) fn component(text: &str) -> Cow<'_, str> {
    utf8_percent_encode(text, COMPONENT).into()
}

fn is_of_target(fact: &Fact) -> bool {
    matches!(fact, Fact::Path | Fact::Query | Fact::PathAndQuery | Fact::Capture(_))
}

fn write_markup(value: &str, out: &mut String) {
    for c in value.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            _ => out.push(c),
        }
    }
}

fn write_json(value: &str, out: &mut String) {
    for c in value.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            // `<` so that the string cannot end a script element it stands in.
            _ if c.is_control() || matches!(c, '<' | '>' | '&' | '\u{2028}' | '\u{2029}') => {
                let mut units = [0u16; 2];
                for unit in c.encode_utf16(&mut units) {
                    out.push_str(&format!("\\u{unit:04x}"));
                }
            }
            _ => out.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(escape: Escape, fact: &str, value: &str, expect: &str) {
        let mut out = String::new();
        escape.write(&fact.parse().expect(fact), value, &mut out);
        assert_eq!(out, expect, "{escape:?} {fact}");
    }

    #[test]
    fn values_cannot_leave_their_place() {
        check(Escape::Component, "header.x", "../a?b#c%2F é", "..%2Fa%3Fb%23c%252F%20%C3%A9");
        check(Escape::Url, "header.x", "//evil.example", "%2F%2Fevil.example");
        check(Escape::Markup, "query.q", "<script>'\"&", "&lt;script&gt;&#39;&quot;&amp;");
        check(Escape::Json, "query.q", "a\"\\</script>\u{1}", "a\\\"\\\\\\u003c/script\\u003e\\u0001");
    }

    #[test]
    fn facts_of_the_target_keep_their_encoding() {
        check(Escape::Url, "request.path", "/a%20b", "/a%20b");
        check(Escape::Url, "path.id", "a%2Fb", "a%2Fb");
        check(Escape::Component, "path.id", "a%2Fb", "a%252Fb");
    }
}
