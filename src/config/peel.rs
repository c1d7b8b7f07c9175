//! All mistakes of shape at once: decode, take the mistake out of the tree, decode again.
//!
//! What is missing is planted, so that one mistake stays one problem and what names it elsewhere still finds it. The
//! words that come out are a sketch of what the author meant: good for finding more mistakes, never to be applied.

use serde::de::DeserializeOwned;

use super::decode::{Kind, Mistake};
use super::tree::{Node, Spoilt, Value};
use super::wording::{explain, missing};
use crate::problem::{Path, Problem, nearest};

/// Most problems reported for one document.
pub(super) const PROBLEMS_MAX: usize = 100;
/// Most attempts, also for what is mended in silence.
const ROUNDS_MAX: usize = 1_000;

/// Reads words from the tree. `blurred` gets the places of which the words say nothing reliable.
pub(super) fn peel<T: DeserializeOwned>(
    root: &mut Node<'_>,
    spoilt: &Spoilt,
    problems: &mut Vec<Problem>,
    blurred: &mut Vec<Path>,
) -> Option<T> {
    let mut peeler = Peeler { spoilt, meant: Vec::new(), problems, blurred };
    for _ in 0..ROUNDS_MAX {
        let mistake = match T::deserialize(&*root) {
            Ok(words) => return Some(words),
            Err(mistake) => mistake,
        };
        if !peeler.mend::<T>(root, mistake) || peeler.problems.len() >= PROBLEMS_MAX {
            return None;
        }
    }
    None
}

struct Peeler<'p> {
    spoilt: &'p Spoilt,
    /// Keys that unknown keys were probably meant to be, by table.
    meant: Vec<(Vec<String>, &'static str)>,
    problems: &'p mut Vec<Problem>,
    blurred: &'p mut Vec<Path>,
}

