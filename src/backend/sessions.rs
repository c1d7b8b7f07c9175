//! Sessions: one login and the refresh tokens that follow from it.
//!
//! Each refresh token is good once. One that comes a second time has been stolen, by whoever came first or whoever comes now:
//! the session ends for both.

use rusqlite::{Connection, OptionalExtension as _, params};

use super::moment::{Ms, new_id};
use super::refusal::Refusal;
use super::tokens::Role;
use crate::settings::backend::SESSIONS_MAX;

/// A session that goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Session {
    pub(super) id: String,
    pub(super) user: String,
    pub(super) role: Role,
}

/// What came of a refresh token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Renewed {
    Session(Session),
    /// Nobody knows it, or its time is over.
    Unknown,
    /// It came twice. The session has ended.
    Reused {
        session: String,
        user: String,
    },
}

/// Begins a session with a first refresh token.
pub(super) fn begin(
    connection: &Connection,
    user: &str,
    refresh: &[u8],
    now: Ms,
    expires: Ms,
) -> Result<String, Refusal> {
    let id = new_id();
    let sql = "INSERT INTO sessions (id, user, created, expires) VALUES (?1, ?2, ?3, ?4)";
    connection.execute(sql, params![id, user, now, expires])?;
    add(connection, &id, refresh, expires)?;
    let sql = "DELETE FROM sessions WHERE user = ?1 AND id NOT IN
        (SELECT id FROM sessions WHERE user = ?1 ORDER BY created DESC, id DESC LIMIT ?2)";
    connection.execute(sql, params![user, SESSIONS_MAX.cast_signed()])?;
    Ok(id)
}

fn add(connection: &Connection, session: &str, digest: &[u8], expires: Ms) -> Result<(), Refusal> {
    let sql = "INSERT INTO refresh_tokens (digest, session, expires) VALUES (?1, ?2, ?3)";
    connection.execute(sql, params![digest, session, expires])?;
    Ok(())
}

/// Takes a refresh token and puts the next in its place.
pub(super) fn renew(connection: &Connection, old: &[u8], new: &[u8], now: Ms, expires: Ms) -> Result<Renewed, Refusal> {
    let sql = "SELECT s.id, s.user, u.role, t.used, t.expires > ?2 AND s.expires > ?2 AND s.revoked IS NULL
        FROM refresh_tokens t JOIN sessions s ON s.id = t.session JOIN users u ON u.id = s.user WHERE t.digest = ?1";
    let found = connection.query_row(sql, params![old, now], |row| {
        let session = Session { id: row.get(0)?, user: row.get(1)?, role: Role::of(&row.get::<_, String>(2)?) };
        Ok((session, row.get::<_, Option<Ms>>(3)?, row.get::<_, bool>(4)?))
    });
    let Some((session, used, good)) = found.optional()? else { return Ok(Renewed::Unknown) };
    if used.is_some() {
        end(connection, &session.id, now)?;
        return Ok(Renewed::Reused { session: session.id, user: session.user });
    }
    if !good {
        return Ok(Renewed::Unknown);
    }
    connection.execute("UPDATE refresh_tokens SET used = ?2 WHERE digest = ?1", params![old, now])?;
    connection.execute("UPDATE sessions SET expires = ?2 WHERE id = ?1", params![session.id, expires])?;
    add(connection, &session.id, new, expires)?;
    Ok(Renewed::Session(session))
}

/// Keeps an account's refresh tokens within a bound. Those that were used longest ago go first: if one of them comes again,
/// it is unknown, and its session goes on.
pub(super) fn bound(connection: &Connection, user: &str, number: u64) -> Result<(), Refusal> {
    let sql = "DELETE FROM refresh_tokens WHERE digest IN
        (SELECT t.digest FROM sessions s JOIN refresh_tokens t ON t.session = s.id WHERE s.user = ?1
        ORDER BY t.used IS NULL DESC, coalesce(t.used, t.expires) DESC, t.rowid DESC LIMIT -1 OFFSET ?2)";
    connection.execute(sql, params![user, i64::try_from(number).unwrap_or(i64::MAX)])?;
    Ok(())
}

/// Who a session belongs to, if it goes on.
pub(super) fn find(connection: &Connection, id: &str, now: Ms) -> Result<Option<Session>, Refusal> {
    let sql = "SELECT s.id, s.user, u.role FROM sessions s JOIN users u ON u.id = s.user
        WHERE s.id = ?1 AND s.revoked IS NULL AND s.expires > ?2";
    let mut query = connection.prepare(sql)?;
    let found = query.query_row(params![id, now], |row| {
        Ok(Session { id: row.get(0)?, user: row.get(1)?, role: Role::of(&row.get::<_, String>(2)?) })
    });
    Ok(found.optional()?)
}

