//! Syntax errors in an author's words: one for each mistake, where the mistake is and not where the parser noticed.
//!
//! The parser goes on after an error. What it makes of the rest may be nonsense (keys of a table whose header is broken
//! land in the table before), so `Spoilt` says which problems of shape are not worth telling.

use std::ops::Range;

use super::{Node, Value};
use crate::problem::{Path, Problem};

/// Parts of a text that a syntax error makes unreliable.
#[derive(Debug, Default)]
pub(in super::super) struct Spoilt {
    ranges: Vec<Range<usize>>,
    keys: Vec<String>,
    structure: bool,
}

impl Spoilt {
    /// Whether a problem of shape at this place may be no more than a consequence of a syntax error.
    pub(in super::super) fn covers(&self, path: &Path, span: Option<&Range<usize>>) -> bool {
        let key = path.0.first();
        self.keys.iter().any(|spoilt| Some(spoilt) == key)
            || span
                .is_some_and(|span| self.ranges.iter().any(|range| range.start <= span.end && span.start <= range.end))
    }

    /// Keys may be missing because they were lost.
    pub(in super::super) fn lost_keys(&self) -> bool {
        self.structure
    }
}

pub(super) fn problems(text: &str, root: &Node<'_>, errors: &[toml::de::Error]) -> (Vec<Problem>, Spoilt) {
    let mut spoilt = Spoilt::default();
    if let Some(start) =
        text.find(|char: char| !char.is_whitespace()).filter(|at| text.as_bytes().get(*at) == Some(&b'{'))
    {
        let help = "write `key = value` on lines of their own, tables under `[name]`";
        let problem = Problem::error(Path::default(), "this is JSON and not TOML").help(help);
        spoilt.structure = true;
        spoilt.ranges.push(0..text.len());
        return (vec![Problem { span: Some(start..start + 1), ..problem }], spoilt);
    }
    let mut found: Vec<(Range<usize>, Wording)> = Vec::new();
    let mut swallowed: Vec<Range<usize>> = Vec::new();
    for error in errors {
        let at = clamp(text, error.span().unwrap_or(0..0));
        swallowed.extend(unclosed(error.message(), root, at.start));
    }
    // What was opened last is what is most likely not closed; all around it was only swallowed with it.
    if let Some(opening) = swallowed.iter().max_by_key(|range| range.start) {
        let wording = ("what opens here is not closed".to_owned(), "close it where it should end");
        found.push((opening.start..opening.start + 1, wording));
        spoilt.structure = true;
        spoilt.ranges.extend(swallowed.iter().cloned());
    }
    for error in errors {
        let at = clamp(text, error.span().unwrap_or(0..0));
        if swallowed.iter().any(|range| range.start <= at.start && at.start <= range.end) {
            continue;
        }
        let line = line(text, at.start);
        let written = text.get(line.clone()).unwrap_or_default();
        let (wording, reach) = word(error.message(), written, text.get(at.clone()).unwrap_or_default());
        spoilt.ranges.push(at.clone());
        if reach == Reach::Structure {
            spoilt.structure = true;
            spoilt.ranges.push(line.start..next_header(text, line.end));
            if let Some(header) = written.trim_start().strip_prefix('[') {
                let key = header.trim_start_matches('[').split(['.', ']', ' ', '\t', '#']).next().unwrap_or_default();
                spoilt.keys.push(key.trim_matches(['"', '\'']).to_owned());
            }
        }
        // One mistake often raises several errors on its line.
        if !found.iter().any(|(earlier, _)| line.start <= earlier.start && earlier.start <= line.end) {
            found.push((widen(text, at, &line), wording));
        }
    }
    let problems = found
        .into_iter()
        .map(|(span, (message, help))| {
            let problem = Problem::error(Path::default(), message).help(help);
            Problem { span: Some(span), ..problem }
        })
        .collect();
    (problems, spoilt)
}

#[derive(Clone, Copy, PartialEq)]
enum Reach {
    /// The value is wrong; keys and tables are where they should be.
    Value,
    /// Keys or tables were lost or moved.
    Structure,
}

const BOOLEANS: [&str; 6] = ["yes", "no", "on", "off", "true", "false"];

