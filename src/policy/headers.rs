//! Edits of headers, prepared when the document is compiled: remove, then set, then add.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::header::{self, HeaderName, HeaderValue};

use super::{Presence, Reading};
use crate::config;
use crate::facts::{Facts, Template};
use crate::problem::Path;
use crate::scalar::without_references;

/// Where edits go: Pingora's heads in the proxy, `http::HeaderMap` elsewhere.
pub trait HeaderSink {
    /// Replaces every field of the name.
    fn set(&mut self, name: &HeaderName, value: HeaderValue);
    /// Adds a field beside others of the name.
    fn add(&mut self, name: &HeaderName, value: HeaderValue);
    /// Removes every field of the name.
    fn remove(&mut self, name: &HeaderName);
    /// As it stands.
    fn headers(&self) -> &http::HeaderMap;
}

impl HeaderSink for http::HeaderMap {
    fn set(&mut self, name: &HeaderName, value: HeaderValue) {
        self.insert(name, value);
    }
    fn add(&mut self, name: &HeaderName, value: HeaderValue) {
        self.append(name, value);
    }
    fn remove(&mut self, name: &HeaderName) {
        self.remove(name);
    }
    fn headers(&self) -> &http::HeaderMap {
        self
    }
}

/// Which head is edited: it decides which names are not the author's to edit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Request,
    Response,
}

/// Edits in the order they are applied. Clones share.
#[derive(Clone, Debug, Default)]
pub struct Edits(Arc<[Edit]>);

#[derive(Debug)]
enum Edit {
    Remove(HeaderName),
    Set(HeaderName, Value),
    Add(HeaderName, Value),
}

#[derive(Debug)]
enum Value {
    Fixed(HeaderValue),
    Template(Template),
}

impl Edits {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Applies them. `set` with a missing fact removes: what stands there afterwards is ours or nothing.
    pub fn apply(&self, facts: &dyn Facts, sink: &mut dyn HeaderSink) {
        for edit in self.0.iter() {
            match edit {
                Edit::Remove(name) => sink.remove(name),
                Edit::Set(name, value) => match value.fill(facts) {
                    Some(value) => sink.set(name, value),
                    None => sink.remove(name),
                },
                Edit::Add(name, value) => {
                    if let Some(value) = value.fill(facts) {
                        sink.add(name, value);
                    }
                }
            }
        }
    }

    /// Names that are set or added: on requests, those clients cannot send.
    pub fn written(&self) -> impl Iterator<Item = &HeaderName> {
        self.0.iter().filter_map(|edit| match edit {
            Edit::Remove(_) => None,
            Edit::Set(name, _) | Edit::Add(name, _) => Some(name),
        })
    }

    /// Names that are removed.
    pub fn removed(&self) -> impl Iterator<Item = &HeaderName> {
        self.0.iter().filter_map(|edit| match edit {
            Edit::Remove(name) => Some(name),
            Edit::Set(..) | Edit::Add(..) => None,
        })
    }

    pub fn compile(words: &config::HeaderEdits, side: Side, path: &Path, reading: &mut Reading<'_>) -> Edits {
        let config::HeaderEdits { set, add, remove } = words;
        let mut edits = Vec::with_capacity(set.len() + add.len() + remove.0.len());
        for (index, name) in remove.iter().enumerate() {
            edits.extend(editable(name, side, &path.at("remove").at(index), reading).map(Edit::Remove));
        }
        edits.extend(
            values(set, side, &path.at("set"), reading).into_iter().map(|(name, value)| Edit::Set(name, value)),
        );
        edits.extend(
            values(add, side, &path.at("add"), reading).into_iter().map(|(name, value)| Edit::Add(name, value)),
        );
        Edits(edits.into())
    }
}

impl Value {
    fn fill(&self, facts: &dyn Facts) -> Option<HeaderValue> {
        match self {
            Value::Fixed(value) => Some(value.clone()),
            Value::Template(template) => HeaderValue::from_bytes(template.render(facts)?.as_bytes()).ok(),
        }
    }
}

fn values(
    words: &BTreeMap<String, String>,
    side: Side,
    path: &Path,
    reading: &mut Reading<'_>,
) -> Vec<(HeaderName, Value)> {
    let mut values: Vec<(HeaderName, Value)> = Vec::with_capacity(words.len());
    for (name, text) in words {
        let path = path.at(name);
        let Some(name) = editable(name, side, &path, reading) else { continue };
        if values.iter().any(|(known, _)| *known == name) {
            reading.error(&path, format!("`{name}` is there twice"), "names of headers are the same in any case");
            continue;
        }
        let Some(template) = reading.template(text, &path, Presence::Sometimes) else { continue };
        let value = match template.fixed() {
            None => Value::Template(template),
            Some(fixed) => match HeaderValue::from_bytes(fixed.as_bytes()) {
                Ok(value) => Value::Fixed(value),
                Err(_) => {
                    reading.error(&path, "the value holds control characters", "a header value is one line of text");
                    continue;
                }
            },
        };
        values.push((name, value));
    }
    values
}