pub(super) fn end(connection: &Connection, id: &str, now: Ms) -> Result<(), Refusal> {
    connection.execute("UPDATE sessions SET revoked = ?2 WHERE id = ?1 AND revoked IS NULL", params![id, now])?;
    Ok(())
}

/// Takes out what no token can name any more. A token that was used is kept until it would have ended: it may come again.
pub(super) fn sweep(connection: &Connection, now: Ms) -> Result<(), Refusal> {
    connection.execute("DELETE FROM refresh_tokens WHERE expires <= ?1", [now])?;
    connection.execute("DELETE FROM sessions WHERE expires <= ?1", [now])?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::store::migrated;
    use super::*;

    fn with_user() -> Connection {
        let connection = migrated();
        connection.execute("INSERT INTO users VALUES ('u1', 'a@b', 'x', 'user', 0)", []).unwrap();
        connection
    }

    fn renewed(connection: &Connection, old: &[u8], new: &[u8], now: Ms) -> Renewed {
        renew(connection, old, new, now, now + 100).unwrap()
    }

    #[test]
    fn a_refresh_token_is_good_once_and_its_second_use_ends_the_session() {
        let connection = with_user();
        let id = begin(&connection, "u1", b"one", 0, 100).unwrap();
        let session = Session { id: id.clone(), user: "u1".to_owned(), role: Role::User };
        assert_eq!(renewed(&connection, b"one", b"two", 50), Renewed::Session(session.clone()));
        assert_eq!(renewed(&connection, b"two", b"three", 120), Renewed::Session(session.clone()), "it was prolonged");
        assert_eq!(find(&connection, &id, 120).unwrap(), Some(session));
        let reused = Renewed::Reused { session: id.clone(), user: "u1".to_owned() };
        assert_eq!(renewed(&connection, b"two", b"four", 121), reused);
        assert_eq!(find(&connection, &id, 121).unwrap(), None);
        assert_eq!(renewed(&connection, b"three", b"five", 122), Renewed::Unknown, "nor is the good one any more");
    }

    #[test]
    fn what_is_unknown_or_over_renews_nothing() {
        let connection = with_user();
        let id = begin(&connection, "u1", b"one", 0, 100).unwrap();
        assert_eq!(renewed(&connection, b"other", b"two", 1), Renewed::Unknown);
        assert_eq!(renewed(&connection, b"one", b"two", 100), Renewed::Unknown);
        assert_eq!(find(&connection, &id, 100).unwrap(), None);
        sweep(&connection, 100).unwrap();
        let left: i64 = connection.query_row("SELECT count(*) FROM refresh_tokens", [], |row| row.get(0)).unwrap();
        assert_eq!(left, 0);
    }

    #[test]
    fn used_refresh_tokens_beyond_the_bound_are_forgotten_the_oldest_first() {
        let connection = with_user();
        let id = begin(&connection, "u1", &[0], 0, 1000).unwrap();
        begin(&connection, "u1", b"other", 0, 1000).unwrap();
        for n in 0..10u8 {
            assert!(matches!(renewed(&connection, &[n], &[n + 1], n.into()), Renewed::Session(_)));
            bound(&connection, "u1", 4).unwrap();
        }
        let left: i64 = connection.query_row("SELECT count(*) FROM refresh_tokens", [], |row| row.get(0)).unwrap();
        assert_eq!(left, 4, "two that are good and the last two that were used");
        assert_eq!(renewed(&connection, &[7], b"x", 20), Renewed::Unknown);
        assert!(find(&connection, &id, 20).unwrap().is_some());
        assert!(matches!(renewed(&connection, b"other", b"next", 20), Renewed::Session(_)));
        assert!(matches!(renewed(&connection, &[8], b"x", 20), Renewed::Reused { .. }));
    }

    #[test]
    fn the_oldest_of_too_many_sessions_ends() {
        let connection = with_user();
        let ids: Vec<_> = (0..=SESSIONS_MAX.cast_signed())
            .map(|n| begin(&connection, "u1", &n.to_be_bytes(), n, 1000).unwrap())
            .collect();
        assert_eq!(find(&connection, &ids[0], 60).unwrap(), None);
        assert!(find(&connection, &ids[1], 60).unwrap().is_some());
    }

    #[test]
    fn the_least_bound_on_tokens_ends_no_session() {
        let connection = with_user();
        for n in 0..SESSIONS_MAX.cast_signed() {
            begin(&connection, "u1", &n.to_be_bytes(), n, 1000).unwrap();
            bound(&connection, "u1", SESSIONS_MAX).unwrap();
        }
        for n in 0..SESSIONS_MAX.cast_signed() {
            let renewed = renewed(&connection, &n.to_be_bytes(), &[&n.to_be_bytes()[..], b"next"].concat(), 100);
            assert!(matches!(renewed, Renewed::Session(_)), "{n}: {renewed:?}");
            bound(&connection, "u1", SESSIONS_MAX).unwrap();
        }
    }
}
