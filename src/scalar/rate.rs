//! Rates: so many in a time.

use std::borrow::Cow;
use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserializer};
use serde::{Deserialize, Serialize, Serializer};

use super::{ScalarError, Span};

/// A rate written as text: `100/s`, `600/1m`, `5000/h`. Times: as durations; a unit alone is one of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rate {
    /// Never zero when it was read.
    pub count: u32,
    pub per: Duration,
}

impl Rate {
    /// How long it takes until one more may pass.
    pub fn per_one(self) -> Duration {
        self.per / self.count.max(1)
    }

    /// What it gives in a second, and one more.
    pub fn default_burst(self) -> NonZeroU32 {
        let second = f64::from(self.count) / self.per.as_secs_f64().max(1e-9);
        let burst = (second.min(f64::from(u32::MAX - 1)) as u32).saturating_add(1);
        NonZeroU32::new(burst).unwrap_or(NonZeroU32::MIN)
    }
}

impl FromStr for Rate {
    type Err = ScalarError;
    fn from_str(text: &str) -> Result<Rate, ScalarError> {
        let wrong = || ScalarError::Rate(text.to_owned());
        let (count, per) = text.split_once('/').ok_or_else(wrong)?;
        let count: u32 = count.trim().parse().map_err(|_| wrong())?;
        let per = per.trim();
        let per = if per.starts_with(|c: char| c.is_ascii_digit()) { per.to_owned() } else { format!("1{per}") };
        let Span(per) = per.parse().map_err(|_| wrong())?;
        if count == 0 || per.is_zero() || per > Duration::from_secs(366 * 86_400) {
            return Err(wrong());
        }
        Ok(Rate { count, per })
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.count, Span(self.per))
    }
}

text_scalar!(
    Rate,
    "Rate",
    r"^([0-9]+ ?/ ?([0-9]+(ms|s|m|h|d))*(ms|s|m|h|d)?|.*\$\{.*)$",
    "A rate: 100/s, 600/1m, 5000/h.",
    "a rate in quotes: \"100/s\", \"600/1m\", \"5000/h\""
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_rates() {
        for (text, per_one, burst) in [
            ("100/s", Duration::from_millis(10), 101),
            ("600/1m", Duration::from_millis(100), 11),
            ("1/h", Duration::from_secs(3_600), 1),
            ("5/250ms", Duration::from_millis(50), 21),
        ] {
            let rate: Rate = text.parse().expect(text);
            assert_eq!((rate.per_one(), rate.default_burst().get()), (per_one, burst), "{text}");
        }
        for text in ["", "100", "0/s", "100/", "100/0s", "-1/s", "x/s", "1/fortnight", "9999999999/s"] {
            assert!(text.parse::<Rate>().is_err(), "{text}");
        }
        let text = "600/1m".parse::<Rate>().map(|rate| rate.to_string());
        assert_eq!(text.as_deref(), Ok("600/1m"));
    }
}
