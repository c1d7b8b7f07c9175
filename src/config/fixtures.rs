//! Mistakes that people make, each in a file of `tests/config` with the report they get beside it.
//!
//! `UPDATE_EXPECT=1 cargo test --lib config::fixtures` writes the reports anew; read them before they are committed.

use std::path::{Path, PathBuf};

use super::print::report;
use super::{Kind, References, kind, read};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/config")
}

/// The environment that fixtures see. `SECRET_*` must never come out again.
fn references() -> References {
    References::resolve_with(|name| {
        Some(match name {
            "PORT" => "8090".to_owned(),
            "EMPTY" => String::new(),
            "SECRET_DURATION" => "s3cr3t-duration".to_owned(),
            "SECRET_ADDRESS" => "s3cr3t-address".to_owned(),
            "SECRET_WORD" => "s3cr3t-word".to_owned(),
            _ => return None,
        })
    })
}

fn reported(name: &str, text: &str) -> String {
    let references = references();
    let variables = [];
    let problems = match kind(text) {
        Kind::Document => read::document(text, &references).1,
        Kind::Settings => read::settings(text, &references, &variables).1,
        Kind::Backend => read::boot::<crate::settings::backend::Backend>(text, &references, &variables).1,
        Kind::Controller => read::boot::<crate::settings::Controller>(text, &references, &variables).1,
        Kind::Alerts => read::boot::<crate::settings::Alerts>(text, &references, &variables).1,
    };
    report(name, text, &problems)
}

#[test]
fn every_fixture_gets_its_report() {
    let mut count = 0;
    let mut wrong = Vec::new();
    for entry in std::fs::read_dir(folder()).expect("tests/config") {
        let path = entry.expect("an entry").path();
        if path.extension().is_none_or(|extension| extension != "toml") {
            continue;
        }
        count += 1;
        let text = std::fs::read_to_string(&path).expect("a fixture");
        let name = path.file_name().expect("a name").to_string_lossy();
        let report = reported(&name, &text);
        assert!(!report.contains("s3cr3t"), "{name} gives a secret away:\n{report}");
        let beside = path.with_extension("expect");
        if std::env::var_os("UPDATE_EXPECT").is_some() {
            std::fs::write(&beside, &report).expect("written");
        } else if std::fs::read_to_string(&beside).unwrap_or_default() != report {
            wrong.push(format!("{name} is now told:\n{report}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(count >= 25, "only {count} fixtures");
}
