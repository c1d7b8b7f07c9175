//! Documents as operators change them: looked at, compared, asked, pushed, rolled back. What commands do, by the same code.

use std::sync::Arc;

use serde::Serialize;

use super::State;
use crate::bus::BusError;
use crate::config::print::{Entry, entries};
use crate::control::proposal::{self, Proposal, unified};
use crate::fleet::{Node, unread};
use crate::ledger::{Draft, Head, LedgerError, Pointer, now_ms};
use crate::routes::{Explanation, Question};
use crate::tasks::{GivenUp, aside};

/// What a text is called in messages.
const NAME: &str = "routes.toml";

/// Why a document was not put in force.
#[derive(Debug, thiserror::Error)]
pub(super) enum DocumentError {
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    #[error("the document has mistakes, or fails its own tests")]
    Bad(Vec<Entry>),
    /// With what it changes in what the author has seen.
    #[error("{error}")]
    Lost { error: LedgerError, diff: String },
    #[error("{}", .0.join("; "))]
    Unread(Vec<String>),
    #[error("{0}")]
    Question(String),
    #[error("{0}")]
    Failed(String),
}

impl From<BusError> for DocumentError {
    fn from(error: BusError) -> DocumentError {
        DocumentError::Ledger(error.into())
    }
}

impl From<GivenUp> for DocumentError {
    fn from(error: GivenUp) -> DocumentError {
        DocumentError::Failed(error.to_string())
    }
}

/// Everything that is wrong with a text.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Checked {
    pub(super) ok: bool,
    pub(super) problems: Vec<Entry>,
}

/// What an author says with a document.
#[derive(Clone, Debug)]
pub(super) struct Saying {
    /// The revision it was made from.
    pub(super) parent: u64,
    pub(super) author: String,
    pub(super) reason: String,
}

async fn propose<T: Send + 'static>(
    text: Arc<str>,
    then: impl FnOnce(&str, &Proposal) -> T + Send + 'static,
) -> Result<T, DocumentError> {
    let proposed = aside(move || Proposal::of(&text, None).map(|proposal| then(&text, &proposal)));
    proposed.await?.map_err(|error| DocumentError::Failed(error.to_string()))
}

fn checked(text: &str, proposal: &Proposal) -> Checked {
    let mut problems = entries(NAME, text, &proposal.problems);
    problems.extend(entries(NAME, text, &proposal.failing));
    Checked { ok: proposal.is_good(), problems }
}

pub(super) async fn check(text: Arc<str>) -> Result<Checked, DocumentError> {
    propose(text, checked).await
}

/// Which route a request takes by this text, and why the others lost.
pub(super) async fn explain(text: Arc<str>, question: Question) -> Result<Explanation, DocumentError> {
    let explained = propose(text, move |text, proposal| match &proposal.table {
        Some(table) => table.answer(&question).map_err(|error| DocumentError::Question(error.to_string())),
        None => Err(DocumentError::Bad(checked(text, proposal).problems)),
    });
    explained.await?
}

/// What is in force.
pub(super) async fn head(state: &State) -> Result<Option<Head>, DocumentError> {
    match state.ledger.head().await {
        Ok(head) => Ok(head),
        // Nothing was ever pushed.
        Err(LedgerError::Bus(BusError::Missing(_))) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The text of a revision; of 0, nothing.
pub(super) async fn text_of(state: &State, revision: u64) -> Result<Arc<str>, DocumentError> {
    if revision == 0 {
        return Ok("".into());
    }
    Ok(state.ledger.text(&state.ledger.revision(revision).await?.digest).await?)
}

/// What a text changes in a revision.
pub(super) async fn diff(state: &State, revision: u64, text: &str) -> Result<String, DocumentError> {
    let old = text_of(state, revision).await?;
    Ok(unified((&format!("revision {revision}"), &old), ("this text", text)))
}

pub(super) async fn log(state: &State) -> Result<Vec<Pointer>, DocumentError> {
    match state.ledger.log().await {
        Ok(log) => Ok(log),
        Err(LedgerError::Bus(BusError::Missing(_))) => Ok(Vec::new()),
        Err(error) => Err(error.into()),
    }
}

/// Puts a text in force, if what it was made from still is.
pub(super) async fn push(state: &State, text: Arc<str>, saying: Saying) -> Result<Pointer, DocumentError> {
    let looked_at = check(text.clone()).await?;
    if !looked_at.ok {
        return Err(DocumentError::Bad(looked_at.problems));
    }
    let Saying { parent, author, reason } = saying;
    publish(state, proposal::draft(text, author, reason), parent).await
}

/// Puts what a revision held in force again, as a new revision.
pub(super) async fn roll_back(state: &State, revision: u64, saying: Saying) -> Result<Pointer, DocumentError> {
    let (old, text) = state.ledger.before(revision, state.signer.as_ref()).await?;
    let Saying { parent, author, reason } = saying;
    let reason = if reason.is_empty() { format!("back to revision {revision}") } else { reason };
    let draft = Draft { text, author, reason, requires: old.requires, rollback_of: Some(revision) };
    publish(state, draft, parent).await
}

async fn publish(state: &State, draft: Draft, parent: u64) -> Result<Pointer, DocumentError> {
    state.fleet.make(&state.bus, state.ledger.bucket()).await?;
    let unread = unread(&state.bus, &state.fleet, &draft.requires, now_ms()).await?;
    if !unread.is_empty() {
        let line = |(Node { node, version, .. }, words): (Node, Vec<String>)| {
            let words: Vec<String> = words.into_iter().take(5).collect();
            format!("gateway {node} (version {version}) does not read: {}", words.join(", "))
        };
        return Err(DocumentError::Unread(unread.into_iter().map(line).collect()));
    }
    let head = head(state).await?;
    let in_force = head.as_ref().map_or(0, |head| head.pointer.revision);
    if in_force != parent {
        let now = head.map(|head| Box::new(head.pointer));
        return Err(lost(state, LedgerError::Lost { now, expected: parent }).await);
    }
    match state.ledger.push(draft, head.as_ref(), state.signer.as_ref()).await {
        Ok(pointer) => {
            tracing::info!(revision = pointer.revision, author = pointer.author, "a document is in force");
            Ok(pointer)
        }
        Err(error @ LedgerError::Lost { .. }) => Err(lost(state, error).await),
        Err(error) => Err(error.into()),
    }
}

/// With how what is in force differs from what this was made from.
async fn lost(state: &State, error: LedgerError) -> DocumentError {
    let LedgerError::Lost { now: Some(now), expected } = &error else { return error.into() };
    let texts =
        async { Ok::<_, DocumentError>((text_of(state, *expected).await?, state.ledger.text(&now.digest).await?)) };
    let diff = match texts.await {
        Ok((before, after)) => {
            unified((&format!("revision {expected}"), &before), (&format!("revision {}", now.revision), &after))
        }
        Err(error) => format!("(it cannot be shown: {error})"),
    };
    DocumentError::Lost { error, diff }
}
