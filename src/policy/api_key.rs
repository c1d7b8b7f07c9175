//! API keys: looked up by their digest, so that finding one takes as long as not finding one.

use std::collections::HashMap;
use std::sync::Arc;

use aws_lc_rs::digest;

use super::limits::{Limit, Limits};
use crate::config;
use crate::facts::{Proven, Subject};
use crate::problem::{Path, Problem};

/// Longest key that is looked at.
const KEY_MAX: usize = 1024;

/// Where a key is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyPlace {
    Header(http::HeaderName),
    Query(Box<str>),
    /// The password of Basic authentication.
    Basic,
}

/// A set of keys.
#[derive(Debug)]
pub struct ApiKeys {
    pub name: Arc<str>,
    pub places: Vec<KeyPlace>,
    keys: HashMap<[u8; 32], Held>,
}

#[derive(Debug)]
struct Held {
    subject: Arc<Subject>,
    expires: Option<u64>,
    limits: Limits,
}

/// Why a key is not good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyFault {
    #[error("there is no such key")]
    Unknown,
    #[error("the key has run out")]
    Expired,
}

impl ApiKeys {
    pub fn compile(
        name: &str,
        words: &config::ApiKeys,
        limits: &std::collections::BTreeMap<&str, Arc<Limit>>,
        at: &Path,
        problems: &mut Vec<Problem>,
    ) -> ApiKeys {
        let config::ApiKeys { header, query, basic, keys } = words;
        let mut places = Vec::new();
        let header = match (header, query, basic) {
            (None, None, false) => Some("x-api-key"),
            (header, ..) => header.as_deref(),
        };
        if let Some(text) = header {
            match http::HeaderName::from_bytes(text.as_bytes()) {
                Ok(name) if !text.contains('_') => places.push(KeyPlace::Header(name)),
                _ => {
                    let problem =
                        Problem::error(at.at("header"), format!("`{text}` is no header that clients can send"));
                    problems.push(problem.help("write `x-api-key`, or another name without `_`"));
                }
            }
        }
        places.extend(query.as_deref().map(|name| KeyPlace::Query(name.into())));
        places.extend(basic.then_some(KeyPlace::Basic));
        let source: Arc<str> = name.into();
        let mut held = HashMap::new();
        let mut names = std::collections::BTreeSet::new();
        for (index, words) in keys.iter().enumerate() {
            let at = at.at("keys").at(index);
            let config::ApiKey { name, sha256, owner, expires, limits: own, claims } = words;
            let mut error =
                |at: Path, message: String, help: &str| problems.push(Problem::error(at, message).help(help));
            if !names.insert(name) {
                error(at.at("name"), format!("another key is called `{name}` too"), "give each key a name of its own");
            }
            let expires = expires.as_ref().and_then(|text| {
                let read = moment(text);
                if read.is_none() {
                    error(at.at("expires"), format!("`{text}` is no moment"), "write `2027-01-31T00:00:00Z`");
                }
                read
            });
            let mut of_key = Vec::new();
            for (index, name) in own.iter().enumerate() {
                match limits.get(name.as_str()) {
                    Some(limit) => of_key.push(limit.clone()),
                    None => {
                        let help = format!("write a block `[limit.{name}]`");
                        error(at.at("limits").at(index), format!("there is no limit `{name}`"), &help);
                    }
                }
            }
            let Some(digest) = hex(sha256) else {
                if !sha256.contains("${") {
                    let help = "64 hex digits, as `tollgate hash-password --api-key` prints them";
                    error(at.at("sha256"), format!("`{sha256}` is no SHA-256"), help);
                }
                continue;
            };
            let mut subject = Subject::new(Proven::ApiKey, name, &source);
            subject.owner = owner.as_deref().map(Into::into);
            subject.expires = expires;
            subject.claims = claims.iter().map(|(name, text)| (name.clone(), text.as_str().into())).collect();
            let one = Held { subject: Arc::new(subject), expires, limits: of_key.into() };
            if held.insert(digest, one).is_some() {
                problems.push(Problem::error(at.at("sha256"), "another key has this digest too"));
            }
        }
        ApiKeys { name: source, places, keys: held }
    }

