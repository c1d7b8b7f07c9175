//! Words that may be written in more than one way, read by hand.
//!
//! Serde's untagged enums forget where a mistake is and say only that nothing fitted.

use std::fmt;

use serde::Deserialize;
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{self, Deserializer, MapAccess, SeqAccess, Visitor};

use super::{Address, Condition, PrefixCondition, PresentCondition, Target};

impl<'de> Deserialize<'de> for Condition {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Condition, D::Error> {
        /// Both tables in one, so that an unknown key is told with all that are known.
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Table {
            prefix: Option<String>,
            present: Option<bool>,
        }
        struct Shape;
        impl<'de> Visitor<'de> for Shape {
            type Value = Condition;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("\"text\", { prefix = \"text\" } or { present = true }")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Condition, E> {
                Ok(Condition::Exact(text.to_owned()))
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Condition, A::Error> {
                match Table::deserialize(MapAccessDeserializer::new(map))? {
                    Table { prefix: Some(prefix), present: None } => Ok(Condition::Prefix(PrefixCondition { prefix })),
                    Table { prefix: None, present: Some(present) } => {
                        Ok(Condition::Present(PresentCondition { present }))
                    }
                    _ => Err(de::Error::custom("not one condition; write either `prefix` or `present`")),
                }
            }
        }
        deserializer.deserialize_any(Shape)
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Address, D::Error> {
        struct Shape;
        impl<'de> Visitor<'de> for Shape {
            type Value = Address;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("\"host:port\" or a list of targets: [{ to = \"host:port\" }]")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Address, E> {
                Ok(Address::One(text.to_owned()))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Address, A::Error> {
                Vec::<Target>::deserialize(SeqAccessDeserializer::new(seq)).map(Address::Many)
            }
        }
        deserializer.deserialize_any(Shape)
    }
}
