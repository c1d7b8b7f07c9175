//! Accounts: sign-up, login, refresh, logout.

use std::time::Instant;

use axum::Json;
use axum::extract::{Path, State as Shared};
use axum::http::StatusCode;
use rusqlite::{Connection, OptionalExtension as _, params};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::moment::{self, Ms, ms, new_id};
use super::outbox::Teller;
use super::refusal::Refusal;
use super::sessions::{self, Renewed};
use super::state::State;
use super::tokens::{self, Role};
use super::who::{Asked, Body, Who};
use crate::scalar::Secret;

/// Longest address (RFC 5321 4.5.3.1.3).
const EMAIL_MAX: usize = 254;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Proof {
    email: String,
    password: Secret,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Refresh {
    refresh_token: Secret,
}

/// An account as its owner and administrators see it.
pub(super) struct Account {
    id: String,
    email: String,
    role: Role,
    created: Ms,
}

impl Account {
    fn read(row: &rusqlite::Row<'_>) -> rusqlite::Result<Account> {
        let role = Role::of(&row.get::<_, String>(2)?);
        Ok(Account { id: row.get(0)?, email: row.get(1)?, role, created: row.get(3)? })
    }

    fn json(&self) -> Value {
        let Account { id, email, role, created } = self;
        json!({ "id": id, "email": email, "role": role.name(), "created": created })
    }
}

/// Addresses are compared as small letters.
pub(super) fn email(text: &str) -> Result<String, Refusal> {
    let email = text.trim().to_lowercase();
    let legal = |c: char| !c.is_whitespace() && !c.is_control();
    let parts = email.split_once('@').is_some_and(|(name, host)| {
        !name.is_empty() && !host.is_empty() && !host.contains('@') && !host.starts_with('.') && !host.ends_with('.')
    });
    if parts && email.len() <= EMAIL_MAX && email.chars().all(legal) {
        return Ok(email);
    }
    Err(Refusal::invalid("email", "this is no address"))
}

/// Makes an account. `Refusal::Taken` if the address has one.
pub(super) fn create(connection: &Connection, email: &str, hash: &str, role: Role) -> Result<String, Refusal> {
    let id = new_id();
    let sql = "INSERT INTO users (id, email, password, role, created) VALUES (?1, ?2, ?3, ?4, ?5)
        ON CONFLICT (email) DO NOTHING";
    match connection.execute(sql, params![id, email, hash, role.name(), moment::now()])? {
        0 => Err(Refusal::Taken),
        _ => Ok(id),
    }
}

fn tell(connection: &Connection, teller: &Teller, event: &'static str, user: &str) -> Result<(), Refusal> {
    Ok(teller.tell(connection, event, Map::from_iter([("user".to_owned(), user.into())]))?)
}

pub(super) async fn sign_up(
    Shared(state): Shared<State>,
    teller: Teller,
    Body(proof): Body<Proof>,
) -> Result<(StatusCode, Json<Value>), Refusal> {
    if !state.words.accounts.signup {
        return Err(Refusal::Forbidden);
    }
    let email = email(&proof.email)?;
    let hash = state.passwords.hash(proof.password).await?;
    let expires = moment::now() + ms(state.words.token.refresh.0);
    let refresh = tokens::new_refresh()?;
    let digest = tokens::digest(&refresh);
    let shared = state.clone();
    let begun = state.store.write(move |connection| {
        shared.has_room(connection)?;
        let number: i64 = connection.query_row("SELECT accounts FROM held", [], |row| row.get(0))?;
        if number.unsigned_abs() >= shared.words.limits.accounts {
            return Err(Refusal::Full("there are limits.accounts accounts"));
        }
        let user = create(connection, &email, &hash, Role::User)?;
        tell(connection, &teller, "user.created", &user)?;
        let session = sessions::begin(connection, &user, &digest, moment::now(), expires)?;
        Ok::<_, Refusal>((user, session))
    });
    let (user, session) = begun.await?;
    Ok((StatusCode::CREATED, Json(answer(&state, (&user, Role::User), &session, &refresh)?)))
}

pub(super) async fn log_in(
    Shared(state): Shared<State>,
    teller: Teller,
    Body(proof): Body<Proof>,
) -> Result<Json<Value>, Refusal> {
    let outcome = |outcome: &str| state.metrics.logins.with_label_values(&[outcome]).inc();
    let Ok(email) = email(&proof.email) else {
        outcome("wrong");
        return Err(Refusal::Credentials);
    };
    let tried = state.throttle.attempt(&email, Instant::now()).map_err(|wait| {
        outcome("throttled");
        Refusal::Failures(wait)
    })?;
    let looked = look(&state, email.clone(), proof.password).await.inspect_err(|_| {
        state.throttle.undo(&email, tried);
        outcome("unknown");
    });
    let Some((user, role)) = looked? else {
        state.throttle.failed(&email, Instant::now());
        outcome("wrong");
        return Err(Refusal::Credentials);
    };
    state.throttle.forgive(&email);
    outcome("right");
    let expires = moment::now() + ms(state.words.token.refresh.0);
    let refresh = tokens::new_refresh()?;
    let (digest, subject) = (tokens::digest(&refresh), user.clone());
    let tokens_max = state.words.limits.refresh_tokens;
    let begun = state.store.write(move |connection| {
        let session = sessions::begin(connection, &subject, &digest, moment::now(), expires)?;
        sessions::bound(connection, &subject, tokens_max)?;
        tell(connection, &teller, "session.begun", &subject)?;
        Ok::<_, Refusal>(session)
    });
    let session = begun.await?;
    Ok(Json(answer(&state, (&user, role), &session, &refresh)?))
}

/// The account of an address, if the password is its own. An error says nothing about the password.
async fn look(state: &State, email: String, password: Secret) -> Result<Option<(String, Role)>, Refusal> {
    let asked = state.store.read(move |connection| {
        let sql = "SELECT id, role, password FROM users WHERE email = ?1";
        let found = connection.query_row(sql, [email], |row| {
            Ok((row.get::<_, String>(0)?, Role::of(&row.get::<_, String>(1)?), row.get::<_, String>(2)?))
        });
        Ok::<_, Refusal>(found.optional()?)
    });
    let (account, hash) = match asked.await? {
        Some((id, role, hash)) => (Some((id, role)), Some(hash)),
        None => (None, None),
    };
    let right = state.passwords.verify(hash, password).await?;
    Ok(account.filter(|_| right))
}

pub(super) async fn refresh(
    Shared(state): Shared<State>,
    teller: Teller,
    Body(asked): Body<Refresh>,
) -> Result<Json<Value>, Refusal> {
    let old = tokens::digest(asked.refresh_token.expose());
    let next = tokens::new_refresh()?;
    let new = tokens::digest(&next);
    let now = moment::now();
    let expires = now + ms(state.words.token.refresh.0);
    let tokens_max = state.words.limits.refresh_tokens;
    let renewed = state.store.write(move |connection| {
        let renewed = sessions::renew(connection, &old, &new, now, expires)?;
        if let Renewed::Session(session) = &renewed {
            sessions::bound(connection, &session.user, tokens_max)?;
        }
        // That the session ends is written though the client is refused.
        if let Renewed::Reused { session, user } = &renewed {
            let fields = [("user".to_owned(), user.as_str().into()), ("session".to_owned(), session.as_str().into())];
            teller.tell(connection, "session.stolen", Map::from_iter(fields))?;
        }
        Ok::<_, Refusal>(renewed)
    });
    match renewed.await? {
        Renewed::Session(session) => Ok(Json(answer(&state, (&session.user, session.role), &session.id, &next)?)),
        Renewed::Unknown => Err(Refusal::Token),
        Renewed::Reused { .. } => Err(Refusal::Reused),
    }
}

fn answer(state: &State, user: (&str, Role), session: &str, refresh: &str) -> Result<Value, Refusal> {
    let access = tokens::issue(&state.ring.load(), &state.words.token, user, session, moment::now())?;
    Ok(json!({
        "access_token": access,
        "token_type": "Bearer",
        "expires_in": state.words.token.access.0.as_secs(),
        "refresh_token": refresh,
        "user": { "id": user.0, "role": user.1.name() },
    }))
}

/// Ends the session: no refresh token of it is good any more, nor is its access token here.
pub(super) async fn log_out(Shared(state): Shared<State>, who: Who) -> Result<StatusCode, Refusal> {
    let session = who.user()?.id.clone();
    state.store.write(move |connection| sessions::end(connection, &session, moment::now())).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn me(Shared(state): Shared<State>, who: Who) -> Result<Json<Value>, Refusal> {
    let user = who.user()?.user.clone();
    let asked = state.store.read(move |connection| {
        let sql = "SELECT id, email, role, created FROM users WHERE id = ?1";
        Ok::<_, Refusal>(connection.query_row(sql, [user], Account::read)?)
    });
    Ok(Json(asked.await?.json()))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Page {
    #[serde(default)]
    after: String,
}

/// Accounts that a page of the list has.
const PER_PAGE: i64 = 100;

/// All accounts in the order they were made, for administrators: those after an id, a page at a time.
pub(super) async fn list(
    Shared(state): Shared<State>,
    who: Who,
    Asked(page): Asked<Page>,
) -> Result<Json<Value>, Refusal> {
    who.admin()?;
    let asked = state.store.read(move |connection| {
        let sql = "SELECT id, email, role, created FROM users WHERE id > ?1 ORDER BY id LIMIT ?2";
        let mut query = connection.prepare(sql)?;
        let accounts = query.query_map(params![page.after, PER_PAGE], Account::read)?;
        Ok::<_, Refusal>(accounts.map(|account| Ok(account?.json())).collect::<Result<Vec<_>, rusqlite::Error>>()?)
    });
    Ok(Json(json!({ "items": asked.await? })))
}

/// Takes an account away, for administrators, and what is its own: sessions, records, files. Nothing tells of each of them.
pub(super) async fn delete(
    Shared(state): Shared<State>,
    Path(id): Path<String>,
    who: Who,
    teller: Teller,
) -> Result<StatusCode, Refusal> {
    who.admin()?;
    state.store.write(move |connection| remove(connection, who, &id, &teller)).await.map(|()| StatusCode::NO_CONTENT)
}

fn remove(connection: &Connection, who: Who, id: &str, teller: &Teller) -> Result<(), Refusal> {
    // Of two administrators who take each other away at once, one stays.
    if who.still(connection)?.admin()?.user == id {
        return Err(Refusal::invalid("id", "nobody takes away the own account: another administrator does"));
    }
    // Sessions and their tokens follow.
    if connection.execute("DELETE FROM users WHERE id = ?1", [id])? == 0 {
        return Err(Refusal::NotFound);
    }
    // By collection, as the index has them.
    let sql = "DELETE FROM records WHERE collection IN (SELECT name FROM collections) AND owner = ?1";
    connection.execute(sql, [id])?;
    super::files::remove_all(connection, id, moment::now())?;
    tell(connection, teller, "user.deleted", id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::TraceContext;

    #[test]
    fn addresses_are_made_alike_and_nonsense_is_none() {
        assert_eq!(email(" Ada@Example.COM "), Ok("ada@example.com".to_owned()));
        for wrong in ["", "@", "a@", "@b", "a b@c", "a@b@c", "a@.b", "a@b.", "a\n@b", &format!("{}@b", "x".repeat(260))]
        {
            assert!(email(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn administrators_who_take_each_other_away_leave_one() {
        let connection = super::super::store::migrated();
        let teller = Teller { trace: TraceContext::begin(false), bound: 10 };
        let [(ada, ada_asks), (bob, bob_asks)] = ["ada@b", "bob@b"].map(|email| {
            let user = create(&connection, email, "", Role::Admin).unwrap();
            let now = moment::now();
            let id = sessions::begin(&connection, &user, email.as_bytes(), now, now + 60_000).unwrap();
            (user.clone(), Who::User(sessions::Session { id, user, role: Role::Admin }))
        });
        // Both were let in before either is done.
        assert_eq!(remove(&connection, ada_asks, &bob, &teller), Ok(()));
        assert_eq!(remove(&connection, bob_asks, &ada, &teller), Err(Refusal::Token));
        let left: String = connection.query_row("SELECT id FROM users", [], |row| row.get(0)).unwrap();
        assert_eq!(left, ada);
    }
}
