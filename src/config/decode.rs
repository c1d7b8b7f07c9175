//! From the tree to words: a serde deserializer whose errors know their path and their kind.
//!
//! Serde stops at the first mistake; `peel` takes it out of the tree and decodes again.

use std::fmt;

use serde::de::{self, Deserializer, IntoDeserializer, MapAccess, SeqAccess, Unexpected, Visitor};
use serde::forward_to_deserialize_any;

use super::tree::{Entry, Node, Value};

/// What stopped decoding, and where.
#[derive(Debug)]
pub(super) struct Mistake {
    /// From the inside outwards.
    steps: Vec<String>,
    pub(super) kind: Kind,
}

#[derive(Debug)]
pub(super) enum Kind {
    /// The last step is the key.
    UnknownKey { expected: &'static [&'static str] },
    /// The steps lead to the table that lacks it.
    MissingKey(&'static str),
    /// Text that is none of a few words.
    UnknownWord { word: String, expected: &'static [&'static str] },
    /// A value of another kind than wanted.
    Type { found: String, wanted: String },
    /// What the type itself says.
    Other(String),
}

impl Mistake {
    fn of(kind: Kind) -> Mistake {
        Mistake { steps: Vec::new(), kind }
    }

    fn inside(mut self, step: impl fmt::Display) -> Mistake {
        self.steps.push(step.to_string());
        self
    }

    /// From the top of the tree to the place.
    pub(super) fn steps(&self) -> Vec<String> {
        self.steps.iter().rev().cloned().collect()
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} in {}", self.kind, self.steps().join("."))
    }
}

impl std::error::Error for Mistake {}

impl de::Error for Mistake {
    fn custom<T: fmt::Display>(message: T) -> Mistake {
        Mistake::of(Kind::Other(message.to_string()))
    }
    fn invalid_type(found: Unexpected<'_>, wanted: &dyn de::Expected) -> Mistake {
        Mistake::of(Kind::Type { found: kind_of(found), wanted: wanted.to_string() })
    }
    fn invalid_value(found: Unexpected<'_>, wanted: &dyn de::Expected) -> Mistake {
        let found = match found {
            Unexpected::Unsigned(number) => format!("`{number}`"),
            Unexpected::Signed(number) => format!("`{number}`"),
            Unexpected::Float(number) => format!("`{number}`"),
            other => kind_of(other),
        };
        Mistake::of(Kind::Type { found, wanted: wanted.to_string() })
    }
    fn unknown_variant(word: &str, expected: &'static [&'static str]) -> Mistake {
        Mistake::of(Kind::UnknownWord { word: word.to_owned(), expected })
    }
    fn unknown_field(_: &str, expected: &'static [&'static str]) -> Mistake {
        Mistake::of(Kind::UnknownKey { expected })
    }
    fn missing_field(field: &'static str) -> Mistake {
        Mistake::of(Kind::MissingKey(field))
    }
}

/// In the words of TOML; never the value of a text.
fn kind_of(found: Unexpected<'_>) -> String {
    match found {
        Unexpected::Bool(_) => "a boolean".to_owned(),
        Unexpected::Unsigned(_) | Unexpected::Signed(_) => "a whole number".to_owned(),
        Unexpected::Float(_) => "a number with a fraction".to_owned(),
        Unexpected::Str(_) | Unexpected::Char(_) | Unexpected::Bytes(_) => "text".to_owned(),
        Unexpected::Seq => "a list".to_owned(),
        Unexpected::Map => "a table".to_owned(),
        other => other.to_string(),
    }
}

