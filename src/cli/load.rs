//! The table of local files, for commands that ask it: `explain`, `test`, `routes`.

use std::fs;
use std::path::{Path, PathBuf};

use super::Exit;
use crate::config::{Document, References, print, read};
use crate::control::proposal::unused_pools;
use crate::problem::Problem;
use crate::routes::{self, Env, Table};
use crate::settings::Settings;

/// Where gateways keep their settings by default.
const SETTINGS: &str = "config/edge.toml";

#[derive(Debug, Default, clap::Args)]
pub(super) struct Files {
    /// Settings: they name the listeners and the routes file. Default `config/edge.toml`.
    #[arg(short, long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// Routes, instead of those that the settings name. Without `-c` every listener it names counts as there.
    #[arg(long, value_name = "FILE")]
    pub(super) routes: Option<PathBuf>,
}

/// A document and its table.
pub(super) struct Loaded {
    pub(super) name: String,
    pub(super) text: String,
    pub(super) document: Document,
    pub(super) table: Table,
    /// What was filled in: `conceal` takes it out of what is printed.
    pub(super) references: References,
}

impl Files {
    /// Compiles the files; says what is wrong with them on standard error. Nothing is opened but files.
    pub(super) fn load(&self) -> Result<Loaded, Exit> {
        let settings = match (&self.config, &self.routes) {
            (None, Some(_)) => None,
            _ => Some(self.settings()?),
        };
        let named = settings
            .as_ref()
            .and_then(|settings| settings.routes.file.clone().or_else(|| settings.routes.fallback.clone()));
        let Some(file) = self.routes.clone().or(named) else {
            return Err(failed(
                "the document comes from the bus: fetch it with `tollgate pull FILE`, then --routes FILE",
            ));
        };
        let (name, text) = text_of(&file)?;
        let (document, problems, references) = best(|references| read::document(&text, references));
        let Some(document) = document else { return Err(invalid(&name, &text, &problems)) };
        let env = settings.as_ref().map_or_else(|| Env::assumed(&document), Env::of);
        let pools = unused_pools().map_err(|error| failed(&error.to_string()))?;
        let (table, problems) = routes::compile(&document, &env, &pools);
        let Some(mut table) = table else { return Err(invalid(&name, &text, &problems)) };
        table.revision = routes::revision(&text);
        Ok(Loaded { name, text, document, table, references })
    }

    pub(super) fn settings(&self) -> Result<Settings, Exit> {
        let file = self.config.as_deref().unwrap_or(Path::new(SETTINGS));
        let (name, text) = text_of(file)?;
        let variables = crate::config::from_environment();
        let (settings, problems, _) = best(|references| read::settings(&text, references, &variables));
        settings.ok_or_else(|| match read::is_document(&text) {
            true => not_settings(&name),
            false => invalid(&name, &text, &problems),
        })
    }
}

/// A document where the boot settings belong: every key of it would be a mistake, and none is.
pub(super) fn not_settings(name: &str) -> Exit {
    eprintln!("tollgate: {name} is a document (routes.toml): -c takes the boot settings (edge.toml), which name it");
    Exit::Invalid
}

/// What references stand for here if they can be resolved here; without them otherwise: these commands need no secrets.
fn best<T>(read: impl Fn(&References) -> (Option<T>, Vec<Problem>)) -> (Option<T>, Vec<Problem>, References) {
    let resolved = References::resolve();
    if let (Some(words), problems) = read(&resolved) {
        return (Some(words), problems, resolved);
    }
    let symbolic = References::symbolic();
    let (words, problems) = read(&symbolic);
    (words, problems, symbolic)
}

fn text_of(file: &Path) -> Result<(String, String), Exit> {
    match fs::read_to_string(file) {
        Ok(text) => Ok((file.display().to_string(), text)),
        Err(error) => Err(failed(&format!("cannot read {}: {error}", file.display()))),
    }
}

fn invalid(name: &str, text: &str, problems: &[Problem]) -> Exit {
    eprint!("{}", print::report(name, text, problems));
    Exit::Invalid
}

pub(super) fn failed(reason: &str) -> Exit {
    eprintln!("tollgate: {reason}");
    Exit::Failed
}
