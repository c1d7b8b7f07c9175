//! What goes upstream, and what the gateway answers by itself.

use super::*;
use crate::routes::{Found, Outcome, cases};

const POOLS: &str = "[upstream.one]\naddress = '127.0.0.1:1'\n[upstream.two]\naddress = '127.0.0.1:2'\n";

fn rewritten(path: &str, words: &str, request: &str) -> Outcome {
    let text = format!("{POOLS}[[route]]\nname = 'r'\nmatch.path = {path}\nupstream = 'one'\nrewrite = {words}\n");
    ask(&table(&text), request).outcome
}

fn check_target(path: &str, words: &str, request: &str, expect: &str) {
    let outcome = rewritten(path, words, request);
    let got = match outcome.code {
        Some(code) => code.into_owned(),
        None => format!("{} {}", outcome.host.expect("host"), outcome.path.expect("path")),
    };
    assert_eq!(got, expect, "{words} {request}");
}

#[test]
fn prefixes_end_at_segment_borders() {
    for (words, request, expect) in [
        ("{ strip_prefix = '/api' }", "GET http://h/api/x?q=1", "h /x?q=1"),
        ("{ strip_prefix = '/api/' }", "GET http://h/api/x", "h /x"),
        ("{ strip_prefix = '/api' }", "GET http://h/api", "h /"),
        ("{ strip_prefix = '/api' }", "GET http://h/api/", "h /"),
        ("{ strip_prefix = '/api' }", "GET http://h/apix", "h /apix"),
        ("{ replace_prefix = { from = '/api', to = '/v2/x' } }", "GET http://h/api/y", "h /v2/x/y"),
        ("{ replace_prefix = { from = '/api', to = '/v2/' } }", "GET http://h/api", "h /v2"),
        ("{ replace_prefix = { from = '/api', to = '/' } }", "GET http://h/api/a//b", "h /a/b"),
        ("{ replace_prefix = { from = '/', to = '/v2' } }", "GET http://h/x", "h /v2/x"),
    ] {
        check_target("'/*'", words, request, expect);
    }
}

#[test]
fn templates_fill_path_and_host() {
    for (path, words, request, expect) in [
        ("'/u/{id}/*'", "{ path = '/users/{path.id}/{path.*}' }", "GET http://h/u/a%20b/c/d?x", "h /users/a%20b/c/d?x"),
        ("'/*'", "{ path = '/v1{request.path}' }", "GET http://h/x", "h /v1/x"),
        ("'/*'", "{ path = '/by/{query.n}' }", "GET http://h/?n=a%2Fb%3Fc", "h /by/a%2Fb%3Fc?n=a%2Fb%3Fc"),
        ("'/*'", "{ path = '/by/{query.n}' }", "GET http://h/?n=..", "bad_request"),
        ("'/*'", "{ path = '/by/{query.n}/x' }", "GET http://h/?n=%2e%2e", "bad_request"),
        ("'/*'", "{ path = '/by/{query.n}' }", "GET http://h/?n=a%0d%0ab", "bad_request"),
        ("'/*'", "{ path = '/by/{query.n}' }", "GET http://h/", "bad_request"),
        ("'/*'", "{ host = '{query.t}.internal:80' }", "GET http://h/?t=a", "a.internal:80 /?t=a"),
        ("'/*'", "{ host = '{query.t}.internal' }", "GET http://h/?t=a%2Fb", "bad_request"),
        ("'/*'", "{ host = 'app.internal' }", "OPTIONS http://h*", "app.internal *"),
    ] {
        check_target(path, words, request, expect);
    }
}

#[test]
fn queries_are_edited_by_decoded_name() {
    for (words, request, expect) in [
        ("{ remove = 'b' }", "GET http://h/?a=1&b=2&%62=3&c", "h /?a=1&c"),
        ("{ remove = 'a' }", "GET http://h/?a=1", "h /"),
        ("{ set = { a = 'x y&z' } }", "GET http://h/?a=1&b=2&a=3", "h /?b=2&a=x%20y%26z"),
        ("{ add = { 'k=' = '{client.ip}' } }", "GET http://h/", "h /?k%3D=127.0.0.1"),
        ("{ set = { a = '{cookie.none}' } }", "GET http://h/?a=1&b", "h /?b"),
    ] {
        check_target("'/*'", &format!("{{ query = {words} }}"), request, expect);
    }
}

