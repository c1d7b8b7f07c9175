//! Configuration: an editor with check, explain, diff, push and rollback, and how far a change has come.

use std::sync::Arc;

use axum::extract::{Form, Query, State as Extract};
use axum::response::{IntoResponse as _, Redirect, Response};
use maud::{Markup, html};
use serde::Deserialize;

use super::editor::{self, Draft};
use super::frame::{chip, frame, moment};
use super::{failed, fleet};
use crate::controller::documents::{self, DocumentError, Saying};
use crate::controller::picture::Stand;
use crate::controller::store::{self, EventQuery};
use crate::controller::views;
use crate::controller::{State, canary};
use crate::ledger::{LedgerError, now_ms};
use crate::routes::Question;

/// Revisions of the history that are shown.
const REVISIONS: usize = 50;
const TRIALS: usize = 20;

#[derive(Debug, Default, Deserialize)]
pub(super) struct Of {
    /// The text to begin with. Default: what is in force.
    revision: Option<u64>,
    /// What was just put in force.
    pushed: Option<u64>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Filled {
    action: Action,
    parent: u64,
    #[serde(default)]
    text: String,
    #[serde(default)]
    author: String,
    #[serde(default)]
    reason: String,
    #[serde(default)]
    question: String,
    #[serde(default)]
    revision: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Action {
    Check,
    Diff,
    Explain,
    Push,
    Rollback,
}

pub(super) async fn page(Extract(state): Extract<Arc<State>>, Query(of): Query<Of>) -> Markup {
    let begun = async {
        let head = documents::head(&state).await?.map_or(0, |head| head.pointer.revision);
        let text = documents::text_of(&state, of.revision.unwrap_or(head)).await?;
        let text = if head == 0 { "format = 1\n".into() } else { text };
        Ok::<_, DocumentError>(Draft {
            text: text.to_string(),
            parent: head,
            author: "dashboard".to_owned(),
            ..Draft::default()
        })
    };
    let result = match of.pushed {
        Some(number) => editor::result(true, &format!("Revision {number} is in force."), &html! {}),
        None => html! {},
    };
    match begun.await {
        Ok(draft) => whole(&state, &draft, &result).await,
        Err(error) => frame(&state, "/documents", "Configuration", None, &failed(&error)),
    }
}

pub(super) async fn act(Extract(state): Extract<Arc<State>>, Form(filled): Form<Filled>) -> Response {
    // A form has its lines end as in mail.
    let text: Arc<str> = filled.text.replace("\r\n", "\n").into();
    let Filled { action, parent, author, reason, question, revision, .. } = filled;
    let author = if author.trim().is_empty() { "dashboard".to_owned() } else { author };
    let saying = Saying { parent, author: author.clone(), reason: reason.clone() };
    let done = match (action, revision) {
        (Action::Check, _) => documents::check(text.clone()).await.map(|checked| editor::checked(&checked)),
        (Action::Diff, _) => documents::diff(&state, parent, &text).await.map(|diff| {
            editor::result(true, &format!("What this changes in revision {parent}:"), &editor::diff(&diff))
        }),
        (Action::Explain, _) => {
            let asked = Question { request: question.clone(), ..Question::default() };
            documents::explain(text.clone(), asked).await.map(|explanation| editor::explained(&explanation))
        }
        (Action::Push, _) => match documents::push(&state, text.clone(), saying).await {
            Ok(pointer) => {
                return Redirect::to(&format!("/documents?pushed={}#result", pointer.revision)).into_response();
            }
            Err(error) => Err(error),
        },
        (Action::Rollback, Some(revision)) => match documents::roll_back(&state, revision, saying).await {
            Ok(pointer) => {
                return Redirect::to(&format!("/documents?pushed={}#result", pointer.revision)).into_response();
            }
            // There is no text of the author's to keep.
            Err(error) => return page_with(&state, &refused(error)).await.into_response(),
        },
        (Action::Rollback, None) => Err(DocumentError::Failed("no revision is named".to_owned())),
    };
    let result = done.unwrap_or_else(refused);
    let draft = Draft { text: text.to_string(), parent, author, reason, question };
    whole(&state, &draft, &result).await.into_response()
}

async fn page_with(state: &Arc<State>, result: &Markup) -> Markup {
    let head = documents::head(state).await.ok().flatten().map_or(0, |head| head.pointer.revision);
    let text = documents::text_of(state, head).await.unwrap_or_else(|_| "".into());
    let draft = Draft { text: text.to_string(), parent: head, author: "dashboard".to_owned(), ..Draft::default() };
    whole(state, &draft, result).await
}

fn refused(error: DocumentError) -> Markup {
    let title = format!("Nothing was changed: {error}");
    match error {
        DocumentError::Bad(problems) => editor::result(false, &title, &editor::problems(&problems)),
        DocumentError::Lost { diff, error } => {
            let now = match error {
                LedgerError::Lost { now: Some(now), .. } => now.revision,
                _ => 0,
            };
            editor::result(
                false,
                &title,
                &html! {
                    p { "What was put in force meanwhile changes:" }
                    (editor::diff(&diff))
                    p { a href={ "/documents?revision=" (now) } { "Begin from revision " (now) } " (copy your text first)" }
                },
            )
        }
        DocumentError::Ledger(_) | DocumentError::Unread(_) | DocumentError::Question(_) | DocumentError::Failed(_) => {
            editor::result(false, &title, &html! {})
        }
    }
}

async fn whole(state: &Arc<State>, draft: &Draft, result: &Markup) -> Markup {
    let log = documents::log(state).await;
    let content = html! {
        (applied(state).await)
        (result)
        (editor::form(draft))
        @match log {
            Ok(mut log) => {
                @let head = log.first().map_or(0, |head| head.revision);
                @let () = log.truncate(REVISIONS);
                (editor::history(&log, head))
            }
            Err(error) => (failed(&error)),
        }
        (trials(state).await)
    };
    frame(state, "/documents", "Configuration", Some("/live/documents"), &content)
}

/// How far what is in force has come, and how a trial goes: the living part.
pub(super) async fn applied(state: &Arc<State>) -> Markup {
    let picture = state.picture.now(now_ms());
    let nodes = views::nodes(state, &picture);
    let waiting: Vec<_> = nodes.iter().filter(|node| node.stand == Stand::Behind).collect();
    html! {
        div id="live" {
            (fleet::summary(state, &picture, &nodes))
            @for node in waiting {
                p { (chip("warn", &node.report.who.node)) " " (node.report.problem.as_deref().unwrap_or("does not run it yet")) }
            }
            @if let Some((trial, _)) = &picture.canary {
                @match canary::sides(state, trial).await {
                    Ok((on_trial, elsewhere)) => {
                        div class="scroll" { table {
                            thead { tr { th scope="col" { "Revision " (trial.pointer.revision) } th scope="col" class="number" { "Requests" } th scope="col" class="number" { "5xx ‰" } th scope="col" class="number" { "4xx ‰" } th scope="col" class="number" { "Refused ‰" } th scope="col" class="number" { "p99" } } }
                            tbody { @for (name, side) in [("on trial", &on_trial), ("elsewhere", &elsewhere)] {
                                tr {
                                    th scope="row" { (name) }
                                    td class="number" { (side.requests) " of " (trial.judged.sample) }
                                    td class="number" { (format!("{:.1}", side.server_errors)) }
                                    td class="number" { (format!("{:.1}", side.client_errors)) }
                                    td class="number" { (format!("{:.1}", side.rejected)) }
                                    td class="number" { (super::frame::milliseconds(side.p99_ms)) }
                                }
                            } }
                        } }
                    }
                    Err(error) => (failed(&error)),
                }
            }
        }
    }
}

/// Trials that were decided, with the numbers.
async fn trials(state: &State) -> Markup {
    let of = |event: &str| EventQuery { event: Some(event.to_owned()), limit: TRIALS, ..EventQuery::default() };
    let queries = [of("canary_promoted"), of("canary_taken_back")];
    let read = state.store.search(move |connection| {
        let mut all = Vec::new();
        for query in &queries {
            all.extend(store::events(connection, query)?.found);
        }
        all.sort_by_key(|event| std::cmp::Reverse(event.id));
        Ok(all)
    });
    match read.await {
        Ok(trials) if trials.is_empty() => html! {},
        Ok(trials) => html! {
            section {
                h2 { "Trials" }
                ul { @for event in &trials {
                    @let text = |key: &str| event.body.get(key).map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned)).unwrap_or_default();
                    li {
                        (moment(event.at_ms)) " revision " (text("revision")) " "
                        (if event.event == "canary_promoted" { chip("ok", "promoted") } else { chip("bad", "taken back") })
                        " " (text("why"))
                        details { summary { "numbers" } pre { "on trial " (text("trial")) "\nelsewhere " (text("elsewhere")) } }
                    }
                } }
            }
        },
        Err(error) => failed(&error),
    }
}
