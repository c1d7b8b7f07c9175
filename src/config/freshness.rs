//! The files that are written from the words are fresh, and the shipped examples show every word.

use std::path::Path;

use serde_json::Value;

use super::print::report;
use super::{Kind, References, kind, page, read, schema};
use crate::scalar::Span;
use crate::settings::backend::Backend;
use crate::settings::{Alerts, Controller};

fn shipped(file: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap_or_default()
}

#[test]
fn generated_files_are_fresh() {
    for (file, text, command) in [
        ("docs/reference.md", page::text(), "tollgate schema --reference"),
        ("config/routes.schema.json", schema::text(&schema::document()), "tollgate schema"),
        ("config/edge.schema.json", schema::text(&schema::settings()), "tollgate schema edge"),
        ("config/backend.schema.json", schema::text(&schema::backend()), "tollgate schema backend"),
        ("config/controller.schema.json", schema::text(&schema::controller()), "tollgate schema controller"),
        ("config/alerts.schema.json", schema::text(&schema::alerts()), "tollgate schema alerts"),
    ] {
        if std::env::var_os("UPDATE_EXPECT").is_some() {
            std::fs::write(Path::new(env!("CARGO_MANIFEST_DIR")).join(file), &text).expect("written");
        }
        assert!(
            shipped(file) == text,
            "{file} is stale; run: cargo run -- {} > {file}",
            command.replace("tollgate ", "")
        );
    }
}

/// The text with the words that are commented out (`#word = ..`, `#[table]`) put in.
fn with_every_word(text: &str) -> String {
    let uncommented = |line: &str| match line.strip_prefix('#') {
        Some(rest) if rest.starts_with(|char: char| char.is_ascii_lowercase() || "[]{".contains(char)) => {
            rest.to_owned()
        }
        _ => line.to_owned(),
    };
    text.lines().map(|line| uncommented(line) + "\n").collect()
}

fn check_file(text: &str, expect: Kind) {
    assert_eq!(kind(text), expect);
    let references = References::symbolic();
    let (found, problems, schema) = match expect {
        Kind::Document => {
            let (words, problems) = read::document(text, &references);
            (words.is_some(), problems, schema::document())
        }
        Kind::Settings => {
            let (words, problems) = read::settings(text, &references, &[]);
            (words.is_some(), problems, schema::settings())
        }
        Kind::Backend => {
            let (words, problems) = read::boot::<Backend>(text, &references, &[]);
            (words.is_some(), problems, schema::backend())
        }
        Kind::Controller => {
            let (words, problems) = read::boot::<Controller>(text, &references, &[]);
            (words.is_some(), problems, schema::controller())
        }
        Kind::Alerts => {
            let (words, problems) = read::boot::<Alerts>(text, &references, &[]);
            (words.is_some(), problems, schema::alerts())
        }
    };
    assert!(found && problems.is_empty(), "{}", report("example", text, &problems));
    let instance = serde_json::to_value(toml::from_str::<toml::Table>(text).expect("TOML")).expect("JSON");
    let validator = jsonschema::validator_for(&schema).expect("a schema");
    let errors: Vec<_> = validator.iter_errors(&instance).map(|e| format!("{}: {e}", e.instance_path())).collect();
    assert!(errors.is_empty(), "{errors:#?}");
}

#[test]
fn links_of_the_reference_lead_somewhere() {
    let page = page::text();
    let headings: Vec<_> = page.lines().filter_map(|line| line.strip_prefix("###")).map(page::slug).collect();
    let links: Vec<_> = page.split("](#").skip(1).filter_map(|rest| rest.split(')').next()).collect();
    assert!(links.len() > 20);
    for link in links {
        assert!(headings.iter().any(|heading| heading == link), "#{link} is no heading");
    }
}

#[test]
fn shipped_files_read_and_validate() {
    for (file, kind) in [
        ("config/routes.toml", Kind::Document),
        ("config/edge.toml", Kind::Settings),
        ("config/backend.toml", Kind::Backend),
        ("config/controller.toml", Kind::Controller),
        ("config/alerts.toml", Kind::Alerts),
    ] {
        let text = shipped(file);
        check_file(&text, kind);
        check_file(&with_every_word(&text), kind);
    }
}

#[test]
fn shipped_files_show_every_word() {
    for (file, schema) in [
        ("config/routes.toml", schema::document()),
        ("config/edge.toml", schema::settings()),
        ("config/backend.toml", schema::backend()),
        ("config/controller.toml", schema::controller()),
        ("config/alerts.toml", schema::alerts()),
    ] {
        let text = shipped(file);
        let mut words = Vec::new();
        collect(&schema, &mut words);
        let says = |word: &str| {
            text.contains(&format!("\"{word}\""))
                || text.split(|char: char| !char.is_ascii_alphanumeric() && char != '_').any(|t| t == word)
        };
        let silent: Vec<_> = words.into_iter().filter(|word| !says(word)).collect();
        assert!(silent.is_empty(), "{file} does not show {silent:?}");
    }
}

/// Every key and every word of a choice.
fn collect<'s>(schema: &'s Value, words: &mut Vec<&'s str>) {
    match schema {
        Value::Array(items) => items.iter().for_each(|item| collect(item, words)),
        Value::Object(map) => {
            for (key, value) in map {
                match (key.as_str(), value) {
                    ("properties", Value::Object(properties)) => words.extend(properties.keys().map(String::as_str)),
                    ("const", Value::String(word)) => words.push(word),
                    ("enum", Value::Array(choices)) => words.extend(choices.iter().filter_map(Value::as_str)),
                    _ => {}
                }
                collect(value, words);
            }
        }
        _ => {}
    }
}

#[test]
fn comments_say_the_default_that_the_code_has() {
    let mut compared = 0;
    for schema in [schema::document(), schema::settings(), schema::controller(), schema::alerts(), schema::backend()] {
        compare(&schema, "", &mut compared);
    }
    assert!(compared > 40, "only {compared} defaults were compared");
}

fn compare(schema: &Value, path: &str, compared: &mut usize) {
    let Value::Object(map) = schema else { return };
    if let (Some(default), Some(Value::String(description))) = (map.get("default"), map.get("description"))
        && let (_, Some(said)) = page::split_default(description)
    {
        let said = said.replace('`', "");
        if let (Ok(said), Some(Ok(code))) = (said.parse::<Span>(), default.as_str().map(str::parse::<Span>)) {
            assert_eq!(said, code, "the comment of {path} does not say the default of the code");
            *compared += 1;
            return;
        }
        let code = match default {
            Value::String(text) if text.is_empty() => "empty".to_owned(),
            Value::String(text) => text.clone(),
            Value::Array(items) if !items.is_empty() => {
                format!("[{}]", items.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))
            }
            Value::Array(_) | Value::Object(_) => return,
            Value::Number(number) => number.as_f64().map_or_else(|| number.to_string(), |number| number.to_string()),
            other => other.to_string(),
        };
        assert_eq!(said, code, "the comment of {path} does not say the default of the code");
        *compared += 1;
    }
    for (key, value) in map {
        compare(value, &format!("{path}/{key}"), compared);
    }
}
