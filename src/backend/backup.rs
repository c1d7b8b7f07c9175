//! Backup and restore: a directory with the database, the files, and a manifest that says what they are to be.
//!
//! ```text
//! DIR/data.db   DIR/files/ID   DIR/manifest.json (digests; written last)
//! ```
//! A backup is one moment of the database, taken while the service runs and writes. It holds signing keys and the digests of
//! passwords: whoever has it is to be trusted as much as the service.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use aws_lc_rs::digest::{Context, SHA256};
use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OpenFlags};
use serde::{Deserialize, Serialize};

use super::files::directory;
use super::moment::{self, is_id};
use super::store::{self, StoreError, schema};
use crate::migrations;
use crate::scalar::hex;

/// The version of the manifest.
const FORMAT: u32 = 1;
/// How often it is tried to read a database that somebody has locked, and how long in between.
const TRIES: usize = 100;
const PAUSE: Duration = Duration::from_millis(100);

#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    #[error("{path}: {source}")]
    File { path: PathBuf, source: io::Error },
    #[error("{0}")]
    Store(#[from] StoreError),
    #[error("there is no database in {0}")]
    NoData(PathBuf),
    #[error("{0} is there already")]
    There(PathBuf),
    #[error("{0} has no parent directory")]
    Place(PathBuf),
    #[error("the database is locked by another program")]
    Locked,
    #[error("the copy of the database is damaged: {0}")]
    Damaged(String),
    #[error("{path}: {message}")]
    Manifest { path: PathBuf, message: String },
    /// A file is not what the manifest or the database says.
    #[error("{path} is not what it is to be: its SHA-256 is {found}, not {wanted}")]
    Digest { path: PathBuf, found: String, wanted: String },
    #[error("it is a backup of version {found}, and this program knows {known}: it was written by a newer one")]
    Newer { found: i64, known: i64 },
}

impl From<rusqlite::Error> for BackupError {
    fn from(error: rusqlite::Error) -> BackupError {
        BackupError::Store(error.into())
    }
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> BackupError {
    let path = path.to_owned();
    move |source| BackupError::File { path, source }
}

/// What a backup holds.
#[derive(Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    pub format: u32,
    /// The version of the database.
    pub schema: i64,
    /// RFC 3339.
    pub created: String,
    pub database: Part,
    pub files: Vec<Part>,
}

#[derive(Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Part {
    pub name: String,
    pub size: u64,
    pub sha256: String,
}

/// A directory in the making, gone unless it is kept.
struct Draft {
    path: PathBuf,
    target: PathBuf,
    /// What was there before has taken its place: it is not to be cleared.
    holds_before: std::cell::Cell<bool>,
}

impl Drop for Draft {
    fn drop(&mut self) {
        if self.holds_before.get() {
            return;
        }
        let _ = fs::remove_dir_all(&self.path);
    }
}

impl Draft {
    /// Beside the target, so that it can be renamed.
    fn beside(target: &Path) -> Result<Draft, BackupError> {
        let target = std::path::absolute(target).map_err(failed(target))?;
        let (Some(parent), Some(name)) = (target.parent(), target.file_name()) else {
            return Err(BackupError::Place(target));
        };
        crate::durable::directory(parent).map_err(failed(parent))?;
        let path = parent.join(format!(".{}.{:x}.draft", name.to_string_lossy(), fastrand::u64(..)));
        let draft = Draft { path, target, holds_before: std::cell::Cell::new(false) };
        let files = directory(&draft.path);
        crate::durable::directory(&files).map_err(failed(&files))?;
        Ok(draft)
    }

    fn sync(&self) -> Result<(), BackupError> {
        for folder in [directory(&self.path), self.path.clone()] {
            sync(&folder)?;
        }
        Ok(())
    }

    fn sync_parent(&self) -> Result<(), BackupError> {
        self.target.parent().map_or(Ok(()), sync)
    }
}

fn sync(path: &Path) -> Result<(), BackupError> {
    File::open(path).and_then(|file| file.sync_all()).map_err(failed(path))
}

/// Copies the data of a directory into a new one. The service may run.
pub fn write(data: &Path, to: &Path) -> Result<Manifest, BackupError> {
    let database = store::database(data);
    if !database.is_file() {
        return Err(BackupError::NoData(data.to_owned()));
    }
    if to.exists() {
        return Err(BackupError::There(to.to_owned()));
    }
    let draft = Draft::beside(to)?;
    let copy = store::database(&draft.path);
    let (schema, wanted) = snapshot(&database, &copy)?;
    let mut files = Vec::with_capacity(wanted.len());
    for Part { name, sha256: wanted, .. } in wanted {
        let (from, to) = (directory(data).join(&name), directory(&draft.path).join(&name));
        files.push(verified(copied(&from, Some(&to), &name)?, &from, &wanted)?);
    }
    let database = copied(&copy, None, "data.db")?;
    sync(&copy)?;
    let manifest = Manifest { format: FORMAT, schema, created: moment::rfc3339(moment::now()), database, files };
    let text = serde_json::to_vec_pretty(&manifest).unwrap_or_default();
    let path = draft.path.join("manifest.json");
    crate::durable::replace(&path, &text).map_err(failed(&path))?;
    draft.sync()?;
    fs::rename(&draft.path, &draft.target).map_err(failed(&draft.target))?;
    draft.sync_parent()?;
    Ok(manifest)
}

