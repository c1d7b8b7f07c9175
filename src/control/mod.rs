//! The one loop that changes a gateway, and how it is told to leave.

pub mod drain;
pub mod last_good;
pub mod signals;
