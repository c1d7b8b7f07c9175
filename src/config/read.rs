//! Text to words, with every mistake at once.
//!
//! `document` and `settings` give words only if they hold no error. `check` works on the draft below them, so that
//! mistakes of shape do not hide mistakes of meaning.

use serde::de::DeserializeOwned;

use super::overrides::{self, Override};
use super::peel::peel;
use super::place::Places;
use super::tree::{self, Node, Value};
use super::{Document, References};
use crate::problem::{Path, Problem};
use crate::settings::backend::Backend;
use crate::settings::{Alerts, Controller, Settings};

/// The version of the format that this gateway reads.
const FORMAT: i64 = 1;

/// What a text is, judged by its words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `routes.toml`
    Document,
    /// `edge.toml`
    Settings,
    /// `backend.toml`
    Backend,
    /// `controller.toml`
    Controller,
    /// `alerts.toml`
    Alerts,
}

/// Words of a file that is read at boot, or as one such.
pub trait Boot: DeserializeOwned {
    /// Adds every mistake of meaning.
    fn check(&self, problems: &mut Vec<Problem>);
}

impl Boot for Settings {
    fn check(&self, problems: &mut Vec<Problem>) {
        Settings::check(self, problems);
    }
}

impl Boot for Backend {
    fn check(&self, problems: &mut Vec<Problem>) {
        Backend::check(self, problems);
    }
}

impl Boot for Controller {
    fn check(&self, problems: &mut Vec<Problem>) {
        Controller::check(self, problems);
    }
}

impl Boot for Alerts {
    fn check(&self, problems: &mut Vec<Problem>) {
        Alerts::check(self, problems);
    }
}

/// Words as far as they could be read. Good for finding more mistakes; to be applied only when `finish` gives them.
#[derive(Debug)]
pub struct Draft<T> {
    words: Option<T>,
    problems: Vec<Problem>,
    /// Places of which the words say nothing reliable: taken out, put in, or behind an unresolved reference.
    blurred: Vec<Path>,
}

impl<T> Draft<T> {
    /// The words, mistakes taken out; `None` if nothing sensible is left.
    pub fn words(&self) -> Option<&T> {
        self.words.as_ref()
    }

    /// Adds what later steps found in the words, without what only follows from a mistake reported already.
    pub fn add(&mut self, references: &References, mut more: Vec<Problem>) {
        references.redact(&mut more);
        let blurred = &self.blurred;
        more.retain(|problem| !blurred.iter().any(|blur| hides(blur, &problem.path)));
        self.problems.append(&mut more);
    }

    /// The words if there is no error, and all problems in the order of the text.
    pub fn finish(mut self, text: &str) -> (Option<T>, Vec<Problem>) {
        if self.problems.is_empty() {
            return (self.words, self.problems);
        }
        let places = Places::of(text);
        let at =
            |problem: &Problem| problem.span.clone().or_else(|| places.locate(&problem.path)).map(|span| span.start);
        self.problems.sort_by_key(|problem| at(problem).unwrap_or(usize::MAX));
        let errors = self.problems.iter().any(Problem::is_error);
        (self.words.filter(|_| !errors), self.problems)
    }
}

/// A mistake at `blur` explains problems inside it, and at the table around it (which then lacks something).
fn hides(blur: &Path, path: &Path) -> bool {
    let around = blur.0.split_last().map(|(_, around)| around);
    path.0.starts_with(&blur.0) || around.is_some_and(|around| !around.is_empty() && around == path.0)
}

/// Reads a document (`routes.toml`).
pub fn document(text: &str, references: &References) -> (Option<Document>, Vec<Problem>) {
    draft_document(text, references).finish(text)
}

/// Reads settings (`edge.toml`), with what the environment overrides.
pub fn settings(
    text: &str,
    references: &References,
    variables: &[(String, String)],
) -> (Option<Settings>, Vec<Problem>) {
    draft_settings(text, references, variables).finish(text)
}

pub fn draft_document(text: &str, references: &References) -> Draft<Document> {
    draft(text, references, &[])
}

/// As `draft_document`, the meaning of settings checked too.
pub fn draft_settings(text: &str, references: &References, variables: &[(String, String)]) -> Draft<Settings> {
    draft_boot(text, references, variables)
}

/// Reads any file that is read at boot.
pub fn boot<T: Boot>(text: &str, references: &References, variables: &[(String, String)]) -> (Option<T>, Vec<Problem>) {
    draft_boot(text, references, variables).finish(text)
}

fn draft_boot<T: Boot>(text: &str, references: &References, variables: &[(String, String)]) -> Draft<T> {
    let mut draft: Draft<T> = draft(text, references, variables);
    let mut more = Vec::new();
    if let Some(words) = draft.words() {
        words.check(&mut more);
    }
    draft.add(references, more);
    for Override { variable, at } in overrides::places(text, variables) {
        for problem in draft.problems.iter_mut().filter(|problem| problem.path.0.starts_with(&at.0)) {
            problem.path = Path::of([variable.as_str()]);
            problem.message = format!("{variable}: {}", problem.message);
            problem.span = None;
        }
    }
    draft
}

