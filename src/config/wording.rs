//! Mistakes of shape in an operator's words: what is wrong, and what to write instead.

use super::decode::{Kind, one_of};
use crate::problem::nearest;

/// Message and help in an operator's words.
pub(super) fn explain(kind: &Kind, steps: &[String]) -> (String, String) {
    match kind {
        Kind::UnknownWord { word, expected } => {
            let help = match nearest(word, expected.iter().copied()) {
                Some(meant) => format!("did you mean \"{meant}\"? Known: {}", one_of(expected)),
                None => format!("write {}", one_of(expected)),
            };
            (format!("`{word}` is not known here"), help)
        }
        Kind::Type { found, wanted } => {
            let key = steps.iter().filter(|step| step.parse::<usize>().is_err()).cloned().collect::<Vec<_>>().join(".");
            let without_quotes = || format!("write {}, without quotes", wanted_words(wanted));
            let help = match (found.as_str(), wanted.as_str()) {
                ("a table", "a sequence") if steps.len() == 1 => format!("write `[[{key}]]` for each item of the list"),
                ("a list", "a map") => format!("write `[{key}.NAME]` for each item, in single brackets"),
                ("a list", wanted) if wanted.starts_with("struct ") => format!("write `[{key}]`, in single brackets"),
                ("a whole number" | "a number with a fraction" | "a boolean", "a string") => {
                    "put the value in quotes".to_owned()
                }
                ("text", "a boolean" | "f64") => without_quotes(),
                ("text", wanted) if number(wanted).is_some() => without_quotes(),
                _ => format!("write {}", wanted_words(wanted)),
            };
            (format!("{found} cannot stand here"), help)
        }
        Kind::Other(text) => match text.split_once("; ") {
            Some((message, help)) => (message.to_owned(), help.to_owned()),
            None => (text.clone(), "see docs/reference.md".to_owned()),
        },
        Kind::UnknownKey { .. } | Kind::MissingKey(_) => (String::new(), String::new()),
    }
}

/// Help for a key that is missing.
pub(super) fn missing(key: &str) -> String {
    match key {
        "format" => "begin with `format = 1`".to_owned(),
        "listen" => "add a `[[listen]]` with name, address and protocol".to_owned(),
        "routes" => "add `[routes]` with the file of the document".to_owned(),
        _ => format!("add `{key} = ..`"),
    }
}

fn wanted_words(wanted: &str) -> String {
    if let Some((least, most)) = number(wanted) {
        return format!("a whole number from {least} to {most}");
    }
    match wanted {
        "a string" => "text".to_owned(),
        "a sequence" => "a list".to_owned(),
        "a map" => "a table".to_owned(),
        "a boolean" => "`true` or `false`".to_owned(),
        "f64" => "a number".to_owned(),
        other if other.starts_with("struct ") => "a table".to_owned(),
        other => other.to_owned(),
    }
}

fn number(wanted: &str) -> Option<(i64, u64)> {
    Some(match wanted {
        "u8" => (0, u8::MAX.into()),
        "u16" => (0, u16::MAX.into()),
        "u32" => (0, u32::MAX.into()),
        "u64" | "usize" => (0, i64::MAX as u64),
        "i32" => (i32::MIN.into(), i32::MAX as u64),
        "i64" => (i64::MIN, i64::MAX as u64),
        _ => return None,
    })
}
