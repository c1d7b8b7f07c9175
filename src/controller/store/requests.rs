//! Request logs: lines of the gateways' access logs, best effort; what is missing is counted.

use rusqlite::{Connection, Transaction, params_from_iter};
use serde_json::Value as Json;

use super::events::{Filter, Found, Incoming};
use super::{PAGE_MAX, count_lost, page, set_cursor, signed, unsigned};

/// What is looked for. Empty: everything, newest first.
#[derive(Clone, Debug, Default)]
pub(in crate::controller) struct RequestQuery {
    pub(in crate::controller) trace: Option<String>,
    pub(in crate::controller) request: Option<String>,
    pub(in crate::controller) node: Option<String>,
    pub(in crate::controller) route: Option<String>,
    pub(in crate::controller) status: Option<(u16, u16)>,
    pub(in crate::controller) before: Option<u64>,
    pub(in crate::controller) limit: usize,
}

/// Adds lines; a message is one line or an array of lines.
pub(in crate::controller) fn add_requests(
    transaction: &Transaction<'_>,
    stream: &str,
    batch: &[Incoming],
    line_max: u64,
) -> rusqlite::Result<()> {
    let mut insert = transaction.prepare(
        "INSERT INTO request (at, node, route, status, code, client, trace, request, body) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
    )?;
    for message in batch {
        let node = message.subject.rsplit('.').next().unwrap_or_default();
        let lines = match serde_json::from_slice(&message.payload) {
            Ok(Json::Array(lines)) => lines,
            Ok(line @ Json::Object(_)) => vec![line],
            _ => {
                count_lost(transaction, "request_not_json", 1)?;
                continue;
            }
        };
        for line in lines {
            let body = line.to_string();
            if body.len() as u64 > line_max || !line.is_object() {
                count_lost(transaction, "request_too_long", 1)?;
                continue;
            }
            let text = |key: &str| line.get(key).and_then(Json::as_str);
            let status = line.get("status").and_then(Json::as_i64);
            insert.execute((
                signed(message.at_ms),
                node,
                text("route"),
                status,
                text("code"),
                text("client"),
                text("trace_id"),
                text("request_id"),
                body,
            ))?;
        }
    }
    batch.last().map_or(Ok(()), |last| set_cursor(transaction, stream, last.sequence))
}

/// Lines as the gateways wrote them, with `node` and `id`.
pub(in crate::controller) fn requests(connection: &Connection, query: &RequestQuery) -> rusqlite::Result<Found<Json>> {
    let mut filter = Filter::default();
    filter.equal("trace", query.trace.clone());
    filter.equal("request", query.request.clone());
    filter.equal("node", query.node.clone());
    filter.equal("route", query.route.clone());
    filter.between("status", query.status);
    filter.before(query.before);
    let sql = format!("SELECT id, node, body FROM request {} ORDER BY id DESC LIMIT {}", filter.sql(), query.limit);
    let mut statement = connection.prepare(&sql)?;
    let rows = statement.query_map(params_from_iter(filter.values), |row| {
        let (id, node, body): (_, String, String) = (unsigned(row.get(0)?), row.get(1)?, row.get(2)?);
        let mut line: Json = serde_json::from_str(&body).unwrap_or_default();
        if let Some(line) = line.as_object_mut() {
            line.insert("id".to_owned(), id.into());
            line.insert("node".to_owned(), node.into());
        }
        Ok((id, body.len(), line))
    })?;
    page(rows, query.limit, PAGE_MAX)
}

/// Lines of refusals that are counted: the newest.
const REFUSALS_MAX: u64 = 100_000;
/// Without a look at the lines themselves: the index holds all of it.
pub(super) const LIMITED: &str = "SELECT coalesce(client, '-'), coalesce(route, '-'), count(*) FROM \
     (SELECT client, route FROM request WHERE code = 'limit' AND at >= ?1 ORDER BY at DESC LIMIT ?3) \
     GROUP BY 1, 2 ORDER BY 3 DESC LIMIT ?2";

/// Clients that limits refused since then, most often first: their address, the route, how often. Found at once.
pub(in crate::controller) fn limited_clients(
    connection: &Connection,
    since_ms: u64,
    limit: usize,
) -> rusqlite::Result<Vec<(String, String, u64)>> {
    let mut statement = connection.prepare(LIMITED)?;
    let rows = statement.query_map((signed(since_ms), signed(limit as u64), signed(REFUSALS_MAX)), |row| {
        Ok((row.get(0)?, row.get(1)?, unsigned(row.get(2)?)))
    })?;
    rows.collect()
}