fn check_location(path: &str, to: &str, request: &str, expect: &str) {
    let text = format!("[[route]]\nname = 'r'\nmatch.path = '{path}'\nredirect.to = '{to}'\n");
    let outcome = ask(&table(&text), request).outcome;
    let got = outcome.location.or(outcome.code.map(String::from));
    assert_eq!(got.as_deref(), Some(expect), "{to} {request}");
}

#[test]
fn redirects_keep_their_host() {
    let whole = "https://{request.host}{request.path_and_query}";
    check_location("/*", whole, "GET http://h:80/a%20b?x=%41", "https://h/a%20b?x=%41");
    check_location("/*", whole, "GET http://[::1]:80/", "https://[::1]/");
    check_location("/*", whole, "OPTIONS http://h*", "bad_request");
    check_location("/*", "https://{request.host}:8443/{path.*}", "GET http://h/x/y", "https://h:8443/x/y");
    check_location("/old/{id}", "/new/{path.id}", "GET http://h/old/a%2Bb", "/new/a%2Bb");
    check_location("/*", "/{query.to}", "GET http://h/?to=/evil.example", "/%2Fevil.example");
    check_location("/*", "/x?to={query.to}", "GET http://h/?to=a%0d%0aset-cookie:x", "bad_request");
    check_location("/*", "/x?to={query.to}#f", "GET http://h/?to=a%26b", "/x?to=a%26b#f");
    check_location("/{t}", "https://{path.t}.example.com/", "GET http://h/a", "https://a.example.com/");
    check_location("/{t}", "https://{path.t}.example.com/", "GET http://h/a@b", "bad_request");
    check_location("/{t}", "https://{path.t}.example.com/", "GET http://h/a:1", "bad_request");
    check_location("/*", "{request.path}", "GET http://h//evil.example/x", "/evil.example/x");
}

#[test]
fn splits_follow_weight_cookie_and_fact() {
    let text = |by: &str| {
        let split = "split = [{ upstream = 'one', weight = 3 }, { upstream = 'two', weight = 1 }]";
        table(&format!("{POOLS}[[route]]\nname = 'r'\n{split}\n{by}\n"))
    };
    let chosen = |table: &Table, headers: &[(&str, &str)]| {
        let mut map = http::HeaderMap::new();
        for (name, value) in headers {
            map.append(http::HeaderName::from_bytes(name.as_bytes()).expect(name), value.parse().expect(value));
        }
        let head = crate::facts::Head { headers: &map, ..head() };
        let Found::Route { route, captures } = table.find(&head) else { panic!("no route") };
        let crate::routes::Destination::Split(split) = &route.destination else { panic!("no split") };
        let captured = route.captured(&captures, head.path);
        let chosen = split.choose(&head, &route.facts(&head, &captured, None)).expect("share");
        (chosen.pool.name().to_string(), chosen.set_cookie.map(|value| value.to_str().expect("text").to_owned()))
    };
    let by_fact = text("split_by = { fact = 'header.x-user' }");
    let users: Vec<String> = (0..2000).map(|user| format!("user-{user}")).collect();
    let one = users.iter().filter(|user| chosen(&by_fact, &[("x-user", user)]).0 == "one").count();
    assert!((1400..1600).contains(&one), "{one} of 2000 where 1500 are expected");
    assert!(users.iter().all(|user| chosen(&by_fact, &[("x-user", user)]) == chosen(&by_fact, &[("x-user", user)])));

    let by_cookie = text("split_by = { cookie = 'side' }");
    for _ in 0..50 {
        let (first, set) = chosen(&by_cookie, &[]);
        let cookie = set.expect("a cookie");
        assert!(cookie.ends_with("; Path=/; HttpOnly; SameSite=Lax; Secure") && !cookie.contains(&first), "{cookie}");
        let pair = cookie.split(';').next().expect("pair");
        assert_eq!(chosen(&by_cookie, &[("cookie", pair)]), (first, None));
    }
    assert!(chosen(&by_cookie, &[("cookie", "side=forged")]).1.is_some());

    let drained = table(&format!(
        "{POOLS}[[route]]\nname = 'r'\nsplit = [{{ upstream = 'one', weight = 0 }}, {{ upstream = 'two', weight = 1 }}]\n"
    ));
    assert!((0..50).all(|_| chosen(&drained, &[]).0 == "two"));
}

