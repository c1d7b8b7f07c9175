//! Checks and edits that a request or an answer goes through: one file each, on `Head` and `Facts`, without Pingora's types.
//!
//! Everything is prepared when the document is compiled: a header name that exists is legal, a value of fixed text is
//! ready to send, a template names only facts that can be there.

use std::time::{SystemTime, UNIX_EPOCH};

mod addresses;
mod answers;
mod api_key;
pub mod auth;
mod compression;
mod cors;
mod credentials;
mod error_pages;
mod forward;
pub mod headers;
mod issuer;
mod jwks;
mod jwt;
mod keys;
pub mod limits;
mod negotiation;
mod network;
mod proof;
mod reading;
mod require;
mod revoked;
mod rewrite;
mod ring;
mod shared_keys;
mod strict;
pub mod users;

pub use addresses::Addresses;
pub use answers::{AnswerWords, Answers, server_timing};
pub use api_key::ApiKeys;
pub use auth::{Access, Proving, Sources};
pub use compression::{Compression, Encoder, compressing};
pub use cors::Cors;
pub use error_pages::{ErrorPages, Wrong};
pub use forward::{ForwardAuth, Word};
pub use headers::{Edits, HeaderSink, Side};
pub use issuer::Issuer;
pub use limits::{Limit, Said};
pub use proof::{Passed, Proof, Tried};
pub use reading::{Escape, Presence, Reading};
pub use revoked::{Revocation, RevocationError, Revocations, Watched};
pub use rewrite::{Rewrite, Target};
pub use ring::{KeyRing, KeysShown};
pub use shared_keys::SharedKeys;
pub use users::Users;

/// Seconds of the Unix epoch.
pub fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

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
