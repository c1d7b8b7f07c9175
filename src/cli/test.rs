//! `tollgate test`: the `[[test]]` cases beside the routes, without a network.

use super::load::{Files, Loaded};
use super::{Exit, Format, print};
use crate::config::print::entries;
use crate::problem::Problem;
use crate::routes::cases::{self, CaseResult};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    files: Files,
    /// `human` or `json`.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

pub(super) fn run(args: &Args) -> Exit {
    let loaded = match args.files.load() {
        Ok(loaded) => loaded,
        Err(exit) => return exit,
    };
    let results = cases::run(&loaded.table, &loaded.document.test);
    let text = match args.format {
        Format::Human => human(&loaded, &results),
        Format::Json => format!("{}\n", serde_json::to_string_pretty(&results).unwrap_or_default()),
    };
    match print(&loaded.references.conceal(&text)) {
        Exit::Ok if !results.iter().all(CaseResult::passed) => Exit::TestsFailed,
        printed => printed,
    }
}

fn human(loaded: &Loaded, results: &[CaseResult]) -> String {
    let mut out = String::new();
    for result in results {
        let problems: Vec<Problem> = result.problems().collect();
        let entries = entries(&loaded.name, &loaded.text, &problems);
        let place = entries.first().map(|entry| format!("{}:{}:{}: ", entry.file, entry.line, entry.column));
        let verdict = if result.passed() { "ok    " } else { "FAILED" };
        out.push_str(&format!("{verdict} {}{}\n", place.unwrap_or_default(), result.request));
        for mismatch in &result.mismatches {
            out.push_str(&format!(
                "         {}: expected {}, got {}\n",
                mismatch.field, mismatch.expected, mismatch.got
            ));
        }
    }
    let failed = results.iter().filter(|result| !result.passed()).count();
    out.push_str(&format!("{} passed, {failed} failed\n", results.len() - failed));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run_on(text: &str) -> Exit {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("routes.toml");
        std::fs::write(&file, text).expect("written");
        run(&Args { files: Files { config: None, routes: Some(file) }, format: Format::Human })
    }

    #[test]
    fn the_exit_code_says_how_it_went() {
        let route = "format = 1\n[[route]]\nname = 'a'\nmatch.path = '/a'\nrespond = {}\n";
        let case = |expect: &str| format!("{route}[[test]]\nrequest = 'GET http://h/a'\nexpect.route = '{expect}'\n");
        assert_eq!(run_on(&case("a")), Exit::Ok);
        assert_eq!(run_on(&case("none")), Exit::TestsFailed);
        assert_eq!(run_on(&route.replace("respond", "upstream")), Exit::Invalid);
        let nowhere = Files { config: None, routes: Some("nowhere.toml".into()) };
        assert_eq!(run(&Args { files: nowhere, format: Format::Json }), Exit::Failed);
    }

    #[test]
    fn shows_what_was_expected_and_what_came() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("routes.toml");
        let text = "format = 1\n[[test]]\nrequest = 'GET http://h/a'\nexpect = { route = 'a', status = 404 }\n";
        std::fs::write(&file, text).expect("written");
        let loaded = Files { config: None, routes: Some(file) }.load();
        let loaded = loaded.unwrap_or_else(|exit| panic!("{exit:?}"));
        let text = human(&loaded, &cases::run(&loaded.table, &loaded.document.test));
        assert!(text.contains("routes.toml:4:") && text.contains("FAILED"), "{text}");
        assert!(text.ends_with("route: expected a, got none\n0 passed, 1 failed\n"), "{text}");
    }
}
