//! Every mistake of a document is a problem with its place and what to do.

use super::*;

const POOLS: &str = "[upstream.pocketbase]\naddress = '127.0.0.1:1'\n[upstream.builder]\naddress = '127.0.0.1:2'\n";

/// Each expectation is part of the one problem there is.
fn check(text: &str, expect: &[&str]) {
    let (table, problems) = try_compile(text);
    let texts: Vec<String> = problems.iter().map(|p| format!("{:?} {p}", p.severity)).collect();
    assert_eq!(texts.len(), 1, "{text}\n{texts:#?}");
    for part in expect {
        assert!(texts.iter().all(|text| text.contains(part)), "{text}\nlacks {part}\n{texts:#?}");
    }
    assert_eq!(table.is_none(), problems.iter().any(Problem::is_error));
}

fn check_route_words(words: &str, expect: &[&str]) {
    check(&format!("[[route]]\nname = 'r'\n{words}\n"), expect);
}

#[test]
fn a_route_has_exactly_one_destination() {
    check_route_words("", &["route.0: route `r` goes nowhere", "write one of"]);
    check_route_words("respond = {}\nredirect.to = '/x'", &["more than one destination"]);
    check_route_words("respond = {}\nsplit_by.cookie = 'c'", &["route.0.split_by: `split_by` without `split`"]);
    check_route_words("respond = {}\nrewrite.host = 'x'", &["route.0.rewrite: nothing goes upstream"]);
}

#[test]
fn names_lead_somewhere() {
    let route = |words: &str| {
        format!(
            "{POOLS}[[route]]\nname = 'u'\nmatch.path = '/u'\nupstream = 'builder'\n[[route]]\nname = 'r'\n{words}\n"
        )
    };
    let used = "split = [{ upstream = 'pocketbase', weight = 1 }, { upstream = 'bulider', weight = 1 }]";
    check(&route(used), &["route.1.split.1.upstream: there is no upstream `bulider`", "did you mean `builder`?"]);
    check(&route("upstream = 'pocketbase'\nmirror.upstream = 'nowhere'"), &["write a block `[upstream.nowhere]`"]);
    check(&route("respond = {}"), &["Warning", "upstream.pocketbase: no route uses upstream `pocketbase`"]);
    let listen = "upstream = 'pocketbase'\nmatch.listen = 'intenal'";
    check(&route(listen), &["route.1.match.listen.0: there is no listener `intenal`", "did you mean `internal`?"]);
    for name in ["", "a b", "none", &"x".repeat(65)] {
        check(&format!("[[route]]\nname = '{name}'\nrespond = {{}}"), &["route.0.name", "is not a name"]);
    }
    let twice = responding(&[("same", "{ path = '/a' }"), ("same", "{ path = '/b' }")]);
    check(&twice, &["route.1.name: two routes are named `same`: route.0 and route.1"]);
}

#[test]
fn conditions_are_legal() {
    for (words, expect) in [
        ("{ host = 'a b' }", &["route.0.match.host.0: `a b` is not a host"][..]),
        ("{ host = ['a', 'A'] }", &["match.host.1", "twice"]),
        ("{ host = '*' }", &["leave `host` out"]),
        ("{ host = 'h:80' }", &["leave the port out"]),
        ("{ path = 'x' }", &["match.path.0: `x` is not a path pattern", "write `/x`"]),
        ("{ path = '/%7Ea' }", &["write the segment as `~a`"]),
        ("{ path = '/é' }", &["write the segment as `%C3%A9`"]),
        ("{ path = '/a%2Fb' }", &["is never reached", "encoded_slash"]),
        ("{ path = ['/{a}', '/{b}'] }", &["match.path.1: `/{b}` matches what another path of this route does"]),
        ("{ method = 'get' }", &["match.method.0: `get` is not a method", "write `GET`"]),
        ("{ method = 'G T' }", &["is not a method"]),
        ("{ header = { 'a b' = '' } }", &["match.header.\"a b\": `a b` is not a header name"]),
        ("{ header = { a_b = '' } }", &["no request has `a_b`", "write `a-b`"]),
        ("{ header = { a = { prefix = '' } } }", &["match.header.a.prefix: an empty prefix"]),
        ("{ cookie = { 'a;b' = '' } }", &["is not the name of a cookie"]),
        ("{ from = '10.0.0.1/8' }", &["match.from.0: `10.0.0.1/8` is not a network", "write `10.0.0.0/8`"]),
        ("{ from = 'home' }", &["is not a network", "203.0.113.0/24"]),
    ] {
        check_route_words(&format!("match = {words}\nrespond = {{}}"), expect);
    }
}

