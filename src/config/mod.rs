//! Words: configuration as its author wrote it, parsed and typed, not yet compiled.
//!
//! Words derive `Deserialize` and `JsonSchema`; they know nothing of tables, pools or sockets. `read` makes them from
//! text and tells every mistake; `print` shows mistakes with their place.

mod access;
mod answers;
mod blocks;
mod decode;
mod document;
#[cfg(test)]
mod fixtures;
#[cfg(test)]
mod freshness;
mod host;
mod limit;
mod overrides;
pub mod page;
mod peel;
pub mod place;
mod plant;
pub mod print;
pub mod read;
mod references;
mod route;
pub mod schema;
mod shapes;
#[cfg(test)]
mod tests;
mod tree;
mod upstream;
pub mod vocabulary;
mod wording;

pub use access::*;
pub use answers::*;
pub use blocks::*;
pub use document::*;
pub use host::*;
pub use limit::*;
pub use overrides::from_environment;
pub use read::{Kind, kind};
pub use references::{References, Secrets};
pub use route::*;
pub use upstream::*;
