//! From a text to a table that could be put in force: parse, compile, run the document's own tests.
//!
//! Nothing here is in force; whoever calls decides that. The only effect is reading what the text refers to.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::difference::Contents;
use crate::config::read::{self, Draft};
use crate::config::{Document, References, print};
use crate::problem::Problem;
use crate::routes::{self, Table};
use crate::stamp::Stamp;
use crate::upstream::Pools;

/// A text and what it is called in messages.
#[derive(Clone, Debug)]
pub struct Text {
    pub text: Arc<str>,
    pub name: String,
}

/// A table with what is known about it.
#[derive(Debug)]
pub struct Compiled {
    pub table: Table,
    /// What is odd but not wrong.
    pub warnings: Vec<print::Entry>,
    pub timings: Timings,
    /// Of everything that references stood for.
    pub(super) references: [u8; 32],
    /// Files that references named.
    pub(super) files: BTreeMap<PathBuf, Option<Stamp>>,
    pub(super) contents: Contents,
}

/// How long each step took.
#[derive(Clone, Copy, Debug, Default)]
pub struct Timings {
    pub parse: Duration,
    pub compile: Duration,
    pub tests: Duration,
}

/// Why a text is not put in force: at least one of the problems is an error.
#[derive(Clone, Debug)]
pub struct Refused {
    pub text: Text,
    pub problems: Vec<Problem>,
}

impl Refused {
    /// Every problem with its place.
    pub fn entries(&self) -> Vec<print::Entry> {
        print::entries(&self.text.name, &self.text.text, &self.problems)
    }

    /// Every problem with the text around it.
    pub fn report(&self) -> String {
        print::report(&self.text.name, &self.text.text, &self.problems)
    }
}

/// A document that was read, before anything is made of it.
pub(super) struct Parsed {
    text: Text,
    draft: Draft<Document>,
    references: References,
    took: Duration,
}

impl Parsed {
    pub(super) fn of(text: Text, references: References) -> Parsed {
        let started = Instant::now();
        let draft = read::draft_document(&text.text, &references);
        Parsed { text, draft, references, took: started.elapsed() }
    }

    /// Whether this is the same text, and everything it refers to stands for the same.
    pub(super) fn says(&self, text: &str, references: &[u8; 32]) -> bool {
        *self.text.text == *text && self.references.digest() == *references
    }

    pub(super) fn compile(self, env: &routes::Env, pools: &Pools) -> Result<Compiled, Refused> {
        let Parsed { text, mut draft, references, took: parse } = self;
        let started = Instant::now();
        // Mistakes of meaning are told beside mistakes of shape, as `check` does.
        let compiled = draft.words().map(|document| routes::compile(document, env, pools));
        let compile = started.elapsed();
        let (table, found) = compiled.unwrap_or_default();
        draft.add(&references, found);
        let (document, mut problems) = draft.finish(&text.text);
        let Some(document) = document else { return Err(Refused { text, problems }) };
        let started = Instant::now();
        if let Some(table) = &table {
            // A failing case is a mistake of the document like any other.
            problems.extend(routes::cases::run(table, &document.test).iter().flat_map(|result| result.problems()));
        }
        let tests = started.elapsed();
        // What compiling says may quote a value that a reference stood for.
        references.redact(&mut problems);
        let mut table = match table {
            Some(table) if !problems.iter().any(Problem::is_error) => table,
            _ => return Err(Refused { text, problems }),
        };
        table.revision = routes::revision(&text.text);
        Ok(Compiled {
            table,
            warnings: print::entries(&text.name, &text.text, &problems),
            timings: Timings { parse, compile, tests },
            references: references.digest(),
            files: references.files(),
            contents: Contents::of(&document),
        })
    }
}

/// Compiles a text as a gateway would that takes it from its source.
pub fn compile(text: Text, references: References, env: &routes::Env, pools: &Pools) -> Result<Compiled, Refused> {
    Parsed::of(text, references).compile(env, pools)
}
