//! Filter to SQL over `records`: expressions that are 0 or 1, never NULL, with numbered parameters.

use std::fmt::Write as _;
use std::str::FromStr;

use rusqlite::types::Value as Parameter;

use super::{Filter, NAME_MAX, NAMES_MAX, Operator, Value};

/// What a filter or an order looks at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::backend) enum Field {
    /// A column of its own: never what a client wrote.
    Column(&'static str),
    /// A path into what the record holds, as JSON writes it: `$."a"."b"`.
    Path(String),
}

/// Columns that a record shows as fields.
const COLUMNS: [&str; 4] = ["id", "owner", "created", "updated"];

impl FromStr for Field {
    type Err = String;

    fn from_str(text: &str) -> Result<Field, String> {
        if let Some(column) = COLUMNS.into_iter().find(|column| *column == text) {
            return Ok(Field::Column(column));
        }
        let names: Vec<&str> = text.split('.').collect();
        if names.len() > NAMES_MAX || !names.iter().all(|name| is_name(name)) {
            return Err(format!("`{}` is no field", text.escape_default()));
        }
        let mut path = "$".to_owned();
        for name in names {
            let _ = write!(path, ".\"{name}\"");
        }
        Ok(Field::Path(path))
    }
}

/// What the fields of a record are called, so that a path needs no escapes.
pub(in crate::backend) fn is_name(name: &str) -> bool {
    let first = name.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_');
    first && name.len() <= NAME_MAX && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// A statement in the making, and what its parameters stand for.
#[derive(Debug, Default)]
pub(in crate::backend) struct Statement {
    pub(in crate::backend) text: String,
    pub(in crate::backend) parameters: Vec<Parameter>,
}

impl Statement {
    pub(in crate::backend) fn new(text: &str) -> Statement {
        Statement { text: text.to_owned(), parameters: Vec::new() }
    }

    pub(in crate::backend) fn push(&mut self, text: &str) {
        self.text.push_str(text);
    }

    /// A parameter in this place.
    pub(in crate::backend) fn bind(&mut self, value: impl Into<Parameter>) {
        self.parameters.push(value.into());
        let _ = write!(self.text, "?{}", self.parameters.len());
    }

    /// The value of a field as SQL has it: NULL if the record lacks it.
    pub(in crate::backend) fn field(&mut self, field: &Field) {
        match field {
            Field::Column(column) => self.push(column),
            Field::Path(path) => {
                self.push("json_extract(data, ");
                self.bind(path.clone());
                self.push(")");
            }
        }
    }

    /// What kind of value it is, in the words of `json_type`.
    fn kind(&mut self, field: &Field) {
        match field {
            Field::Column(column) => {
                self.push("CASE WHEN ");
                self.push(column);
                self.push(" IS NULL THEN 'null' ELSE typeof(");
                self.push(column);
                self.push(") END");
            }
            Field::Path(path) => {
                self.push("coalesce(json_type(data, ");
                self.bind(path.clone());
                self.push("), 'null')");
            }
        }
    }

    pub(in crate::backend) fn filter(&mut self, filter: &Filter) {
        match filter {
            Filter::Any(parts) => self.joined(parts, " OR "),
            Filter::All(parts) => self.joined(parts, " AND "),
            Filter::Not(inside) => {
                self.push("(NOT ");
                self.filter(inside);
                self.push(")");
            }
            Filter::Compare(field, operator, value) => self.compare(field, *operator, value),
        }
    }

    fn joined(&mut self, parts: &[Filter], between: &str) {
        self.push("(");
        for (index, part) in parts.iter().enumerate() {
            if index > 0 {
                self.push(between);
            }
            self.filter(part);
        }
        self.push(")");
    }

    /// Only values of one kind are compared: to SQLite any text is more than any number.
    fn compare(&mut self, field: &Field, operator: Operator, value: &Value) {
        let (kinds, parameter) = match value {
            Value::Text(text) => ("('text')", Parameter::from(text.clone())),
            Value::Number(number) => ("('integer', 'real')", Parameter::from(*number)),
            Value::Whole(number) => ("('integer', 'real')", Parameter::from(*number)),
            Value::Boolean(true) => return self.is_kind(field, "('true')"),
            Value::Boolean(false) => return self.is_kind(field, "('false')"),
            Value::Null => return self.is_kind(field, "('null')"),
        };
        self.push("(");
        self.is_kind(field, kinds);
        self.push(" AND coalesce(");
        if operator == Operator::Holds {
            self.push("instr(lower(");
            self.field(field);
            self.push("), lower(");
            self.bind(parameter);
            self.push(")) > 0");
        } else {
            self.field(field);
            self.push(match operator {
                Operator::Is | Operator::Holds => " = ",
                Operator::Greater => " > ",
                Operator::GreaterOrIs => " >= ",
                Operator::Less => " < ",
                Operator::LessOrIs => " <= ",
            });
            self.bind(parameter);
        }
        self.push(", 0))");
    }

    fn is_kind(&mut self, field: &Field, kinds: &str) {
        self.push("((");
        self.kind(field);
        self.push(") IN ");
        self.push(kinds);
        self.push(")");
    }
}
