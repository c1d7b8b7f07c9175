//! `docs/reference.md`: every word of all files with type, default and meaning, from the schemas.
//!
//! The words and their comments are the source; a test holds the page to them.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::Value;

use super::schema;

const INTRODUCTION: &str = "\
<!-- Written by `tollgate schema --reference`. Do not edit: change the comments of the words in src/config and src/settings. -->

# Configuration reference

Files in TOML. What stands in `edge.toml` is read at boot; what stands in `routes.toml` may change at any moment;
`controller.toml` and `alerts.toml` are of the controller (docs/controller.md), `backend.toml` of the minimal backend
(docs/backend.md). `tollgate check FILE..` tells every mistake with its place. Unknown keys are mistakes. The files in
`config/` show every word in its place; `tollgate schema` prints JSON Schemas for editors.

| kind of value | how it is written |
|---|---|
| text | `\"in quotes\"` |
| duration | text: a number and a unit, of `ms`, `s`, `m`, `h`, `d`: `\"250ms\"`, `\"30s\"`, `\"1m30s\"` |
| size | text: a number and a unit, of `B`, `KiB`, `MiB`, `GiB` (powers of 1024), `kB`, `MB`, `GB` (powers of 1000): `\"10MiB\"` |
| template | text with facts: `\"/users/{path.id}\"`; `{{` and `}}` stand for braces |
| fact | `client.ip`, `request.method`, `request.scheme`, `request.host`, `request.path`, `request.query`, `request.path_and_query`, `request.id`, `route.name`, `listen.name`, `tls.sni`, `path.NAME`, `header.NAME`, `query.NAME`, `cookie.NAME` |
| one or more | one value, or a list: `\"GET\"`, `[\"GET\", \"POST\"]` |

**References.** Text values may hold `${NAME}` (a variable of the environment), `${NAME:-default}` (the default if it is unset
or empty), `${file:/path}` (the text of a file, a newline at its end left out, 1MiB at most) and `${secret:NAME}` (a
secret that `[secrets]` of edge.toml names); `$$` stands for a dollar sign. A document from the bus may use the last kind only, and
only where a secret belongs.
Keys, numbers and booleans take none. What a reference stands for is never printed. `tollgate check` does not look it up.

**Overrides.** A variable `TOLLGATE__SECTION__KEY` stands above `edge.toml`: `TOLLGATE__DRAIN__GRACE=5s`. A listener goes by its
name, `-` and `.` written as `_`: `TOLLGATE__LISTEN__PUBLIC__ADDRESS=[::]:8443`. Lists are written as in TOML.
";

/// The page as the file holds it.
pub fn text() -> String {
    let mut page = INTRODUCTION.to_owned();
    for (file, prefix, schema) in [
        ("routes.toml", "", schema::document()),
        ("edge.toml", "", schema::settings()),
        // Several files have sections of the same name.
        ("controller.toml", "controller.", schema::controller()),
        ("alerts.toml", "alerts.", schema::alerts()),
        ("backend.toml", "backend.", schema::backend()),
    ] {
        let mut writer = Writer { root: &schema, prefix, written: BTreeMap::new(), sections: String::new() };
        writer.section(file, "", &[&schema]);
        page.push_str(&writer.sections);
    }
    page
}

struct Writer<'s> {
    root: &'s Value,
    /// Stands before the titles of sections.
    prefix: &'static str,
    /// Types that have a section already, and where.
    written: BTreeMap<String, String>,
    sections: String,
}

/// What a value may be.
#[derive(Default)]
struct Shape<'s> {
    kind: String,
    /// Tables that it may be, and the name of the type of the first.
    tables: Vec<&'s Value>,
    name: Option<String>,
    /// What stands behind the key in the path of those tables.
    below: &'static str,
    /// Lines for each word that the text may be.
    words: Vec<String>,
}

