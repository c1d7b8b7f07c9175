//! The highest revision that was followed, kept across restarts: with signatures nobody puts an older one back in force.
//!
//! One file for each bucket, a number in it. Without `state.dir` it is remembered for as long as the process lives.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use crate::durable;

/// See the module.
#[derive(Debug, Default)]
pub struct Floor {
    path: Option<PathBuf>,
    highest: u64,
}

impl Floor {
    /// What was kept in a state directory of a bucket. A file that holds no number is an error: it was not made here.
    pub fn open(dir: &Path, bucket: &str) -> io::Result<Floor> {
        let path = dir.join(format!("routes.highest.{bucket}"));
        let highest = match std::fs::read_to_string(&path) {
            Ok(text) => text.trim().parse().map_err(|_| {
                let message =
                    format!("{}: not the number of a revision; remove it if older revisions may come", path.display());
                io::Error::new(ErrorKind::InvalidData, message)
            })?,
            Err(error) if error.kind() == ErrorKind::NotFound => 0,
            Err(error) => return Err(error),
        };
        Ok(Floor { path: Some(path), highest })
    }

    pub fn highest(&self) -> u64 {
        self.highest
    }

    /// A revision was followed.
    pub async fn raise(&mut self, revision: u64) {
        if revision <= self.highest {
            return;
        }
        self.highest = revision;
        let Some(path) = self.path.clone() else { return };
        let write = move || durable::replace(&path, format!("{revision}\n").as_bytes());
        let kept = tokio::task::spawn_blocking(write).await;
        if let Some(error) = kept.map_err(io::Error::other).flatten().err() {
            tracing::warn!(%error, revision, "after a restart an older revision could be followed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn outlives_the_process_and_never_falls() {
        let dir = tempfile::tempdir().unwrap();
        let mut floor = Floor::open(dir.path(), "docs").unwrap();
        assert_eq!(floor.highest(), 0);
        for (revision, highest) in [(3, 3), (2, 3), (7, 7)] {
            floor.raise(revision).await;
            assert_eq!(floor.highest(), highest);
            assert_eq!(Floor::open(dir.path(), "docs").unwrap().highest(), highest);
        }
        assert_eq!(Floor::open(dir.path(), "others").unwrap().highest(), 0);
        std::fs::write(dir.path().join("routes.highest.docs"), "seven").unwrap();
        let error = Floor::open(dir.path(), "docs").unwrap_err().to_string();
        assert!(error.contains("remove it"), "{error}");
    }
}
