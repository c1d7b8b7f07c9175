//! How much of something may happen: rates by governor's GCRA, and numbers at once; by key, in bounded memory.
//!
//! Nothing here knows requests: a key is a hash, a cost is a number. State lives in `Rates` and `Gauge`, which outlive the
//! tables that refer to them.

mod concurrent;
mod rate;
mod sharing;

pub use concurrent::{Gauge, Held};
pub use rate::{Rates, Refused, Rule, Window};
pub use sharing::Shared;
