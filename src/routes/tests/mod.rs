//! The table at its borders: a document in, a request, what becomes of it.

use super::compile::Listener;
use super::{Env, Explanation, Question, Table, compile};
use crate::config::Document;
use crate::problem::Problem;
use crate::settings::Dns;
use crate::tasks::Tasks;
use crate::upstream::Pools;

mod cost;
mod mistakes;
mod model;
mod precedence;
mod targets;

fn env() -> Env {
    let listeners = [("public", true), ("internal", false), ("other", true)];
    let listeners = listeners.map(|(name, public)| Listener::new(name, public)).to_vec();
    Env { listeners, ..Env::default() }
}

fn try_compile(text: &str) -> (Option<Table>, Vec<Problem>) {
    let document: Document = toml::from_str(&format!("format = 1\n{text}")).expect(text);
    let pools = Pools::new(&Dns::default(), Tasks::default()).expect("pools");
    compile(&document, &env(), &pools)
}

fn table(text: &str) -> Table {
    let (table, problems) = try_compile(text);
    table.unwrap_or_else(|| panic!("{text}: {problems:#?}"))
}

/// A document of answers by the gateway itself: name and `match` of each route.
fn responding(routes: &[(&str, &str)]) -> String {
    routes
        .iter()
        .map(|(name, words)| format!("[[route]]\nname = '{name}'\nmatch = {words}\nrespond = {{}}\n"))
        .collect()
}

/// `METHOD URL`, then lines of `name: value`; `from: IP` and `listen: NAME` are no headers.
fn ask(table: &Table, text: &str) -> Explanation {
    let mut lines = text.lines().map(str::trim);
    let mut question = Question { request: lines.next().expect("request").to_owned(), ..Question::default() };
    for line in lines {
        let (name, value) = line.split_once(':').map(|(name, value)| (name, value.trim())).expect(line);
        match name {
            "from" => question.from = Some(value.to_owned()),
            "listen" => question.listen = Some(value.to_owned()),
            _ => question.headers.push((name.to_owned(), value.to_owned())),
        }
    }
    table.answer(&question).expect(text)
}

/// The route a request takes, or the code of its rejection.
fn check_route(table: &Table, request: &str, expect: &str) {
    let outcome = ask(table, request).outcome;
    let got = outcome.code.map(String::from).or(outcome.route).expect("an outcome");
    assert_eq!(got, expect, "{request}");
}
