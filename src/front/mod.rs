//! The front: accept, handshake, deadlines, framing guard. What passes it is a well-framed request on a stream whose
//! waits are all bounded. It knows nothing of routes.

pub(crate) mod admission;
pub(crate) mod app;
pub(crate) mod conn;
pub(crate) mod guard;
mod h2_head;
pub mod handover;
mod io;
pub(crate) mod listener;
mod patience;
mod proxy_header;
mod stream;
mod timer;

#[cfg(any(fuzzing, test))]
pub use guard::fuzz;
