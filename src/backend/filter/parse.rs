//! Text to filter, by recursive descent.

use super::{COMPARISONS_MAX, DEPTH_MAX, Field, Filter, LENGTH_MAX, Operator, Value};

pub(super) fn parse(text: &str) -> Result<Filter, String> {
    if text.len() > LENGTH_MAX {
        return Err(format!("longer than {LENGTH_MAX} bytes"));
    }
    let mut parser = Parser { text, at: 0, comparisons: 0, depth: 0 };
    let filter = parser.any()?;
    match parser.rest() {
        "" => Ok(filter),
        _ => Err(parser.expected("`&&`, `||` or the end")),
    }
}

struct Parser<'t> {
    text: &'t str,
    at: usize,
    comparisons: usize,
    depth: usize,
}

impl<'t> Parser<'t> {
    /// What is left, white space skipped.
    fn rest(&mut self) -> &'t str {
        let rest = self.text.get(self.at..).unwrap_or_default();
        let trimmed = rest.trim_start_matches([' ', '\t', '\n', '\r']);
        self.at += rest.len() - trimmed.len();
        trimmed
    }

    fn take(&mut self, word: &str) -> bool {
        let found = self.rest().starts_with(word);
        if found {
            self.at += word.len();
        }
        found
    }

    fn expected(&mut self, what: &str) -> String {
        let found = match self.rest().chars().next() {
            Some(character) => format!("`{}`", character.escape_default()),
            None => "its end".to_owned(),
        };
        format!("expected {what} at byte {}, found {found}", self.at)
    }

    fn any(&mut self) -> Result<Filter, String> {
        let mut parts = vec![self.all()?];
        while self.take("||") {
            parts.push(self.all()?);
        }
        Ok(alone(parts).unwrap_or_else(Filter::Any))
    }

    fn all(&mut self) -> Result<Filter, String> {
        let mut parts = vec![self.one()?];
        while self.take("&&") {
            parts.push(self.one()?);
        }
        Ok(alone(parts).unwrap_or_else(Filter::All))
    }

    fn one(&mut self) -> Result<Filter, String> {
        let open = self.take("(");
        if !open && !self.take("!") {
            return self.comparison();
        }
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(format!("more than {DEPTH_MAX} brackets within each other"));
        }
        let inside = if open { self.any()? } else { Filter::Not(Box::new(self.one()?)) };
        self.depth -= 1;
        if open && !self.take(")") {
            return Err(self.expected("`)`"));
        }
        Ok(inside)
    }

    fn comparison(&mut self) -> Result<Filter, String> {
        self.comparisons += 1;
        if self.comparisons > COMPARISONS_MAX {
            return Err(format!("more than {COMPARISONS_MAX} comparisons"));
        }
        let field = self.field()?;
        let (operator, negated) = self.operator()?;
        let value = self.value()?;
        if matches!(value, Value::Boolean(_) | Value::Null) && operator != Operator::Is {
            return Err("`true`, `false` and `null` take `=` and `!=` only".to_owned());
        }
        if operator == Operator::Holds && !matches!(value, Value::Text(_)) {
            return Err("`~` takes a text in quotes".to_owned());
        }
        let compare = Filter::Compare(field, operator, value);
        Ok(if negated { Filter::Not(Box::new(compare)) } else { compare })
    }

    fn field(&mut self) -> Result<Field, String> {
        let rest = self.rest();
        let legal = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.';
        let length = rest.find(|c| !legal(c)).unwrap_or(rest.len());
        let Some(name) = rest.get(..length).filter(|name| !name.is_empty()) else {
            return Err(self.expected("the name of a field"));
        };
        let field = name.parse()?;
        self.at += length;
        Ok(field)
    }

    /// The longer ones first.
    fn operator(&mut self) -> Result<(Operator, bool), String> {
        for (word, operator, negated) in [
            ("!=", Operator::Is, true),
            ("!~", Operator::Holds, true),
            (">=", Operator::GreaterOrIs, false),
            ("<=", Operator::LessOrIs, false),
            ("=", Operator::Is, false),
            (">", Operator::Greater, false),
            ("<", Operator::Less, false),
            ("~", Operator::Holds, false),
        ] {
            if self.take(word) {
                return Ok((operator, negated));
            }
        }
        Err(self.expected("an operator, of = != > >= < <= ~ !~,"))
    }

    fn value(&mut self) -> Result<Value, String> {
        let rest = self.rest();
        if let Some(quote) = rest.chars().next().filter(|first| matches!(first, '\'' | '"')) {
            return self.quoted(quote);
        }
        let length =
            rest.find(|c: char| !c.is_ascii_alphanumeric() && !matches!(c, '+' | '-' | '.')).unwrap_or(rest.len());
        let word = rest.get(..length).unwrap_or_default();
        let value = match word {
            "true" => Value::Boolean(true),
            "false" => Value::Boolean(false),
            "null" => Value::Null,
            number if number.starts_with(|c: char| c.is_ascii_digit() || c == '-') => match number.parse() {
                Ok(whole) => Value::Whole(whole),
                Err(_) => match number.parse::<f64>() {
                    Ok(number) if number.is_finite() => Value::Number(number),
                    _ => return Err(format!("`{number}` is no number")),
                },
            },
            _ => return Err(self.expected("a text in quotes, a number, true, false or null")),
        };
        self.at += length;
        Ok(value)
    }

    fn quoted(&mut self, quote: char) -> Result<Value, String> {
        let mut text = String::new();
        let mut characters = self.rest().char_indices().skip(1);
        while let Some((at, character)) = characters.next() {
            match character {
                '\\' => text.extend(characters.next().map(|(_, escaped)| escaped)),
                end if end == quote => {
                    self.at += at + end.len_utf8();
                    return Ok(Value::Text(text));
                }
                other => text.push(other),
            }
        }
        Err(format!("a text that begins with {quote} does not end"))
    }
}

/// The one there is; several come back.
fn alone(mut parts: Vec<Filter>) -> Result<Filter, Vec<Filter>> {
    match (parts.pop(), parts.is_empty()) {
        (Some(only), true) => Ok(only),
        (last, _) => {
            parts.extend(last);
            Err(parts)
        }
    }
}
