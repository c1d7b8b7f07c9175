//! `[[test]]` cases: requests and what must become of them, run by `tollgate test` and before every change.

use serde::Serialize;

use super::outcome::Outcome;
use super::question::Question;
use super::table::Table;
use crate::config::{Expect, TestCase};
use crate::problem::{Path, Problem};

/// How one case went.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CaseResult {
    /// Its place among the `[[test]]` blocks.
    pub number: usize,
    pub request: String,
    /// Empty: it passed.
    pub mismatches: Vec<Mismatch>,
}

/// One expectation that was not met.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Mismatch {
    pub field: &'static str,
    pub expected: String,
    pub got: String,
}

impl CaseResult {
    pub fn passed(&self) -> bool {
        self.mismatches.is_empty()
    }

    /// What is wrong, at the place of each expectation.
    pub fn problems(&self) -> impl Iterator<Item = Problem> {
        self.mismatches.iter().map(|Mismatch { field, expected, got }| {
            let at = Path::of(["test", &self.number.to_string()]);
            let at = if matches!(*field, "request" | "expect") { at.at(field) } else { at.at("expect").at(field) };
            let message = format!("{}: expected {field} {expected}, got {got}", self.request);
            Problem::error(at, message).help("`tollgate explain` says why")
        })
    }
}

/// Runs all cases of a document.
pub fn run(table: &Table, cases: &[TestCase]) -> Vec<CaseResult> {
    cases.iter().enumerate().map(|(number, case)| run_one(table, number, case)).collect()
}

fn run_one(table: &Table, number: usize, case: &TestCase) -> CaseResult {
    let mismatches = match table.answer(&Question::from(case)) {
        Ok(explanation) => compare(&case.expect, &explanation.outcome),
        Err(error) => vec![Mismatch { field: "request", expected: "a request".to_owned(), got: error.to_string() }],
    };
    CaseResult { number, request: case.request.clone(), mismatches }
}

fn compare(expect: &Expect, outcome: &Outcome) -> Vec<Mismatch> {
    // Every word is named, so that a new one does not compile until it is compared here.
    let Expect { route, upstream, status, code, path, host, location } = expect;
    if *expect == Expect::default() {
        let expected = "at least one field".to_owned();
        return vec![Mismatch { field: "expect", expected, got: "none".to_owned() }];
    }
    let text = |value: Option<&str>| value.unwrap_or("none").to_owned();
    let expected_route = route.as_deref().filter(|name| *name != "none");
    let mut pairs: Vec<(&'static str, String, String)> = Vec::new();
    if route.is_some() {
        pairs.push(("route", text(expected_route), text(outcome.route.as_deref())));
    }
    if let Some(upstream) = upstream {
        let names: Vec<&str> = outcome.upstreams.iter().map(|share| share.upstream.as_str()).collect();
        let got = if names.contains(&upstream.as_str()) { upstream.clone() } else { names.join(", ") };
        pairs.push(("upstream", upstream.clone(), if got.is_empty() { text(None) } else { got }));
    }
    if let Some(status) = status {
        pairs.push(("status", status.to_string(), text(outcome.status.map(|status| status.to_string()).as_deref())));
    }
    let texts = [
        ("code", code, outcome.code.as_deref()),
        ("path", path, outcome.path.as_deref()),
        ("host", host, outcome.host.as_deref()),
        ("location", location, outcome.location.as_deref()),
    ];
    pairs.extend(texts.into_iter().filter_map(|(field, expected, got)| Some((field, expected.clone()?, text(got)))));
    let wrong = pairs.into_iter().filter(|(_, expected, got)| expected != got);
    wrong.map(|(field, expected, got)| Mismatch { field, expected, got }).collect()
}
