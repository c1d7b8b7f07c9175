//! Values that stand in for what is missing or unknown, so that the rest can be read.
//!
//! Which kind of value a place wants nobody says: seedlings are tried until one grows. Fields that are alike (the same
//! key of many routes) are planted together: one round for thousands of routes.

use super::decode::Kind;
use super::tree::{Entry, Node, Planted, Value};

/// Tried in turn.
fn seedlings() -> impl Iterator<Item = Value<'static>> {
    [
        Value::Text("x".into()),
        Value::Integer(1),
        Value::Text("1s".into()),
        Value::Text("1B".into()),
        Value::Boolean(true),
        Value::List(Vec::new()),
        Value::Table(Vec::new()),
    ]
    .into_iter()
}

/// Plants where a table lacks a key. False if that is no table.
pub(super) fn for_missing(root: &mut Node<'_>, table: &[String], key: &'static str) -> bool {
    let (Some(table), Some(value)) = (root.at_mut(table), seedlings().next()) else { return false };
    let new = Node { planted: Planted::ForMissing, ..Node::new(0..0, value) };
    match table.child_mut(key) {
        Some(wrong) => *wrong = new,
        None => {
            let Value::Table(entries) = &mut table.value else { return false };
            entries.push(Entry { key: key.into(), key_span: 0..0, node: new });
        }
    }
    true
}

/// Plants where a text holds references that nobody resolved.
pub(super) fn for_reference(root: &mut Node<'_>, steps: &[String]) -> bool {
    let Some(value) = seedlings().next() else { return false };
    alike(root, steps, &mut |node| {
        if node.symbolic && node.planted == Planted::No {
            *node = Node { planted: Planted::ForReference, ..Node::new(node.span.clone(), value.clone()) };
        }
    });
    true
}

/// What was planted is of the wrong kind: plants something else. False if nothing is left to try.
pub(super) fn another(root: &mut Node<'_>, steps: &[String], mistake: &Kind) -> bool {
    let Some(Node { value: failed, planted, .. }) = root.at(steps).cloned() else { return false };
    let next = match mistake {
        Kind::UnknownWord { expected, .. } => expected.first().map(|word| Value::Text((*word).into())),
        _ => seedlings().position(|value| same(&value, &failed)).and_then(|tried| seedlings().nth(tried + 1)),
    };
    let Some(next) = next else { return false };
    alike(root, steps, &mut |node| {
        if node.planted == planted && same(&node.value, &failed) {
            node.value = next.clone();
        }
    });
    true
}

/// Visits the place and others like it: as deep, under the same first and last keys.
fn alike(root: &mut Node<'_>, steps: &[String], visit: &mut dyn FnMut(&mut Node<'_>)) {
    let field = |steps: &[String]| steps.split_last_chunk::<2>().map(|(_, last)| last.clone());
    let wanted = field(steps);
    root.visit_mut(&mut Vec::new(), &mut |other, node| {
        let alike = other.len() == steps.len() && other.first() == steps.first() && field(other) == wanted;
        if other == steps || alike {
            visit(node);
        }
    });
}

fn same(a: &Value<'_>, b: &Value<'_>) -> bool {
    match (a, b) {
        (Value::Text(a), Value::Text(b)) => a == b,
        _ => std::mem::discriminant(a) == std::mem::discriminant(b),
    }
}
