//! What the editor shows: the text, what became of it, the history.

use maud::{Markup, html};

use super::frame::{chip, moment};
use crate::config::print::Entry;
use crate::controller::documents::Checked;
use crate::ledger::Pointer;
use crate::routes::{Explanation, Outcome};

/// What the form holds.
#[derive(Clone, Debug, Default)]
pub(super) struct Draft {
    pub(super) text: String,
    /// The revision that the text was made from.
    pub(super) parent: u64,
    pub(super) author: String,
    pub(super) reason: String,
    pub(super) question: String,
}

pub(super) fn form(draft: &Draft) -> Markup {
    let Draft { text, parent, author, reason, question } = draft;
    html! {
        form method="post" action="/documents#result" id="editor" {
            input type="hidden" name="parent" value=(parent);
            label for="text" { "The document, made from revision " (parent) }
            // A browser leaves the first line break of it out.
            textarea id="text" name="text" spellcheck="false" autocomplete="off" { "\n" (text) }
            div class="fields" {
                button name="action" value="check" class="main" { "Check" }
                button name="action" value="diff" { "Diff" }
                label class="wide" { "A request, to explain" input name="question" value=(question) placeholder="GET https://example.com/api/x"; }
                button name="action" value="explain" { "Explain" }
            }
            div class="fields" {
                label { "Author" input name="author" value=(author) required; }
                label class="wide" { "Reason, for the history" input name="reason" value=(reason); }
                button name="action" value="push" id="push" { "Push to the fleet" }
            }
        }
    }
}

pub(super) fn result(good: bool, title: &str, content: &Markup) -> Markup {
    html! {
        section id="result" role="status" {
            p class=(if good { "good" } else { "problem" }) { (title) }
            (content)
        }
    }
}

pub(super) fn problems(problems: &[Entry]) -> Markup {
    html! {
        ul { @for Entry { line, column, severity, message, help, .. } in problems {
            li {
                (chip(if *severity == "error" { "bad" } else { "warn" }, severity)) " line " (line) ":" (column) ": " (message)
                @if let Some(help) = help { " (" (help) ")" }
            }
        } }
    }
}

pub(super) fn checked(checked: &Checked) -> Markup {
    let title = if checked.ok { "Every gateway would take this." } else { "No gateway would take this." };
    result(checked.ok, title, &problems(&checked.problems))
}

pub(super) fn diff(text: &str) -> Markup {
    let class = |line: &str| match line.as_bytes().first() {
        _ if line.starts_with("+++") || line.starts_with("---") => "place",
        Some(b'+') => "added",
        Some(b'-') => "removed",
        Some(b'@') => "place",
        _ => "",
    };
    html! {
        @if text.is_empty() { p { "Nothing differs." } } @else {
            pre class="diff" { @for line in text.lines() { span class=(class(line)) { (line) } "\n" } }
        }
    }
}

pub(super) fn explained(explanation: &Explanation) -> Markup {
    let Explanation { outcome, others, .. } = explanation;
    let Outcome { route, upstreams, status, code, cause, location, path, .. } = outcome;
    let title = format!("Route {}", route.as_deref().unwrap_or("none"));
    let shares = upstreams.iter().map(|share| format!("{} ({} %)", share.upstream, share.percent)).collect::<Vec<_>>();
    let said = [
        ("Upstream", Some(shares.join(", ")).filter(|text| !text.is_empty())),
        ("Path", path.clone()),
        ("Status", status.map(|status| status.to_string())),
        ("Code", code.as_ref().map(ToString::to_string)),
        ("Because", cause.clone()),
        ("Location", location.clone()),
    ];
    result(
        route.is_some(),
        &title,
        &html! {
            ul { @for (what, text) in said { @if let Some(text) = text { li { (what) ": " (text) } } } }
            @if !others.is_empty() {
                h3 { "Other routes" }
                ul { @for other in others { li { strong { (other.route) } ": " (other.text) } } }
            }
        },
    )
}

/// What was in force, newest first, each to be looked at or put in force again.
pub(super) fn history(log: &[Pointer], head: u64) -> Markup {
    html! {
        section {
            h2 { "History" }
            div class="scroll" { table {
                thead { tr {
                    th scope="col" class="number" { "Revision" } th scope="col" { "When (UTC)" } th scope="col" { "Author" } th scope="col" { "Reason" } th scope="col" { "Digest" } th scope="col" { "" }
                } }
                tbody { @for Pointer { revision, digest, author, reason, at_ms, rollback_of, signature, .. } in log {
                    tr {
                        th scope="row" class="number" { a href={ "/documents?revision=" (revision) } { (revision) } }
                        td { (moment(*at_ms)) }
                        td { (author) @if signature.is_some() { " " (chip("ok", "signed")) } }
                        td { (reason) @if let Some(of) = rollback_of { " " (chip("", &format!("back to {of}"))) } }
                        td { code { (digest.get(..12).unwrap_or(digest)) } }
                        td {
                            @if *revision == head { (chip("ok", "in force")) } @else {
                                form method="post" action="/documents" {
                                    input type="hidden" name="parent" value=(head);
                                    input type="hidden" name="revision" value=(revision);
                                    button name="action" value="rollback" class="rollback" aria-label={ "Roll back to revision " (revision) } { "Roll back" }
                                }
                            }
                        }
                    }
                } }
            } }
        }
    }
}
