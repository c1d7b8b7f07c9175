//! Events: what services tell, at least once, kept once.

use rusqlite::types::Value;
use rusqlite::{Connection, Transaction, params_from_iter};
use serde::Serialize;
use serde_json::Value as Json;

use super::{PAGE_MAX, count_lost, page, set_cursor, signed, unsigned};

/// A message of a stream, as it came.
#[derive(Clone, Debug)]
pub(in crate::controller) struct Incoming {
    pub(in crate::controller) sequence: u64,
    pub(in crate::controller) at_ms: u64,
    pub(in crate::controller) subject: String,
    pub(in crate::controller) payload: bytes::Bytes,
}

/// An event as it is shown.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(in crate::controller) struct Event {
    pub(in crate::controller) id: u64,
    /// When the bus took it.
    pub(in crate::controller) at_ms: u64,
    pub(in crate::controller) service: String,
    pub(in crate::controller) event: String,
    pub(in crate::controller) trace_id: Option<String>,
    pub(in crate::controller) body: Json,
}

/// What is looked for. Empty: everything, newest first.
#[derive(Clone, Debug, Default)]
pub(in crate::controller) struct EventQuery {
    pub(in crate::controller) trace: Option<String>,
    pub(in crate::controller) service: Option<String>,
    pub(in crate::controller) event: Option<String>,
    /// Only older ones than this id: the next page.
    pub(in crate::controller) before: Option<u64>,
    pub(in crate::controller) limit: usize,
}

/// A page of what was found, and where the next begins.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(in crate::controller) struct Found<T> {
    pub(in crate::controller) found: Vec<T>,
    pub(in crate::controller) before: Option<u64>,
}

/// Adds events in the order of their stream, with how far it has been read.
pub(in crate::controller) fn add_events(
    transaction: &Transaction<'_>,
    stream: &str,
    batch: &[Incoming],
    line_max: u64,
) -> rusqlite::Result<()> {
    let mut insert = transaction.prepare(
        "INSERT INTO event (at, service, name, trace, twin, body) VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT DO NOTHING",
    )?;
    for message in batch {
        if message.payload.len() as u64 > line_max {
            count_lost(transaction, "event_too_long", 1)?;
            continue;
        }
        let Ok(body @ Json::Object(_)) = serde_json::from_slice(&message.payload) else {
            count_lost(transaction, "event_not_json", 1)?;
            continue;
        };
        let text = |key: &str| body.get(key).and_then(Json::as_str).filter(|text| !text.is_empty());
        let mut levels = message.subject.rsplit('.');
        let (name, service) = (levels.next().unwrap_or_default(), levels.next().unwrap_or_default());
        let (service, name) = (text("service").unwrap_or(service), text("event").unwrap_or(name));
        let twin = text("id").map(|id| format!("{service} {id}"));
        insert.execute((signed(message.at_ms), service, name, text("trace_id"), twin, body.to_string()))?;
    }
    batch.last().map_or(Ok(()), |last| set_cursor(transaction, stream, last.sequence))
}

pub(in crate::controller) fn events(connection: &Connection, query: &EventQuery) -> rusqlite::Result<Found<Event>> {
    let mut filter = Filter::default();
    filter.equal("trace", query.trace.clone());
    filter.equal("service", query.service.clone());
    filter.equal("name", query.event.clone());
    filter.before(query.before);
    let sql = format!(
        "SELECT id, at, service, name, trace, body FROM event {} ORDER BY id DESC LIMIT {}",
        filter.sql(),
        query.limit
    );
    let mut statement = connection.prepare(&sql)?;
    let rows = statement.query_map(params_from_iter(filter.values), |row| {
        let (id, body): (_, String) = (unsigned(row.get(0)?), row.get(5)?);
        let event = Event {
            id,
            at_ms: unsigned(row.get(1)?),
            service: row.get(2)?,
            event: row.get(3)?,
            trace_id: row.get(4)?,
            body: serde_json::from_str(&body).unwrap_or_default(),
        };
        Ok((id, body.len(), event))
    })?;
    page(rows, query.limit, PAGE_MAX)
}

/// Conditions with their values apart: nothing of a question becomes part of a statement.
#[derive(Default)]
pub(super) struct Filter {
    conditions: Vec<String>,
    pub(super) values: Vec<Value>,
}

impl Filter {
    pub(super) fn equal(&mut self, column: &'static str, value: Option<String>) {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            self.values.push(Value::Text(value));
            self.conditions.push(format!("{column} = ?{}", self.values.len()));
        }
    }

    pub(super) fn before(&mut self, id: Option<u64>) {
        if let Some(id) = id {
            self.values.push(Value::Integer(signed(id)));
            self.conditions.push(format!("id < ?{}", self.values.len()));
        }
    }

    /// A whole number between two, both included.
    pub(super) fn between(&mut self, column: &'static str, range: Option<(u16, u16)>) {
        if let Some((low, high)) = range {
            self.values.extend([Value::Integer(low.into()), Value::Integer(high.into())]);
            let last = self.values.len();
            self.conditions.push(format!("{column} BETWEEN ?{} AND ?{last}", last - 1));
        }
    }

    pub(super) fn sql(&self) -> String {
        if self.conditions.is_empty() { String::new() } else { format!("WHERE {}", self.conditions.join(" AND ")) }
    }
}
