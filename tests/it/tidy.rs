//! The architecture as a test: which module may use which, who names Pingora, how long a file may grow, what nothing is called.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Lower layers first. A module uses only modules of lower lines, never of its own line or above.
const LAYERS: &[&[&str]] = &[
    &["scalar", "proxy_protocol", "stamp", "bounded", "durable", "fetch", "migrations"],
    &["problem", "seal"],
    &["facts"],
    &["settings", "tasks", "rejection"],
    &["telemetry"],
    &["config", "ratelimit", "overload", "bus"],
    &["ledger"],
    &["source", "upstream", "policy"],
    &["routes", "tls"],
    &["control", "front"],
    &["proxy", "fleet"],
    &["admin"],
    &["gateway", "backend", "controller"],
    &["main", "cli"],
];
const NAMES_PINGORA: [&str; 2] = ["front", "proxy"];
const LINES_MAX: usize = 400;
const MEDIAN_MAX: usize = 220;
/// Parts of names that say nothing (style.md).
const EMPTY_WORDS: [&str; 7] = ["manager", "helper", "util", "utils", "common", "handler", "plugin"];

/// Every source file of a directory, if there is one: its path below the root, its text.
fn sources(directory: &str) -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    let mut open = vec![root.join(directory)];
    while let Some(next) = open.pop() {
        let Ok(entries) = std::fs::read_dir(next) else { continue };
        for entry in entries {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(root).unwrap().display().to_string();
                found.push((name, std::fs::read_to_string(&path).unwrap()));
            }
        }
    }
    found.sort();
    found
}

fn everything() -> Vec<(String, String)> {
    ["src", "tests", "benches", "examples", "fuzz/fuzz_targets"].into_iter().flat_map(sources).collect()
}

/// The top module of a file below `src/`.
fn module(path: &str) -> &str {
    path.trim_start_matches("src/").split(['/', '.']).next().unwrap()
}

/// Code without its comments and texts, so that neither counts as a use.
fn code(text: &str) -> String {
    let (mut code, mut rest) = (String::new(), text);
    while let Some(first) = rest.chars().next() {
        let hashes = rest.strip_prefix('r').map(|raw| raw.chars().take_while(|one| *one == '#').count());
        let skipped = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("'\"'") {
            3
        } else if let Some(hashes) = hashes.filter(|hashes| rest[1 + hashes..].starts_with('"')) {
            let end = format!("\"{}", "#".repeat(hashes));
            let body = 2 + hashes;
            rest[body..].find(&end).map_or(rest.len(), |at| body + at + end.len())
        } else if first == '"' {
            text_length(rest)
        } else {
            code.push(first);
            first.len_utf8()
        };
        rest = &rest[skipped..];
    }
    code
}