    /// Whose key it is.
    pub fn find(&self, key: &[u8], now: u64) -> Result<(Arc<Subject>, Limits), KeyFault> {
        if key.is_empty() || key.len() > KEY_MAX {
            return Err(KeyFault::Unknown);
        }
        let digest: [u8; 32] =
            digest::digest(&digest::SHA256, key).as_ref().try_into().map_err(|_| KeyFault::Unknown)?;
        let held = self.keys.get(&digest).ok_or(KeyFault::Unknown)?;
        if held.expires.is_some_and(|at| now >= at) {
            return Err(KeyFault::Expired);
        }
        Ok((held.subject.clone(), held.limits.clone()))
    }
}

fn hex(text: &str) -> Option<[u8; 32]> {
    let text = text.trim().strip_prefix("sha256:").unwrap_or(text.trim());
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    let mut out = [0; 32];
    for (byte, at) in out.iter_mut().zip((0..64).step_by(2)) {
        *byte = u8::from_str_radix(text.get(at..at + 2)?, 16).ok()?;
    }
    Some(out)
}

/// `2027-01-31T00:00:00Z` in seconds of the Unix epoch (RFC 3339, in UTC).
fn moment(text: &str) -> Option<u64> {
    let bare = text.strip_suffix('Z')?;
    let (date, time) = bare.split_once('T')?;
    let numbers =
        |text: &str, by: char| text.split(by).map(|part| part.parse::<u32>().ok()).collect::<Option<Vec<_>>>();
    let (date, time) = (numbers(date, '-')?, numbers(time, ':')?);
    let ([year, month, day], [hour, minute, second]) = (date.as_slice(), time.as_slice()) else { return None };
    let month = time::Month::try_from(u8::try_from(*month).ok()?).ok()?;
    let date = time::Date::from_calendar_date(i32::try_from(*year).ok()?, month, u8::try_from(*day).ok()?).ok()?;
    let small = |number: u32| u8::try_from(number).ok();
    let time = time::Time::from_hms(small(*hour)?, small(*minute)?, small(*second)?).ok()?;
    u64::try_from(time::PrimitiveDateTime::new(date, time).assume_utc().unix_timestamp()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_moments_and_digests() {
        assert_eq!(moment("1970-01-02T00:00:01Z"), Some(86_401));
        for text in ["", "2027", "2027-13-01T00:00:00Z", "2027-01-31", "2027-01-31T00:00:00", "2027-02-30T00:00:00Z"] {
            assert_eq!(moment(text), None, "{text}");
        }
        assert!(hex(&"aB".repeat(32)).is_some() && hex(&format!("sha256:{}", "0".repeat(64))).is_some());
        assert!(hex("zz").is_none() && hex(&"é".repeat(32)).is_none());
    }

    #[test]
    fn finds_keys_by_their_digest_while_they_are_good() {
        let digest = digest::digest(&digest::SHA256, b"k1");
        let digest: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        let text = format!(
            "keys = [{{ name = \"acme\", sha256 = \"{digest}\", owner = \"Acme\", expires = \"1970-01-02T00:00:00Z\" }}]"
        );
        let words: config::ApiKeys = toml::from_str(&text).unwrap();
        let mut problems = Vec::new();
        let keys = ApiKeys::compile("partners", &words, &Default::default(), &Path::default(), &mut problems);
        assert_eq!(problems, []);
        let (subject, _) = keys.find(b"k1", 0).unwrap();
        assert_eq!((&*subject.name, subject.owner.as_deref(), &*subject.source), ("acme", Some("Acme"), "partners"));
        assert_eq!(keys.find(b"k1", 86_400).unwrap_err(), KeyFault::Expired);
        assert_eq!(keys.find(b"k2", 0).unwrap_err(), KeyFault::Unknown);
        assert_eq!(keys.places, [KeyPlace::Header(http::HeaderName::from_static("x-api-key"))]);
    }
}
