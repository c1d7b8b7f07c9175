//! Lists of records: which ones, in which order, how many.

use rusqlite::{Connection, params_from_iter};
use serde::Deserialize;
use serde_json::{Value, json};

use super::filter::{Field, Filter, Statement};
use super::records::Record;
use super::refusal::Refusal;
use super::rules::Reach;

/// Records of a page.
const PER_PAGE: u32 = 30;
const PER_PAGE_MAX: u32 = 200;
/// Records that are skipped at most: further ones are found by a filter.
const SKIPPED_MAX: u64 = 100_000;
/// Fields that a list is sorted by.
const SORT_MAX: usize = 4;

/// What a client writes behind the `?`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Query {
    filter: String,
    /// `-created,text`: a `-` for the other way round.
    sort: String,
    page: Option<u32>,
    per_page: Option<u32>,
}

/// A query that makes sense.
#[derive(Debug)]
pub(super) struct Listing {
    filter: Option<Filter>,
    order: Vec<(Field, &'static str)>,
    page: u32,
    per_page: u32,
}

impl TryFrom<Query> for Listing {
    type Error = Refusal;

    fn try_from(query: Query) -> Result<Listing, Refusal> {
        let Query { filter, sort, page, per_page } = query;
        let filter = match filter.trim() {
            "" => None,
            text => Some(text.parse().map_err(Refusal::Filter)?),
        };
        let (page, per_page) = (page.unwrap_or(1), per_page.unwrap_or(PER_PAGE));
        if !(1..=PER_PAGE_MAX).contains(&per_page) {
            return Err(Refusal::invalid("per_page", format!("1 to {PER_PAGE_MAX}")));
        }
        if page == 0 || u64::from(page) * u64::from(per_page) > SKIPPED_MAX {
            let message = format!("pages begin with 1 and end with record {SKIPPED_MAX}: narrow the filter");
            return Err(Refusal::invalid("page", message));
        }
        Ok(Listing { filter, order: order(&sort)?, page, per_page })
    }
}

fn order(sort: &str) -> Result<Vec<(Field, &'static str)>, Refusal> {
    let sort = if sort.trim().is_empty() { "-created" } else { sort };
    let parts: Vec<&str> = sort.split(',').map(str::trim).collect();
    if parts.len() > SORT_MAX {
        return Err(Refusal::invalid("sort", format!("{SORT_MAX} fields at most")));
    }
    let one = |part: &&str| {
        let (name, direction) = match part.strip_prefix('-') {
            Some(name) => (name, " DESC"),
            None => (*part, " ASC"),
        };
        name.parse().map(|field| (field, direction)).map_err(|message: String| Refusal::invalid("sort", message))
    };
    parts.iter().map(one).collect()
}

impl Listing {
    /// The page, as the client gets it.
    pub(super) fn find(&self, connection: &Connection, collection: &str, reach: &Reach) -> Result<Value, Refusal> {
        let counting = self.with_conditions("SELECT count(*) FROM records WHERE collection = ", collection, reach);
        let total: i64 =
            connection.query_row(&counting.text, params_from_iter(&counting.parameters), |row| row.get(0))?;
        let select = "SELECT id, owner, data, revision, created, updated FROM records WHERE collection = ";
        let mut statement = self.with_conditions(select, collection, reach);
        statement.push(" ORDER BY ");
        for (field, direction) in &self.order {
            statement.field(field);
            statement.push(direction);
            statement.push(", ");
        }
        // Without it records that are alike could stand on two pages, or on none.
        let direction = self.order.first().map_or(" ASC", |(_, direction)| *direction);
        statement.push("id");
        statement.push(direction);
        statement.push(" LIMIT ");
        statement.bind(i64::from(self.per_page));
        statement.push(" OFFSET ");
        statement.bind((i64::from(self.page) - 1) * i64::from(self.per_page));
        let mut query = connection.prepare(&statement.text)?;
        let mut rows = query.query(params_from_iter(&statement.parameters))?;
        let mut items = Vec::new();
        while let Some(row) = rows.next()? {
            items.push(Record::read(row)?.json()?);
        }
        Ok(json!({ "page": self.page, "per_page": self.per_page, "total": total, "items": items }))
    }

    fn with_conditions(&self, select: &str, collection: &str, reach: &Reach) -> Statement {
        let mut statement = Statement::new(select);
        statement.bind(collection.to_owned());
        if let Reach::Own(user) = reach {
            statement.push(" AND owner = ");
            statement.bind(user.clone());
        }
        if let Some(filter) = &self.filter {
            statement.push(" AND ");
            statement.filter(filter);
        }
        statement
    }
}

#[cfg(test)]
mod tests {
    use super::super::store::migrated;
    use super::*;

    fn listing(query: Query) -> Listing {
        query.try_into().unwrap()
    }

    fn with_records() -> Connection {
        let connection = migrated();
        for (id, owner, n) in [("1", "u1", 3), ("2", "u2", 1), ("3", "u1", 2), ("4", "u1", 2)] {
            let sql = "INSERT INTO records VALUES ('notes', ?1, ?2, ?3, 1, 0, 0)";
            connection.execute(sql, (id, owner, json!({ "n": n }).to_string())).unwrap();
        }
        connection
    }

    fn ids(page: &Value) -> Vec<&str> {
        page["items"].as_array().unwrap().iter().map(|item| item["id"].as_str().unwrap()).collect()
    }

    #[test]
    fn lists_are_sorted_filtered_and_paged_within_reach() {
        let connection = with_records();
        let query = |filter: &str, sort: &str, page, per_page| Query {
            filter: filter.to_owned(),
            sort: sort.to_owned(),
            page: Some(page),
            per_page: Some(per_page),
        };
        let own = Reach::Own("u1".to_owned());
        for (query, reach, expect, total) in [
            (Query::default(), &Reach::All, vec!["4", "3", "2", "1"], 4),
            (query("", "n", 1, 10), &Reach::All, vec!["2", "3", "4", "1"], 4),
            (query("", "-n,id", 1, 10), &Reach::All, vec!["1", "3", "4", "2"], 4),
            (query("", "n", 2, 3), &Reach::All, vec!["1"], 4),
            (query("", "n", 3, 3), &Reach::All, vec![], 4),
            (query("n < 3", "n", 1, 10), &own, vec!["3", "4"], 2),
            (query("n = 1 || owner = 'u2'", "", 1, 10), &own, vec![], 0),
        ] {
            let page = listing(query).find(&connection, "notes", reach).unwrap();
            assert_eq!((ids(&page), &page["total"]), (expect, &total.into()), "{page}");
        }
        assert_eq!(listing(Query::default()).find(&connection, "other", &Reach::All).unwrap()["total"], 0);
    }

    #[test]
    fn what_has_no_bound_is_refused() {
        let refused = |query: Query| Listing::try_from(query).unwrap_err();
        for (page, per_page) in [(0, 1), (1, 0), (1, 201), (501, 200), (u32::MAX, 200)] {
            refused(Query { page: Some(page), per_page: Some(per_page), ..Query::default() });
        }
        for sort in ["a,b,c,d,e", "a b", "-", "a;--", "(SELECT 1)"] {
            refused(Query { sort: sort.to_owned(), ..Query::default() });
        }
        assert!(matches!(refused(Query { filter: "a".to_owned(), ..Query::default() }), Refusal::Filter(_)));
    }
}
