//! From the words of `[limit.NAME]` to a limit, with every mistake at its place.

use std::num::NonZeroU32;
use std::time::Duration;

use http::{HeaderName, Method};

use super::{Cost, Kind, Limit};
use crate::config::{self, Scope};
use crate::facts::Fact;
use crate::problem::{Path, Problem};

/// Most keys of one limit.
const KEYS_MAX: usize = 10_000_000;
/// Longest time in which a burst comes back.
const WINDOW_MAX: Duration = Duration::from_secs(10 * 366 * 86_400);

impl Limit {
    pub fn compile(name: &str, words: &config::Limit, at: &Path, problems: &mut Vec<Problem>) -> Option<Limit> {
        let config::Limit { rate, burst, concurrent, key, missing, cost, scope, on_loss, dry_run, keys } = words;
        let mut error = |at: Path, message: String, help: &str| problems.push(Problem::error(at, message).help(help));
        if *keys == 0 || *keys > KEYS_MAX {
            error(at.at("keys"), format!("{keys} keys"), "write 1 to 10000000");
        }
        let zero = |number: u32| NonZeroU32::new(number);
        let kind = match (rate, concurrent) {
            (Some(rate), None) => {
                let burst = match burst {
                    None => Some(rate.default_burst()),
                    Some(burst) => zero(*burst),
                };
                if burst.is_none() {
                    error(at.at("burst"), "zero would let nothing through".to_owned(), "write at least 1");
                }
                let burst = burst?;
                if rate.per_one().checked_mul(burst.get()).is_none_or(|window| window > WINDOW_MAX) {
                    error(at.at("burst"), format!("{burst} at {rate} take years"), "lower `burst`, or raise `rate`");
                    return None;
                }
                Kind::Rate { rate: *rate, burst }
            }
            (None, Some(number)) => {
                if burst.is_some() {
                    error(at.at("burst"), "it goes with `rate`".to_owned(), "leave it out");
                }
                let number = zero(*number);
                if number.is_none() {
                    error(at.at("concurrent"), "zero would let nothing through".to_owned(), "write at least 1");
                }
                Kind::Concurrent(number?)
            }
            _ => {
                error(at.clone(), "it is not said how much".to_owned(), "write exactly one of `rate` and `concurrent`");
                return None;
            }
        };
        match (scope, on_loss, kind) {
            (Scope::Node, Some(_), _) => {
                error(at.at("on_loss"), "it goes with scope = \"fleet\"".to_owned(), "leave it out");
            }
            (Scope::Fleet, _, Kind::Concurrent(_)) => {
                let help = "leave `scope` out: every gateway counts what is under way at itself";
                error(at.at("scope"), "only a `rate` can be shared".to_owned(), help);
            }
            _ => {}
        }
        let mut alternatives: Vec<Box<[Fact]>> = Vec::new();
        match key {
            None => alternatives.push([Fact::ClientIp].into()),
            Some(words) => {
                for (index, facts) in words.iter().enumerate() {
                    let at = at.at("key").at(index);
                    let mut all = Vec::new();
                    for text in facts.iter() {
                        match text.parse::<Fact>() {
                            Ok(Fact::Error(_)) => {
                                error(
                                    at.clone(),
                                    format!("`{text}` is known in error pages only"),
                                    "take another fact",
                                );
                            }
                            Ok(fact) => all.push(fact),
                            Err(wrong) => {
                                error(at.clone(), wrong.to_string(), crate::facts::UnknownFact::HELP);
                            }
                        }
                    }
                    alternatives.push(all.into());
                }
            }
        }
        let mut compiled = Cost::default();
        if let Some(config::Cost { method, header }) = cost {
            for (name, number) in method {
                let at = at.at("cost").at("method").at(name);
                let is_method =
                    Method::from_bytes(name.as_bytes()).is_ok_and(|it| it.as_str() == name.to_ascii_uppercase());
                match (zero(*number), kind) {
                    _ if !is_method => error(at, format!("`{name}` is not a method"), "write it in capitals: `POST`"),
                    (None, _) => error(at, "nothing".to_owned(), "a request costs 1 or more"),
                    (Some(number), Kind::Rate { burst, .. }) if number > burst => {
                        error(
                            at,
                            format!("{number} is more than the burst of {burst}"),
                            "raise `burst`: it never passes",
                        );
                    }
                    (Some(number), _) => drop(compiled.method.insert(name.clone(), number)),
                }
            }
            if let Some(text) = header {
                compiled.header = HeaderName::from_bytes(text.as_bytes()).ok();
                if compiled.header.is_none() {
                    error(at.at("cost").at("header"), format!("`{text}` is not a header name"), "write `x-cost`");
                }
            }
            if let Kind::Concurrent(_) = kind {
                error(at.at("cost"), "it goes with `rate`".to_owned(), "leave it out");
            }
        }
        Some(Limit {
            key: alternatives.into(),
            missing: *missing,
            cost: compiled,
            dry_run: *dry_run,
            fleet: (*scope == Scope::Fleet).then(|| on_loss.unwrap_or_default()),
            ..Limit::bare(name, kind, *keys)
        })
    }
}