/// Message and help.
type Wording = (String, &'static str);

/// The text, list or inline table that the parser saw end too late, so that everything up to there was swallowed.
fn unclosed(message: &str, root: &Node<'_>, at: usize) -> Option<Range<usize>> {
    type Fits = fn(&Value<'_>) -> bool;
    let fits: Fits = match message {
        _ if message.starts_with("unclosed array,") => |value| matches!(value, Value::List(_)),
        _ if message.starts_with("unclosed inline table") => |value| matches!(value, Value::Table(_)),
        _ if message.starts_with("invalid multi-line") => |value| matches!(value, Value::Text(_)),
        _ => return None,
    };
    innermost(root, at, fits)
}

/// The innermost value of a kind that reaches to this byte. (The span of a table with a header is its header.)
fn innermost(node: &Node<'_>, at: usize, fits: fn(&Value<'_>) -> bool) -> Option<Range<usize>> {
    let reaches = node.span.start < at && at <= node.span.end && fits(&node.value);
    let below = match &node.value {
        Value::Table(entries) => entries.iter().rev().find_map(|entry| innermost(&entry.node, at, fits)),
        Value::List(items) => items.iter().rev().find_map(|item| innermost(item, at, fits)),
        _ => None,
    };
    below.or_else(|| reaches.then(|| node.span.clone()))
}

fn word(message: &str, line: &str, offending: &str) -> (Wording, Reach) {
    let is = |start: &str| message.starts_with(start);
    let line = line.trim();
    if ["string values must be quoted", "invalid float", "invalid boolean"].iter().any(|start| is(start)) {
        let (message, help) = match offending {
            "" => ("a value is missing".to_owned(), "write a value after `=`"),
            _ if offending.starts_with(['“', '”', '„', '‘', '’']) => {
                (format!("{offending} stands in typographic quotes"), "write straight quotes: \"text\"")
            }
            _ if BOOLEANS.iter().any(|word| offending.eq_ignore_ascii_case(word)) => {
                (format!("`{offending}` is not a boolean"), "write `true` or `false`, in lower case and without quotes")
            }
            _ => (format!("`{offending}` is not in quotes"), "write text, durations and sizes in quotes: \"30s\""),
        };
        return ((message, help), Reach::Value);
    }
    let (message, help, reach) = if is("duplicate key") {
        let help = "a key or table stands only once; `[[name]]` adds an item to a list of tables";
        (format!("`{offending}` is there already"), help, Reach::Value)
    } else if is("invalid basic string, expected `\"`") || (is("invalid literal string") && line.contains('\'')) {
        ("the text is not closed".to_owned(), "end it with the quote it begins with", Reach::Value)
    } else if is("missing escaped value") {
        let help = "write `\\\\` for a backslash, or put the text in single quotes";
        ("an escape that TOML does not know".to_owned(), help, Reach::Value)
    } else if is("unexpected leading zero") {
        (
            "a number begins with a zero".to_owned(),
            "write it without the zero, or in quotes if it is text",
            Reach::Value,
        )
    } else if is("unclosed table") || is("unclosed array table") {
        let help = "write `[name]` for a table, `[[name]]` for an item of a list of tables";
        ("the header of the table is not closed".to_owned(), help, Reach::Structure)
    } else if line.starts_with("//") || line.starts_with("/*") {
        ("this is not a comment".to_owned(), "comments begin with `#`", Reach::Structure)
    } else if is("key with no value") || is("invalid unquoted key") {
        let help = match line.split_once([':', '=']) {
            Some((before, _)) if line.as_bytes().get(before.len()) == Some(&b':') => {
                "write `=` and not `:` after a key"
            }
            _ => "write `key = value`; keys with spaces, dots or signs stand in quotes",
        };
        ("a key without a value".to_owned(), help, Reach::Structure)
    } else if is("unexpected key or value") {
        let help = "one `key = value` to a line; a quote inside text is written `\\\"`";
        ("something follows where the line should end".to_owned(), help, Reach::Structure)
    } else if is("missing comma") {
        (
            "a comma is missing".to_owned(),
            "values of a list, and keys of `{ .. }`, are parted by commas; a quote inside text is written `\\\"",
            Reach::Structure,
        )
    } else if is("invalid literal string") {
        ("a value is missing".to_owned(), "write `key = value`", Reach::Structure)
    } else {
        (message.to_owned(), "the syntax is TOML: https://toml.io", Reach::Structure)
    };
    ((message, help), reach)
}

fn clamp(text: &str, span: Range<usize>) -> Range<usize> {
    let border = |mut at: usize| {
        at = at.min(text.len());
        while !text.is_char_boundary(at) {
            at -= 1;
        }
        at
    };
    border(span.start)..border(span.end.max(span.start))
}

/// The line around a byte, without its end.
fn line(text: &str, at: usize) -> Range<usize> {
    let (before, after) = text.split_at_checked(at).unwrap_or((text, ""));
    let start = before.rfind('\n').map_or(0, |newline| newline + 1);
    start..at + after.find('\n').unwrap_or(after.len())
}

/// Where the next `[header]` after a byte begins, or the text ends.
fn next_header(text: &str, from: usize) -> usize {
    let tail = text.get(from..).unwrap_or_default();
    tail.find("\n[").map_or(text.len(), |at| from + at)
}

/// An empty span becomes the character it stands at, or the last one of its line: something to point at.
fn widen(text: &str, span: Range<usize>, line: &Range<usize>) -> Range<usize> {
    let char_at = |at: usize| text.get(at..line.end).and_then(|rest| rest.chars().next());
    if !span.is_empty() {
        return span;
    }
    if let Some(char) = char_at(span.start) {
        return span.start..span.start + char.len_utf8();
    }
    let last = text.get(line.clone()).and_then(|line| line.trim_end().chars().next_back());
    let end = line.start + text.get(line.clone()).map_or(0, |line| line.trim_end().len());
    last.map_or(span.start..span.start, |char| end - char.len_utf8()..end)
}
