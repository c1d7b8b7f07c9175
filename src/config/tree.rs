//! A document as a tree of nodes that know where they stand in the text.
//!
//! The tree is what reading works on: references are filled in here, and what turned out to be a mistake is taken out,
//! so that the rest can be read on. It knows TOML and nothing of the words.

use std::borrow::Cow;
use std::ops::Range;

use toml::de::{DeArray, DeTable, DeValue};

use crate::problem::Problem;

mod syntax;
pub(super) use syntax::Spoilt;

/// Why a value that the author did not write stands in the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Planted {
    No,
    /// For a text whose references nobody resolved.
    ForReference,
    /// For a key that is missing.
    ForMissing,
}

/// A value with its place.
#[derive(Clone, Debug)]
pub(super) struct Node<'t> {
    /// Bytes in the text: the value, or the header of a table. Empty for what does not stand in the text.
    pub(super) span: Range<usize>,
    pub(super) value: Value<'t>,
    /// Taken out: a mistake that has been reported.
    pub(super) gone: bool,
    /// Put in by the reader where something was missing, so that the rest can be read.
    pub(super) planted: Planted,
    /// The text as written, if it holds references or comes from the environment: what messages may show.
    pub(super) written: Option<Box<str>>,
    /// The text still holds references that nobody resolved.
    pub(super) symbolic: bool,
}

#[derive(Clone, Debug)]
pub(super) enum Value<'t> {
    Text(Cow<'t, str>),
    /// Text from an environment variable: a number or a boolean if that is what is wanted.
    Loose(String),
    Integer(i64),
    /// An integer that 64 bits cannot hold.
    Vast(String),
    Float(f64),
    Boolean(bool),
    Datetime(String),
    List(Vec<Node<'t>>),
    Table(Vec<Entry<'t>>),
}

#[derive(Clone, Debug)]
pub(super) struct Entry<'t> {
    pub(super) key: Cow<'t, str>,
    pub(super) key_span: Range<usize>,
    pub(super) node: Node<'t>,
}

/// What a text holds, as far as it can be read.
pub(super) struct Parsed<'t> {
    pub(super) root: Node<'t>,
    /// Syntax errors.
    pub(super) problems: Vec<Problem>,
    /// Where they make the tree something else than what the author meant.
    pub(super) spoilt: Spoilt,
}

/// The tree of a text. Nesting is bounded by the parser (80 levels).
pub(super) fn parse(text: &str) -> Parsed<'_> {
    let (root, errors) = DeTable::parse_recoverable(text);
    let root = Node::new(0..0, table(root.into_inner()));
    let (problems, spoilt) = syntax::problems(text, &root, &errors);
    Parsed { root, problems, spoilt }
}

/// The tree of a single value, such as `["h1", "h2"]`, kept without places.
pub(super) fn parse_value(text: &str) -> Option<Node<'_>> {
    let mut root = Node::new(0..0, value(DeValue::parse(text).ok()?.into_inner()));
    root.visit_mut(&mut Vec::new(), &mut |_, node| node.span = 0..0);
    Some(root)
}

fn value(from: DeValue<'_>) -> Value<'_> {
    match from {
        DeValue::String(text) => Value::Text(text),
        DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
            Ok(number) => Value::Integer(number),
            Err(_) => Value::Vast(number.to_string()),
        },
        DeValue::Float(number) => Value::Float(number.as_str().parse().unwrap_or(f64::NAN)),
        DeValue::Boolean(boolean) => Value::Boolean(boolean),
        DeValue::Datetime(datetime) => Value::Datetime(datetime.to_string()),
        DeValue::Array(array) => list(array),
        DeValue::Table(from) => table(from),
    }
}

fn list(from: DeArray<'_>) -> Value<'_> {
    Value::List(
        from.into_iter()
            .map(|item| {
                let span = item.span();
                Node::new(span, value(item.into_inner()))
            })
            .collect(),
    )
}

fn table(from: DeTable<'_>) -> Value<'_> {
    let mut entries: Vec<_> = from
        .into_iter()
        .map(|(key, item)| {
            let (key_span, span) = (key.span(), item.span());
            Entry { key: key.into_inner(), key_span, node: Node::new(span, value(item.into_inner())) }
        })
        .collect();
    entries.sort_by_key(|entry| entry.key_span.start);
    Value::Table(entries)
}

impl<'t> Node<'t> {
    pub(super) fn new(span: Range<usize>, value: Value<'t>) -> Node<'t> {
        Node { span, value, gone: false, planted: Planted::No, written: None, symbolic: false }
    }

    /// One step further in: a key of a table or an index of a list.
    pub(super) fn child(&self, step: &str) -> Option<&Node<'t>> {
        match &self.value {
            Value::Table(entries) => entries.iter().find(|entry| entry.key == step).map(|entry| &entry.node),
            Value::List(items) => items.get(step.parse::<usize>().ok()?),
            _ => None,
        }
    }

    pub(super) fn child_mut(&mut self, step: &str) -> Option<&mut Node<'t>> {
        match &mut self.value {
            Value::Table(entries) => entries.iter_mut().find(|entry| entry.key == step).map(|entry| &mut entry.node),
            Value::List(items) => items.get_mut(step.parse::<usize>().ok()?),
            _ => None,
        }
    }

    /// Whether a mistake was taken out of it.
    pub(super) fn has_gone(&self) -> bool {
        match &self.value {
            Value::Table(entries) => entries.iter().any(|entry| entry.node.gone),
            Value::List(items) => items.iter().any(|item| item.gone),
            _ => false,
        }
    }

    pub(super) fn entry(&self, key: &str) -> Option<&Entry<'t>> {
        match &self.value {
            Value::Table(entries) => entries.iter().find(|entry| entry.key == key),
            _ => None,
        }
    }

    pub(super) fn at(&self, steps: &[String]) -> Option<&Node<'t>> {
        steps.iter().try_fold(self, |node, step| node.child(step))
    }

    pub(super) fn at_mut(&mut self, steps: &[String]) -> Option<&mut Node<'t>> {
        steps.iter().try_fold(self, |node, step| node.child_mut(step))
    }

    /// Every node below and this one, with its steps.
    pub(super) fn visit_mut(&mut self, steps: &mut Vec<String>, visit: &mut dyn FnMut(&[String], &mut Node<'t>)) {
        visit(steps, self);
        match &mut self.value {
            Value::Table(entries) => {
                for entry in entries {
                    steps.push(entry.key.clone().into_owned());
                    entry.node.visit_mut(steps, visit);
                    steps.pop();
                }
            }
            Value::List(items) => {
                for (index, item) in items.iter_mut().enumerate() {
                    steps.push(index.to_string());
                    item.visit_mut(steps, visit);
                    steps.pop();
                }
            }
            _ => {}
        }
    }
}
