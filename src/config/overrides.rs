//! Boot settings from the environment: `TOLLGATE__DRAIN__GRACE=5s`, `TOLLGATE__LISTEN__PUBLIC__ADDRESS=[::]:8443`.
//!
//! `__` parts the steps; case does not count; a listener goes by its name, in which `_` stands for `-` and `.`. A value
//! that begins with `[` or `{` is read as TOML. Values may be secrets: messages name the variable.

use std::borrow::Cow;

use super::References;
use super::tree::{self, Entry, Node, Value};
use crate::problem::{Path, Problem};

pub(super) const PREFIX: &str = "TOLLGATE__";

/// The variables of this process that override settings.
pub fn from_environment() -> Vec<(String, String)> {
    let mut variables: Vec<_> = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .filter(|(name, _)| name.starts_with(PREFIX))
        .collect();
    variables.sort();
    variables
}

/// A variable and the place in the settings that it speaks for.
pub(super) struct Override {
    pub(super) variable: String,
    pub(super) at: Path,
}

/// Which places the variables speak for, sections that exist only by them included.
pub(super) fn places(text: &str, variables: &[(String, String)]) -> Vec<Override> {
    let mut places = Vec::new();
    if variables.is_empty() {
        return places;
    }
    let root = tree::parse(text).root;
    for (variable, _) in variables {
        let Ok(steps) = steps(&root, variable) else { continue };
        let missing = (1..=steps.len()).find(|len| steps.get(..*len).is_some_and(|part| root.at(part).is_none()));
        let at = Path(steps.get(..missing.unwrap_or(steps.len())).unwrap_or_default().to_vec());
        places.push(Override { variable: variable.clone(), at });
    }
    places
}

pub(super) fn apply(
    root: &mut Node<'_>,
    variables: &[(String, String)],
    references: &References,
    problems: &mut Vec<Problem>,
) {
    for (variable, value) in variables {
        match steps(root, variable) {
            Ok(steps) => match read(variable, value) {
                Some(node) => {
                    references.hide(Path(steps.clone()), format!("${variable}"), value.clone());
                    if !put(root, &steps, node) {
                        problems.push(problem(variable, "leads into a value that is no table".to_owned(), HELP));
                    }
                }
                None => problems.push(problem(variable, "is not TOML".to_owned(), "lists are written [\"a\", \"b\"]")),
            },
            Err((message, help)) => problems.push(problem(variable, message, &help)),
        }
    }
}

const HELP: &str = "write TOLLGATE__SECTION__KEY; a listener goes by its name: TOLLGATE__LISTEN__PUBLIC__ADDRESS";

fn problem(variable: &str, message: String, help: &str) -> Problem {
    Problem::error(Path::of([variable]), format!("{variable} {message}")).help(help)
}

fn steps(root: &Node<'_>, variable: &str) -> Result<Vec<String>, (String, String)> {
    let rest = variable.strip_prefix(PREFIX).unwrap_or_default();
    let mut steps: Vec<String> = rest.split("__").map(str::to_ascii_lowercase).collect();
    if steps.iter().any(String::is_empty) {
        return Err(("names no setting".to_owned(), HELP.to_owned()));
    }
    let Some(wanted) = steps.get_mut(1) else { return Ok(steps) };
    // The controller has one listener, which needs no name.
    let several = root.child("listen").is_some_and(|listen| matches!(listen.value, Value::List(_)));
    if several && rest.get(..8).is_some_and(|section| section.eq_ignore_ascii_case("listen__")) {
        let names = names(root);
        let Some(index) = names.iter().position(|name| plain(name) == *wanted) else {
            let help = format!("listeners are {}", names.join(", "));
            return Err((format!("names no listener: `{wanted}`"), help));
        };
        *wanted = index.to_string();
    }
    Ok(steps)
}

fn names(root: &Node<'_>) -> Vec<String> {
    let Some(Value::List(items)) = root.child("listen").map(|node| &node.value) else { return Vec::new() };
    let name = |item: &Node<'_>| match item.child("name").map(|name| &name.value) {
        Some(Value::Text(name)) => name.clone().into_owned(),
        _ => String::new(),
    };
    items.iter().map(name).collect()
}

fn plain(name: &str) -> String {
    name.to_ascii_lowercase().replace(['-', '.'], "_")
}

fn read(variable: &str, value: &str) -> Option<Node<'static>> {
    let mut node = if value.starts_with(['[', '{']) && !value.starts_with("[:") {
        owned(&tree::parse_value(value)?)
    } else {
        Node::new(0..0, Value::Loose(value.to_owned()))
    };
    node.visit_mut(&mut Vec::new(), &mut |_, node| node.written = Some(format!("${variable}").into()));
    Some(node)
}

fn owned(node: &Node<'_>) -> Node<'static> {
    let value = match &node.value {
        Value::Text(text) => Value::Text(Cow::Owned(text.clone().into_owned())),
        Value::Loose(text) => Value::Loose(text.clone()),
        Value::Integer(number) => Value::Integer(*number),
        Value::Vast(number) => Value::Vast(number.clone()),
        Value::Float(number) => Value::Float(*number),
        Value::Boolean(boolean) => Value::Boolean(*boolean),
        Value::Datetime(text) => Value::Datetime(text.clone()),
        Value::List(items) => Value::List(items.iter().map(owned).collect()),
        Value::Table(entries) => Value::Table(
            entries
                .iter()
                .map(|entry| Entry {
                    key: Cow::Owned(entry.key.clone().into_owned()),
                    key_span: 0..0,
                    node: owned(&entry.node),
                })
                .collect(),
        ),
    };
    Node::new(0..0, value)
}

/// Puts a node at its place, tables on the way made as needed.
fn put<'t>(root: &mut Node<'t>, steps: &[String], new: Node<'t>) -> bool {
    let Some((step, rest)) = steps.split_first() else {
        *root = new;
        return true;
    };
    if root.child(step).is_none() {
        let Value::Table(entries) = &mut root.value else { return false };
        let empty = Node::new(0..0, Value::Table(Vec::new()));
        entries.push(Entry { key: Cow::Owned(step.clone()), key_span: 0..0, node: empty });
    }
    root.child_mut(step).is_some_and(|child| put(child, rest, new))
}
