//! JSON Schema of all files: what editors complete and check while one types.

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::Value;

use super::Document;
use crate::settings::backend::Backend;
use crate::settings::{Alerts, Controller, Settings};

/// The schema of a document (`routes.toml`).
pub fn document() -> Value {
    of::<Document>("Tollgate routes")
}

/// The schema of settings (`edge.toml`).
pub fn settings() -> Value {
    of::<Settings>("Tollgate edge")
}

/// The schema of the backend's settings (`backend.toml`).
pub fn backend() -> Value {
    of::<Backend>("Tollgate backend")
}

/// The schema of the controller's settings (`controller.toml`).
pub fn controller() -> Value {
    of::<Controller>("Tollgate controller")
}

/// The schema of alert rules (`alerts.toml`).
pub fn alerts() -> Value {
    of::<Alerts>("Tollgate alerts")
}

/// As the file in `config/` holds it.
pub fn text(schema: &Value) -> String {
    let mut text = serde_json::to_string_pretty(schema).unwrap_or_default();
    text.push('\n');
    text
}

fn of<T: JsonSchema>(title: &str) -> Value {
    let mut schema = SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<T>();
    schema.insert("title".to_owned(), title.into());
    let mut schema = schema.to_value();
    without_null(&mut schema);
    schema
}

/// TOML has no null: what may be left out is left out.
fn without_null(schema: &mut Value) {
    match schema {
        Value::Array(items) => items.iter_mut().for_each(without_null),
        Value::Object(map) => {
            map.retain(|key, value| !(key == "default" && value.is_null()));
            if let Some(Value::Array(kinds)) = map.get_mut("type") {
                kinds.retain(|kind| kind != "null");
                if let [only] = kinds.as_slice() {
                    let only = only.clone();
                    map.insert("type".to_owned(), only);
                }
            }
            if let Some(Value::Array(choices)) = map.get_mut("anyOf") {
                choices.retain(|choice| choice.get("type").is_none_or(|kind| kind != "null"));
                if let [Value::Object(only)] = choices.as_slice() {
                    let only = only.clone();
                    map.remove("anyOf");
                    for (key, value) in only {
                        map.entry(key).or_insert(value);
                    }
                }
            }
            map.values_mut().for_each(without_null);
        }
        _ => {}
    }
}
