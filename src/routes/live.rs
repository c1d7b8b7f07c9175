//! The table that requests are looked up in now. A request loads it once, at its first phase.

use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};

use super::Table;

#[derive(Debug)]
pub struct Live(ArcSwap<Table>);

impl Live {
    pub fn new(table: Arc<Table>) -> Live {
        Live(ArcSwap::new(table))
    }

    /// The table, without counting a reference: for the length of one lookup.
    pub fn load(&self) -> Guard<Arc<Table>> {
        self.0.load()
    }

    pub fn load_full(&self) -> Arc<Table> {
        self.0.load_full()
    }

    /// Puts another table in its place and gives back the one before.
    pub fn swap(&self, table: Arc<Table>) -> Arc<Table> {
        self.0.swap(table)
    }
}