impl Peeler<'_> {
    /// Takes one mistake out of the tree; false if nothing can be done.
    fn mend<T: DeserializeOwned>(&mut self, root: &mut Node<'_>, mistake: Mistake) -> bool {
        let steps = mistake.steps();
        match mistake.kind {
            Kind::UnknownKey { expected } => self.unknown_key(root, &steps, expected),
            Kind::MissingKey(key) => self.missing_key(root, &steps, key),
            kind => self.wrong_value::<T>(root, &steps, kind),
        }
    }

    fn unknown_key(&mut self, root: &mut Node<'_>, steps: &[String], expected: &'static [&'static str]) -> bool {
        let Some((key, table)) = steps.split_last() else { return false };
        let Some(span) = root.at(table).and_then(|table| table.entry(key)).map(|entry| entry.key_span.clone()) else {
            return false;
        };
        let lower = key.to_ascii_lowercase().replace('-', "_");
        let meant = nearest(&lower, expected.iter().copied());
        let help = match meant {
            Some(meant) => {
                self.meant.push((table.to_vec(), expected.iter().find(|word| **word == meant).unwrap_or(&"")));
                format!("did you mean `{meant}`?")
            }
            None if expected.is_empty() => "this table takes no keys".to_owned(),
            None => format!("known here: {}", expected.join(", ")),
        };
        let message = format!("unknown key `{key}`");
        self.report(Path(steps.to_vec()), Some(span), message, help);
        self.take_out(root, steps)
    }

    fn missing_key(&mut self, root: &mut Node<'_>, steps: &[String], key: &'static str) -> bool {
        let Some(table) = root.at(steps) else { return false };
        let explained = table.planted
            || table.entry(key).is_some()
            || self.meant.iter().any(|(at, meant)| at == steps && *meant == key)
            || self.spoilt.lost_keys();
        let place = Path(steps.to_vec());
        self.blurred.push(place.at(key));
        if !explained {
            self.report(place, Some(table.span.clone()), format!("`{key}` is missing"), missing(key));
        }
        self.plant(root, steps, key)
    }

    fn wrong_value<T: DeserializeOwned>(&mut self, root: &mut Node<'_>, steps: &[String], kind: Kind) -> bool {
        let Some(node) = root.at(steps) else { return false };
        if node.planted {
            return self.plant_other(root, steps);
        }
        // A table that lost a wrong key may well not be what its type wants.
        if !node.symbolic && !node.has_gone() {
            let (span, written) = (node.span.clone(), node.written.clone());
            let (message, help) = match written {
                None => explain(&kind, steps),
                Some(written) => {
                    let (message, help) = without_value::<T>(root, steps, &written);
                    (message, format!("{help}; what `{written}` stands for is not shown"))
                }
            };
            self.report(Path(steps.to_vec()), Some(span), message, help);
        }
        self.take_out(root, steps)
    }

    fn report(&mut self, path: Path, span: Option<std::ops::Range<usize>>, message: String, help: String) {
        if !self.spoilt.covers(&path, span.as_ref()) {
            self.problems.push(Problem { span, ..Problem::error(path, message).help(help) });
        }
    }

    fn take_out(&mut self, root: &mut Node<'_>, steps: &[String]) -> bool {
        self.blurred.push(Path(steps.to_vec()));
        match root.at_mut(steps) {
            Some(node) if !steps.is_empty() && !node.gone => {
                node.gone = true;
                true
            }
            _ => false,
        }
    }

    fn plant(&mut self, root: &mut Node<'_>, table: &[String], key: &'static str) -> bool {
        let mut steps = table.to_vec();
        steps.push(key.to_owned());
        if root.at(&steps).is_none() {
            match root.at_mut(table).map(|node| &mut node.value) {
                Some(Value::Table(entries)) => entries.push(super::tree::Entry {
                    key: key.into(),
                    key_span: 0..0,
                    node: Node::new(0..0, Value::Boolean(false)),
                }),
                _ => return false,
            }
        }
        match (root.at_mut(&steps), seedlings().next()) {
            (Some(node), Some(value)) => {
                *node = Node { planted: true, ..Node::new(0..0, value) };
                true
            }
            _ => false,
        }
    }

    /// The planted value was of the wrong kind: the next one, or the table goes.
    fn plant_other(&mut self, root: &mut Node<'_>, steps: &[String]) -> bool {
        let Some(node) = root.at_mut(steps) else { return false };
        let tried = seedlings().position(|value| same(&value, &node.value));
        match tried.and_then(|tried| seedlings().nth(tried + 1)) {
            Some(value) => {
                node.value = value;
                true
            }
            None => steps.split_last().is_some_and(|(_, table)| self.take_out(root, table)),
        }
    }
}

/// Values tried in turn where one is missing.
fn seedlings() -> impl Iterator<Item = Value<'static>> {
    [
        Value::Text("x".into()),
        Value::Integer(1),
        Value::Text("1s".into()),
        Value::Text("1B".into()),
        Value::Boolean(true),
        Value::Text("http".into()),
        Value::List(Vec::new()),
        Value::Table(Vec::new()),
    ]
    .into_iter()
}

fn same(a: &Value<'_>, b: &Value<'_>) -> bool {
    match (a, b) {
        (Value::Text(a), Value::Text(b)) => a == b,
        _ => std::mem::discriminant(a) == std::mem::discriminant(b),
    }
}

/// The same mistake as seen when the text stands there as written, its references not filled in.
fn without_value<T: DeserializeOwned>(root: &mut Node<'_>, steps: &[String], written: &str) -> (String, String) {
    let unsaid = || ("this cannot be used here".to_owned(), "see docs/reference.md".to_owned());
    let Some(node) = root.at_mut(steps) else { return unsaid() };
    let kept = std::mem::replace(&mut node.value, Value::Text(written.to_owned().into()));
    let again = T::deserialize(&*root);
    if let Some(node) = root.at_mut(steps) {
        node.value = kept;
    }
    match again {
        Err(mistake) if mistake.steps() == steps => explain(&mistake.kind, steps),
        _ => unsaid(),
    }
}
