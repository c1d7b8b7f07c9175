//! What must be known of a subject: claims and their values.

use serde_json::Value;

use crate::config;
use crate::facts::{Subject, claim_text};
use crate::problem::Path;

use super::Reading;

/// One requirement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirement {
    pub claim: Box<str>,
    test: Test,
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
        let config::Requirement { claim, equals, contains, one_of } = words;
        if claim.is_empty() {
            reading.error(&at.at("claim"), "the name is empty", "write the name of a claim, such as `scope`");
            return None;
        }
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
        Some(Requirement { claim: claim.as_str().into(), test })
    }

    /// Whether it is met. A value is compared as text: `3` equals `"3"`.
    pub fn holds(&self, subject: &Subject) -> bool {
        let Some(value) = subject.claim(&self.claim) else { return false };
        let is = |wanted: &str| claim_text(value).is_some_and(|text| *text == *wanted);
        match &self.test {
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

    /// The scope that is missing, for `WWW-Authenticate` (RFC 6750 3).
    pub fn scope(&self) -> Option<&str> {
        match &self.test {
            Test::Contains(scope) if matches!(&*self.claim, "scope" | "scp") => Some(scope),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::facts::Proven;
    use crate::policy::Presence;

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
        ] {
            let words: config::Requirement = toml::from_str(text).unwrap();
            let mut problems = Vec::new();
            let mut reading = Reading { captures: &|_| Presence::Never, problems: &mut problems };
            let requirement = Requirement::compile(&words, &Path::default(), &mut reading).unwrap();
            assert_eq!(requirement.holds(&subject), expect, "{text}");
        }
    }
}