#[test]
fn numbers_make_sense() {
    for (words, expect) in [
        ("respond.status = 101", "route.0.respond.status: 101 is not the status of an answer"),
        ("respond = { status = 204, body = 'x' }", "a 204 has no body"),
        ("respond.content_type = \"a\\nb\"", "not a content type"),
        ("redirect = { to = '/', status = 200 }", "route.0.redirect.status: 200 is not a redirect"),
        ("respond = {}\nretry.attempts = 0", "route.0.retry.attempts: 0 attempts"),
        ("respond = {}\nretry.attempts = 11", "11 attempts"),
        ("respond = {}\ntimeout.head = '0s'", "route.0.timeout.head: no time at all"),
        ("respond = {}\nstream.max_age = '0s'", "route.0.stream.max_age: no time at all"),
        ("respond = {}\n[defaults]\ntimeout.idle = '0s'", "defaults.timeout.idle: no time at all"),
    ] {
        check_route_words(words, &[expect]);
    }
    let words = |words: &str| format!("{POOLS}[[route]]\nname = 'r'\n{words}\n");
    let zero = "split = [{ upstream = 'pocketbase', weight = 0 }, { upstream = 'builder', weight = 0 }]";
    check(&words(zero), &["route.0.split: no share has weight"]);
    let big = "split = [{ upstream = 'pocketbase', weight = 10001 }, { upstream = 'builder', weight = 0 }]";
    check(&words(big), &["route.0.split.0.weight: 10001 is too much"]);
    for (mirror, expect) in [
        ("percent = 101.0", "percent: 101 is not a percentage"),
        ("percent = nan", "is not a percentage"),
        ("timeout = '0s'", "mirror.timeout: no time at all"),
        ("in_flight = 0", "in_flight: nothing would be copied"),
        ("compare_headers = 'a b'", "compare_headers.0: `a b` is not a header name"),
    ] {
        check(&words(&format!("upstream = 'pocketbase'\nmirror = {{ upstream = 'builder', {mirror} }}")), &[expect]);
    }
}

#[test]
fn templates_can_be_filled_and_stay_in_their_place() {
    for (words, expect) in [
        ("redirect.to = '/{path.id}'", "route.0.redirect.to: no path of this route captures `id`"),
        ("redirect.to = '{path.*}'", "neither a URL nor a path"),
        ("redirect.to = '//evil.example'", "neither a URL nor a path"),
        ("redirect.to = 'ftp://x/'", "neither a URL nor a path"),
        ("redirect.to = '/{request.path}'", "`/` before a path makes `//`"),
        ("redirect.to = 'https://{path.*}/'", "`{path.*}` would let the client choose the host"),
        ("redirect.to = 'https://{request.host}{path.*}'", "would let the client choose the host"),
        ("redirect.to = 'https://a.example{query.x}'", "would let the client choose the host"),
        ("redirect.to = 'https://{header.x-to}'", "would let the client choose the host"),
        ("redirect.to = 'https://a b/'", "the host holds a character that no host has"),
        ("redirect.to = '/a b'", "holds a character that a URL has not"),
        ("redirect.to = '/{nope}'", "`nope` is not a fact"),
        ("respond.body = '{'", "`{` without `}`"),
    ] {
        check_route_words(&format!("match.path = '/*'\n{words}"), &[expect]);
    }
    for (rewrite, expect) in [
        ("strip_prefix = 'api'", "route.0.rewrite.strip_prefix: `api` is not a prefix"),
        ("strip_prefix = '/{x}'", "a prefix is plain text"),
        ("strip_prefix = '/a//b'", "write `/a/b`"),
        ("strip_prefix = '/web'", "Warning route.0.rewrite: no path of this route begins with `/web/`"),
        ("strip_prefix = '/api', path = '/'", "more than one of"),
        ("path = 'x'", "rewrite.path: the path does not begin with `/`"),
        ("path = '{path.*}'", "rewrite.path: the path does not begin with `/`"),
        ("path = '/a/../b'", "a dot segment"),
        ("path = '/{request.path}'", "a dot segment"),
        ("path = '{request.path_and_query}'", "a query in the path"),
        ("path = '/{path.id}'", "not every path of this route captures `id`"),
        ("host = 'a b'", "rewrite.host: `a b`"),
        ("query = { set = { a = '{x.y}' } }", "rewrite.query.set.a: `x.y` is not a fact"),
    ] {
        let words = "match.path = ['/api/*', '/api/{id}/*']";
        let text = "[upstream.one]\naddress = '127.0.0.1:1'\n[[route]]\nname = 'r'\nupstream = 'one'\n";
        check(&format!("{text}{words}\nrewrite = {{ {rewrite} }}\n"), &[expect]);
    }
    check("[defaults]\nresponse_headers.set.a = '{path.id}'", &["defaults.response_headers.set.a: no path"]);
}

