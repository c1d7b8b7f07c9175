//! The last good document, kept so that a gateway comes up although its source holds a bad one or none.
//!
//! One file, readable by its owner only, replaced as a whole: written beside, synced, renamed. References (`${..}`) stand
//! in it as the author wrote them; no secret is kept. Its last line carries a digest, so that a torn file is refused and
//! not served with half of the routes. It stands last so that lines keep their numbers.

use std::io;
use std::path::{Path, PathBuf};

use crate::durable;
use crate::ledger::digest;
use crate::source;

const NAME: &str = "routes.last-good.toml";
const MARK: &str = "# tollgate last good document, sha256 ";

/// The place of the last good document: `state.dir`.
#[derive(Clone, Debug)]
pub struct LastGood {
    dir: PathBuf,
}

#[derive(Debug, thiserror::Error)]
pub enum LastGoodError {
    #[error("{0}: not whole; a crash or a hand may have damaged it")]
    Damaged(PathBuf),
    #[error(transparent)]
    Unreadable(#[from] source::SourceError),
}

impl LastGood {
    /// Makes the directory if need be and shows that it can be written.
    pub fn open(dir: &Path) -> io::Result<LastGood> {
        durable::directory(dir)?;
        durable::sweep(dir);
        let tried = dir.join(format!(".{NAME}.{}", std::process::id()));
        durable::replace(&tried, b"")?;
        std::fs::remove_file(tried)?;
        Ok(LastGood { dir: dir.to_owned() })
    }

    pub fn path(&self) -> PathBuf {
        self.dir.join(NAME)
    }

    /// The document, or `None` if none was ever kept.
    pub fn load(&self) -> Result<Option<String>, LastGoodError> {
        let whole = match source::file::read(&self.path()) {
            Ok(whole) => whole,
            Err(source::SourceError::Missing(_)) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let damaged = || LastGoodError::Damaged(self.path());
        let (text, told) = whole.rsplit_once(MARK).ok_or_else(damaged)?;
        let text = text.strip_suffix('\n').ok_or_else(damaged)?;
        if told.trim_end() != digest(text) {
            return Err(damaged());
        }
        Ok(Some(text.to_owned()))
    }

    /// Replaces the document. When this returns it is on the disk.
    pub fn save(&self, text: &str) -> io::Result<()> {
        durable::replace(&self.path(), format!("{text}\n{MARK}{}\n", digest(text)).as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    fn kept() -> (tempfile::TempDir, LastGood) {
        let dir = tempfile::tempdir().unwrap();
        let kept = LastGood::open(&dir.path().join("state")).unwrap();
        (dir, kept)
    }

    #[test]
    fn keeps_what_was_saved_last_and_only_for_the_owner() {
        let (_dir, kept) = kept();
        assert_eq!(kept.load().unwrap(), None);
        for text in ["", "format = 1", "format = 1\n", "a = \"${SECRET}\"\n\n"] {
            kept.save(text).unwrap();
            assert_eq!(kept.load().unwrap().as_deref(), Some(text));
        }
        assert_eq!(fs::metadata(kept.path()).unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(kept.path().parent().unwrap()).unwrap().mode() & 0o777, 0o700);
    }

    #[test]
    fn a_failed_save_leaves_the_one_before_and_no_draft() {
        let (_dir, kept) = kept();
        kept.save("one").unwrap();
        let good = fs::read(kept.path()).unwrap();
        // A directory in its place cannot be replaced by a file.
        fs::remove_file(kept.path()).unwrap();
        fs::create_dir(kept.path()).unwrap();
        assert!(kept.save("two").is_err());
        assert_eq!(fs::read_dir(&kept.dir).unwrap().count(), 1, "no draft stays");
        fs::remove_dir(kept.path()).unwrap();
        fs::write(kept.path(), good).unwrap();
        assert_eq!(kept.load().unwrap().as_deref(), Some("one"));
    }

    #[test]
    fn refuses_a_torn_file_wherever_it_is_cut() {
        let (_dir, kept) = kept();
        kept.save("format = 1\n[[route]]\nname = \"a\"\n").unwrap();
        let whole = fs::read(kept.path()).unwrap();
        // Without its final newline nothing is missing.
        for len in 0..whole.len() - 1 {
            fs::write(kept.path(), &whole[..len]).unwrap();
            assert!(matches!(kept.load(), Err(LastGoodError::Damaged(_))), "{len}");
        }
    }

    #[test]
    fn says_at_once_that_a_directory_cannot_be_used() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("file"), "").unwrap();
        assert!(LastGood::open(&dir.path().join("file")).is_err());
    }
}
