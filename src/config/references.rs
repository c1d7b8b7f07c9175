//! References inside text: `${NAME}`, `${NAME:-default}`, `${file:/path}`, `${secret:NAME}`; `$$` stands for a dollar sign.
//!
//! A document that comes over the bus may use the last kind only, and only where a secret belongs: who may write routes
//! reads neither files nor the environment of a gateway.
//!
//! Only the text of values may hold them, never keys or structure. What a reference stands for may be a secret: it goes
//! into words and nowhere else. Messages name the reference; what is remembered for comparison is a digest.

use std::collections::BTreeMap;
use std::path::{Path as FilePath, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use aws_lc_rs::digest;

use super::tree::{Node, Value};
use super::vocabulary::Vocabulary;
use crate::problem::{Path, Problem};
use crate::scalar::Secret;
use crate::stamp::Stamp;

/// Longest file that a reference may name.
const FILE_MAX: u64 = 1 << 20;
/// Values this short are redacted only at their own place: anywhere else they would match by chance.
const SHORT: usize = 8;

/// Secrets by name, as boot settings list them.
pub type Secrets = Arc<BTreeMap<String, Secret>>;

type Lookup = Box<dyn Fn(&str) -> Option<String> + Send + Sync>;

/// How references are read, and what they stood for.
pub struct References {
    lookup: Option<Lookup>,
    secrets: Secrets,
    /// The text comes from elsewhere: see the module.
    foreign: bool,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    files: BTreeMap<PathBuf, Option<Stamp>>,
    digests: BTreeMap<String, Vec<u8>>,
    resolved: Vec<Resolved>,
    /// References and what each stood for by itself.
    values: BTreeMap<String, String>,
}

struct Resolved {
    at: Path,
    /// The text as written.
    written: String,
    value: String,
}

impl References {
    /// The environment of the process and the files of this machine.
    pub fn resolve() -> References {
        References::resolve_with(|name| std::env::var(name).ok())
    }

    /// Files of this machine, and variables from elsewhere.
    pub fn resolve_with(lookup: impl Fn(&str) -> Option<String> + Send + Sync + 'static) -> References {
        References { lookup: Some(Box::new(lookup)), ..References::symbolic() }
    }

    /// Nothing is looked up: a default stands in where there is one, otherwise the field counts as right.
    pub fn symbolic() -> References {
        References { lookup: None, secrets: Secrets::default(), foreign: false, seen: Mutex::default() }
    }

    /// No variable is set, whatever the environment says.
    pub fn without_environment() -> References {
        References::resolve_with(|_| None)
    }

    /// The secrets that `${secret:NAME}` stands for.
    pub fn with_secrets(self, secrets: Secrets) -> References {
        References { secrets, ..self }
    }

    /// The text comes over the bus.
    pub fn foreign(self) -> References {
        References { foreign: true, ..self }
    }

    pub fn is_symbolic(&self) -> bool {
        self.lookup.is_none()
    }

    /// Files that were read, or should have been, and what they were then.
    pub fn files(&self) -> BTreeMap<PathBuf, Option<Stamp>> {
        self.seen().files.clone()
    }

    /// Changes when any reference stands for something else than before.
    pub fn digest(&self) -> [u8; 32] {
        let mut context = digest::Context::new(&digest::SHA256);
        for (reference, value) in &self.seen().digests {
            context.update(reference.as_bytes());
            context.update(&[0]);
            context.update(value);
        }
        context.finish().as_ref().try_into().unwrap_or_default()
    }

    /// Writes the reference wherever its value stands in a text that a person or a program reads. Values of three characters
    /// and less are no secrets, and would be found everywhere.
    pub fn conceal(&self, text: &str) -> String {
        let seen = self.seen();
        let mut values: Vec<_> = seen.values.iter().filter(|(_, value)| value.len() > 3).collect();
        // The longest first: one value may be part of another.
        values.sort_by_key(|(_, value)| std::cmp::Reverse(value.len()));
        values.into_iter().fold(text.to_owned(), |text, (reference, value)| text.replace(value.as_str(), reference))
    }

    /// Takes what references stood for out of messages written by code that saw the values.
    pub fn redact(&self, problems: &mut [Problem]) {
        let seen = self.seen();
        for problem in problems {
            for Resolved { at, written, value } in &seen.resolved {
                let here = problem.path.0.starts_with(&at.0);
                let pieces = value.lines().filter(|line| !line.is_empty() && (here || line.len() >= SHORT));
                for piece in pieces.chain((here && !value.is_empty()).then_some(value.as_str())) {
                    if problem.message.contains(piece) {
                        problem.message = problem.message.replace(piece, written);
                    }
                    if let Some(help) = &mut problem.help
                        && help.contains(piece)
                    {
                        *help = help.replace(piece, written);
                    }
                }
            }
        }
    }

    /// Keeps a value from elsewhere out of messages as well.
    pub(super) fn hide(&self, at: Path, written: String, value: String) {
        self.seen().resolved.push(Resolved { at, written, value });
    }

    /// Fills in the references of every text in the tree. A text with a mistake is taken out.
    pub(super) fn fill(&self, text: &str, root: &mut Node<'_>, problems: &mut Vec<Problem>) {
        root.visit_mut(&mut Vec::new(), &mut |steps, node| {
            let Value::Text(written) = &node.value else { return };
            if !written.contains('$') {
                return;
            }
            let written = written.clone().into_owned();
            let at = Path(steps.to_vec());
            let is_secret = !self.foreign || Vocabulary::document().is_secret(steps);
            match self.expand(&written, is_secret) {
                Ok(Text { value, secret, symbolic }) => {
                    if secret {
                        node.written = Some(written.as_str().into());
                        self.seen().resolved.push(Resolved { at, written, value: value.clone() });
                    }
                    node.symbolic = symbolic;
                    node.value = Value::Text(value.into());
                }
                Err(Wrong { reference, message, help }) => {
                    let raw = text.get(node.span.clone()).unwrap_or_default();
                    let span = match raw.find(&reference) {
                        Some(start) => node.span.start + start..node.span.start + start + reference.len(),
                        None => node.span.clone(),
                    };
                    node.gone = true;
                    problems.push(Problem { span: Some(span), ..Problem::error(at, message).help(help) });
                }
            }
        });
    }

    fn expand(&self, written: &str, is_secret: bool) -> Result<Text, Wrong> {
        let mut text = Text { value: String::with_capacity(written.len()), secret: false, symbolic: false };
        let mut rest = written;
        while let Some((before, from)) = rest.find('$').and_then(|at| rest.split_at_checked(at)) {
            text.value.push_str(before);
            if let Some(tail) = from.strip_prefix("$$") {
                text.value.push('$');
                rest = tail;
            } else if let Some(inside) = from.strip_prefix("${") {
                let Some((inside, tail)) = inside.split_once('}') else {
                    return Err(Wrong::of(
                        from,
                        "`${` without `}`",
                        "close the reference, or write `$$` for a dollar sign",
                    ));
                };
                self.one(inside, is_secret, &mut text)?;
                rest = tail;
            } else {
                text.value.push('$');
                rest = from.get(1..).unwrap_or_default();
            }
        }
        text.value.push_str(rest);
        if text.symbolic {
            text.value = written.to_owned();
        }
        Ok(text)
    }

    fn one(&self, inside: &str, is_secret: bool, text: &mut Text) -> Result<(), Wrong> {
        let reference = format!("${{{inside}}}");
        if let Some(name) = inside.strip_prefix("secret:") {
            return self.secret(&reference, name, is_secret, text);
        }
        if self.foreign {
            let message = format!("`{reference}` cannot stand in a document from the bus");
            return Err(Wrong::of(&reference, &message, FOREIGN_HELP));
        }
        if let Some(file) = inside.strip_prefix("file:") {
            if self.is_symbolic() {
                text.symbolic = true;
                return Ok(());
            }
            text.secret = true;
            // Before the file: a change in between is then seen as one.
            let stamp = Stamp::of(FilePath::new(file));
            let content = read(FilePath::new(file));
            self.remember(&reference, Some((file.into(), stamp)), content.as_deref().unwrap_or_default());
            let content = content.map_err(|why| Wrong {
                reference: reference.clone(),
                message: format!("`{reference}`: {why}"),
                help: FILE_HELP.into(),
            })?;
            text.value.push_str(&content);
            return Ok(());
        }
        let (name, default) = match inside.split_once(":-") {
            Some((name, default)) => (name, Some(default)),
            None => (inside, None),
        };
        let legal = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
            && name.bytes().next().is_some_and(|first| !first.is_ascii_digit());
        if !legal || default.is_some_and(|default| default.contains("${")) {
            return Err(Wrong::of(&reference, &format!("`{reference}` is not a reference"), SYNTAX_HELP));
        }
        let Some(lookup) = &self.lookup else {
            match default {
                Some(default) => text.value.push_str(default),
                None => text.symbolic = true,
            }
            return Ok(());
        };
        let value = lookup(name);
        self.remember(&reference, None, value.as_deref().unwrap_or_default());
        match (value.filter(|value| default.is_none() || !value.is_empty()), default) {
            (Some(value), _) => {
                text.secret = true;
                text.value.push_str(&value);
                Ok(())
            }
            (None, Some(default)) => {
                text.value.push_str(default);
                Ok(())
            }
            (None, None) => {
                let help = format!("set {name}, or give a default: `${{{name}:-default}}`");
                Err(Wrong::of(&reference, &format!("the environment has no variable `{name}`"), &help))
            }
        }
    }

    fn secret(&self, reference: &str, name: &str, is_secret: bool, text: &mut Text) -> Result<(), Wrong> {
        if !is_secret {
            return Err(Wrong::of(reference, &format!("`{reference}`: no secret belongs here"), FOREIGN_HELP));
        }
        if self.is_symbolic() {
            text.symbolic = true;
            return Ok(());
        }
        let Some(secret) = self.secrets.get(name) else {
            let help = "list it under [secrets] of the boot settings: NAME = \"${file:/run/secrets/NAME}\"";
            return Err(Wrong::of(reference, &format!("this gateway has no secret `{name}`"), help));
        };
        text.secret = true;
        self.remember(reference, None, secret.expose());
        text.value.push_str(secret.expose());
        Ok(())
    }

    fn remember(&self, reference: &str, file: Option<(PathBuf, Option<Stamp>)>, value: &str) {
        let digest = digest::digest(&digest::SHA256, value.as_bytes()).as_ref().to_vec();
        let mut seen = self.seen();
        seen.digests.insert(reference.to_owned(), digest);
        seen.values.insert(reference.to_owned(), value.to_owned());
        seen.files.extend(file);
    }

    fn seen(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const SYNTAX_HELP: &str = "references are `${NAME}`, `${NAME:-default}`, `${file:/path}` and `${secret:NAME}`, and do not nest; `$$` stands for a dollar sign";
const FOREIGN_HELP: &str = "a document from the bus may use `${secret:NAME}`, and only where a secret belongs (keys, passwords, \
    certificates): name it under [secrets] of the gateways' boot settings";
const FILE_HELP: &str = "a reference names a file of UTF-8 text, 1MiB at most; a newline at its end is left out";

struct Text {
    value: String,
    /// Something that must not be shown is part of it.
    secret: bool,
    symbolic: bool,
}

struct Wrong {
    reference: String,
    message: String,
    help: String,
}

impl Wrong {
    fn of(reference: &str, message: &str, help: &str) -> Wrong {
        Wrong { reference: reference.to_owned(), message: message.to_owned(), help: help.to_owned() }
    }
}

/// The text of a file. Only regular files: a pipe or a device could hold up a change for ever.
fn read(file: &FilePath) -> Result<String, String> {
    let said = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound => "there is no such file".to_owned(),
        other => other.to_string(),
    };
    let about = std::fs::metadata(file).map_err(said)?;
    if !about.is_file() {
        return Err("not a regular file".to_owned());
    }
    if about.len() > FILE_MAX {
        return Err("longer than 1MiB".to_owned());
    }
    let bytes = std::fs::read(file).map_err(said)?;
    let mut text = String::from_utf8(bytes).map_err(|_| "not UTF-8 text".to_owned())?;
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    Ok(text)
}
