//! Reading: properties over any text, references, the environment, places.

use proptest::prelude::*;

use super::place::{line_column, locate};
use super::print::{entries, lines, report};
use super::{Document, Kind, References, kind, read};
use crate::problem::{Path, Problem};
use crate::settings::Settings;

const EDGE: &str = r#"
format = 1
[[listen]]
name = "public-web"
address = "[::]:443"
protocol = "https"
[routes]
file = "config/routes.toml"
"#;

fn words(text: &str) -> Document {
    let (words, problems) = read::document(text, &none());
    assert!(problems.is_empty(), "{}", report("test", text, &problems));
    words.expect("words")
}

fn none() -> References {
    References::resolve_with(|_| None)
}

fn messages(problems: &[Problem]) -> Vec<String> {
    problems.iter().map(ToString::to_string).collect()
}

fn edge(variables: &[(&str, &str)]) -> (Option<Settings>, Vec<Problem>) {
    let variables: Vec<_> = variables.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
    read::settings(EDGE, &none(), &variables)
}

#[test]
fn fills_in_references() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), "from a file\r\n").expect("written");
    let references = References::resolve_with(|name| match name {
        "NAME" => Some("value".to_owned()),
        "EMPTY" => Some(String::new()),
        _ => None,
    });
    for (written, expect) in [
        ("${NAME}", "value"),
        ("a${NAME}b${NAME}", "avaluebvalue"),
        ("${NONE:-default}", "default"),
        ("${EMPTY:-default}", "default"),
        ("${EMPTY}", ""),
        ("${NONE:-}", ""),
        ("$${NAME}", "${NAME}"),
        ("5$ and $NAME", "5$ and $NAME"),
        (&format!("${{file:{}}}", file.path().display()), "from a file"),
    ] {
        let text = format!("format = 1\n[[route]]\nname = \"a\"\nrespond = {{ body = '{written}' }}");
        let (words, problems) = read::document(&text, &references);
        assert!(problems.is_empty(), "{written}: {problems:?}");
        let body = words.and_then(|words| words.route.into_iter().next()?.respond).map(|respond| respond.body);
        assert_eq!(body.as_deref(), Some(expect), "{written}");
    }
    assert!(references.files().keys().eq([file.path()]));
}

#[test]
fn references_stand_only_in_values() {
    let text = "format = 1\n[upstream.\"${NAME}\"]\naddress = \"a:1\"";
    assert_eq!(words(text).upstream.keys().collect::<Vec<_>>(), ["${NAME}"]);
}

#[test]
fn the_digest_follows_the_values() {
    let digest = |value: &'static str| {
        let references = References::resolve_with(move |_| Some(value.to_owned()));
        read::document("format = 1\n[upstream.a]\naddress = \"${A}:1\"", &references);
        references.digest()
    };
    assert_eq!(digest("x"), digest("x"));
    assert_ne!(digest("x"), digest("y"));
}

#[test]
fn symbolic_references_are_no_mistakes() {
    let text = "format = 1\n[upstream.a]\naddress = \"${A}\"\nbalance = \"${B}\"\nhealth = { every = \"${C}\" }\n\
        [[route]]\nname = \"${D}\"\nupstream = \"a\"\nbody = { max = \"${E}\" }\ntimeout = { head = \"${F:-5s}\" }";
    let (words, problems) = read::document(text, &References::symbolic());
    assert_eq!(messages(&problems), [""; 0]);
    let head = words.and_then(|words| words.route.into_iter().next()?.timeout?.head);
    assert_eq!(head.map(|head| head.to_string()).as_deref(), Some("5s"));
    let (_, problems) = read::document("format = 1\nroutee = \"${A}\"", &References::symbolic());
    assert_eq!(problems.len(), 1, "other mistakes still count: {problems:?}");
}

#[test]
fn thousands_of_references_in_one_field_are_read_at_once() {
    let route = |i: usize| format!("[[route]]\nname = \"r{i}\"\nrespond = {{}}\nbody = {{ max = \"${{MAX}}\" }}\n");
    let text: String = std::iter::once("format = 1\n".to_owned()).chain((0..2_000).map(route)).collect();
    let (words, problems) = read::document(&text, &References::symbolic());
    assert_eq!(messages(&problems), [""; 0]);
    assert_eq!(words.map(|words| words.route.len()), Some(2_000));
}

