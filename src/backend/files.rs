//! Files: their bytes in a directory, what is known of them in the database.
//!
//! An upload is written beside, synced and renamed before the database learns of it; bytes of which it never did are swept at
//! the next start. What a client says a file is, is not believed: it is served as an attachment that no browser opens in place.

use crate::scalar::hex;
use std::path::{Path as FilePath, PathBuf};

use axum::Json;
use axum::body::Body;
use axum::extract::multipart::{Field, MultipartError};
use axum::extract::{Multipart, Path, State as Shared};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use rusqlite::{Connection, OptionalExtension as _, params};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::fs::File;
use tokio::io::AsyncWriteExt as _;
use tokio_util::io::ReaderStream;

use super::moment::{self, Ms, is_id, new_id};
use super::outbox::Teller;
use super::refusal::Refusal;
use super::rules::{Reach, Rule};
use super::state::State;
use super::who::{Asked, Who};

const NAME_MAX: usize = 255;
/// Bytes of a removed file go after this long: a backup that began before finds them.
const KEPT: Ms = 10 * 60_000;
/// Types that are served under their own name. Anything else is bytes.
const TYPES: [&str; 8] = [
    "application/json",
    "application/pdf",
    "image/gif",
    "image/jpeg",
    "image/png",
    "image/webp",
    "text/csv",
    "text/plain",
];

/// The directory of the bytes.
pub(super) struct Shelf(PathBuf);

/// The directory of the files of a data directory.
pub(super) fn directory(data: &FilePath) -> PathBuf {
    data.join("files")
}

/// An upload under way. What is not kept is gone when this is dropped.
struct Draft {
    path: PathBuf,
    kept: bool,
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.kept {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

impl Shelf {
    pub(super) fn open(data: &FilePath) -> std::io::Result<Shelf> {
        let path = directory(data);
        crate::durable::directory(&path)?;
        Ok(Shelf(path))
    }

    fn path(&self, id: &str) -> PathBuf {
        self.0.join(id)
    }

    /// Takes away bytes that the database does not know: of uploads that a crash broke off. Only at the start.
    pub(super) fn sweep(&self, connection: &Connection) -> Result<(), Refusal> {
        let known =
            "SELECT EXISTS (SELECT 1 FROM files WHERE id = ?1 UNION ALL SELECT 1 FROM files_removed WHERE id = ?1)";
        for entry in std::fs::read_dir(&self.0).map_err(Refusal::internal)?.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if !connection.query_row(known, [&name], |row| row.get::<_, bool>(0))? {
                tracing::info!(file = name, "an upload that was broken off is taken away");
                let _ = std::fs::remove_file(entry.path());
            }
        }
        Ok(())
    }

    /// Takes away the bytes of files that were removed a while ago.
    pub(super) fn clear(&self, connection: &Connection, now: Ms) -> Result<(), Refusal> {
        let mut query = connection.prepare("SELECT id FROM files_removed WHERE removed < ?1 LIMIT 1000")?;
        let ids = query.query_map([now - KEPT], |row| row.get::<_, String>(0))?.collect::<Result<Vec<_>, _>>()?;
        for id in ids {
            match std::fs::remove_file(self.path(&id)) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    tracing::warn!(%error, file = id, "a removed file cannot be taken away");
                }
                _ => drop(connection.execute("DELETE FROM files_removed WHERE id = ?1", [id])?),
            }
        }
        Ok(())
    }
}

/// What is known of a file.
struct About {
    id: String,
    owner: String,
    name: String,
    kind: String,
    size: u64,
    sha256: String,
    read: Rule,
    created: Ms,
}

impl About {
    fn find(connection: &Connection, id: &str) -> Result<About, Refusal> {
        let sql = "SELECT id, owner, name, type, size, sha256, read, created FROM files WHERE id = ?1";
        let found = connection.query_row(sql, [id], |row| {
            Ok(About {
                id: row.get(0)?,
                owner: row.get(1)?,
                name: row.get(2)?,
                kind: row.get(3)?,
                size: row.get::<_, i64>(4)?.unsigned_abs(),
                sha256: row.get(5)?,
                read: Rule::of(&row.get::<_, String>(6)?).unwrap_or(Rule::Admin),
                created: row.get(7)?,
            })
        });
        found.optional()?.ok_or(Refusal::NotFound)
    }

    fn json(&self) -> Value {
        let About { id, owner, name, kind, size, sha256, read, created } = self;
        json!({ "id": id, "owner": owner, "name": name, "type": kind, "size": size, "sha256": sha256,
            "read": read.name(), "created": created })
    }

