//! Keys, costs and what is said, without a gateway.

use std::borrow::Cow;

use super::*;
use crate::config;
use crate::problem::Path;

struct Fixed(&'static [(&'static str, &'static str)]);
impl Facts for Fixed {
    fn fact(&self, fact: &Fact) -> Option<Cow<'_, str>> {
        let name = fact.to_string();
        self.0.iter().find(|(known, _)| *known == name).map(|(_, value)| Cow::Borrowed(*value))
    }
}

fn limit(text: &str) -> Limit {
    let words: config::Limit = toml::from_str(text).unwrap();
    let mut problems = Vec::new();
    let limit = Limit::compile("l", &words, &Path::default(), &mut problems);
    assert_eq!(problems, [], "{text}");
    limit.unwrap()
}

fn check(limit: &Limit, client: &str, facts: &'static [(&'static str, &'static str)]) -> bool {
    let said = limit.check(client.parse().unwrap(), &Method::GET, &HeaderMap::new(), &Fixed(facts));
    !matches!(said, Said::Refused { .. })
}

#[test]
fn the_first_alternative_that_is_known_is_the_key() {
    let limit = limit("rate = '1/h'\nburst = 1\nkey = [['claim.sub', 'path.id'], 'client.ip']");
    assert!(limit.is_proven());
    let one = &[("claim.sub", "a"), ("path.id", "1")];
    assert!(check(&limit, "192.0.2.1", one) && !check(&limit, "192.0.2.2", one));
    assert!(check(&limit, "192.0.2.1", &[("claim.sub", "a"), ("path.id", "2")]));
    assert!(check(&limit, "192.0.2.1", &[("claim.sub", "a")]) && !check(&limit, "192.0.2.1", &[]));
    // Values that run into each other are different keys.
    assert!(check(&limit, "192.0.2.1", &[("claim.sub", "a1"), ("path.id", "")]));
}

#[test]
fn clients_are_networks() {
    let limit = limit("rate = '1/h'\nburst = 1");
    assert!(check(&limit, "2001:db8::1", &[]) && !check(&limit, "2001:db8::ffff:1", &[]));
    assert!(check(&limit, "2001:db8:0:1::1", &[]));
    assert!(check(&limit, "192.0.2.1", &[]) && !check(&limit, "::ffff:192.0.2.1", &[]));
    assert_eq!((limit.reading().allowed, limit.reading().limited, limit.reading().keys), (3, 2, 3));
}

#[test]
fn who_has_no_key_is_counted_as_the_author_says() {
    for (word, expect) in [("one_bucket", [true, false]), ("deny", [false, false]), ("skip", [true, true])] {
        let limit = limit(&format!("rate = '1/h'\nburst = 1\nkey = ['header.x']\nmissing = '{word}'"));
        assert_eq!([check(&limit, "192.0.2.1", &[]), check(&limit, "192.0.2.2", &[])], expect, "{word}");
    }
    let all = limit("rate = '1/h'\nburst = 1\nkey = []");
    assert!(check(&all, "192.0.2.1", &[]) && !check(&all, "192.0.2.2", &[]), "everybody together");
}

#[test]
fn requests_cost_what_they_cost() {
    let limit = limit("rate = '10/h'\nburst = 10\ncost = { method = { POST = 5 }, header = 'x-cost' }");
    let take = |method: Method, told: Option<&'static str>| {
        let mut headers = HeaderMap::new();
        if let Some(told) = told {
            headers.insert("x-cost", http::HeaderValue::from_static(told));
        }
        match limit.check("192.0.2.1".parse().unwrap(), &method, &headers, &Fixed(&[])) {
            Said::Allowed(window, _) => Some(window.remaining),
            _ => None,
        }
    };
    assert_eq!(take(Method::POST, None), Some(5));
    assert_eq!(take(Method::GET, Some("2")), Some(3));
    assert_eq!(take(Method::GET, Some("nonsense")), Some(2));
    assert_eq!(take(Method::POST, Some("1")), None, "nobody names a lower price");
    assert_eq!(take(Method::GET, Some("99999")), None);
}

