//! Files that are replaced whole: what stands there is what it was or what it should be, whenever the machine stops.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;
use std::time::Duration;

/// A draft this old was left by a crash.
const DRAFT_STALE: Duration = Duration::from_secs(600);

/// A directory for its owner, made if there is none.
pub fn directory(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Makes a file that only its owner reads and writes, or makes one that is there such a file.
pub fn private(path: &Path) -> io::Result<()> {
    let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path)?;
    let now = file.metadata()?.permissions().mode();
    if now & 0o077 != 0 {
        file.set_permissions(fs::Permissions::from_mode(0o600))?;
    }
    Ok(())
}

/// As `private`, for a database of SQLite and what an older process has left beside it. New ones beside it get its mode.
/// Before it is opened: closing a file lets go of the locks that this process has on it.
pub fn private_database(path: &Path) -> io::Result<()> {
    for end in ["-wal", "-shm"] {
        let mut beside = path.as_os_str().to_owned();
        beside.push(end);
        if Path::new(&beside).exists() {
            private(Path::new(&beside))?;
        }
    }
    private(path)
}

/// Replaces a file, readable by its owner only: written beside, synced, renamed. When this returns it is on the disk.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str())) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    // A name alone is one in the working directory.
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let draft = folder.join(format!(".{name}.{:x}.draft", fastrand::u64(..)));
    let written = (|| {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&draft, path)?;
        File::open(folder)?.sync_all()
    })();
    if written.is_err() {
        let _ = fs::remove_file(&draft);
    }
    written
}

/// A lock that the kernel takes back from whoever dies. Waits for it.
pub fn lock(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path)?;
    file.lock()?;
    Ok(file)
}

/// Removes drafts that a crash has left. Those of another process that writes now are younger.
pub fn sweep(folder: &Path) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let is_draft = entry.file_name().to_str().is_some_and(|name| name.starts_with('.') && name.ends_with(".draft"));
        let age = entry.metadata().and_then(|it| it.modified()).ok().and_then(|at| at.elapsed().ok());
        if is_draft && age.is_some_and(|age| age > DRAFT_STALE) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn private_files_are_read_by_their_owner_only_however_they_were_made() {
        let folder = tempfile::tempdir().unwrap();
        let (new, old) = (folder.path().join("new"), folder.path().join("old"));
        fs::write(&old, "kept").unwrap();
        fs::set_permissions(&old, fs::Permissions::from_mode(0o644)).unwrap();
        for path in [&new, &old] {
            private(path).unwrap();
            assert_eq!(mode(path), 0o600);
        }
        assert_eq!(fs::read(&old).unwrap(), b"kept");
    }

    #[test]
    fn replaces_whole_files_and_leaves_nothing_beside() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        for text in ["one", "two"] {
            replace(&path, text.as_bytes()).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        assert!(replace(&dir.path().join("none/a"), b"x").is_err());
        let young = dir.path().join(".a.1.draft");
        fs::write(&young, "").unwrap();
        sweep(dir.path());
        assert!(young.exists(), "somebody may be writing it");
        let old = fs::FileTimes::new().set_modified(std::time::SystemTime::now() - DRAFT_STALE * 2);
        File::options().write(true).open(&young).unwrap().set_times(old).unwrap();
        sweep(dir.path());
        assert!(!young.exists() && path.exists());
    }
}
