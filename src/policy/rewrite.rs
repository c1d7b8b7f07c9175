//! What the upstream is asked for instead of what the client asked for: path, query, host.
//!
//! Prefixes end at segment borders. Values cannot climb: a result with a dot segment is refused, not resolved.

use std::borrow::Cow;

use super::{Escape, Presence, Reading, Unfilled, reading};
use crate::config;
use crate::facts::{Fact, Facts, Head, Piece, Template, host, path};
use crate::problem::Path;
use crate::scalar::without_references;

/// A rewrite, prepared.
#[derive(Debug)]
pub struct Rewrite {
    path: Option<PathEdit>,
    host: Option<Template>,
    query: Vec<QueryEdit>,
}

#[derive(Debug)]
enum PathEdit {
    /// Both without a slash at their end; the root is empty.
    Prefix {
        from: Box<str>,
        to: Box<str>,
    },
    Whole(Template),
}

#[derive(Debug)]
enum QueryEdit {
    Remove(Box<str>),
    /// Names are encoded already.
    Set(Box<str>, Template),
    Add(Box<str>, Template),
}

/// What the upstream is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub path_and_query: String,
    /// `None`: as asked.
    pub host: Option<String>,
}

impl Rewrite {
    /// The target for a request.
    pub fn apply(&self, head: &Head<'_>, facts: &dyn Facts) -> Result<Target, Unfilled> {
        let mut path_and_query = match &self.path {
            None => head.path.to_owned(),
            Some(_) if head.path == "*" => head.path.to_owned(),
            Some(PathEdit::Prefix { from, to }) => replace_prefix(head.path, from, to).into_owned(),
            Some(PathEdit::Whole(template)) => whole_path(template, facts)?,
        };
        let query = self.edited_query(head.query, facts);
        if let Some(query) = query {
            path_and_query.push('?');
            path_and_query.push_str(&query);
        }
        let host = self.host.as_ref().map(|template| rewritten_host(template, facts)).transpose()?;
        Ok(Target { path_and_query, host })
    }

    fn edited_query<'q>(&self, query: Option<&'q str>, facts: &dyn Facts) -> Option<Cow<'q, str>> {
        if self.query.is_empty() {
            return query.map(Cow::Borrowed);
        }
        let mut pairs: Vec<Cow<'_, str>> =
            query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()).map(Cow::Borrowed).collect();
        let named = |pair: &str, name: &str| {
            let key = pair.split_once('=').map_or(pair, |(key, _)| key);
            percent_encoding::percent_decode_str(key).eq(percent_encoding::percent_decode_str(name))
        };
        for edit in &self.query {
            let (name, value) = match edit {
                QueryEdit::Remove(name) => {
                    pairs.retain(|pair| !named(pair, name));
                    continue;
                }
                QueryEdit::Set(name, value) => {
                    pairs.retain(|pair| !named(pair, name));
                    (name, value)
                }
                QueryEdit::Add(name, value) => (name, value),
            };
            if let Some(value) = reading::filled_component(value, facts) {
                pairs.push(format!("{name}={value}").into());
            }
        }
        if pairs.is_empty() { None } else { Some(pairs.join("&").into()) }
    }

    /// The prefix whose replacement does something only if the route's paths can begin with it.
    pub fn prefix(&self) -> Option<&str> {
        match &self.path {
            Some(PathEdit::Prefix { from, .. }) => Some(from),
            Some(PathEdit::Whole(_)) | None => None,
        }
    }

    pub fn compile(words: &config::Rewrite, at: &Path, reading: &mut Reading<'_>) -> Rewrite {
        let config::Rewrite { strip_prefix, replace_prefix, path, host, query } = words;
        let kinds = [strip_prefix.is_some(), replace_prefix.is_some(), path.is_some()];
        if kinds.into_iter().filter(|is_there| *is_there).count() > 1 {
            let help = "keep one; `path` can do what the others do, with `{path.*}`";
            reading.error(at, "more than one of `strip_prefix`, `replace_prefix`, `path`", help);
        }
        let path = if let Some(from) = strip_prefix {
            prefix_edit(from, "/", &at.at("strip_prefix"), reading)
        } else if let Some(config::ReplacePrefix { from, to }) = replace_prefix {
            plain_prefix(to, &at.at("replace_prefix").at("to"), reading)
                .and_then(|to| prefix_edit(from, &to, &at.at("replace_prefix").at("from"), reading))
        } else {
            path.as_ref().and_then(|text| path_template(text, &at.at("path"), reading))
        };
        let host = host.as_ref().and_then(|text| host_template(text, &at.at("host"), reading));
        let query = query.as_ref().map(|words| query_edits(words, &at.at("query"), reading)).unwrap_or_default();
        Rewrite { path, host, query }
    }
}