impl<'de> Deserializer<'de> for &Node<'_> {
    type Error = Mistake;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mistake> {
        match &self.value {
            Value::Text(text) => visitor.visit_str(text),
            Value::Loose(text) => visitor.visit_str(text),
            Value::Integer(number) => visitor.visit_i64(*number),
            Value::Vast(number) => {
                Err(Mistake::of(Kind::Other(format!("`{number}` is too large a number; write a smaller one"))))
            }
            Value::Float(number) => visitor.visit_f64(*number),
            Value::Boolean(boolean) => visitor.visit_bool(*boolean),
            Value::Datetime(text) => {
                Err(Mistake::of(Kind::Other(format!("`{text}` is a date; no word takes dates; write text in quotes"))))
            }
            Value::List(items) => visitor.visit_seq(Items { items, next: 0 }),
            Value::Table(entries) => visitor.visit_map(Keys { entries, value: None }),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mistake> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Mistake> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        expected: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Mistake> {
        match &self.value {
            Value::Text(text) => visitor.visit_enum(text.as_ref().into_deserializer()),
            Value::Loose(text) => visitor.visit_enum(text.as_str().into_deserializer()),
            Value::Table(entries) => {
                visitor.visit_enum(de::value::MapAccessDeserializer::new(Keys { entries, value: None }))
            }
            _ => Err(Mistake::of(Kind::Type { found: self.kind().to_owned(), wanted: one_of(expected) })),
        }
    }

    /// Serde's structs would take a list for their fields in order.
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Mistake> {
        match &self.value {
            Value::List(_) => Err(de::Error::invalid_type(Unexpected::Seq, &visitor)),
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mistake> {
        match &self.value {
            Value::Loose(text) if text.parse::<bool>().is_ok() => visitor.visit_bool(text == "true"),
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_i64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mistake> {
        match &self.value {
            Value::Loose(text) => match text.parse() {
                Ok(number) => visitor.visit_i64(number),
                Err(_) => visitor.visit_str(text),
            },
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_i8<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mistake> {
        self.deserialize_i64(visitor)
    }
    fn deserialize_i16<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mistake> {
        self.deserialize_i64(visitor)
    }
    fn deserialize_i32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mistake> {
        self.deserialize_i64(visitor)
    }
    fn deserialize_u8<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mistake> {
        self.deserialize_i64(visitor)
    }
    fn deserialize_u16<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mistake> {
        self.deserialize_i64(visitor)
    }
    fn deserialize_u32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mistake> {
        self.deserialize_i64(visitor)
    }
    fn deserialize_u64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mistake> {
        self.deserialize_i64(visitor)
    }
    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mistake> {
        self.deserialize_f64(visitor)
    }
    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mistake> {
        match &self.value {
            Value::Loose(text) => match text.parse() {
                Ok(number) => visitor.visit_f64(number),
                Err(_) => visitor.visit_str(text),
            },
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mistake> {
        match &self.value {
            Value::Loose(_) => visitor.visit_seq(Items { items: std::slice::from_ref(self), next: 0 }),
            _ => self.deserialize_any(visitor),
        }
    }

    forward_to_deserialize_any! {
        i128 u128 char str string bytes byte_buf unit unit_struct tuple tuple_struct map identifier ignored_any
    }
}

impl Node<'_> {
    fn kind(&self) -> &'static str {
        match self.value {
            Value::Text(_) | Value::Loose(_) => "text",
            Value::Integer(_) | Value::Vast(_) => "a whole number",
            Value::Float(_) => "a number with a fraction",
            Value::Boolean(_) => "a boolean",
            Value::Datetime(_) => "a date",
            Value::List(_) => "a list",
            Value::Table(_) => "a table",
        }
    }
}

/// `"a", "b" or "c"`.
pub(super) fn one_of(words: &[&str]) -> String {
    let quoted: Vec<String> = words.iter().map(|word| format!("\"{word}\"")).collect();
    match quoted.split_last() {
        None => "nothing".to_owned(),
        Some((last, [])) => last.clone(),
        Some((last, rest)) => format!("{} or {last}", rest.join(", ")),
    }
}

struct Items<'n, 't> {
    items: &'n [Node<'t>],
    next: usize,
}

impl<'de> SeqAccess<'de> for Items<'_, '_> {
    type Error = Mistake;

    fn next_element_seed<T: de::DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Mistake> {
        while let Some(item) = self.items.get(self.next) {
            let index = self.next;
            self.next += 1;
            if !item.gone {
                return seed.deserialize(item).map(Some).map_err(|mistake| mistake.inside(index));
            }
        }
        Ok(None)
    }
}

struct Keys<'n, 't> {
    entries: &'n [Entry<'t>],
    value: Option<&'n Entry<'t>>,
}

impl<'de> MapAccess<'de> for Keys<'_, '_> {
    type Error = Mistake;

    fn next_key_seed<K: de::DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Mistake> {
        while let Some((entry, rest)) = self.entries.split_first() {
            self.entries = rest;
            if !entry.node.gone {
                self.value = Some(entry);
                let key: de::value::StrDeserializer<'_, Mistake> = entry.key.as_ref().into_deserializer();
                return seed.deserialize(key).map(Some).map_err(|mistake| mistake.inside(&entry.key));
            }
        }
        Ok(None)
    }

    fn next_value_seed<V: de::DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Mistake> {
        let entry = self.value.take().ok_or_else(|| Mistake::of(Kind::Other("a value without a key".to_owned())))?;
        seed.deserialize(&entry.node).map_err(|mistake| mistake.inside(&entry.key))
    }
}
