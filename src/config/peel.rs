//! All mistakes of shape at once: decode, take the mistake out of the tree, decode again.
//!
//! What is missing is planted, so that one mistake stays one problem and what names it elsewhere still finds it. The
//! words that come out are a sketch of what the author meant: good for finding more mistakes, never to be applied.

use serde::de::DeserializeOwned;

use super::decode::{Kind, Mistake};
use super::plant;
use super::tree::{Node, Planted, Spoilt, Value};
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
        let explained = table.planted != Planted::No
            || table.entry(key).is_some()
            || self.meant.iter().any(|(at, meant)| at == steps && *meant == key)
            || self.spoilt.lost_keys();
        let place = Path(steps.to_vec());
        self.blurred.push(place.at(key));
        if !explained {
            self.report(place, Some(table.span.clone()), format!("`{key}` is missing"), missing(key));
        }
        plant::for_missing(root, steps, key)
    }

    fn wrong_value<T: DeserializeOwned>(&mut self, root: &mut Node<'_>, steps: &[String], kind: Kind) -> bool {
        let Some(node) = root.at(steps) else { return false };
        match node.planted {
            Planted::No if node.symbolic => return plant::for_reference(root, steps),
            Planted::No => {}
            Planted::ForReference => return plant::another(root, steps, &kind) || self.take_out(root, steps),
            Planted::ForMissing => {
                let around = steps.split_last().map(|(_, table)| table);
                return plant::another(root, steps, &kind) || around.is_some_and(|table| self.take_out(root, table));
            }
        }
        // A table that lost a wrong key may well not be what its type wants.
        if !node.has_gone() {
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
