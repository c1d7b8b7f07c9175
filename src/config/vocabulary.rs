//! The words of documents as a set: which a gateway reads, which a document uses, which of them hold secrets.
//!
//! Made from the schema, so that no list is kept by hand. A word is a path with `*` for names that the author chooses, and
//! the value behind `=` where only listed values may stand: `upstream.*.balance=hash`. Gateways of several versions in one
//! fleet are told apart by it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use serde_json::Value as Json;

use super::schema;
use super::tree::{self, Node, Value};

/// What may stand below a word.
#[derive(Debug, Default)]
pub struct Vocabulary {
    words: BTreeMap<String, Vocabulary>,
    /// Below any name that is no word.
    names: Option<Box<Vocabulary>>,
    /// The texts that may stand here, where they are listed.
    values: BTreeSet<String>,
    /// A secret stands here.
    secret: bool,
}

static DOCUMENT: LazyLock<Vocabulary> = LazyLock::new(|| {
    let schema = schema::document();
    let mut vocabulary = Vocabulary::default();
    vocabulary.take(&schema, &schema, &mut Vec::new());
    vocabulary
});

impl Vocabulary {
    /// Of documents.
    pub fn document() -> &'static Vocabulary {
        &DOCUMENT
    }

    fn take<'s>(&mut self, root: &'s Json, schema: &'s Json, open: &mut Vec<&'s str>) {
        if let Some(name) = schema.get("$ref").and_then(Json::as_str).and_then(|name| name.rsplit('/').next()) {
            // A type within itself says nothing new.
            if open.contains(&name) {
                return;
            }
            open.push(name);
            if let Some(target) = root.get("$defs").and_then(|all| all.get(name)) {
                self.take(root, target, open);
            }
            open.pop();
        }
        self.secret |= schema.get("writeOnly").and_then(Json::as_bool).unwrap_or_default();
        for (word, below) in schema.get("properties").and_then(Json::as_object).into_iter().flatten() {
            self.words.entry(word.clone()).or_default().take(root, below, open);
        }
        if let Some(below @ Json::Object(_)) = schema.get("additionalProperties") {
            self.names.get_or_insert_default().take(root, below, open);
        }
        if let Some(item) = schema.get("items") {
            self.take(root, item, open);
        }
        for choice in ["oneOf", "anyOf", "allOf"] {
            for choice in schema.get(choice).and_then(Json::as_array).into_iter().flatten() {
                self.take(root, choice, open);
            }
        }
        let listed = schema.get("enum").and_then(Json::as_array).into_iter().flatten().chain(schema.get("const"));
        self.values.extend(listed.filter_map(Json::as_str).map(str::to_owned));
    }

    /// Every word, in order.
    pub fn all(&self) -> Vec<String> {
        let mut all = Vec::new();
        self.list("", &mut all);
        all
    }

    fn list(&self, path: &str, all: &mut Vec<String>) {
        all.extend(self.values.iter().map(|value| format!("{path}={value}")));
        let names = self.names.iter().map(|below| ("*", &**below));
        for (word, below) in self.words.iter().map(|(word, below)| (word.as_str(), below)).chain(names) {
            let path = if path.is_empty() { word.to_owned() } else { format!("{path}.{word}") };
            all.push(path.clone());
            below.list(&path, all);
        }
    }

    /// The words that a text uses, as far as they are words.
    pub fn used(&self, text: &str) -> BTreeSet<String> {
        let mut used = BTreeSet::new();
        self.walk(&tree::parse(text).root, "", &mut used);
        used
    }

    fn walk(&self, node: &Node<'_>, path: &str, used: &mut BTreeSet<String>) {
        match &node.value {
            Value::Table(entries) => {
                for entry in entries {
                    let Some((word, below)) = self.below(&entry.key) else { continue };
                    let path = if path.is_empty() { word.to_owned() } else { format!("{path}.{word}") };
                    used.insert(path.clone());
                    below.walk(&entry.node, &path, used);
                }
            }
            Value::List(items) => items.iter().for_each(|item| self.walk(item, path, used)),
            Value::Text(text) if self.values.contains(text.as_ref()) => {
                used.insert(format!("{path}={text}"));
            }
            _ => {}
        }
    }

    fn below<'a>(&'a self, key: &'a str) -> Option<(&'a str, &'a Vocabulary)> {
        match (self.words.get(key), &self.names) {
            (Some(below), _) => Some((key, below)),
            (None, Some(below)) => Some(("*", below)),
            (None, None) => None,
        }
    }

    /// Whether a secret belongs at a place.
    pub(super) fn is_secret(&self, place: &[String]) -> bool {
        let mut here = self;
        for step in place {
            match here.below(step) {
                Some((_, below)) => here = below,
                // A place in a list.
                None if step.parse::<usize>().is_ok() => {}
                None => return false,
            }
        }
        here.secret
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::problem::Path;

    #[test]
    fn every_word_of_the_example_is_in_the_vocabulary() {
        let vocabulary = Vocabulary::document();
        let all: BTreeSet<String> = vocabulary.all().into_iter().collect();
        let text = include_str!("../../config/routes.toml");
        let used = vocabulary.used(text);
        assert!(used.len() > 25, "{used:?}");
        assert!(used.is_subset(&all), "{:?}", used.difference(&all).collect::<Vec<_>>());
    }

    #[test]
    fn a_text_is_told_by_its_words_and_not_by_its_names() {
        let text = "format = 1\n[upstream.mine]\naddress = 'a:1'\nbalance = 'random'\n\
            [[route]]\nname = 'x'\nupstream = 'mine'\nmatch.path = '/a'";
        let used: Vec<String> = Vocabulary::document().used(text).into_iter().collect();
        let expect = [
            "format",
            "route",
            "route.match",
            "route.match.path",
            "route.name",
            "route.upstream",
            "upstream",
            "upstream.*",
            "upstream.*.address",
            "upstream.*.balance",
            "upstream.*.balance=random",
        ];
        assert_eq!(used, expect);
    }

    #[test]
    fn secrets_are_known_by_their_place() {
        for (place, expect) in [
            (&["issuer", "a", "secret"][..], true),
            (&["users", "a", "users", "b"], true),
            (&["upstream", "a", "tls", "client_key"], true),
            (&["upstream", "a", "address"], false),
            (&["nonsense"], false),
        ] {
            assert_eq!(Vocabulary::document().is_secret(&Path::of(place.iter().copied()).0), expect, "{place:?}");
        }
    }
}
