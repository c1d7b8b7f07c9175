//! From the path of a problem to its place in the text.

use std::ops::Range;

use super::tree::{self, Node};
use crate::problem::Path;

/// The places of one text, for looking up many.
pub struct Places<'t> {
    root: Node<'t>,
}

impl<'t> Places<'t> {
    pub fn of(text: &'t str) -> Places<'t> {
        Places { root: tree::parse(text).root }
    }

    /// Bytes of the value at a path (of a table with a header: the header), or of what is nearest around it. `None` if
    /// that is the document as a whole.
    pub fn locate(&self, path: &Path) -> Option<Range<usize>> {
        let mut node = &self.root;
        let mut place = None;
        for step in &path.0 {
            let Some(child) = node.child(step) else { break };
            node = child;
            place = Some(node.span.clone());
        }
        place
    }
}

/// Bytes of the value at a path; see `Places::locate`.
pub fn locate(text: &str, path: &Path) -> Option<Range<usize>> {
    Places::of(text).locate(path)
}

/// Line and column of a byte, both from 1; columns count characters.
pub fn line_column(text: &str, offset: usize) -> (usize, usize) {
    let mut offset = offset.min(text.len());
    while !text.is_char_boundary(offset) {
        offset -= 1;
    }
    let before = text.get(..offset).unwrap_or_default();
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().map_or(0, |line| line.chars().count()) + 1;
    (line, column)
}
