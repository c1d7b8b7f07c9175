//! Checks and edits that a request or an answer goes through: one file each, on `Head` and `Facts`, without Pingora's types.
//!
//! Everything is prepared when the document is compiled: a header name that exists is legal, a value of fixed text is
//! ready to send, a template names only facts that can be there.

pub mod headers;
mod reading;
mod rewrite;

pub use headers::{Edits, HeaderSink, Side};
pub use reading::{Escape, Presence, Reading};
pub use rewrite::{Rewrite, Target};

/// A value that must be there was not, or is not legal where it would stand. The request is refused: 400.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfilled {
    #[error("the request lacks a fact that the route needs, or its value holds control characters")]
    Missing,
    #[error("with this request's values the target is no legal path")]
    Path,
    #[error("with this request's values the target is no legal host")]
    Host,
}
