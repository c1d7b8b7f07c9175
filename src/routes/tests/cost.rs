//! What a lookup costs: no allocation, whatever the table.

use std::net::{IpAddr, Ipv4Addr};

use http::{HeaderMap, HeaderValue, Method};

use super::*;
use crate::facts::{Head, Scheme};
use crate::routes::{Found, host, path};

fn allocations(run: impl FnOnce()) -> u64 {
    allocation_counter::measure(run).count_total
}

#[test]
fn finding_a_route_allocates_nothing() {
    let mut text = responding(&[
        ("any", "{ path = '/*' }"),
        (
            "conditions",
            "{ path = '/c/{a}/{b}/*', header = { x-a = { prefix = 'v' } }, query = { q = 'a b' }, cookie = { c = '1' }, from = ['10.0.0.0/8', '10.1.0.0/16'], method = 'GET' }",
        ),
        ("wild", "{ host = '**.example.com', path = '/{x}/y' }"),
    ]);
    for number in 0..500 {
        let words = format!("{{ host = 'h{}.example.org', path = '/p{number}/*' }}", number % 50);
        text.push_str(&responding(&[(&format!("r{number}"), &words)]));
    }
    let table = table(&text);
    let mut headers = HeaderMap::new();
    headers.insert("x-a", HeaderValue::from_static("v1"));
    headers.insert("cookie", HeaderValue::from_static("b=2; c=1"));
    for (host, path, expect) in [
        ("h", "/x", Some("any")),
        ("h", "/c/1/2/3/4", Some("conditions")),
        ("a.b.example.com", "/x/y", Some("wild")),
        ("h7.example.org", "/p57/x", Some("r57")),
        ("h7.example.org", "/p58/x", None),
    ] {
        let head = Head {
            method: &Method::GET,
            scheme: Scheme::Https,
            host,
            path,
            query: Some("p&q=a%20b"),
            headers: &headers,
            client: IpAddr::V4(Ipv4Addr::new(10, 1, 2, 3)),
            listener: "public",
            sni: None,
            client_certificate: None,
            request_id: "",
        };
        let mut found = None;
        assert_eq!(allocations(|| found = Some(table.find(&head))), 0, "{host}{path}");
        let name = match found.expect("an answer") {
            Found::Route { route, .. } => Some(route.name.clone()),
            Found::NoRoute => None,
            other => panic!("{other:?}"),
        };
        assert_eq!(name.as_deref(), expect, "{host}{path}");
    }
}

#[test]
fn normal_hosts_and_paths_are_borrowed() {
    let count = allocations(|| {
        assert!(host::normalise("core-v2.example.com:8443").is_ok());
        assert!(host::normalise("192.0.2.1:80").is_ok());
        assert!(path::normalise("/api/v1/users/12345").is_ok());
    });
    assert_eq!(count, 0);
    // The counter counts.
    assert!(allocations(|| assert!(path::normalise("/a//b").is_ok())) > 0);
}