#[test]
fn what_follows_from_a_mistake_is_not_told() {
    let text = "format = 1\n[[route]]\nname = \"a\"\nupstrem = \"b\"\n[upstream.b]\naddress = \"b:1\"\nsticky = {}";
    let references = none();
    let mut draft = read::draft_document(text, &references);
    assert!(draft.words().is_some_and(|words| words.upstream.contains_key("b")), "names stay known");
    draft.add(
        &references,
        vec![
            Problem::error(Path::of(["route", "0"]), "no destination"),
            Problem::error(Path::of(["upstream", "b", "sticky", "cookie"]), "not a cookie"),
            Problem::error(Path::of(["route", "0", "name"]), "a mistake of its own"),
        ],
    );
    let (words, problems) = draft.finish(text);
    assert!(words.is_none());
    assert_eq!(
        messages(&problems),
        [
            "route.0.name: a mistake of its own",
            "route.0.upstrem: unknown key `upstrem` (did you mean `upstream`?)",
            "upstream.b.sticky: `cookie` is missing (add `cookie = ..`)",
        ]
    );
}

#[test]
fn values_of_references_are_taken_out_of_later_messages() {
    let references = References::resolve_with(|_| Some("hunter2-hunter2".to_owned()));
    let text = "format = 1\n[upstream.a]\naddress = \"${A}\"";
    let mut draft = read::draft_document(text, &references);
    let at = Path::of(["upstream", "a", "address"]);
    let elsewhere = Problem::error(Path::of(["route"]), "`hunter2-hunter2` again").help("not `hunter2-hunter2`");
    draft.add(&references, vec![Problem::error(at, "`hunter2-hunter2` is not an address"), elsewhere]);
    let told = report("a.toml", text, &draft.finish(text).1);
    assert!(!told.contains("hunter2") && told.contains("`${A}` is not an address"), "{told}");
}

