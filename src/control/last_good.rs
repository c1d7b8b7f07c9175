//! The last good document, kept so that a gateway comes up although its source holds a bad one or none.
//!
//! One file, readable by its owner only, replaced as a whole: written beside, synced, renamed. References (`${..}`) stand
//! in it as the author wrote them; no secret is kept. Its last line carries a digest, so that a torn file is refused and
//! not served with half of the routes. It stands last so that lines keep their numbers.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::source;

const NAME: &str = "routes.last-good.toml";
const MARK: &str = "# tollgate last good document, sha256 ";
/// A draft this old was left by a crash.
const DRAFT_STALE: Duration = Duration::from_secs(60);

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
        DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        let kept = LastGood { dir: dir.to_owned() };
        kept.sweep();
        let draft = kept.draft();
        drop(create(&draft)?);
        fs::remove_file(draft)?;
        Ok(kept)
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
        let (text, digest) = whole.rsplit_once(MARK).ok_or_else(damaged)?;
        let text = text.strip_suffix('\n').ok_or_else(damaged)?;
        if digest.trim_end() != sha256(text) {
            return Err(damaged());
        }
        Ok(Some(text.to_owned()))
    }

    /// Replaces the document. When this returns it is on the disk.
    pub fn save(&self, text: &str) -> io::Result<()> {
        let draft = self.draft();
        let written = create(&draft).and_then(|mut file| {
            write!(file, "{text}\n{MARK}{}\n", sha256(text))?;
            file.sync_all()
        });
        let renamed = written.and_then(|()| fs::rename(&draft, self.path()));
        if renamed.is_err() {
            let _ = fs::remove_file(&draft);
        }
        renamed?;
        File::open(&self.dir)?.sync_all()
    }

    /// A name of this process: during a hand-over two of them keep their document here.
    fn draft(&self) -> PathBuf {
        self.dir.join(format!(".{NAME}.{}", std::process::id()))
    }

    fn sweep(&self) {
        let Ok(entries) = fs::read_dir(&self.dir) else { return };
        for entry in entries.flatten() {
            let is_draft = entry.file_name().to_str().is_some_and(|name| name.starts_with(&format!(".{NAME}.")));
            let age = entry.metadata().and_then(|it| it.modified()).ok().and_then(|at| at.elapsed().ok());
            if is_draft && age.is_some_and(|age| age > DRAFT_STALE) {
                let _ = fs::remove_file(entry.path());
            }
        }
    }
}

fn create(path: &Path) -> io::Result<File> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

fn sha256(text: &str) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes());
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
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
    fn a_crash_while_saving_leaves_the_one_before() {
        let (_dir, kept) = kept();
        kept.save("format = 1\n").unwrap();
        fs::write(kept.draft(), "format = 1\n[[rou").unwrap();
        assert_eq!(kept.load().unwrap().as_deref(), Some("format = 1\n"));
        kept.save("format = 1\n# two\n").unwrap();
        assert_eq!(kept.load().unwrap().as_deref(), Some("format = 1\n# two\n"));
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
        assert!(!kept.draft().exists());
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

    #[test]
    fn sweeps_old_drafts() {
        let (_dir, kept) = kept();
        let draft = kept.dir.join(format!(".{NAME}.1"));
        let file = File::create(&draft).unwrap();
        kept.sweep();
        assert!(draft.exists(), "another process may be writing it");
        file.set_modified(std::time::SystemTime::now() - DRAFT_STALE * 2).unwrap();
        kept.sweep();
        assert!(!draft.exists());
    }
}
