//! `tollgate check`: every mistake with its place. Nothing is looked up, opened or written.

use std::fs;
use std::io::{IsTerminal as _, Read as _};
use std::path::{Path, PathBuf};

use super::{Exit, Format, print};
use crate::config::print::{Look, entries, report_as};
use crate::config::{Kind, References, kind, read};
use crate::control::proposal::unused_pools;
use crate::problem::{Path as Place, Problem};
use crate::routes::{self, Env};
use crate::settings::backend::Backend;
use crate::settings::{Alerts, Controller, Settings};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// `edge.toml`, `routes.toml`, `controller.toml`, `alerts.toml`, `backend.toml` or others like them; `-` is standard input. With an `edge.toml` the routes it names
    /// are checked as well, and the listeners that routes name are looked for there.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// `human` or `json`.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// A text and its problems.
struct Checked {
    name: String,
    text: String,
    problems: Vec<Problem>,
}

pub(super) fn run(args: &Args) -> Exit {
    let (checked, unreadable) = check(&args.files);
    for reason in &unreadable {
        eprintln!("tollgate: {reason}");
    }
    let colour = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let printed = match args.format {
        Format::Human => print(&human(&checked, if colour { Look::Colour } else { Look::Plain })),
        Format::Json => print(&json(&checked)),
    };
    let invalid = checked.iter().any(|one| one.problems.iter().any(Problem::is_error));
    match printed {
        Exit::Ok if !unreadable.is_empty() => Exit::Failed,
        Exit::Ok if invalid => Exit::Invalid,
        other => other,
    }
}

fn human(checked: &[Checked], look: Look) -> String {
    let mut out = String::new();
    for Checked { name, text, problems } in checked {
        out.push_str(&report_as(look, name, text, problems));
        let errors = problems.iter().filter(|problem| problem.is_error()).count();
        let count = |number: usize, what: &str| match number {
            0 => None,
            1 => Some(format!("1 {what}")),
            _ => Some(format!("{number} {what}s")),
        };
        let counts = [count(errors, "error"), count(problems.len() - errors, "warning")];
        let counts = counts.into_iter().flatten().collect::<Vec<_>>().join(", ");
        let outcome = if counts.is_empty() { "ok" } else { &counts };
        out.push_str(&format!("{name}: {outcome}\n"));
    }
    out
}

fn json(checked: &[Checked]) -> String {
    let all: Vec<_> = checked.iter().flat_map(|one| entries(&one.name, &one.text, &one.problems)).collect();
    format!("{}\n", serde_json::to_string_pretty(&all).unwrap_or_default())
}

/// Checks the files, settings first, and whatever could not be read.
fn check(files: &[PathBuf]) -> (Vec<Checked>, Vec<String>) {
    let (mut checked, mut unreadable, mut documents) = (Vec::new(), Vec::new(), Vec::new());
    let mut listeners = Vec::new();
    for file in files {
        let text = match text_of(file) {
            Ok(text) => text,
            Err(reason) => {
                unreadable.push(reason);
                continue;
            }
        };
        let name = if file.as_os_str() == "-" { "stdin".to_owned() } else { file.display().to_string() };
        match kind(&text) {
            Kind::Document => documents.push((name, text, None)),
            Kind::Backend => checked.push(boot::<Backend>(name, text)),
            Kind::Controller => checked.push(boot::<Controller>(name, text)),
            Kind::Alerts => checked.push(boot::<Alerts>(name, text)),
            Kind::Settings => {
                let Checkup { mut problems, env, routes } = check_settings(&text);
                if let Some(routes) = routes.filter(|routes| !files.iter().any(|file| same(file, routes))) {
                    match text_of(&routes) {
                        Ok(text) => documents.push((routes.display().to_string(), text, Some(env.clone()))),
                        Err(_) if !routes.exists() => problems.push(absent(&routes)),
                        Err(reason) => unreadable.push(reason),
                    }
                }
                listeners.push(env);
                checked.push(Checked { name, text, problems });
            }
        }
    }
    for (name, text, env) in documents {
        // Of several settings none is more likely to be meant than another.
        let env = env.or_else(|| if listeners.len() == 1 { listeners.first().cloned() } else { None }).flatten();
        let problems = check_document(&text, env);
        checked.push(Checked { name, text, problems });
    }
    (checked, unreadable)
}

fn boot<T: read::Boot>(name: String, text: String) -> Checked {
    let (_, problems) = read::boot::<T>(&text, &References::symbolic(), &[]);
    Checked { name, text, problems }
}

fn text_of(file: &Path) -> Result<String, String> {
    let mut text = String::new();
    let read = if file.as_os_str() == "-" {
        std::io::stdin().read_to_string(&mut text).map(|_| text)
    } else {
        fs::read_to_string(file)
    };
    read.map_err(|error| format!("cannot read {}: {error}", file.display()))
}

fn same(a: &Path, b: &Path) -> bool {
    a == b || matches!((fs::canonicalize(a), fs::canonicalize(b)), (Ok(a), Ok(b)) if a == b)
}

fn absent(routes: &Path) -> Problem {
    let message = format!("there is no file `{}` here", routes.display());
    Problem::warning(Place::of(["routes", "file"]), message).help("it is looked for relative to the working directory")
}

struct Checkup {
    problems: Vec<Problem>,
    /// The listeners, unless a mistake leaves them in doubt.
    env: Option<Env>,
    routes: Option<PathBuf>,
}

fn check_settings(text: &str) -> Checkup {
    let draft = read::draft_settings(text, &References::symbolic(), &[]);
    let env = draft.words().map(Env::of);
    let routes = draft.words().and_then(document_of);
    let (words, problems) = draft.finish(text);
    let doubt =
        words.is_none() && problems.iter().any(|problem| problem.path.0.first().is_none_or(|at| at == "listen"));
    Checkup { problems, env: env.filter(|_| !doubt), routes }
}