impl<'s> Writer<'s> {
    fn section(&mut self, title: &str, path: &str, tables: &[&'s Value]) {
        let level = if path.is_empty() { "##" } else { "###" };
        let _ = write!(self.sections, "\n{level} {title}\n\n");
        if let [only] = tables
            && let Some(description) = description(only)
        {
            let _ = write!(self.sections, "{description}\n\n");
        }
        self.sections.push_str("| word | kind | default | meaning |\n|---|---|---|---|\n");
        let mut deeper = Vec::new();
        for table in tables {
            let required: Vec<&str> = strings(table.get("required"));
            for (key, schema) in table.get("properties").and_then(Value::as_object).into_iter().flatten() {
                let shape = self.shape(schema);
                let text = description(schema).unwrap_or_default();
                let (mut meaning, said) = split_default(&text);
                for word in &shape.words {
                    let _ = write!(meaning, "<br>{word}");
                }
                let default = default(schema, said, required.contains(&key.as_str()));
                let below = if path.is_empty() { format!("{}{key}", self.prefix) } else { format!("{path}.{key}") };
                let below = format!("{below}{}", shape.below);
                let mut kind = shape.kind.clone();
                if !shape.tables.is_empty() && !text.starts_with("See `") {
                    let name = shape.name.clone().unwrap_or_else(|| below.clone());
                    let at = self.written.entry(name).or_insert_with(|| {
                        deeper.push((below.clone(), shape.tables.clone()));
                        below.clone()
                    });
                    kind = format!("[{kind}](#{})", slug(at));
                }
                let meaning = linked(&meaning);
                let _ = writeln!(self.sections, "| `{key}` | {kind} | {default} | {meaning} |");
            }
        }
        for (path, tables) in deeper {
            self.section(&path, &path, &tables);
        }
    }

    fn shape(&self, schema: &'s Value) -> Shape<'s> {
        if let Some(name) = schema.get("$ref").and_then(Value::as_str).and_then(|name| name.rsplit('/').next()) {
            let target = self.root.get("$defs").and_then(|all| all.get(name)).unwrap_or(&Value::Null);
            return Shape { name: Some(name.to_owned()), ..self.shape(target) };
        }
        if let Some(choices) = schema.get("oneOf").or(schema.get("anyOf")).and_then(Value::as_array) {
            return self.choice(choices);
        }
        if let Some(word) = schema.get("const").and_then(Value::as_str) {
            let meaning = description(schema).map(|meaning| format!(": {meaning}")).unwrap_or_default();
            return Shape {
                kind: format!("`\"{word}\"`"),
                words: vec![format!("`{word}`{meaning}")],
                ..Shape::default()
            };
        }
        if let Some(words) = schema.get("enum") {
            let kind = strings(Some(words)).iter().map(|word| format!("`\"{word}\"`")).collect::<Vec<_>>().join(", ");
            return Shape { kind, ..Shape::default() };
        }
        let simple = |kind: &str| Shape { kind: kind.to_owned(), ..Shape::default() };
        match schema.get("type").and_then(Value::as_str).unwrap_or_default() {
            "string" => match schema.get("pattern").and_then(Value::as_str) {
                Some(pattern) if pattern.contains("KiB") => simple("size"),
                Some(pattern) if pattern.contains("ms") => simple("duration"),
                _ => simple("text"),
            },
            "integer" => simple("whole number"),
            "number" => simple("number"),
            "boolean" => simple("boolean"),
            "array" => {
                let item = self.shape(schema.get("items").unwrap_or(&Value::Null));
                let kind =
                    if item.tables.is_empty() { format!("list of {}", item.kind) } else { "list of tables".into() };
                Shape { kind, ..item }
            }
            "object" => match schema.get("additionalProperties") {
                Some(item @ Value::Object(_)) => {
                    let item = self.shape(item);
                    Shape { kind: format!("{} by name", item.kind), below: ".NAME", ..item }
                }
                _ => Shape { kind: "table".to_owned(), tables: vec![schema], ..Shape::default() },
            },
            _ => simple("any"),
        }
    }

    fn choice(&self, choices: &'s [Value]) -> Shape<'s> {
        let shapes: Vec<Shape<'_>> = choices.iter().map(|choice| self.shape(choice)).collect();
        if let [one, many] = shapes.as_slice()
            && many.kind == format!("list of {}", one.kind)
        {
            return Shape { kind: format!("one or more: {}", one.kind), ..Shape::default() };
        }
        let mut all = Shape::default();
        let mut kinds: Vec<String> = Vec::new();
        for shape in shapes {
            if !kinds.contains(&shape.kind) {
                kinds.push(shape.kind);
            }
            all.tables.extend(shape.tables);
            all.words.extend(shape.words);
        }
        all.kind = kinds.join(" or ");
        all
    }
}

fn description(schema: &Value) -> Option<String> {
    let text = schema.get("description")?.as_str()?;
    Some(text.replace('\n', " ").replace('|', "\\|"))
}

fn strings(list: Option<&Value>) -> Vec<&str> {
    list.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect()
}

/// The meaning without its sentence about the default, and what that sentence says.
pub(super) fn split_default(text: &str) -> (String, Option<&str>) {
    let Some(at) = text.find("Default").filter(|at| *at == 0 || text.get(..*at).is_some_and(|t| t.ends_with(". ")))
    else {
        return (text.to_owned(), None);
    };
    let (before, from) = text.split_at_checked(at).unwrap_or((text, ""));
    let said = from.trim_start_matches("Default").trim_start_matches(':').trim_start();
    let (said, after) = said.split_once(". ").unwrap_or((said.strip_suffix('.').unwrap_or(said), ""));
    (format!("{before}{after}").trim().to_owned(), Some(said))
}

fn default(schema: &Value, said: Option<&str>, required: bool) -> String {
    match (said, schema.get("default")) {
        _ if required => "required".to_owned(),
        (Some(said), _) => said.to_owned(),
        (None, Some(Value::Array(items))) if items.is_empty() => "empty".to_owned(),
        (None, Some(Value::Object(block))) if !block.is_empty() => "as below".to_owned(),
        (None, None | Some(Value::Object(_) | Value::Array(_))) => "none".to_owned(),
        (None, Some(value)) => format!("`{value}`"),
    }
}

/// `See` + a path becomes a link to the section whose table has it.
fn linked(meaning: &str) -> String {
    match meaning.strip_prefix("See `").and_then(|rest| rest.split_once('`')) {
        Some((path, rest)) => {
            let section = path.rsplit_once('.').map_or(path, |(section, _)| section);
            format!("See [{path}](#{}){rest}", slug(section))
        }
        None => meaning.to_owned(),
    }
}

/// The anchor that a heading gets.
pub(super) fn slug(heading: &str) -> String {
    let kept = |char: &char| char.is_alphanumeric() || matches!(char, '_' | '-');
    heading.to_lowercase().chars().filter(kept).collect()
}