#[test]
fn routes_that_nothing_tells_apart_are_named_both() {
    let conflict = "route `b` and route `a` (route.0.match) match the same requests";
    for (one, other) in [
        ("{}", "{}"),
        ("{ path = '/{x}' }", "{ path = '/{y}' }"),
        ("{ method = 'GET' }", "{ method = ['HEAD', 'PUT'] }"),
        ("{ host = ['h', 'i'] }", "{ host = ['i', 'j'] }"),
        ("{ header = { a = '1' } }", "{ header = { b = '1' } }"),
        ("{ header = { a = '12', b = '1' } }", "{ header = { a = '12', c = '1' } }"),
        ("{ header = { a = { present = true } } }", "{ header = { b = { present = false } } }"),
        ("{ from = ['10.0.0.0/8', '11.0.0.0/8'] }", "{ from = ['11.0.0.0/8', '12.1.0.0/16'] }"),
        ("{ listen = ['public', 'internal'] }", "{ listen = 'internal' }"),
    ] {
        check(&responding(&[("a", one), ("b", other)]), &["route.1.match: ", conflict]);
    }
    for (one, other) in [
        ("{ path = '/a' }", "{ path = '/a/' }"),
        ("{ method = 'GET' }", "{ method = 'PUT' }"),
        ("{ header = { a = '1' } }", "{ header = { a = '2' } }"),
        ("{ header = { a = '1' } }", "{ query = { a = '1' } }"),
        ("{ header = { a = { prefix = 'a' } } }", "{ header = { a = { prefix = 'b' } } }"),
        ("{ header = { a = { present = true } } }", "{ header = { a = { present = false } } }"),
        ("{ from = '10.0.0.0/8' }", "{ from = '10.1.0.0/16' }"),
        ("{ from = '10.0.0.0/8' }", "{ from = '11.0.0.0/8' }"),
        ("{ listen = 'public' }", "{ listen = 'internal' }"),
        ("{}", "{ listen = 'internal' }"),
    ] {
        table(&responding(&[("a", one), ("b", other)]));
    }
}

#[test]
fn headers_that_routes_write_cannot_be_matched() {
    let text = "[[route]]\nname = 'r'\nmatch.header.X-User = '1'\nrespond = {}\nrequest_headers.set.x_user = 'u'\n";
    check(text, &["Warning route.0.match.header.X-User: no request has `X-User`"]);
    let text = "[[route]]\nname = 'r'\nrespond = {}\nrequest_headers.add.Cookie = 'a=b'\n";
    check(text, &["Warning route.0.request_headers.add.Cookie: `Cookie` is removed from what clients send"]);
}

#[test]
fn lookups_stay_bounded() {
    let many: Vec<(String, String)> =
        (0..1001).map(|n| (format!("r{n}"), format!("{{ header = {{ tenant = '{n}' }} }}"))).collect();
    let routes: Vec<(&str, &str)> = many.iter().map(|(name, words)| (name.as_str(), words.as_str())).collect();
    table(&responding(&routes[1..]));
    check(&responding(&routes), &["1001 routes share a host and a path pattern"]);

    let wide: Vec<(String, String)> = (0..1u32 << 10)
        .map(|bits| {
            let path: String =
                (0..10).map(|at| if bits >> at & 1 == 1 { "/a".to_owned() } else { format!("/{{c{at}}}") }).collect();
            (format!("r{bits}"), format!("{{ path = '{path}' }}"))
        })
        .filter(|(_, words)| words.matches('{').count() < 9)
        .collect();
    let routes: Vec<(&str, &str)> = wide.iter().map(|(name, words)| (name.as_str(), words.as_str())).collect();
    check(&responding(&routes), &["overlap so much that a lookup could take"]);
}

#[test]
fn references_that_nobody_resolved_are_no_mistakes() {
    table(
        "[[route]]\nname = 'r'\nmatch = { host = ['${HOST}', '*.${ZONE:-example.com}'], path = '/${TENANT}/*', from = '${NET}' }\n\
         redirect.to = 'https://${TARGET}/{path.*}'\nrequest_headers.set.x-key = 'Bearer ${KEY}'\n",
    );
}