/// One moment of the database, and the files that it knew then.
fn snapshot(database: &Path, copy: &Path) -> Result<(i64, Vec<Part>), BackupError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let from = Connection::open_with_flags(database, flags)?;
    // Readable by the owner only, before anything stands in it.
    new_file(copy)?;
    let mut to = Connection::open(copy)?;
    let copying = Backup::new(&from, &mut to)?;
    let mut tries = 0;
    // All pages in one step: writers go on meanwhile, and the copy need not begin again because of them.
    while !matches!(copying.step(-1)?, StepResult::Done) {
        tries += 1;
        if tries > TRIES {
            return Err(BackupError::Locked);
        }
        std::thread::sleep(PAUSE);
    }
    drop(copying);
    // The copy is one file, without a log beside it.
    to.pragma_update_and_check(None, "journal_mode", "delete", |_| Ok(()))?;
    let sound: String = to.pragma_query_value(None, "quick_check", |row| row.get(0))?;
    if sound != "ok" {
        return Err(BackupError::Damaged(sound));
    }
    let mut query = to.prepare("SELECT id, size, sha256 FROM files ORDER BY id")?;
    let files = query.query_map([], |row| {
        Ok(Part { name: row.get(0)?, size: row.get::<_, i64>(1)?.unsigned_abs(), sha256: row.get(2)? })
    })?;
    let files = files.collect::<Result<_, _>>()?;
    drop(query);
    Ok((migrations::version(&to)?, files))
}

fn new_file(path: &Path) -> Result<File, BackupError> {
    File::options().write(true).create_new(true).mode(0o600).open(path).map_err(failed(path))
}

/// Copies a file, synced, or only reads it; says what it is.
fn copied(from: &Path, to: Option<&Path>, name: &str) -> Result<Part, BackupError> {
    let mut source = File::open(from).map_err(failed(from))?;
    let mut target = to.map(new_file).transpose()?;
    let (mut sha256, mut size) = (Context::new(&SHA256), 0);
    let mut buffer = vec![0; 64 << 10];
    loop {
        let read = source.read(&mut buffer).map_err(failed(from))?;
        let Some(piece) = buffer.get(..read).filter(|piece| !piece.is_empty()) else { break };
        sha256.update(piece);
        size += piece.len() as u64;
        if let (Some(target), Some(to)) = (&mut target, to) {
            target.write_all(piece).map_err(failed(to))?;
        }
    }
    if let (Some(target), Some(to)) = (target, to) {
        target.sync_all().map_err(failed(to))?;
    }
    Ok(Part { name: name.to_owned(), size, sha256: hex(sha256.finish().as_ref()) })
}

fn verified(part: Part, path: &Path, wanted: &str) -> Result<Part, BackupError> {
    if part.sha256 == wanted {
        return Ok(part);
    }
    Err(BackupError::Digest { path: path.to_owned(), found: part.sha256, wanted: wanted.to_owned() })
}

/// What becomes of data that is there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    Refuse,
    /// Put beside, under another name.
    Replace,
}

/// What a restore did.
#[derive(Debug)]
pub struct Restored {
    pub manifest: Manifest,
    /// Where the data is that was there before.
    pub before: Option<PathBuf>,
}

/// Puts a backup in the place of a data directory: everything is verified and copied beside first, then renamed at once.
pub fn restore(from: &Path, data: &Path, existing: Existing) -> Result<Restored, BackupError> {
    let manifest = read_manifest(from)?;
    let there = data.exists();
    if store::database(data).exists() && existing == Existing::Refuse {
        return Err(BackupError::There(data.to_owned()));
    }
    // Fails while the service runs.
    let lock = if there { Some(store::take(data)?) } else { None };
    let draft = Draft::beside(data)?;
    let source = store::database(from);
    let database = copied(&source, Some(&store::database(&draft.path)), "data.db")?;
    verified(database, &source, &manifest.database.sha256)?;
    for Part { name, sha256, .. } in &manifest.files {
        let source = directory(from).join(name);
        verified(copied(&source, Some(&directory(&draft.path).join(name)), name)?, &source, sha256)?;
    }
    draft.sync()?;
    let before = if there { Some(exchange(&draft)?) } else { None };
    if before.is_none() {
        fs::rename(&draft.path, &draft.target).map_err(failed(&draft.target))?;
    }
    draft.sync_parent()?;
    drop(lock);
    Ok(Restored { manifest, before })
}

/// Whoever looks finds the old directory or the new one, never none.
fn exchange(draft: &Draft) -> Result<PathBuf, BackupError> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    renameat_with(CWD, &draft.path, CWD, &draft.target, RenameFlags::EXCHANGE)
        .map_err(|error| failed(&draft.target)(error.into()))?;
    draft.holds_before.set(true);
    let mut before = draft.target.clone().into_os_string();
    before.push(format!(".before-{}", moment::now()));
    let before = PathBuf::from(before);
    fs::rename(&draft.path, &before).map_err(failed(&before))?;
    Ok(before)
}

fn read_manifest(from: &Path) -> Result<Manifest, BackupError> {
    let path = from.join("manifest.json");
    let text = fs::read(&path).map_err(failed(&path))?;
    let wrong = |message: String| BackupError::Manifest { path: path.clone(), message };
    let manifest: Manifest = serde_json::from_slice(&text).map_err(|error| wrong(error.to_string()))?;
    if manifest.format != FORMAT {
        return Err(wrong(format!("format {} is not known", manifest.format)));
    }
    // A name becomes a path.
    if let Some(part) = manifest.files.iter().find(|part| !is_id(&part.name)) {
        return Err(wrong(format!("`{}` is no id of a file", part.name.escape_default())));
    }
    let (found, known) = (manifest.schema, schema::newest());
    if found > known { Err(BackupError::Newer { found, known }) } else { Ok(manifest) }
}

#[cfg(test)]
mod tests;