#[test]
fn the_environment_overrides_settings() {
    let (settings, problems) = edge(&[
        ("TOLLGATE__DRAIN__GRACE", "5s"),
        ("TOLLGATE__LISTEN__PUBLIC_WEB__ADDRESS", "[::]:8443"),
        ("TOLLGATE__LISTEN__PUBLIC_WEB__VERSIONS", r#"["h2"]"#),
        ("TOLLGATE__LIMITS__HEADERS", "50"),
        ("TOLLGATE__TRUST__FORWARDED_FROM", "10.0.0.0/8"),
        ("TOLLGATE__HEALTH__ADDRESS", "[::]:9100"),
        ("TOLLGATE__TRACES", r#"{ endpoint = "http://127.0.0.1:4318/v1/traces", sample_percent = 5 }"#),
    ]);
    assert_eq!(messages(&problems), [""; 0]);
    let settings = settings.expect("settings");
    assert_eq!(settings.drain.grace.to_string(), "5s");
    assert_eq!(settings.listen.first().map(|listen| listen.address.as_str()), Some("[::]:8443"));
    assert_eq!(settings.limits.headers, 50);
    assert_eq!(settings.trust.forwarded_from.0, ["10.0.0.0/8"]);
    assert_eq!(settings.traces.map(|traces| traces.sample_percent), Some(5.0));
}

#[test]
fn wrong_overrides_name_their_variable_and_not_its_value() {
    for (variable, value, message) in [
        ("TOLLGATE__DRAIN__GRACE", "s3cr3t", "`$TOLLGATE__DRAIN__GRACE` is not a duration"),
        ("TOLLGATE__DRAIN__GRAZE", "s3cr3t", "unknown key `graze`"),
        ("TOLLGATE__DRIAN__GRACE", "s3cr3t", "unknown key `drian`"),
        ("TOLLGATE__LISTEN__INTERNAL__ADDRESS", "s3cr3t", "names no listener: `internal`"),
        ("TOLLGATE__LISTEN__PUBLIC_WEB__ADDRESS", "s3cr3t", "is not an address to listen on"),
        ("TOLLGATE__LISTEN__PUBLIC_WEB__PROTOCOL", "s3cr3t", "is not known here"),
        ("TOLLGATE__LIMITS__HEADERS", "s3cr3t", "text cannot stand here"),
        ("TOLLGATE__ADMIN__TOKEN", "s3cr3t", "`address` is missing"),
        ("TOLLGATE__FORMAT__X", "s3cr3t", "leads into a value that is no table"),
        ("TOLLGATE__LOG__", "s3cr3t", "names no setting"),
        ("TOLLGATE__TRUST__FORWARDED_FROM", "[s3cr3t", "is not TOML"),
    ] {
        let (settings, problems) = edge(&[(variable, value)]);
        assert!(settings.is_none(), "{variable}");
        let told = lines("edge.toml", EDGE, &problems).join("\n");
        assert!(problems.len() == 1 && told.contains(variable) && told.contains(message), "{variable}: {told}");
        assert!(!told.contains("s3cr3t"), "{told}");
        assert_eq!(entries("edge.toml", EDGE, &problems)[0].file, "environment");
    }
}

#[test]
fn tells_settings_from_a_document() {
    for (text, expect) in [
        (EDGE, Kind::Settings),
        ("", Kind::Document),
        ("format = 1", Kind::Document),
        ("[[route]]\nname = 'a'", Kind::Document),
        ("[[routes]]\nname = 'a'", Kind::Document),
        ("[routes]\nfile = 'a'", Kind::Settings),
        ("listen = '127.0.0.1:1'", Kind::Backend),
        ("data = 'a'\n[admin]\n[log]", Kind::Backend),
        ("[token]\n[[listen]]\nname = 'a'\n[routes]", Kind::Settings),
        ("[[listen]]\nname = 'a", Kind::Settings),
        ("token = 'a'\n[listen]\naddress = 'b'\n[bus]", Kind::Controller),
        ("[keep]\nevents = '1d'", Kind::Controller),
        ("[[alert]]\nname = 'a'", Kind::Alerts),
        ("[notify.ops]\nwebhook = 'a'", Kind::Alerts),
    ] {
        assert_eq!(kind(text), expect, "{text}");
    }
}

#[test]
fn finds_the_place_of_a_path() {
    let text = "format = 1\n[host.\"a.b\"]\nx = { y = [1, 2] }\n[[route]]\nname = 'a'\n[[route]]\nname = 'bé', 3";
    for (path, expect) in [
        (Path::of(["host", "a.b"]), "[host.\"a.b\"]"),
        (Path::of(["host", "a.b", "x", "y", "1"]), "2"),
        (Path::of(["host", "a.b", "x", "z"]), "{ y = [1, 2] }"),
        (Path::of(["route", "1", "match", "host"]), "[[route]]"),
        (Path::of(["route", "1", "name"]), "'bé'"),
    ] {
        let place = locate(text, &path).expect("a place");
        assert_eq!(text.get(place), Some(expect), "{path}");
    }
    assert_eq!(locate(text, &Path::of(["nowhere"])), None);
    assert_eq!(line_column(text, text.len()), (7, 15));
    assert_eq!(line_column("", 5), (1, 1));
}

/// Text made of pieces that occur in configuration, so that more than noise is read.
fn piece() -> impl Strategy<Value = String> {
    let known = [
        "format = 1\n",
        "[upstream.a]\n",
        "address = \"a:1\"\n",
        "[[route]]\n",
        "name = \"a\"\n",
        "match = {",
        "}",
        "[",
        "]",
        "\"",
        "'",
        "\"\"\"",
        "=",
        ".",
        ",",
        "\n",
        "#",
        "${",
        "}",
        "${X:-",
        "path = [\"/a\"]\n",
        "[[listen]]\n",
        "[defaults]\n",
        "timeout = { head = \"1s\" }\n",
        "respond = {}\n",
        "1",
        "-",
        "true",
        "é",
        "\r",
        "\u{0}",
        "[upstream]\n",
        "[[upstream]]\n",
        "upstream.a.b = 1\n",
        "[routes]\n",
        "file = 5\n",
        "split = [{}]\n",
        "given.from = 1\n",
        "[[test]]\n",
        "expect = []\n",
    ];
    prop_oneof![
        8 => proptest::sample::select(known.to_vec()).prop_map(str::to_owned),
        1 => any::<String>(),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn any_text_gives_words_or_problems_with_a_place(pieces in proptest::collection::vec(piece(), 0..24)) {
        let text = pieces.concat();
        let variables = [("TOLLGATE__LISTEN__A__NAME".to_owned(), text.clone())];
        for references in [none(), References::symbolic()] {
            let (words, problems) = read::document(&text, &references);
            check(&text, words.is_some(), &problems)?;
            let (words, problems) = read::settings(&text, &references, &[]);
            check(&text, words.is_some(), &problems)?;
            let (words, problems) = read::settings(&text, &references, &variables);
            check(&text, words.is_some(), &problems)?;
        }
        let _ = kind(&text);
    }
}

fn check(text: &str, words: bool, problems: &[Problem]) -> Result<(), TestCaseError> {
    let errors = problems.iter().any(Problem::is_error);
    prop_assert!(words != errors, "{text:?}: {problems:?}");
    for (problem, entry) in problems.iter().zip(entries("a.toml", text, problems)) {
        prop_assert!(entry.line >= 1 && entry.column >= 1);
        prop_assert!(!problem.message.is_empty());
        if let Some(span) = &problem.span {
            prop_assert!(text.get(span.clone()).is_some(), "{span:?} in {text:?}");
        }
    }
    prop_assert!(report("a.toml", text, problems).is_empty() == problems.is_empty());
    Ok(())
}
