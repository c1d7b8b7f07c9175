//! Words: configuration as its author wrote it, parsed and typed, not yet compiled.
//!
//! Words derive `Deserialize` and `JsonSchema`; they know nothing of tables, pools or sockets.

mod blocks;
mod document;
mod route;
mod upstream;

pub use blocks::*;
pub use document::*;
pub use route::*;
pub use upstream::*;
