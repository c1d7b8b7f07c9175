//! Filters against a model in ten lines, and against whoever would like to write SQL.

use proptest::prelude::*;
use rusqlite::{Connection, params_from_iter};
use serde_json::{Value as Json, json};

use super::*;

/// Records with every kind of value under few names, so that filters meet them.
fn records() -> Vec<Json> {
    vec![
        json!({ "a": "x", "b": 1, "c": true, "d": null }),
        json!({ "a": "X y", "b": 2.5, "c": false, "d": { "a": "x", "b": -3 } }),
        json!({ "a": 1, "b": "1", "c": "true", "d": { "a": [1], "c": true } }),
        json!({ "b": 0, "c": null, "d": "null" }),
        json!({ "a": "", "b": -1e3, "c": 1 }),
        json!({ "a": "it's \"quoted\" \\ %_", "b": 9_007_199_254_740_993_i64, "c": [true], "d": [] }),
        json!({ "a": "äö", "b": "x", "d": { "d": { "a": "deep" } } }),
    ]
}

fn database() -> Connection {
    let connection = super::super::store::migrated();
    for (number, data) in records().iter().enumerate() {
        let sql = "INSERT INTO records VALUES ('notes', ?1, 'u1', ?2, 1, 10, 20)";
        connection.execute(sql, (number.to_string(), data.to_string())).unwrap();
    }
    connection
}

/// Which records a filter finds.
fn found(connection: &Connection, filter: &Filter) -> Vec<usize> {
    let mut statement = Statement::new("SELECT id FROM records WHERE ");
    statement.filter(filter);
    statement.push(" ORDER BY id");
    let mut query = connection.prepare(&statement.text).unwrap();
    let ids = query.query_map(params_from_iter(statement.parameters), |row| row.get::<_, String>(0)).unwrap();
    ids.map(|id| id.unwrap().parse().unwrap()).collect()
}

fn compared(held: &serde_json::Number, number: f64) -> std::cmp::Ordering {
    held.as_f64().unwrap().partial_cmp(&number).unwrap()
}

fn model(filter: &Filter, record: &Json) -> bool {
    match filter {
        Filter::Any(parts) => parts.iter().any(|part| model(part, record)),
        Filter::All(parts) => parts.iter().all(|part| model(part, record)),
        Filter::Not(inside) => !model(inside, record),
        Filter::Compare(Field::Path(path), operator, value) => {
            let pointer = path.trim_start_matches('$').replace(".\"", "/").replace('"', "");
            let held = record.pointer(&pointer).unwrap_or(&Json::Null);
            let order = match (held, value) {
                (Json::String(held), Value::Text(text)) if *operator == Operator::Holds => {
                    return held.to_ascii_lowercase().contains(&text.to_ascii_lowercase());
                }
                (Json::String(held), Value::Text(text)) => held.as_bytes().cmp(text.as_bytes()),
                (Json::Number(held), Value::Whole(number)) if held.is_i64() => held.as_i64().unwrap().cmp(number),
                (Json::Number(held), Value::Whole(number)) => compared(held, *number as f64),
                (Json::Number(held), Value::Number(number)) => compared(held, *number),
                (Json::Bool(held), Value::Boolean(boolean)) => return held == boolean,
                (Json::Null, Value::Null) => return true,
                _ => return false,
            };
            match operator {
                Operator::Is | Operator::Holds => order.is_eq(),
                Operator::Greater => order.is_gt(),
                Operator::GreaterOrIs => order.is_ge(),
                Operator::Less => order.is_lt(),
                Operator::LessOrIs => order.is_le(),
            }
        }
        Filter::Compare(Field::Column(_), ..) => unreachable!("the model has no columns"),
    }
}

/// The filter as a client writes it.
fn written(filter: &Filter) -> String {
    let joined = |parts: &[Filter], between| {
        let parts: Vec<_> = parts.iter().map(|part| format!("({})", written(part))).collect();
        parts.join(between)
    };
    match filter {
        Filter::Any(parts) => joined(parts, "||"),
        Filter::All(parts) => joined(parts, " && "),
        Filter::Not(inside) => format!("!({})", written(inside)),
        Filter::Compare(field, operator, value) => {
            let field = match field {
                Field::Column(column) => (*column).to_owned(),
                Field::Path(path) => path.trim_start_matches("$.").replace('"', ""),
            };
            let operator = match operator {
                Operator::Is => "=",
                Operator::Greater => ">",
                Operator::GreaterOrIs => ">=",
                Operator::Less => "<",
                Operator::LessOrIs => "<=",
                Operator::Holds => "~",
            };
            let value = match value {
                Value::Text(text) => format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'")),
                Value::Number(number) => format!("{number:?}"),
                Value::Whole(number) => number.to_string(),
                Value::Boolean(boolean) => boolean.to_string(),
                Value::Null => "null".to_owned(),
            };
            format!("{field} {operator}{value}")
        }
    }
}

