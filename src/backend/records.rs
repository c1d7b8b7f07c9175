//! Records: JSON objects of a collection, with an owner and a revision.
//!
//! Fields of the service (`id`, `owner`, `created`, `updated`) stand beside those of the client, which may not be called so.
//! The revision is the `ETag`; `If-Match` keeps one writer from undoing what another wrote.

use axum::Json;
use axum::extract::{Path, State as Shared};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use rusqlite::{Connection, OptionalExtension as _, params};
use serde_json::{Map, Value};

use super::collections;
use super::listing::{Listing, Query};
use super::moment::{self, Ms, new_id};
use super::outbox::Teller;
use super::refusal::Refusal;
use super::rules::{Reach, Rule, Rules};
use super::state::State;
use super::who::{Asked, Body, Who};

/// Fields that the service writes.
const RESERVED: [&str; 4] = ["id", "owner", "created", "updated"];

pub(super) struct Record {
    id: String,
    owner: Option<String>,
    data: String,
    revision: i64,
    created: Ms,
    updated: Ms,
}

impl Record {
    pub(super) fn read(row: &rusqlite::Row<'_>) -> rusqlite::Result<Record> {
        Ok(Record {
            id: row.get(0)?,
            owner: row.get(1)?,
            data: row.get(2)?,
            revision: row.get(3)?,
            created: row.get(4)?,
            updated: row.get(5)?,
        })
    }

    fn find(connection: &Connection, collection: &str, id: &str) -> Result<Record, Refusal> {
        let sql = "SELECT id, owner, data, revision, created, updated FROM records WHERE collection = ?1 AND id = ?2";
        connection.prepare(sql)?.query_row([collection, id], Record::read).optional()?.ok_or(Refusal::NotFound)
    }

    fn fields(&self) -> Result<Map<String, Value>, Refusal> {
        serde_json::from_str(&self.data).map_err(Refusal::internal)
    }

    pub(super) fn json(&self) -> Result<Value, Refusal> {
        let mut fields = self.fields()?;
        fields.insert("id".to_owned(), self.id.as_str().into());
        fields.insert("owner".to_owned(), self.owner.as_deref().into());
        fields.insert("created".to_owned(), self.created.into());
        fields.insert("updated".to_owned(), self.updated.into());
        Ok(Value::Object(fields))
    }

    fn etag(&self) -> String {
        format!("\"{}\"", self.revision)
    }

    fn answer(&self, status: StatusCode) -> Result<Response, Refusal> {
        let mut response = (status, Json(self.json()?)).into_response();
        if let Ok(etag) = HeaderValue::from_str(&self.etag()) {
            response.headers_mut().insert(header::ETAG, etag);
        }
        Ok(response)
    }

    fn tell(
        &self,
        connection: &Connection,
        teller: &Teller,
        event: &'static str,
        collection: &str,
    ) -> Result<(), Refusal> {
        let fields = Map::from_iter([
            ("collection".to_owned(), collection.into()),
            ("record".to_owned(), self.id.as_str().into()),
            ("owner".to_owned(), self.owner.as_deref().into()),
            ("revision".to_owned(), self.revision.into()),
        ]);
        Ok(teller.tell(connection, event, fields)?)
    }
}

/// Whether a list of tags (RFC 9110 13.1.1) names this one.
fn names(headers: &HeaderMap, name: header::HeaderName, etag: &str) -> Option<bool> {
    let value = headers.get(name)?.to_str().unwrap_or_default();
    Some(value.split(',').map(str::trim).any(|tag| tag == "*" || tag.trim_start_matches("W/") == etag))
}

/// The record as it will stand in the database.
fn text(state: &State, fields: &Map<String, Value>) -> Result<String, Refusal> {
    for name in fields.keys() {
        if RESERVED.contains(&name.as_str()) {
            return Err(Refusal::invalid(name, "the service writes this field"));
        }
        if !super::filter::is_name(name) {
            let message = "a letter or `_`, then letters, digits and `_`, 64 at most";
            return Err(Refusal::invalid("fields", message));
        }
    }
    let text = serde_json::to_string(fields).map_err(Refusal::internal)?;
    let bound = state.words.limits.record.0;
    if text.len() as u64 > bound { Err(Refusal::TooLarge(bound)) } else { Ok(text) }
}

pub(super) async fn list(
    Shared(state): Shared<State>,
    Path(collection): Path<String>,
    who: Who,
    Asked(query): Asked<Query>,
) -> Result<Json<Value>, Refusal> {
    let listing = Listing::try_from(query)?;
    let asked = state.store.read(move |connection| {
        let reach = collections::rules(connection, &collection)?.list.admits(&who)?;
        listing.find(connection, &collection, &reach)
    });
    Ok(Json(asked.await?))
}