/// `from` and `to` have no slash at their end.
fn replace_prefix<'p>(path: &'p str, from: &str, to: &str) -> Cow<'p, str> {
    let Some(rest) = path.strip_prefix(from) else { return Cow::Borrowed(path) };
    match rest.as_bytes().first() {
        None if to.is_empty() => Cow::Borrowed("/"),
        None => Cow::Owned(to.to_owned()),
        Some(b'/') if to.is_empty() => Cow::Borrowed(rest),
        Some(b'/') => Cow::Owned(format!("{to}{rest}")),
        Some(_) => Cow::Borrowed(path),
    }
}

fn whole_path(template: &Template, facts: &dyn Facts) -> Result<String, Unfilled> {
    let raw = Escape::Url.fill(template, facts)?;
    // A value may be `..` as a whole; resolving it would let the client choose another path.
    if raw.split('/').any(|segment| matches!(segment, "." | "..")) {
        return Err(Unfilled::Path);
    }
    if raw == "*" {
        return Ok(raw);
    }
    path::normalise(&raw).map(|normal| normal.path.into_owned()).map_err(|_| Unfilled::Path)
}

fn rewritten_host(template: &Template, facts: &dyn Facts) -> Result<String, Unfilled> {
    let host = Escape::None.fill(template, facts)?;
    if host::normalise(&host).is_err() {
        return Err(Unfilled::Host);
    }
    Ok(host)
}

fn prefix_edit(from: &str, to: &str, at: &Path, reading: &mut Reading<'_>) -> Option<PathEdit> {
    let from = plain_prefix(from, at, reading)?;
    Some(PathEdit::Prefix { from: from.trim_end_matches('/').into(), to: to.trim_end_matches('/').into() })
}

fn plain_prefix(text: &str, at: &Path, reading: &mut Reading<'_>) -> Option<String> {
    let text = &*without_references(text);
    match path::normalise(text) {
        Ok(normal) if normal.path == text && text != "*" => return Some(text.to_owned()),
        Ok(normal) => reading.error(at, format!("`{text}` is not a prefix"), format!("write `{}`", normal.path)),
        Err(_) if text.contains('{') => {
            reading.error(at, "a prefix is plain text", "use `path` for templates, such as `/v2/{path.*}`");
        }
        Err(error) => reading.error(at, format!("`{text}` is not a prefix: {error}"), "a prefix is like `/api`"),
    }
    None
}

fn path_template(text: &str, at: &Path, reading: &mut Reading<'_>) -> Option<PathEdit> {
    let template = reading.template(text, at, Presence::Always)?;
    if template.facts().any(|fact| matches!(fact, Fact::Query | Fact::PathAndQuery)) {
        reading.error(at, "a query in the path", "the query stays as it is; edit it with `rewrite.query`");
        return None;
    }
    let sample: String = template
        .pieces()
        .map(|piece| match piece {
            Piece::Text(text) => text,
            Piece::Fact(Fact::Path) => "/x",
            Piece::Fact(_) => "x",
        })
        .collect();
    match path::normalise(&sample) {
        Ok(normal) if normal.path == sample => {}
        Ok(_) => {
            let help = "write it normalised; `{request.path}` begins with a slash";
            reading.error(at, "`//`, a dot segment or a needless percent-code", help);
            return None;
        }
        Err(error) => {
            reading.error(
                at,
                error.to_string(),
                "write `/` or `{request.path}` first, and the rest as it goes on the wire",
            );
            return None;
        }
    }
    Some(PathEdit::Whole(template))
}

fn host_template(text: &str, at: &Path, reading: &mut Reading<'_>) -> Option<Template> {
    let template = reading.template(text, at, Presence::Always)?;
    if let Some(Err(error)) = template.fixed().map(host::normalise) {
        reading.error(at, format!("`{text}`: {error}"), "a host is like `app.internal` or `app.internal:8080`");
        return None;
    }
    Some(template)
}

fn query_edits(words: &config::QueryEdits, at: &Path, reading: &mut Reading<'_>) -> Vec<QueryEdit> {
    let config::QueryEdits { set, add, remove } = words;
    let mut edits: Vec<QueryEdit> =
        remove.iter().map(|name| QueryEdit::Remove(reading::component(name).into())).collect();
    for (words, step, edit) in [
        (set, "set", QueryEdit::Set as fn(Box<str>, Template) -> QueryEdit),
        (add, "add", QueryEdit::Add as fn(Box<str>, Template) -> QueryEdit),
    ] {
        for (name, text) in words {
            let template = reading.template(text, &at.at(step).at(name), Presence::Sometimes);
            edits.extend(template.map(|template| edit(reading::component(name).into(), template)));
        }
    }
    edits
}
