//! Who asks, proven: by a token, a key, a password, a certificate, or the word of a service.

use std::borrow::Cow;
use std::sync::Arc;

use http::{HeaderName, HeaderValue};
use serde_json::{Map, Value};

/// How somebody was proven.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Proven {
    Jwt,
    ApiKey,
    Basic,
    ClientCertificate,
    Forward,
    /// Nobody was proven, and the route lets that be.
    Anonymous,
}

/// Who asks.
#[derive(Clone, Debug)]
pub struct Subject {
    pub by: Proven,
    /// `sub` of a token, the name of a key, of a user; the subject of a certificate. Empty where nobody says.
    pub name: Box<str>,
    /// Of which issuer, keys, users, CA or service.
    pub source: Arc<str>,
    pub owner: Option<Box<str>>,
    /// Name of the key that a token is signed with (`kid`).
    pub key: Option<Box<str>>,
    pub claims: Map<String, Value>,
    /// What a service would have sent along.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// When the proof ends, in seconds of the Unix epoch.
    pub expires: Option<u64>,
}

impl Proven {
    pub fn as_str(self) -> &'static str {
        match self {
            Proven::Jwt => "jwt",
            Proven::ApiKey => "api_key",
            Proven::Basic => "basic",
            Proven::ClientCertificate => "client_certificate",
            Proven::Forward => "forward",
            Proven::Anonymous => "anonymous",
        }
    }
}

impl Subject {
    pub fn new(by: Proven, name: &str, source: &Arc<str>) -> Subject {
        Subject {
            by,
            name: name.into(),
            source: source.clone(),
            owner: None,
            key: None,
            claims: Map::new(),
            headers: Vec::new(),
            expires: None,
        }
    }

    /// A claim by name; where there is none of the whole name, by its parts between dots.
    pub fn claim(&self, name: &str) -> Option<&Value> {
        if let Some(value) = self.claims.get(name) {
            return Some(value);
        }
        let mut parts = name.split('.');
        let mut value = self.claims.get(parts.next()?)?;
        for part in parts {
            value = value.as_object()?.get(part)?;
        }
        Some(value)
    }
}

/// A claim as text: texts, numbers and booleans as they are, a list of them with spaces between. Others have none.
pub fn claim_text(value: &Value) -> Option<Cow<'_, str>> {
    match value {
        Value::String(text) => Some(Cow::Borrowed(text)),
        Value::Number(number) => Some(Cow::Owned(number.to_string())),
        Value::Bool(truth) => Some(Cow::Borrowed(if *truth { "true" } else { "false" })),
        Value::Array(list) => {
            let all: Option<Vec<_>> = list.iter().map(|one| claim_text(one).filter(|_| !one.is_array())).collect();
            Some(Cow::Owned(all?.join(" ")))
        }
        Value::Null | Value::Object(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn claims_are_found_by_name_and_by_path() {
        let mut subject = Subject::new(Proven::Jwt, "u1", &"accounts".into());
        let claims = json!({
            "sub": "u1", "level": 3, "admin": true, "scope": ["read", "write"], "https://a.test/role": "x",
            "realm": { "roles": ["a", "b"], "deep": { "er": null } }, "list": [["nested"]],
        });
        subject.claims = claims.as_object().unwrap().clone();
        let text = |name: &str| subject.claim(name).and_then(claim_text).map(Cow::into_owned);
        for (name, expect) in [
            ("sub", Some("u1")),
            ("level", Some("3")),
            ("admin", Some("true")),
            ("scope", Some("read write")),
            ("https://a.test/role", Some("x")),
            ("realm.roles", Some("a b")),
            ("realm", None),
            ("realm.deep.er", None),
            ("realm.none", None),
            ("list", None),
            ("", None),
        ] {
            assert_eq!(text(name).as_deref(), expect, "{name}");
        }
    }
}
