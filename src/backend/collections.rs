//! Collections: names under which records stand, and the rules for them.

use axum::Json;
use axum::extract::{Path, State as Shared};
use axum::http::StatusCode;
use rusqlite::{Connection, OptionalExtension as _, params};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::moment::{self, Ms};
use super::outbox::Teller;
use super::refusal::Refusal;
use super::rules::Rules;
use super::state::State;
use super::who::{Body, Who};

/// Collections that there may be.
const NUMBER_MAX: i64 = 1000;
const NAME_MAX: usize = 64;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct New {
    name: String,
    rules: Rules,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Changed {
    rules: Rules,
}

/// A letter, then letters, digits and `_`.
pub(super) fn is_name(name: &str) -> bool {
    let first = name.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic());
    first && name.len() <= NAME_MAX && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// The rules of a collection.
pub(super) fn rules(connection: &Connection, name: &str) -> Result<Rules, Refusal> {
    let mut query = connection.prepare("SELECT rules FROM collections WHERE name = ?1")?;
    let rules: Option<String> = query.query_row([name], |row| row.get(0)).optional()?;
    serde_json::from_str(&rules.ok_or(Refusal::NotFound)?).map_err(Refusal::internal)
}

/// Whether a collection may have one more record.
pub(super) fn has_room(connection: &Connection, name: &str, bound: u64) -> Result<(), Refusal> {
    let mut query = connection.prepare("SELECT records FROM collections WHERE name = ?1")?;
    let number: i64 = query.query_row([name], |row| row.get(0))?;
    if number.unsigned_abs() < bound { Ok(()) } else { Err(Refusal::Full("the collection holds limits.records")) }
}

/// All collections, for administrators.
pub(super) async fn list(Shared(state): Shared<State>, who: Who) -> Result<Json<Value>, Refusal> {
    who.admin()?;
    let asked = state.store.read(|connection| {
        let sql = "SELECT name, rules, created, records FROM collections ORDER BY name";
        let mut query = connection.prepare(sql)?;
        let mut rows = query.query([])?;
        let mut items = Vec::new();
        while let Some(row) = rows.next()? {
            let rules: Rules = serde_json::from_str(&row.get::<_, String>(1)?).map_err(Refusal::internal)?;
            items.push(json!({
                "name": row.get::<_, String>(0)?, "rules": rules, "created": row.get::<_, Ms>(2)?,
                "records": row.get::<_, i64>(3)?,
            }));
        }
        Ok::<_, Refusal>(items)
    });
    Ok(Json(json!({ "items": asked.await? })))
}

pub(super) async fn create(
    Shared(state): Shared<State>,
    who: Who,
    teller: Teller,
    Body(New { name, rules }): Body<New>,
) -> Result<(StatusCode, Json<Value>), Refusal> {
    who.admin()?;
    if !is_name(&name) {
        let message = format!("a letter, then letters, digits and `_`, {NAME_MAX} at most");
        return Err(Refusal::invalid("name", message));
    }
    let now = moment::now();
    let answer = json!({ "name": name, "rules": rules, "created": now, "records": 0 });
    let created = state.store.write(move |connection| {
        who.still(connection)?.admin()?;
        let number: i64 = connection.query_row("SELECT count(*) FROM collections", [], |row| row.get(0))?;
        if number >= NUMBER_MAX {
            return Err(Refusal::Full("there are as many collections as there may be"));
        }
        let rules = serde_json::to_string(&rules).map_err(Refusal::internal)?;
        let sql = "INSERT INTO collections (name, rules, created) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING";
        if connection.execute(sql, params![name, rules, now])? == 0 {
            return Err(Refusal::Taken);
        }
        tell(connection, &teller, "collection.created", name)
    });
    created.await?;
    Ok((StatusCode::CREATED, Json(answer)))
}

fn tell(connection: &Connection, teller: &Teller, event: &'static str, name: String) -> Result<(), Refusal> {
    Ok(teller.tell(connection, event, Map::from_iter([("collection".to_owned(), name.into())]))?)
}

/// Other rules, from the next request on. Records stay, and whose they are.
pub(super) async fn update(
    Shared(state): Shared<State>,
    Path(name): Path<String>,
    who: Who,
    teller: Teller,
    Body(Changed { rules }): Body<Changed>,
) -> Result<Json<Value>, Refusal> {
    who.admin()?;
    let answer = json!({ "name": name, "rules": rules });
    let changed = state.store.write(move |connection| {
        who.still(connection)?.admin()?;
        let rules = serde_json::to_string(&rules).map_err(Refusal::internal)?;
        match connection.execute("UPDATE collections SET rules = ?2 WHERE name = ?1", [&name, &rules])? {
            0 => Err(Refusal::NotFound),
            _ => tell(connection, &teller, "collection.updated", name),
        }
    });
    changed.await?;
    Ok(Json(answer))
}

/// Its records go with it, and nothing tells of each of them.
pub(super) async fn delete(
    Shared(state): Shared<State>,
    Path(name): Path<String>,
    who: Who,
    teller: Teller,
) -> Result<StatusCode, Refusal> {
    who.admin()?;
    let deleted = state.store.write(move |connection| {
        who.still(connection)?.admin()?;
        match connection.execute("DELETE FROM collections WHERE name = ?1", [&name])? {
            0 => Err(Refusal::NotFound),
            _ => tell(connection, &teller, "collection.deleted", name),
        }
    });
    deleted.await.map(|()| StatusCode::NO_CONTENT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_words() {
        for name in ["a", "notes", "Notes_2"] {
            assert!(is_name(name), "{name}");
        }
        for name in ["", "2a", "_a", "a-b", "a.b", "a'b", "a/b", &"a".repeat(65)] {
            assert!(!is_name(name), "{name}");
        }
    }
}