pub(super) async fn create(
    Shared(state): Shared<State>,
    Path(collection): Path<String>,
    who: Who,
    teller: Teller,
    Body(fields): Body<Map<String, Value>>,
) -> Result<Response, Refusal> {
    let data = text(&state, &fields)?;
    let shared = state.clone();
    let created = state.store.write(move |connection| {
        let who = who.still(connection)?;
        collections::rules(connection, &collection)?.create.admits(&who)?;
        shared.has_room(connection)?;
        collections::has_room(connection, &collection, shared.words.limits.records)?;
        let now = moment::now();
        let owner = who.id().map(str::to_owned);
        let record = Record { id: new_id(), owner, data, revision: 1, created: now, updated: now };
        let sql = "INSERT INTO records (collection, id, owner, data, revision, created, updated)
            VALUES (?1, ?2, ?3, ?4, 1, ?5, ?5)";
        connection.execute(sql, params![collection, record.id, record.owner, record.data, now])?;
        record.tell(connection, &teller, "record.created", &collection)?;
        Ok::<_, Refusal>((record, collection))
    });
    let (record, collection) = created.await?;
    let mut response = record.answer(StatusCode::CREATED)?;
    if let Ok(place) = HeaderValue::from_str(&format!("/api/collections/{collection}/records/{}", record.id)) {
        response.headers_mut().insert(header::LOCATION, place);
    }
    Ok(response)
}

/// The record, if the rule lets somebody reach it.
fn reach(
    connection: &Connection,
    (collection, id): (&str, &str),
    who: &Who,
    rule: impl FnOnce(&Rules) -> Rule,
) -> Result<Record, Refusal> {
    let reach: Reach = rule(&collections::rules(connection, collection)?).admits(who)?;
    let record = Record::find(connection, collection, id)?;
    reach.covers(record.owner.as_deref())?;
    Ok(record)
}

pub(super) async fn read(
    Shared(state): Shared<State>,
    Path((collection, id)): Path<(String, String)>,
    who: Who,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let asked = state.store.read(move |connection| reach(connection, (&collection, &id), &who, |rules| rules.read));
    let record = asked.await?;
    if names(&headers, header::IF_NONE_MATCH, &record.etag()) == Some(true) {
        let mut response = record.answer(StatusCode::NOT_MODIFIED)?;
        *response.body_mut() = axum::body::Body::empty();
        response.headers_mut().remove(header::CONTENT_TYPE);
        response.headers_mut().remove(header::CONTENT_LENGTH);
        return Ok(response);
    }
    record.answer(StatusCode::OK)
}

/// A merge patch (RFC 7396) of the fields at the top: `null` takes one out.
pub(super) async fn update(
    Shared(state): Shared<State>,
    Path((collection, id)): Path<(String, String)>,
    who: Who,
    teller: Teller,
    headers: HeaderMap,
    Body(patch): Body<Map<String, Value>>,
) -> Result<Response, Refusal> {
    let shared = state.clone();
    let updated = state.store.write(move |connection| {
        let mut record = reach(connection, (&collection, &id), &who.still(connection)?, |rules| rules.update)?;
        if names(&headers, header::IF_MATCH, &record.etag()) == Some(false) {
            return Err(Refusal::Changed);
        }
        let mut fields = record.fields()?;
        for (name, value) in patch {
            match value {
                Value::Null => drop(fields.remove(&name)),
                value => drop(fields.insert(name, value)),
            }
        }
        let data = text(&shared, &fields)?;
        if data.len() > record.data.len() {
            shared.has_room(connection)?;
        }
        record.data = data;
        record.revision += 1;
        record.updated = moment::now();
        let sql = "UPDATE records SET data = ?3, revision = ?4, updated = ?5 WHERE collection = ?1 AND id = ?2";
        connection.execute(sql, params![collection, id, record.data, record.revision, record.updated])?;
        record.tell(connection, &teller, "record.updated", &collection)?;
        Ok(record)
    });
    updated.await?.answer(StatusCode::OK)
}

pub(super) async fn delete(
    Shared(state): Shared<State>,
    Path((collection, id)): Path<(String, String)>,
    who: Who,
    teller: Teller,
    headers: HeaderMap,
) -> Result<StatusCode, Refusal> {
    let deleted = state.store.write(move |connection| {
        let record = reach(connection, (&collection, &id), &who.still(connection)?, |rules| rules.delete)?;
        if names(&headers, header::IF_MATCH, &record.etag()) == Some(false) {
            return Err(Refusal::Changed);
        }
        connection.execute("DELETE FROM records WHERE collection = ?1 AND id = ?2", [&collection, &id])?;
        record.tell(connection, &teller, "record.deleted", &collection)
    });
    deleted.await.map(|()| StatusCode::NO_CONTENT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_compared_one_by_one() {
        let mut headers = HeaderMap::new();
        assert_eq!(names(&headers, header::IF_MATCH, "\"1\""), None);
        for (value, expect) in [("\"1\"", true), ("\"2\", W/\"1\"", true), ("*", true), ("\"11\"", false), ("1", false)]
        {
            headers.insert(header::IF_MATCH, value.parse().unwrap());
            assert_eq!(names(&headers, header::IF_MATCH, "\"1\""), Some(expect), "{value}");
        }
    }
}
