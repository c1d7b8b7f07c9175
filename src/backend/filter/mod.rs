//! Filters of lists: `text ~ 'milk' && (price > 3 || done = true)`.
//!
//! ```text
//! filter     = all { "||" all }
//! all        = one { "&&" one }
//! one        = "(" filter ")" | "!" one | field operator value
//! field      = name { "." name }                  id, owner, created, updated, or what the record holds
//! operator   = "=" | "!=" | ">" | ">=" | "<" | "<=" | "~" | "!~"
//! value      = 'text' | "text" | number | true | false | null       \ escapes the next character of a text
//! ```
//! A filter is read into a tree, and the tree is written as SQL in which every name and value is a parameter: nothing a client
//! writes becomes part of a statement. Length, depth and number of comparisons are bounded.

mod parse;
mod sql;
#[cfg(test)]
mod tests;

pub(super) use sql::{Field, Statement, is_name};

/// Bytes of a filter.
const LENGTH_MAX: usize = 2048;
const COMPARISONS_MAX: usize = 32;
/// Brackets and `!` within each other.
const DEPTH_MAX: usize = 16;
/// Names in the path of a field.
const NAMES_MAX: usize = 5;
const NAME_MAX: usize = 64;

/// A condition on a record.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Filter {
    Any(Vec<Filter>),
    All(Vec<Filter>),
    Not(Box<Filter>),
    Compare(Field, Operator, Value),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operator {
    Is,
    Greater,
    GreaterOrIs,
    Less,
    LessOrIs,
    /// A text that holds this one; ASCII letters of either case are alike.
    Holds,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Text(String),
    Number(f64),
    /// A whole number that SQLite compares exactly.
    Whole(i64),
    Boolean(bool),
    /// Also what a record lacks.
    Null,
}

impl std::str::FromStr for Filter {
    type Err = String;

    fn from_str(text: &str) -> Result<Filter, String> {
        parse::parse(text)
    }
}