fn draft<T: DeserializeOwned>(text: &str, references: &References, variables: &[(String, String)]) -> Draft<T> {
    let tree::Parsed { mut root, mut problems, spoilt } = tree::parse(text);
    if let Some(problem) = other_format(&root) {
        return Draft { words: None, problems: vec![problem], blurred: Vec::new() };
    }
    let mut blurred = Vec::new();
    references.fill(text, &mut root, &mut problems);
    overrides::apply(&mut root, variables, references, &mut problems);
    root.visit_mut(&mut Vec::new(), &mut |steps, node| {
        if node.symbolic || node.gone {
            blurred.push(Path(steps.to_vec()));
        }
    });
    let words = peel(&mut root, &spoilt, &mut problems, &mut blurred);
    if words.is_none() && !problems.iter().any(Problem::is_error) {
        let help = "mend what is told here, or split the file, and check again";
        problems.push(Problem::error(Path::default(), "there is more here than could be read").help(help));
    }
    Draft { words, problems, blurred }
}

/// Of a format that this gateway does not read nothing else can be said.
fn other_format(root: &Node<'_>) -> Option<Problem> {
    let node = root.child("format")?;
    match node.value {
        Value::Integer(FORMAT) => None,
        Value::Integer(number) => {
            let problem = Problem::error(Path::of(["format"]), format!("format {number} is not known"))
                .help(format!("this gateway reads format {FORMAT}"));
            Some(Problem { span: Some(node.span.clone()), ..problem })
        }
        _ => None,
    }
}

/// Tells what a text is by the keys at the top. An empty text is a document.
pub fn kind(text: &str) -> Kind {
    if let Some(kind) = of_controller(text) {
        return kind;
    }
    let (document, settings) = telling_keys(text);
    match settings > document {
        true if is_backend(text) => Kind::Backend,
        true => Kind::Settings,
        false => Kind::Document,
    }
}

/// Tells `backend.toml` from `edge.toml`: of the latter it has no listeners, routes or node.
fn is_backend(text: &str) -> bool {
    let root = tree::parse(text).root;
    let Value::Table(entries) = &root.value else { return false };
    let count = |words: &[&str]| entries.iter().filter(|entry| words.contains(&entry.key.as_ref())).count();
    let address = matches!(root.child("listen").map(|node| &node.value), Some(Value::Text(_)));
    let listeners = root.child("listen").is_some() && !address;
    let backend = count(BACKEND) + usize::from(address);
    backend > count(&["routes", "node", "state", "health", "traces", "dns"]) + usize::from(listeners)
}

/// Keys at the top that only `backend.toml` has.
const BACKEND: &[&str] = &["data", "token", "accounts", "uploads"];

/// Tells `controller.toml` and `alerts.toml` from the others, by what only they have.
fn of_controller(text: &str) -> Option<Kind> {
    let root = tree::parse(text).root;
    let Value::Table(entries) = &root.value else { return None };
    let count = |words: &[&str]| entries.iter().filter(|entry| words.contains(&entry.key.as_ref())).count();
    let desk = matches!(root.child("listen").map(|node| &node.value), Some(Value::Table(_)));
    let listeners = root.child("listen").is_some() && !desk;
    let alerts = count(&["alert", "notify"]);
    let controller = count(&["watch", "keep", "alerts", "documents"]) + usize::from(desk);
    let others = count(&["routes", "node", "state", "route", "upstream", "host"]) + usize::from(listeners);
    match () {
        () if alerts > controller && alerts > others => Some(Kind::Alerts),
        () if controller > others => Some(Kind::Controller),
        () => None,
    }
}

/// Whether a text is a document beyond doubt: one that says nothing is none.
pub fn is_document(text: &str) -> bool {
    let (document, settings) = telling_keys(text);
    document > settings
}

/// How many keys at the top only a document has, and how many only settings have.
fn telling_keys(text: &str) -> (usize, usize) {
    let root = tree::parse(text).root;
    let Value::Table(entries) = &root.value else { return (0, 0) };
    let known = |words: &[&str]| entries.iter().filter(|entry| words.contains(&entry.key.as_ref())).count();
    let document = known(&[
        "route",
        "upstream",
        "host",
        "issuer",
        "api_keys",
        "users",
        "forward_auth",
        "limit",
        "defaults",
        "test",
    ]) + entries.iter().filter(|e| e.key == "routes" && matches!(e.node.value, Value::List(_))).count();
    let settings =
        known(&["node", "state", "listen", "health", "admin", "trust", "limits", "dns", "log", "traces", "drain"])
            + known(&["certificate", "ca", "bus", "secrets", "fleet"])
            + known(BACKEND)
            + entries.iter().filter(|e| e.key == "routes" && matches!(e.node.value, Value::Table(_))).count();
    (document, settings)
}
