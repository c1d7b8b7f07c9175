//! Where clients arrive.

pub mod handover;
