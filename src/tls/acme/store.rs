//! What ACME keeps: accounts, certificates with their keys, how orders went, open challenges, and who may order.
//!
//! The interface is small, so that a store that many gateways share can stand behind it. Calls block: they are made off
//! the request threads, but for reading challenges, which are asked for only while a CA looks.

use std::fmt;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use zeroize::Zeroizing;

use crate::durable;

/// Values under a shelf (a CA, or what is common to all) and a key. Both are of letters, digits, `-`, `_` and `.`.
pub(crate) trait Store: fmt::Debug + Send + Sync {
    /// `None`: there is none.
    fn read(&self, shelf: &str, key: &str) -> io::Result<Option<Zeroizing<Vec<u8>>>>;
    /// Survives a crash at any moment: the value is what it was or what it should be.
    fn write(&self, shelf: &str, key: &str, value: &[u8]) -> io::Result<()>;
    /// The keys of a shelf.
    fn list(&self, shelf: &str) -> io::Result<Vec<String>>;
    /// Nothing happens if there is none.
    fn remove(&self, shelf: &str, key: &str) -> io::Result<()>;
    /// How long it may take until what was written is read wherever the store is shared.
    fn settling(&self) -> std::time::Duration {
        std::time::Duration::ZERO
    }
    /// The right to order, until it is dropped or its holder dies. `None`: somebody else has it.
    fn lock(&self, shelf: &str, key: &str) -> io::Result<Option<Box<dyn Lock>>>;
}

/// A right that is given back when dropped.
pub(crate) trait Lock: fmt::Debug + Send + Sync {}

impl Lock for File {}

/// A directory for the owner only, a folder for each shelf, a file for each key.
#[derive(Clone, Debug)]
pub(crate) struct Directory {
    path: PathBuf,
}

impl Directory {
    /// `dir/acme`, made if there is none.
    pub(crate) fn open(dir: &Path) -> io::Result<Directory> {
        let path = dir.join("acme");
        durable::directory(&path)?;
        for shelf in std::fs::read_dir(&path)?.flatten() {
            durable::sweep(&shelf.path());
        }
        Ok(Directory { path })
    }

    fn at(&self, shelf: &str, key: &str) -> io::Result<PathBuf> {
        let legal = |part: &str| {
            let bytes = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
            !part.is_empty() && part.bytes().all(bytes) && !matches!(part, "." | "..")
        };
        match legal(shelf) && legal(key) {
            true => Ok(self.path.join(shelf).join(key)),
            false => Err(io::Error::new(ErrorKind::InvalidInput, "not a legal key")),
        }
    }
}

impl Store for Directory {
    fn read(&self, shelf: &str, key: &str) -> io::Result<Option<Zeroizing<Vec<u8>>>> {
        match std::fs::read(self.at(shelf, key)?) {
            Ok(bytes) => Ok(Some(Zeroizing::new(bytes))),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn write(&self, shelf: &str, key: &str, value: &[u8]) -> io::Result<()> {
        let path = self.at(shelf, key)?;
        durable::directory(&self.path.join(shelf))?;
        durable::replace(&path, value)
    }

    fn list(&self, shelf: &str) -> io::Result<Vec<String>> {
        let entries = match std::fs::read_dir(self.path.join(shelf)) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        Ok(names.filter(|name| !name.starts_with('.')).collect())
    }

    fn remove(&self, shelf: &str, key: &str) -> io::Result<()> {
        match std::fs::remove_file(self.at(shelf, key)?) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// A lock of the file system: the kernel takes it back from who dies.
    fn lock(&self, shelf: &str, key: &str) -> io::Result<Option<Box<dyn Lock>>> {
        let path = self.at(shelf, &format!("{key}.lock"))?;
        durable::directory(&self.path.join(shelf))?;
        let file = std::fs::OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Box::new(file))),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn keeps_files_whole_and_for_the_owner() {
        let dir = tempfile::tempdir().unwrap();
        let store = Directory::open(dir.path()).unwrap();
        let read = |key: &str| store.read("le", key).unwrap().map(|value| value.to_vec());
        assert_eq!(read("a.test.pem"), None);
        store.write("le", "a.test.pem", b"one").unwrap();
        store.write("le", "a.test.pem", b"two").unwrap();
        assert_eq!(read("a.test.pem"), Some(b"two".to_vec()));
        let folder = dir.path().join("acme/le");
        let names: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["a.test.pem"], "no draft stays");
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&folder), mode(&folder.join("a.test.pem"))), (0o700, 0o600));
        assert_eq!(store.list("le").unwrap(), ["a.test.pem"]);
        assert_eq!(store.list("none").unwrap(), Vec::<String>::new());
        store.remove("le", "a.test.pem").unwrap();
        store.remove("le", "a.test.pem").unwrap();
        assert_eq!(read("a.test.pem"), None);
    }

    #[test]
    fn no_key_leads_out_of_the_directory() {
        let dir = tempfile::tempdir().unwrap();
        let store = Directory::open(dir.path()).unwrap();
        for key in ["..", ".", "", "a/b", "../x", "a\0b"] {
            assert!(store.read("le", key).is_err() && store.write("le", key, b"").is_err(), "{key:?}");
            assert!(store.read(key, "a").is_err(), "{key:?}");
        }
    }

    #[test]
    fn one_holds_a_lock_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let (one, other) = (Directory::open(dir.path()).unwrap(), Directory::open(dir.path()).unwrap());
        let held = one.lock("le", "a.test").unwrap();
        assert!(held.is_some() && other.lock("le", "a.test").unwrap().is_none());
        assert!(other.lock("le", "b.test").unwrap().is_some());
        drop(held);
        assert!(other.lock("le", "a.test").unwrap().is_some());
    }
}
