//! The table of routes: which request goes where, decided by one pure function of table and request.
//!
//! Host set, then path pattern, then conditions:
//!
//! ```text
//! Hosts ──host──▶ root of Trie ──path, best pattern first──▶ Leaf: entries by Fit ──first whose Conditions hold──▶ Route
//! ```
//!
//! `compile` makes it from words and finds every mistake; `Live` holds the one in use. Data plane, `explain` and tests go
//! through the same lookup. Nothing here knows Pingora, sockets or the source of a document.

mod bind;
mod bounds;
pub mod cases;
mod compile;
mod conditions;
mod conflict;
mod destination;
mod explain;
mod fit;
pub mod host;
mod hosts;
mod listing;
mod live;
mod matching;
mod names;
mod outcome;
mod pattern;
mod question;
mod redirect;
mod reserved;
mod respond;
mod route;
mod split;
mod table;
mod trie;

pub use crate::facts::path;
pub use compile::{Env, Listener, compile};
pub use destination::{Destination, Mirror};
pub use explain::{Explanation, HeaderChanges, Other, Understood, Why};
pub use fit::{Fit, Strength};
pub use listing::Listed;
pub use live::Live;
pub use names::{NameCertificate, NamePolicy, Names};
pub use outcome::{Outcome, UpstreamShare};
pub use pattern::{Captured, PathCaptures, Pattern};
pub use question::{Question, QuestionError};
pub use redirect::Redirect;
pub use respond::Respond;
pub use route::{Route, Stream, Timeouts};
pub use split::{Chosen, Share, Split};
pub use table::{Found, Table, revision};

#[cfg(test)]
mod tests;
