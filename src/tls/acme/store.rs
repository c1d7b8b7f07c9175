//! What ACME keeps: accounts, certificates with their keys, how orders went. A directory, for the owner only; every file is
//! written whole or not at all.

use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// A directory of small files, by kind and name.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    dir: PathBuf,
}

impl Store {
    /// `dir/acme`, made if there is none.
    pub(crate) fn open(dir: &Path) -> io::Result<Store> {
        let dir = dir.join("acme");
        make(&dir)?;
        Ok(Store { dir })
    }

    /// `None`: there is none.
    pub(super) fn read(&self, ca: &str, name: &str) -> io::Result<Option<Vec<u8>>> {
        match std::fs::read(self.dir.join(ca).join(name)) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Survives a crash at any moment: the file is what it was or what it should be.
    pub(super) fn write(&self, ca: &str, name: &str, bytes: &[u8]) -> io::Result<()> {
        let dir = self.dir.join(ca);
        make(&dir)?;
        let draft = dir.join(format!(".{name}.{:x}", fastrand::u64(..)));
        let written = (|| {
            let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
            file.write_all(bytes)?;
            file.sync_all()?;
            std::fs::rename(&draft, dir.join(name))?;
            std::fs::File::open(&dir)?.sync_all()
        })();
        if written.is_err() {
            let _ = std::fs::remove_file(&draft);
        }
        written
    }
}

fn make(dir: &Path) -> io::Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn keeps_files_whole_and_for_the_owner() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        assert_eq!(store.read("le", "a.test.pem").unwrap(), None);
        store.write("le", "a.test.pem", b"one").unwrap();
        store.write("le", "a.test.pem", b"two").unwrap();
        assert_eq!(store.read("le", "a.test.pem").unwrap().as_deref(), Some(&b"two"[..]));
        let folder = dir.path().join("acme/le");
        let names: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["a.test.pem"], "no draft stays");
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&folder), mode(&folder.join("a.test.pem"))), (0o700, 0o600));
    }
}