/// The document that settings name, if they name it without a reference.
fn document_of(settings: &Settings) -> Option<PathBuf> {
    let file = settings.routes.file.as_ref().or(settings.routes.fallback.as_ref())?;
    let known = !file.as_os_str().is_empty() && file.to_str().is_none_or(|file| !file.contains("${"));
    known.then(|| file.clone())
}

fn check_document(text: &str, env: Option<Env>) -> Vec<Problem> {
    let references = References::symbolic();
    let mut draft = read::draft_document(text, &references);
    if let Some(document) = draft.words() {
        let env = env.unwrap_or_else(|| Env::assumed(document));
        let problems = match unused_pools() {
            Ok(pools) => routes::compile(document, &env, &pools).1,
            Err(error) => vec![Problem::error(Place::default(), error.to_string())],
        };
        draft.add(&references, problems);
    }
    draft.finish(text).1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn in_folder(files: &[(&str, &str)], test: impl FnOnce(&dyn Fn(&str) -> PathBuf)) {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        for (name, text) in files {
            let text = text.replace("FOLDER", &folder.path().display().to_string());
            fs::write(at(name), text).expect("written");
        }
        test(&at);
    }

    fn run_on(files: &[PathBuf]) -> Exit {
        run(&Args { files: files.to_vec(), format: Format::Json })
    }

    const EDGE: &str = "format = 1\n[[listen]]\nname = 'web'\naddress = '[::]:8080'\nprotocol = 'http'\n\
        [routes]\nfile = 'FOLDER/routes.toml'";

    #[test]
    fn five_mistakes_of_all_kinds_are_told_at_once() {
        let text = "format = 1\n[upstream.a]\naddress = 'no port'\n[[route]]\nname = 'one'\nupstream = 'b'\n\
            [[route]]\nname = 'two'\nupstrem = 'a'\n[[route]]\nname = 'three'\nupstream = 'a'\n\
            timeout = { head = '5' }\n[[route]]\nupstream = 'a'\nmatch.path = '/x'";
        in_folder(&[("routes.toml", text)], |at| {
            let (checked, unreadable) = check(&[at("routes.toml")]);
            let lines: Vec<_> = entries("f", &checked[0].text, &checked[0].problems);
            let places: Vec<_> = lines.iter().map(|entry| (entry.line, entry.column)).collect();
            for place in [(3, 11), (6, 12), (9, 1), (13, 20), (14, 1)] {
                assert!(places.contains(&place), "{place:?} is missing: {lines:#?}");
            }
            assert!(lines.iter().all(|entry| entry.help.is_some()), "{lines:#?}");
            assert!(unreadable.is_empty());
            assert_eq!(run_on(&[at("routes.toml")]), Exit::Invalid);
        });
    }

    #[test]
    fn settings_bring_their_document_and_its_listeners() {
        let routes = "format = 1\n[[route]]\nname = 'a'\nrespond = {}\nmatch.listen = 'wbe'";
        in_folder(&[("edge.toml", EDGE), ("routes.toml", routes)], |at| {
            for files in [vec![at("edge.toml")], vec![at("routes.toml"), at("edge.toml")]] {
                let (checked, _) = check(&files);
                let problems: Vec<_> = checked.iter().map(|one| one.problems.len()).collect();
                assert_eq!(problems, [0, 1], "{:?}", checked[1].problems);
            }
            assert_eq!(run_on(&[at("routes.toml")]), Exit::Ok, "alone it may name any listener");
        });
    }

    #[test]
    fn a_document_that_is_not_there_is_a_warning() {
        in_folder(&[("edge.toml", EDGE)], |at| {
            let (checked, _) = check(&[at("edge.toml")]);
            assert!(checked.len() == 1 && checked[0].problems.len() == 1 && !checked[0].problems[0].is_error());
            assert_eq!(run_on(&[at("edge.toml")]), Exit::Ok);
        });
    }

    #[test]
    fn t_is_short_for_check() {
        in_folder(&[("routes.toml", "format = 2")], |at| {
            let arguments = ["tollgate".into(), "-t".into(), at("routes.toml").into_os_string()];
            assert_eq!(crate::cli::main(arguments), Exit::Invalid.into());
        });
    }

    #[test]
    fn what_cannot_be_read_is_named_and_fails() {
        in_folder(&[("routes.toml", "format = 1")], |at| {
            let (checked, unreadable) = check(&[at("nowhere.toml"), at("routes.toml")]);
            assert!(checked.len() == 1 && unreadable[0].contains("nowhere.toml"), "{unreadable:?}");
            assert_eq!(run_on(&[at("nowhere.toml")]), Exit::Failed);
        });
    }

    #[test]
    fn references_are_not_looked_up() {
        let routes = "format = 1\n[upstream.a]\naddress = '${NOWHERE_TO_BE_FOUND}'\ntls.ca = '${file:/nowhere}'\n\
            [[route]]\nname = 'a'\nupstream = 'a'";
        in_folder(&[("routes.toml", routes)], |at| {
            let (checked, _) = check(&[at("routes.toml")]);
            assert_eq!(checked[0].problems, []);
        });
    }

    #[test]
    fn the_shipped_files_are_right() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let (checked, unreadable) =
            check(&["config/edge.toml", "config/routes.toml", "config/backend.toml"].map(|file| root.join(file)));
        assert!(unreadable.is_empty());
        for Checked { name, text, problems } in checked {
            assert!(problems.is_empty(), "{}", report_as(Look::Plain, &name, &text, &problems));
        }
    }
}