/// Of a text that begins here, its quotes and escapes included.
fn text_length(rest: &str) -> usize {
    let mut escaped = false;
    for (at, character) in rest.char_indices().skip(1) {
        match character {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

/// Modules named after `crate::` or, in the binary, `tollgate::`; groups `crate::{a::X, b}` included.
fn uses(text: &str) -> BTreeSet<String> {
    let code = code(text);
    let mut found = BTreeSet::new();
    for root in ["crate::", "tollgate::"] {
        for (at, _) in code.match_indices(root) {
            if code[..at].ends_with(|before: char| before.is_alphanumeric() || before == '_' || before == '$') {
                continue;
            }
            let rest = &code[at + root.len()..];
            match rest.strip_prefix('{') {
                None => found.extend(identifier(rest)),
                Some(group) => found.extend(heads(group)),
            }
        }
    }
    found
}

/// The first name of every element of a group, up to its closing brace.
fn heads(group: &str) -> Vec<String> {
    let (mut depth, mut start, mut found) = (0, true, Vec::new());
    for (at, character) in group.char_indices() {
        match character {
            '}' if depth == 0 => break,
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => start = true,
            _ if start && !character.is_whitespace() => {
                found.extend(identifier(&group[at..]));
                start = false;
            }
            _ => {}
        }
    }
    found
}

fn identifier(text: &str) -> Option<String> {
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    let name = &text[..end];
    name.starts_with(|c: char| c.is_lowercase()).then(|| name.to_owned())
}

#[test]
fn modules_use_only_lower_layers() {
    let rank: BTreeMap<&str, usize> =
        LAYERS.iter().enumerate().flat_map(|(rank, line)| line.iter().map(move |name| (*name, rank))).collect();
    let mut wrong = Vec::new();
    assert!(sources("src").len() > 10, "the sources are elsewhere");
    for (path, text) in sources("src") {
        let own = module(&path);
        if own == "lib" {
            continue;
        }
        let Some(own_rank) = rank.get(own) else {
            wrong.push(format!("{path}: `{own}` stands in no layer"));
            continue;
        };
        for used in uses(&text) {
            match rank.get(used.as_str()) {
                Some(_) if used == own => {}
                // The two files of the binary are one layer and one crate.
                Some(_) if LAYERS.last().unwrap().contains(&own) && LAYERS.last().unwrap().contains(&used.as_str()) => {
                }
                Some(rank) if rank < own_rank => {}
                Some(_) => wrong.push(format!("{path}: `{own}` must not use `{used}`")),
                None => wrong.push(format!("{path}: `{used}` stands in no layer")),
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn only_front_and_proxy_name_pingora() {
    let wrong: Vec<_> = sources("src")
        .into_iter()
        .filter(|(path, text)| !NAMES_PINGORA.contains(&module(path)) && code(text).contains("pingora_"))
        .map(|(path, _)| path)
        .collect();
    assert!(wrong.is_empty(), "these name Pingora: {wrong:?}");
}

#[test]
fn guards_know_no_pingora_type() {
    let wrong: Vec<_> = sources("src")
        .into_iter()
        .filter(|(path, text)| path.starts_with("src/front/guard") && code(text).contains("pingora"))
        .map(|(path, _)| path)
        .collect();
    assert!(wrong.is_empty(), "{wrong:?}");
}

#[test]
fn files_stay_readable() {
    let mut lengths: Vec<(usize, String)> =
        everything().into_iter().map(|(path, text)| (text.lines().count(), path)).collect();
    let long: Vec<_> = lengths.iter().filter(|(lines, _)| *lines > LINES_MAX).collect();
    assert!(long.is_empty(), "longer than {LINES_MAX} lines: {long:?}");
    lengths.sort();
    let median = lengths[lengths.len() / 2].0;
    assert!(median <= MEDIAN_MAX, "half of the files are longer than {median} lines");
}

#[test]
fn every_module_says_what_it_is_for() {
    let silent: Vec<_> =
        everything().into_iter().filter(|(_, text)| !text.starts_with("//!")).map(|(path, _)| path).collect();
    assert!(silent.is_empty(), "no `//!` at the top: {silent:?}");
}

#[test]
fn no_name_is_an_empty_word() {
    let mut wrong = Vec::new();
    for (path, text) in sources("src") {
        let names = path.trim_end_matches(".rs").split('/').map(str::to_owned);
        let defined = code(&text).lines().filter_map(defined).collect::<Vec<_>>();
        // Pingora's traits have names of their own.
        let foreign = NAMES_PINGORA.contains(&module(&path));
        for name in names.chain(defined) {
            let words = words(&name);
            if words.iter().any(|word| EMPTY_WORDS.contains(&word.as_str())) || (name.starts_with("get_") && !foreign) {
                wrong.push(format!("{path}: {name}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The name that a line defines.
fn defined(line: &str) -> Option<String> {
    let mut words = line.trim_start().split([' ', '(', '<', ':', '{', ';']).filter(|word| !word.is_empty());
    let keywords = ["fn", "struct", "enum", "trait", "type", "mod", "const", "static"];
    words.by_ref().find(|word| keywords.contains(word))?;
    words.next().map(str::to_owned)
}

/// `FooBar_baz` is foo, bar, baz.
fn words(name: &str) -> Vec<String> {
    let mut spaced = String::new();
    for character in name.chars() {
        if character.is_uppercase() {
            spaced.push(' ');
        }
        spaced.extend(character.to_lowercase());
    }
    spaced.split([' ', '_']).map(str::to_owned).filter(|word| !word.is_empty()).collect()
}

#[test]
fn nothing_is_left_undone() {
    let marks = ["TO".to_owned() + "DO", "FIX".to_owned() + "ME", "todo".to_owned() + "!(", "#[ign".to_owned() + "ore"];
    let mut wrong = Vec::new();
    for (path, text) in everything() {
        wrong.extend(marks.iter().filter(|mark| text.contains(mark.as_str())).map(|mark| format!("{path}: {mark}")));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn tests_do_not_sleep() {
    let sleep = "::slee".to_owned() + "p(";
    let allowed = ["tests/it/kit/mod.rs", "tests/it/kit/gateway.rs"];
    let wrong: Vec<_> = sources("tests")
        .into_iter()
        .filter(|(path, text)| !allowed.contains(&path.as_str()) && code(text).contains(&sleep))
        .map(|(path, _)| path)
        .collect();
    assert!(wrong.is_empty(), "these sleep instead of polling: {wrong:?}");
}

#[test]
fn finds_uses_in_every_form() {
    let text = "use crate::a::X;\nuse crate::{b::Y, c, d::{self, Z}};\n// crate::not\nfn f() { crate::e::g() }\n\
        let _ = (\"crate::no\", '\"', r#\"crate::\"no\"#);";
    assert_eq!(uses(text).into_iter().collect::<Vec<_>>(), ["a", "b", "c", "d", "e"]);
    assert_eq!(words("FooBar_baz"), ["foo", "bar", "baz"]);
    assert_eq!(defined("    pub(crate) async fn read<T>(x: T) {").as_deref(), Some("read"));
}