#[test]
fn mistakes_are_told() {
    for text in [
        "",
        "rate = '1/s'\nconcurrent = 1",
        "rate = '1/s'\nburst = 0",
        "concurrent = 0",
        "concurrent = 1\nburst = 2",
        "rate = '1/s'\nkey = ['nonsense']",
        "rate = '1/s'\nkeys = 0",
        "rate = '1/s'\ncost = { method = { GET = 0 } }",
        "rate = '1/s'\nburst = 2\ncost = { method = { GET = 3 } }",
        "rate = '1/s'\ncost = { method = { post = 1 } }",
        "rate = '1/366d'\nburst = 1000000",
        "rate = '1/s'\nkey = ['error.code']",
    ] {
        let words: config::Limit = toml::from_str(text).unwrap();
        let mut problems = Vec::new();
        Limit::compile("l", &words, &Path::default(), &mut problems);
        assert!(!problems.is_empty(), "{text}");
    }
}

#[test]
fn nothing_is_allocated_for_a_check_by_address() {
    let limit = limit("rate = '1000/s'");
    let (client, headers) = ("192.0.2.1".parse().unwrap(), HeaderMap::new());
    limit.check(client, &Method::GET, &headers, &Fixed(&[]));
    let info = allocation_counter::measure(|| {
        for _ in 0..100 {
            limit.check(client, &Method::GET, &headers, &Fixed(&[]));
        }
    });
    assert_eq!(info.count_total, 0);
}

#[test]
fn what_was_used_is_inherited_whatever_else_changes() {
    let before = limit("rate = '1/h'\nburst = 3\nkeys = 10");
    assert!((0..3).all(|_| check(&before, "192.0.2.1", &[])) && !check(&before, "192.0.2.1", &[]));
    let after = limit("rate = '1/h'\nburst = 3\nkeys = 100000");
    after.inherit(&before);
    assert!(!check(&after, "192.0.2.1", &[]), "another bound forgets nobody");
    assert!((2..60).all(|last| check(&after, &format!("192.0.2.{last}"), &[])));
    assert_eq!((after.reading().keys, after.reading().evicted), (59, 0));
    let at_once = limit("concurrent = 1\nkeys = 100000");
    at_once.inherit(&after);
    assert!((2..60).all(|last| check(&at_once, &format!("192.0.2.{last}"), &[])), "another kind has room of its own");
    let quick = limit("rate = '1000000/s'\nburst = 3");
    quick.inherit(&before);
    let soon = (0..100_000).any(|_| check(&quick, "192.0.2.1", &[]));
    assert!(soon, "nobody waits under a rule that is gone");
}

#[test]
fn policies_say_the_rate_that_was_written() {
    for (words, expect) in [
        ("rate = '100/s'", "\"l\";q=100;w=1"),
        ("rate = '600/1m'\nburst = 5", "\"l\";q=600;w=60"),
        ("rate = '5/250ms'", "\"l\";q=20;w=1"),
        ("concurrent = 3", ""),
    ] {
        assert_eq!(limit(words).policy(), expect, "{words}");
    }
}

#[test]
fn nodes_of_a_fleet_count_what_the_others_let_through() {
    let text = "rate = '1/h'\nburst = 6\nscope = 'fleet'";
    let (one, other) = (limit(text), limit(text));
    for _ in 0..2 {
        assert!(check(&one, "192.0.2.1", &[]));
    }
    let told = one.shared().unwrap().drain();
    assert_eq!(told.iter().map(|(_, used)| *used).collect::<Vec<_>>(), [2]);
    for (key, used) in told {
        other.spent_elsewhere(key, NonZeroU32::new(used).unwrap());
    }
    for _ in 0..4 {
        assert!(check(&other, "192.0.2.1", &[]));
    }
    assert!(!check(&other, "192.0.2.1", &[]), "all six are used");
    assert!(check(&other, "192.0.2.2", &[]), "another client has its own");
    assert!(limit("rate = '1/h'").shared().is_none());
}

#[test]
fn without_the_others_the_rule_decides() {
    let of = |on_loss: &str| limit(&format!("rate = '1/h'\nburst = 6\nscope = 'fleet'\n{on_loss}"));
    let three = NonZeroU32::new(3).unwrap();
    let passes = |limit: &Limit| {
        limit.shared().unwrap().set_nodes(three, true);
        (0..10).filter(|_| check(limit, "192.0.2.1", &[])).count()
    };
    assert_eq!(passes(&of("")), 2, "a third of six");
    assert_eq!(passes(&of("on_loss = 'local_share'")), 2);
    assert_eq!(passes(&of("on_loss = 'allow'")), 10);
    assert_eq!(passes(&of("on_loss = 'deny'")), 0);
}
