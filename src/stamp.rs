//! What tells one state of a file from another without reading it.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Inode, length, and when contents, name or permissions changed last. Two writes within one tick of the file system's
/// clock may look the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    inode: u64,
    len: u64,
    changed: (i64, i64),
}

impl Stamp {
    /// Of what a path leads to now, links followed. `None`: nothing that can be looked at.
    pub fn of(path: &Path) -> Option<Stamp> {
        let of = std::fs::metadata(path).ok()?;
        Some(Stamp { inode: of.ino(), len: of.size(), changed: (of.ctime(), of.ctime_nsec()) })
    }
}
