//! Where clients arrive.

pub(crate) mod guard;
pub mod handover;
