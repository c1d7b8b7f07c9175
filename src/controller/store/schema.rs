//! The tables, as the steps that lead to them (`migrations`).

use rusqlite::Connection;

use crate::migrations::{self, MigrationError};

/// What a step makes may be there already: the release that knew the first step only has said of every database that it opened
/// that it has taken no more.
const STEPS: &[&str] = &[
    "
    CREATE TABLE cursor (stream TEXT PRIMARY KEY, sequence INTEGER NOT NULL) WITHOUT ROWID;
    CREATE TABLE lost (reason TEXT PRIMARY KEY, number INTEGER NOT NULL) WITHOUT ROWID;
    -- `twin` is what a service calls the event by itself: a second one is the first, come again.
    CREATE TABLE event (
        id INTEGER PRIMARY KEY AUTOINCREMENT, at INTEGER NOT NULL, service TEXT NOT NULL, name TEXT NOT NULL,
        trace TEXT, twin TEXT UNIQUE, body TEXT NOT NULL
    );
    CREATE INDEX event_at ON event (at);
    CREATE INDEX event_trace ON event (trace) WHERE trace IS NOT NULL;
    CREATE TABLE request (
        id INTEGER PRIMARY KEY AUTOINCREMENT, at INTEGER NOT NULL, node TEXT NOT NULL, route TEXT, status INTEGER,
        code TEXT, client TEXT, trace TEXT, request TEXT, body TEXT NOT NULL
    );
    CREATE INDEX request_at ON request (at);
    CREATE INDEX request_trace ON request (trace) WHERE trace IS NOT NULL;
    CREATE INDEX request_code ON request (code, at) WHERE code IS NOT NULL;
    -- Route '' is all of a node.
    CREATE TABLE sample (
        step INTEGER NOT NULL, at INTEGER NOT NULL, route TEXT NOT NULL, node TEXT NOT NULL, counted TEXT NOT NULL,
        PRIMARY KEY (step, route, at, node)
    ) WITHOUT ROWID;
    CREATE INDEX sample_at ON sample (step, at);
",
    "
    -- What is searched for most, beside traces; the newest of them without sorting.
    CREATE INDEX IF NOT EXISTS event_name ON event (name);
    CREATE INDEX IF NOT EXISTS event_service ON event (service);
    CREATE INDEX IF NOT EXISTS request_request ON request (request) WHERE request IS NOT NULL;
",
    "
    -- Whom limits refuse is shown anew every two seconds: it is read from the index alone.
    CREATE INDEX IF NOT EXISTS request_refused ON request (code, at, client, route) WHERE code IS NOT NULL;
    DROP INDEX IF EXISTS request_code;
",
];

pub(super) fn make(connection: &mut Connection) -> Result<(), MigrationError> {
    migrations::apply(connection, STEPS)
}