/// A legal name.
pub fn name(text: &str, path: &Path, reading: &mut Reading<'_>) -> Option<HeaderName> {
    let name = HeaderName::from_bytes(without_references(text).as_bytes()).ok();
    if name.is_none() {
        let help = "names are of letters, digits and !#$%&'*+-.^_`|~ (RFC 9110 5.6.2)";
        reading.error(path, format!("`{text}` is not a header name"), help);
    }
    name
}

/// A legal name that is not the protocol's own.
pub(super) fn editable(text: &str, side: Side, path: &Path, reading: &mut Reading<'_>) -> Option<HeaderName> {
    let name = name(text, path, reading)?;
    let help = match name {
        _ if is_hop_by_hop(&name) => "it belongs to one connection, not to the message (RFC 9110 7.6.1)",
        header::CONTENT_LENGTH => "it follows from the body",
        header::HOST if side == Side::Request => "use `rewrite.host`",
        _ => return Some(name),
    };
    reading.error(path, format!("`{name}` cannot be edited"), help);
    None
}

/// Fields of one connection (RFC 9110 7.6.1, RFC 9113 8.2.2).
pub fn is_hop_by_hop(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "connection" | "keep-alive" | "proxy-connection" | "te" | "trailer" | "transfer-encoding" | "upgrade"
    )
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use http::HeaderMap;

    use super::*;
    use crate::facts::Fact;
    use crate::problem::Problem;

    struct Fixed;
    impl Facts for Fixed {
        fn fact(&self, fact: &Fact) -> Option<Cow<'_, str>> {
            match fact {
                Fact::ClientIp => Some("192.0.2.1".into()),
                Fact::QueryParameter(_) => Some("a\r\nb: c".into()),
                _ => None,
            }
        }
    }

    fn compile(text: &str, side: Side) -> (Edits, Vec<Problem>) {
        let words: config::HeaderEdits = toml::from_str(text).expect(text);
        let mut problems = Vec::new();
        let mut reading = Reading { captures: &|_| Presence::Never, problems: &mut problems };
        let edits = Edits::compile(&words, side, &Path::default(), &mut reading);
        (edits, problems)
    }

    #[test]
    fn removes_then_sets_then_adds() {
        let (edits, problems) = compile(
            r#"
            remove = ["x-gone", "x-list"]
            set = { "x-ip" = "{client.ip}", "X-Fixed" = "1" }
            add = { "x-list" = "new" }
            "#,
            Side::Request,
        );
        assert_eq!(problems, []);
        let mut headers = HeaderMap::new();
        for (name, value) in [("x-gone", "a"), ("x-list", "a"), ("x-list", "b"), ("x-ip", "forged"), ("x-kept", "k")] {
            headers.append(name, HeaderValue::from_static(value));
        }
        edits.apply(&Fixed, &mut headers);
        let mut got: Vec<_> = headers.iter().map(|(n, v)| (n.as_str(), v.to_str().expect("text"))).collect();
        got.sort_unstable();
        assert_eq!(got, [("x-fixed", "1"), ("x-ip", "192.0.2.1"), ("x-kept", "k"), ("x-list", "new")]);
        assert_eq!(edits.written().map(HeaderName::as_str).collect::<Vec<_>>(), ["x-fixed", "x-ip", "x-list"]);
    }

    #[test]
    fn a_value_that_cannot_be_filled_leaves_nothing() {
        let (edits, _) = compile(r#"set = { "a" = "{cookie.c}", "b" = "{query.q}" }"#, Side::Request);
        let mut headers = HeaderMap::new();
        headers.insert("a", HeaderValue::from_static("forged"));
        edits.apply(&Fixed, &mut headers);
        assert!(headers.is_empty(), "{headers:?}");
    }

    #[test]
    fn refuses_names_that_are_not_the_authors() {
        for (text, side, expect) in [
            (r#"set = { "a b" = "" }"#, Side::Request, "not a header name"),
            (r#"remove = "Connection""#, Side::Response, "cannot be edited"),
            (r#"set = { Host = "x" }"#, Side::Request, "cannot be edited (use `rewrite.host`)"),
            (r#"add = { content-length = "1" }"#, Side::Response, "cannot be edited"),
            (r#"set = { a = "{path.id}" }"#, Side::Request, "no path of this route captures `id`"),
            (r#"set = { a = "{nonsense}" }"#, Side::Request, "not a fact"),
            (r#"set = { a = "\n" }"#, Side::Request, "control characters"),
            (r#"set = { a = "1", A = "2" }"#, Side::Request, "twice"),
        ] {
            let (_, problems) = compile(text, side);
            let [problem] = problems.as_slice() else { panic!("{text}: {problems:?}") };
            assert!(problem.to_string().contains(expect), "{text}: {problem}");
        }
    }
}