fn head() -> crate::facts::Head<'static> {
    static EMPTY: std::sync::LazyLock<http::HeaderMap> = std::sync::LazyLock::new(http::HeaderMap::new);
    crate::facts::Head {
        method: &http::Method::GET,
        scheme: crate::facts::Scheme::Https,
        host: "h",
        path: "/",
        query: None,
        headers: &EMPTY,
        client: std::net::Ipv4Addr::LOCALHOST.into(),
        listener: "public",
        sni: None,
        client_certificate: None,
        request_id: "1",
    }
}

#[test]
fn bodies_are_escaped_for_their_type() {
    for (content_type, expect) in [("text/plain", "hi <b>!"), ("text/html; charset=utf-8", "hi &lt;b&gt;!")] {
        let respond =
            format!("respond = {{ content_type = '{content_type}', body = 'hi {{query.q}}{{query.none}}!' }}");
        let table = table(&format!("[[route]]\nname = 'r'\n{respond}\n"));
        let head = crate::facts::Head { query: Some("q=%3Cb%3E"), ..head() };
        let Found::Route { route, captures } = table.find(&head) else { panic!("no route") };
        let crate::routes::Destination::Respond(respond) = &route.destination else { panic!("no answer") };
        let captured = route.captured(&captures, head.path);
        assert_eq!(respond.body(&route.facts(&head, &captured, None)), expect, "{content_type}");
    }
}

#[test]
fn cases_say_what_was_expected_and_what_came() {
    let text = format!(
        "format = 1\n{POOLS}
        [[route]]
        name = 'old'
        match = {{ path = '/old' }}
        redirect = {{ to = '/new', status = 301 }}
        [[route]]
        name = 'api'
        match = {{ path = '/api/*', header = {{ x-a = '1' }}, listen = 'internal' }}
        split = [{{ upstream = 'one', weight = 1 }}, {{ upstream = 'two', weight = 0 }}]
        rewrite = {{ strip_prefix = '/api', host = 'x' }}
        [[test]]
        request = 'GET http://h/old'
        expect = {{ route = 'old', status = 301, location = '/new' }}
        [[test]]
        request = 'GET http://h/api/y?z'
        given = {{ listen = 'internal', headers = {{ x-a = '1' }}, from = '::1' }}
        expect = {{ route = 'api', upstream = 'one', path = '/y?z', host = 'x' }}
        [[test]]
        request = 'GET http://h/none'
        expect = {{ route = 'none', code = 'no_route', status = 404 }}
        [[test]]
        request = 'GET http://h/old'
        expect = {{ route = 'api', upstream = 'two' }}
        [[test]]
        request = 'GET http://h/old'
        expect = {{}}
        [[test]]
        request = 'GET http://h/'
        given = {{ listen = 'intrenal' }}
        expect = {{ route = 'none' }}
        "
    );
    let document: Document = toml::from_str(&text).expect("document");
    let results = cases::run(&table(text.strip_prefix("format = 1\n").expect("format")), &document.test);
    let wrong: Vec<String> = results.iter().flat_map(cases::CaseResult::problems).map(|p| p.to_string()).collect();
    let why = " (`tollgate explain` says why)";
    let expect = [
        "test.3.expect.route: GET http://h/old: expected route api, got old",
        "test.3.expect.upstream: GET http://h/old: expected upstream two, got none",
        "test.4.expect: GET http://h/old: expected expect at least one field, got none",
        "test.5.request: GET http://h/: expected request a request, got there is no listener `intrenal` (did you mean `internal`?)",
    ];
    assert_eq!(wrong, expect.map(|line| format!("{line}{why}")));
}
