//! The tables, as the steps that lead to them (`migrations`).
//!
//! Times are milliseconds of the Unix epoch.

use rusqlite::Connection;

use crate::migrations::{self, MigrationError};

const STEPS: &[&str] = &[
    "
    CREATE TABLE users (
        id TEXT PRIMARY KEY,
        email TEXT NOT NULL UNIQUE,
        password TEXT NOT NULL,
        role TEXT NOT NULL CHECK (role IN ('user', 'admin')),
        created INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE sessions (
        id TEXT PRIMARY KEY,
        user TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
        created INTEGER NOT NULL,
        expires INTEGER NOT NULL,
        revoked INTEGER
    ) STRICT;
    CREATE INDEX sessions_user ON sessions (user, created);
    CREATE INDEX sessions_expires ON sessions (expires);
    -- Digests only: whoever reads the database cannot log in with what is there.
    CREATE TABLE refresh_tokens (
        digest BLOB PRIMARY KEY,
        session TEXT NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
        expires INTEGER NOT NULL,
        used INTEGER
    ) STRICT;
    CREATE INDEX refresh_tokens_session ON refresh_tokens (session);
    CREATE TABLE signing_keys (
        id TEXT PRIMARY KEY,
        pkcs8 BLOB NOT NULL,
        signs_from INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE collections (
        name TEXT PRIMARY KEY,
        rules TEXT NOT NULL,
        created INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE records (
        collection TEXT NOT NULL REFERENCES collections (name) ON DELETE CASCADE,
        id TEXT NOT NULL,
        owner TEXT,
        data TEXT NOT NULL,
        revision INTEGER NOT NULL,
        created INTEGER NOT NULL,
        updated INTEGER NOT NULL,
        PRIMARY KEY (collection, id)
    ) STRICT;
    CREATE INDEX records_created ON records (collection, created);
    CREATE INDEX records_owner ON records (collection, owner, created);
    CREATE TABLE files (
        id TEXT PRIMARY KEY,
        owner TEXT NOT NULL,
        name TEXT NOT NULL,
        type TEXT NOT NULL,
        size INTEGER NOT NULL,
        sha256 TEXT NOT NULL,
        read TEXT NOT NULL,
        created INTEGER NOT NULL
    ) STRICT;
    -- Their bytes go a while later, so that a backup under way finds them.
    CREATE TABLE files_removed (
        id TEXT PRIMARY KEY,
        removed INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE outbox (
        sequence INTEGER PRIMARY KEY AUTOINCREMENT,
        id TEXT NOT NULL UNIQUE,
        event TEXT NOT NULL,
        payload TEXT NOT NULL,
        created INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE counts (
        name TEXT PRIMARY KEY,
        value INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    INSERT INTO collections VALUES (
        'notes',
        '{\"list\":\"owner\",\"read\":\"owner\",\"create\":\"user\",\"update\":\"owner\",\"delete\":\"owner\"}',
        0
    );
    ",
    "
    -- Their bytes are on the disk as long as they stand here.
    ALTER TABLE files_removed ADD COLUMN size INTEGER NOT NULL DEFAULT 0;
    -- How many records a collection has: counting them for each new one would take longer and longer.
    ALTER TABLE collections ADD COLUMN records INTEGER NOT NULL DEFAULT 0;
    UPDATE collections SET records = (SELECT count(*) FROM records WHERE collection = name);
    CREATE TRIGGER records_more AFTER INSERT ON records BEGIN
        UPDATE collections SET records = records + 1 WHERE name = NEW.collection;
    END;
    CREATE TRIGGER records_fewer AFTER DELETE ON records BEGIN
        UPDATE collections SET records = records - 1 WHERE name = OLD.collection;
    END;
    ",
    "
    -- What bounds are compared with, in one row: adding it up for each new account or file would take longer and longer.
    -- A file takes a block of the disk at least, and as long as its bytes are there, though it was removed.
    CREATE TABLE held (accounts INTEGER NOT NULL, bytes INTEGER NOT NULL) STRICT;
    INSERT INTO held SELECT
        (SELECT count(*) FROM users),
        (SELECT coalesce(sum(max(size, 4096)), 0) FROM files)
            + (SELECT coalesce(sum(max(size, 4096)), 0) FROM files_removed);
    CREATE TRIGGER users_more AFTER INSERT ON users BEGIN
        UPDATE held SET accounts = accounts + 1;
    END;
    CREATE TRIGGER users_fewer AFTER DELETE ON users BEGIN
        UPDATE held SET accounts = accounts - 1;
    END;
    CREATE TRIGGER files_more AFTER INSERT ON files BEGIN
        UPDATE held SET bytes = bytes + max(NEW.size, 4096);
    END;
    CREATE TRIGGER files_fewer AFTER DELETE ON files BEGIN
        UPDATE held SET bytes = bytes - max(OLD.size, 4096);
    END;
    CREATE TRIGGER files_removed_more AFTER INSERT ON files_removed BEGIN
        UPDATE held SET bytes = bytes + max(NEW.size, 4096);
    END;
    CREATE TRIGGER files_removed_fewer AFTER DELETE ON files_removed BEGIN
        UPDATE held SET bytes = bytes - max(OLD.size, 4096);
    END;
    ",
];

/// The version that this program reads and writes.
pub(in crate::backend) fn newest() -> i64 {
    migrations::newest(STEPS)
}

/// Brings a database to the newest version. One that is newer than that is left alone.
pub(super) fn make(connection: &mut Connection) -> Result<(), MigrationError> {
    migrations::apply(connection, STEPS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_is_known_without_adding_it_up() {
        let mut connection = Connection::open_in_memory().unwrap();
        migrations::apply(&mut connection, &STEPS[..2]).unwrap();
        let held = |connection: &Connection, does: &str| {
            connection.execute_batch(does).unwrap();
            let sql = "SELECT accounts, bytes FROM held";
            connection.query_row(sql, [], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?))).unwrap()
        };
        let before = "INSERT INTO users VALUES ('u', 'a@b', '', 'user', 0);
            INSERT INTO files VALUES ('a', 'u', '', '', 10000, '', 'owner', 0), ('b', 'u', '', '', 0, '', 'owner', 0);
            INSERT INTO files_removed VALUES ('c', 0, 5000)";
        connection.execute_batch(before).unwrap();
        make(&mut connection).unwrap();
        assert_eq!(held(&connection, ""), (1, 19_096), "as an older version has left it");
        for (does, expect) in [
            ("INSERT INTO users VALUES ('v', 'b@b', '', 'user', 0)", (2, 19_096)),
            ("INSERT INTO users VALUES ('w', 'b@b', '', 'user', 0) ON CONFLICT (email) DO NOTHING", (2, 19_096)),
            ("INSERT INTO files VALUES ('d', 'v', '', '', 4097, '', 'owner', 0)", (2, 23_193)),
            ("INSERT INTO files_removed SELECT id, 0, size FROM files; DELETE FROM files", (2, 23_193)),
            ("DELETE FROM files_removed WHERE id != 'd'", (2, 4097)),
            ("DELETE FROM users", (0, 4097)),
            ("DELETE FROM files_removed", (0, 0)),
        ] {
            assert_eq!(held(&connection, does), expect, "{does}");
        }
    }
}
