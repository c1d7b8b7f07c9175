//! What must be known of a subject: claims and their values.

use serde_json::Value;

use crate::config;
use crate::facts::{Fact, Facts, Subject, claim_text};
use crate::problem::Path;

use super::Reading;

/// One requirement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirement {
    of: Of,
    test: Test,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Of {
    Claim(Box<str>),
    Fact(Fact),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Test {
    Present,
    Equals(Box<str>),
    Contains(Box<str>),
    OneOf(Box<[Box<str>]>),
}

impl Requirement {
    pub fn compile(words: &config::Requirement, at: &Path, reading: &mut Reading<'_>) -> Option<Requirement> {
        let config::Requirement { claim, fact, equals, contains, one_of } = words;
        let of = match (claim, fact) {
            (Some(claim), None) if !claim.is_empty() => Of::Claim(claim.as_str().into()),
            (None, Some(text)) => match text.parse::<Fact>() {
                Ok(fact) => Of::Fact(fact),
                Err(wrong) => {
                    reading.error(&at.at("fact"), wrong.to_string(), crate::facts::UnknownFact::HELP);
                    return None;
                }
            },
            _ => {
                reading.error(at, "it is not said of what", "write `claim` (such as `scope`) or `fact`, not both");
                return None;
            }
        };
        let one_of: Vec<Box<str>> = one_of.iter().map(|one| one.as_str().into()).collect();
        let test = match (equals, contains, one_of.is_empty()) {
            (None, None, true) => Test::Present,
            (Some(text), None, true) => Test::Equals(text.as_str().into()),
            (None, Some(text), true) => Test::Contains(text.as_str().into()),
            (None, None, false) => Test::OneOf(one_of.into()),
            _ => {
                reading.error(at, "more than one test of a claim", "keep one of `equals`, `contains`, `one_of`");
                return None;
            }
        };
        Some(Requirement { of, test })
    }

    pub fn is_of_claim(&self) -> bool {
        matches!(self.of, Of::Claim(_))
    }

    /// What it is about, as authors write it.
    pub fn what(&self) -> String {
        match &self.of {
            Of::Claim(name) => format!("claim `{name}`"),
            Of::Fact(fact) => format!("fact `{fact}`"),
        }
    }

    /// Whether it is met. A value is compared as text: `3` equals `"3"`.
    pub fn holds(&self, subject: &Subject, facts: &dyn Facts) -> bool {
        match &self.of {
            Of::Claim(name) => subject.claim(name).is_some_and(|value| self.test.of_value(value)),
            Of::Fact(fact) => facts.fact(fact).is_some_and(|text| self.test.of_text(&text)),
        }
    }

    /// The scope that is missing, for `WWW-Authenticate` (RFC 6750 3).
    pub fn scope(&self) -> Option<&str> {
        match &self.test {
            Test::Contains(scope) if matches!(&self.of, Of::Claim(name) if matches!(&**name, "scope" | "scp")) => {
                Some(scope)
            }
            _ => None,
        }
    }
}

impl Test {
    fn of_value(&self, value: &Value) -> bool {
        let is = |wanted: &str| claim_text(value).is_some_and(|text| *text == *wanted);
        match self {
            Test::Present => !value.is_null(),
            Test::Equals(wanted) => !value.is_array() && is(wanted),
            Test::OneOf(all) => !value.is_array() && all.iter().any(|wanted| is(wanted)),
            Test::Contains(wanted) => match value {
                Value::Array(items) => items.iter().any(|item| claim_text(item).is_some_and(|text| *text == **wanted)),
                Value::String(words) => words.split_ascii_whitespace().any(|word| word == &**wanted),
                _ => false,
            },
        }
    }

    fn of_text(&self, text: &str) -> bool {
        match self {
            Test::Present => true,
            Test::Equals(wanted) => *text == **wanted,
            Test::OneOf(all) => all.iter().any(|wanted| *text == **wanted),
            // Names of a certificate are joined by commas.
            Test::Contains(wanted) => text.split([',', ' ']).any(|word| word == &**wanted),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use std::borrow::Cow;

    use crate::facts::Proven;
    use crate::policy::Presence;

    struct San;
    impl Facts for San {
        fn fact(&self, fact: &Fact) -> Option<Cow<'_, str>> {
            (fact.to_string() == "tls.client.san").then_some("dns:a.test,uri:spiffe://b".into())
        }
    }

    #[test]
    fn claims_are_compared_as_they_are_written() {
        let mut subject = Subject::new(Proven::Jwt, "u1", &"a".into());
        let claims =
            json!({ "scope": "read write", "roles": ["a", "b"], "level": 3, "x": null, "deep": { "role": "admin" } });
        subject.claims = claims.as_object().unwrap().clone();
        for (text, expect) in [
            ("claim = 'scope'\ncontains = 'read'", true),
            ("claim = 'scope'\ncontains = 'rea'", false),
            ("claim = 'scope'\ncontains = 'read write'", false),
            ("claim = 'scope'\nequals = 'read write'", true),
            ("claim = 'roles'\ncontains = 'b'", true),
            ("claim = 'roles'\nequals = 'a b'", false),
            ("claim = 'level'\nequals = '3'", true),
            ("claim = 'level'\none_of = ['1', '3']", true),
            ("claim = 'level'\ncontains = '3'", false),
            ("claim = 'deep.role'\nequals = 'admin'", true),
            ("claim = 'deep'", true),
            ("claim = 'x'", false),
            ("claim = 'none'", false),
            ("claim = 'none'\nequals = ''", false),
            ("fact = 'tls.client.san'\ncontains = 'uri:spiffe://b'", true),
            ("fact = 'tls.client.san'\ncontains = 'uri:spiffe://'", false),
            ("fact = 'tls.client.san'", true),
            ("fact = 'tls.client.subject'", false),
        ] {
            let words: config::Requirement = toml::from_str(text).unwrap();
            let mut problems = Vec::new();
            let mut reading = Reading { captures: &|_| Presence::Never, problems: &mut problems };
            let requirement = Requirement::compile(&words, &Path::default(), &mut reading).unwrap();
            assert_eq!(requirement.holds(&subject, &San), expect, "{text}");
        }
    }
}