    fn tell(&self, connection: &Connection, teller: &Teller, event: &'static str) -> Result<(), Refusal> {
        let fields = [("file".to_owned(), self.id.as_str().into()), ("owner".to_owned(), self.owner.as_str().into())];
        Ok(teller.tell(connection, event, Map::from_iter(fields))?)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Options {
    /// Who may read it.
    #[serde(default = "owner")]
    read: Rule,
}

fn owner() -> Rule {
    Rule::Owner
}

/// The first file of a form, streamed to the disk.
pub(super) async fn create(
    Shared(state): Shared<State>,
    who: Who,
    teller: Teller,
    Asked(options): Asked<Options>,
    form: Result<Multipart, axum::extract::multipart::MultipartRejection>,
) -> Result<(StatusCode, Json<Value>), Refusal> {
    let owner = who.user()?.user.clone();
    let mut form = form.map_err(|_| Refusal::Type("multipart/form-data"))?;
    let _place = state.uploads.try_acquire().map_err(|_| Refusal::Busy)?;
    let uploading = async {
        while let Some(field) = form.next_field().await.map_err(|error| broken(&error, &state))? {
            if let Some(name) = field.file_name().map(str::to_owned) {
                return receive(&state, field, &name, owner, options.read).await;
            }
        }
        Err(Refusal::invalid("file", "the form holds no file"))
    };
    let (about, mut draft) =
        tokio::time::timeout(state.words.uploads.time.0, uploading).await.unwrap_or(Err(Refusal::Timeout))?;
    let answer = about.json();
    let shared = state.clone();
    let kept = state.store.write(move |connection| {
        // An upload takes minutes: the account may be gone, and then nobody would take the file away.
        who.still(connection)?;
        shared.has_room(connection)?;
        let About { id, owner, name, kind, size, sha256, read, created } = &about;
        let size = i64::try_from(*size).map_err(Refusal::internal)?;
        let sql = "INSERT INTO files (id, owner, name, type, size, sha256, read, created)
            VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
        connection.execute(sql, params![id, owner, name, kind, size, sha256, read.name(), created])?;
        // With this one: the database knows what a file counts.
        let held: i64 = connection.query_row("SELECT bytes FROM held", [], |row| row.get(0))?;
        if held.unsigned_abs() > shared.words.uploads.total.0 {
            return Err(Refusal::Full("all files together reach uploads.total"));
        }
        about.tell(connection, &teller, "file.created")?;
        // Whoever asked may be gone by now: the file is kept with what is known of it.
        draft.kept = true;
        Ok(draft)
    });
    kept.await?;
    Ok((StatusCode::CREATED, Json(answer)))
}

fn broken(error: &MultipartError, state: &State) -> Refusal {
    match error.status() {
        StatusCode::PAYLOAD_TOO_LARGE => Refusal::TooLarge(state.words.uploads.size.0),
        _ => Refusal::Malformed(error.body_text()),
    }
}

async fn receive(
    state: &State,
    mut field: Field<'_>,
    name: &str,
    owner: String,
    read: Rule,
) -> Result<(About, Draft), Refusal> {
    let name = file_name(name)?;
    let claimed = field.content_type().unwrap_or_default().split(';').next().unwrap_or_default().trim();
    let kind = TYPES.into_iter().find(|kind| kind.eq_ignore_ascii_case(claimed)).unwrap_or("application/octet-stream");
    let id = new_id();
    let path = state.shelf.path(&id);
    let mut draft = Draft { path: state.shelf.path(&format!(".{id}.part")), kept: false };
    let made = File::options().write(true).create_new(true).mode(0o600).open(&draft.path).await;
    let mut file = made.map_err(Refusal::internal)?;
    let mut sha256 = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
    let (mut size, bound) = (0_u64, state.words.uploads.size.0);
    while let Some(chunk) = field.chunk().await.map_err(|error| broken(&error, state))? {
        size += chunk.len() as u64;
        if size > bound {
            return Err(Refusal::TooLarge(bound));
        }
        sha256.update(&chunk);
        file.write_all(&chunk).await.map_err(no_room)?;
    }
    file.flush().await.map_err(no_room)?;
    file.sync_all().await.map_err(no_room)?;
    tokio::fs::rename(&draft.path, &path).await.map_err(Refusal::internal)?;
    draft.path = path;
    let folder = File::open(&state.shelf.0).await.map_err(Refusal::internal)?;
    folder.sync_all().await.map_err(Refusal::internal)?;
    let sha256 = hex(sha256.finish().as_ref());
    let created = moment::now();
    Ok((About { id, owner, name, kind: kind.to_owned(), size, sha256, read, created }, draft))
}

fn no_room(error: std::io::Error) -> Refusal {
    if error.kind() == std::io::ErrorKind::StorageFull {
        Refusal::Full("the disk is full")
    } else {
        Refusal::internal(error)
    }
}

/// The last part of a path, without what a header or a terminal could stumble over.
fn file_name(claimed: &str) -> Result<String, Refusal> {
    let last = claimed.rsplit(['/', '\\']).next().unwrap_or_default();
    let name: String = last.chars().filter(|c| !c.is_control()).collect();
    let name = name.trim().to_owned();
    if name.is_empty() || name.len() > NAME_MAX || name == "." || name == ".." {
        return Err(Refusal::invalid("file", format!("a file has a name of 1 to {NAME_MAX} bytes")));
    }
    Ok(name)
}

pub(super) async fn read(Shared(state): Shared<State>, Path(id): Path<String>, who: Who) -> Result<Response, Refusal> {
    if !is_id(&id) {
        return Err(Refusal::NotFound);
    }
    let wanted = id.clone();
    let about = state.store.read(move |connection| About::find(connection, &wanted)).await?;
    about.read.admits(&who)?.covers(Some(&about.owner))?;
    let file = File::open(state.shelf.path(&id)).await.map_err(Refusal::internal)?;
    let mut response = Response::new(Body::from_stream(ReaderStream::new(file)));
    let name = utf8_percent_encode(&about.name, NON_ALPHANUMERIC);
    for (field, value) in [
        (header::CONTENT_TYPE, about.kind.clone()),
        (header::CONTENT_LENGTH, about.size.to_string()),
        (header::CONTENT_DISPOSITION, format!("attachment; filename*=UTF-8''{name}")),
        (header::ETAG, format!("\"{}\"", about.sha256)),
        (header::CACHE_CONTROL, "private, max-age=31536000, immutable".to_owned()),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff".to_owned()),
        (header::CONTENT_SECURITY_POLICY, "sandbox; default-src 'none'".to_owned()),
    ] {
        let value = HeaderValue::try_from(value).map_err(Refusal::internal)?;
        response.headers_mut().insert(field, value);
    }
    Ok(response)
}

pub(super) async fn delete(
    Shared(state): Shared<State>,
    Path(id): Path<String>,
    who: Who,
    teller: Teller,
) -> Result<StatusCode, Refusal> {
    let deleted = state.store.write(move |connection| {
        let reach: Reach = Rule::Owner.admits(&who.still(connection)?)?;
        let about = About::find(connection, &id)?;
        reach.covers(Some(&about.owner))?;
        connection.execute("DELETE FROM files WHERE id = ?1", [&id])?;
        let sql = "INSERT INTO files_removed (id, removed, size) VALUES (?1, ?2, ?3)";
        connection.execute(sql, params![id, moment::now(), i64::try_from(about.size).map_err(Refusal::internal)?])?;
        about.tell(connection, &teller, "file.deleted")
    });
    deleted.await.map(|()| StatusCode::NO_CONTENT)
}

/// Takes away all files of an account; their bytes go a while later.
pub(super) fn remove_all(connection: &Connection, owner: &str, now: Ms) -> Result<(), Refusal> {
    let sql = "INSERT INTO files_removed (id, removed, size) SELECT id, ?2, size FROM files WHERE owner = ?1";
    connection.execute(sql, params![owner, now])?;
    connection.execute("DELETE FROM files WHERE owner = ?1", [owner])?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_files_are_names() {
        for (claimed, expect) in [
            ("a.txt", "a.txt"),
            ("../../etc/passwd", "passwd"),
            ("C:\\a\\b c.txt", "b c.txt"),
            ("a\r\nSet-Cookie: x", "aSet-Cookie: x"),
        ] {
            assert_eq!(file_name(claimed).as_deref(), Ok(expect), "{claimed:?}");
        }
        for wrong in ["", "..", "a/..", "/", "\n", &"x".repeat(256)] {
            assert!(file_name(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn what_the_database_does_not_know_is_swept_and_what_was_removed_goes_later() {
        let data = tempfile::tempdir().unwrap();
        let (shelf, connection) = (Shelf::open(data.path()).unwrap(), super::super::store::migrated());
        for name in ["kept", "removed", "unknown", ".unknown.part"] {
            std::fs::write(shelf.path(name), "x").unwrap();
        }
        let sql = "INSERT INTO files VALUES ('kept', 'u', 'n', 't', 1, '', 'owner', 0);
            INSERT INTO files_removed VALUES ('removed', 1000, 1)";
        connection.execute_batch(sql).unwrap();
        let left = || {
            let mut names: Vec<_> = std::fs::read_dir(&shelf.0)
                .unwrap()
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect();
            names.sort();
            names
        };
        shelf.sweep(&connection).unwrap();
        assert_eq!(left(), ["kept", "removed"]);
        shelf.clear(&connection, 1000 + KEPT).unwrap();
        assert_eq!(left(), ["kept", "removed"]);
        shelf.clear(&connection, 1001 + KEPT).unwrap();
        assert_eq!(left(), ["kept"]);
    }
}