fn comparison() -> impl Strategy<Value = Filter> {
    let field = prop::collection::vec("[abcd]", 1..3).prop_map(|names| names.join(".").parse::<Field>().unwrap());
    let order = prop_oneof![
        Just(Operator::Is),
        Just(Operator::Greater),
        Just(Operator::GreaterOrIs),
        Just(Operator::Less),
        Just(Operator::LessOrIs)
    ];
    let text = prop_oneof!["x", "X", "1", "", "[\\\\'\"%_ äx]{0,4}", "true", "null"];
    let compared = prop_oneof![
        (order.clone(), text.clone().prop_map(Value::Text)),
        text.prop_map(|text| (Operator::Holds, Value::Text(text))),
        (order.clone(), prop_oneof![Just(1), Just(0), -3..3i64, Just(9_007_199_254_740_993)].prop_map(Value::Whole)),
        (order, prop_oneof![Just(2.5), Just(-1000.5), -3.0..3.0f64].prop_map(Value::Number)),
        any::<bool>().prop_map(|boolean| (Operator::Is, Value::Boolean(boolean))),
        Just((Operator::Is, Value::Null)),
    ];
    (field, compared).prop_map(|(field, (operator, value))| Filter::Compare(field, operator, value))
}

fn filter() -> impl Strategy<Value = Filter> {
    comparison().prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 2..4).prop_map(Filter::Any),
            prop::collection::vec(inner.clone(), 2..4).prop_map(Filter::All),
            inner.prop_map(|inside| Filter::Not(Box::new(inside))),
        ]
    })
}

proptest! {
    #[test]
    fn finds_what_the_model_finds_and_reads_what_is_written(filter in filter()) {
        let expect: Vec<_> =
            records().iter().enumerate().filter(|(_, record)| model(&filter, record)).map(|(index, _)| index).collect();
        prop_assert_eq!(found(&database(), &filter), expect, "{}", written(&filter));
        prop_assert_eq!(written(&filter).parse::<Filter>(), Ok(filter));
    }

    #[test]
    fn whatever_is_written_is_an_error_or_runs(text in "[a-d.'\"()!=<>~&| \\\\;\\-0-9]{0,40}|\\PC{0,40}") {
        if let Ok(filter) = text.parse::<Filter>() {
            found(&database(), &filter);
        }
    }
}

#[test]
fn columns_are_fields_too() {
    let connection = database();
    for (text, number) in
        [("owner = 'u1'", 7), ("owner = 'u2'", 0), ("created >= 10 && updated < 21", 7), ("id = '3'", 1)]
    {
        assert_eq!(found(&connection, &text.parse().unwrap()).len(), number, "{text}");
    }
    connection.execute("UPDATE records SET owner = NULL WHERE id = '3'", []).unwrap();
    assert_eq!(found(&connection, &"owner = null".parse().unwrap()), [3]);
    assert_eq!(found(&connection, &"owner != 'u1'".parse().unwrap()), [3]);
}

#[test]
fn injections_are_texts_or_mistakes() {
    let connection = database();
    for text in [
        "a = '\\' OR 1=1 --'",
        "a = \"') OR 1=1 --\"",
        "a = '); DROP TABLE records; --'",
        "a ~ '%'&& a ~ '%\\' OR \\'1\\'=\\'1'",
    ] {
        assert_eq!(found(&connection, &text.parse().unwrap()), [] as [usize; 0], "{text}");
    }
    for text in [
        "a = 'x' OR 1=1",
        "a = 'x'; DROP TABLE records",
        "a = 'x' --",
        "1=1",
        "a') = 'x'",
        "a\"' = 'x'",
        "data = data",
        "a.\"b = 'x'",
        "json_extract(data, '$') = 'x'",
        "a = ?1",
        "a = (SELECT 1)",
        "a = 0x10",
        "a = 1e999",
    ] {
        assert!(text.parse::<Filter>().is_err(), "{text}");
    }
    assert_eq!(found(&connection, &"a != 'x'".parse().unwrap()).len(), 6, "the table is there still");
}

#[test]
fn what_is_wrong_is_said() {
    for (text, expect) in [
        ("", "expected the name of a field at byte 0, found its end"),
        ("a", "expected an operator, of = != > >= < <= ~ !~, at byte 1, found its end"),
        ("a = ", "expected a text in quotes, a number, true, false or null at byte 4, found its end"),
        ("a = 'x", "a text that begins with ' does not end"),
        ("a = 1 b", "expected `&&`, `||` or the end at byte 6, found `b`"),
        ("(a = 1", "expected `)` at byte 6, found its end"),
        ("a > true", "`true`, `false` and `null` take `=` and `!=` only"),
        ("a ~ 1", "`~` takes a text in quotes"),
        ("a..b = 1", "`a..b` is no field"),
        ("a.b.c.d.e.f = 1", "`a.b.c.d.e.f` is no field"),
    ] {
        assert_eq!(text.parse::<Filter>(), Err(expect.to_owned()), "{text}");
    }
    for text in [
        "a".repeat(3000),
        ["a = 1"; 33].join("||"),
        format!("{}a = 1{}", "(".repeat(17), ")".repeat(17)),
        format!("{}a = 1", "!".repeat(17)),
    ] {
        assert!(text.parse::<Filter>().unwrap_err().contains("than"), "{text}");
    }
    let deepest = format!("{}a = 1{}", "(".repeat(16), ")".repeat(16));
    assert!(deepest.parse::<Filter>().is_ok() && ["a = 1"; 32].join("||").parse::<Filter>().is_ok());
}
