//! Which of several routes takes a request.

use super::*;

#[test]
fn the_best_host_set_decides_without_falling_through() {
    let table = table(&responding(&[
        ("exact", "{ host = 'a.example.com', path = '/x' }"),
        ("one", "{ host = '*.example.com' }"),
        ("deep", "{ host = '**.example.com' }"),
        ("any", "{}"),
    ]));
    for (request, expect) in [
        ("GET http://a.example.com/x", "exact"),
        ("GET http://A.EXAMPLE.com.:8080/x", "exact"),
        ("GET http://a.example.com/y", "no_route"),
        ("GET http://b.example.com/x", "one"),
        ("GET http://a.b.example.com/x", "deep"),
        ("GET http://example.com/x", "any"),
        ("GET http://[::1]:80/x", "any"),
    ] {
        check_route(&table, request, expect);
    }
}

#[test]
fn the_best_pattern_decides_segment_by_segment() {
    let table = table(&responding(&[
        ("root", "{ path = '/' }"),
        ("api", "{ path = '/api/*' }"),
        ("id", "{ path = '/api/{id}' }"),
        ("me", "{ path = '/api/me' }"),
        ("left", "{ path = '/a/{x}/*' }"),
        ("right", "{ path = '/{y}/b/c' }"),
    ]));
    for (request, expect) in [
        ("GET http://h/", "root"),
        ("GET http://h", "root"),
        ("GET http://h/api", "api"),
        ("GET http://h/api/", "api"),
        ("GET http://h/apix", "no_route"),
        ("GET http://h/api/7", "id"),
        ("GET http://h/api/me", "me"),
        ("GET http://h/api/%6De", "me"),
        ("GET http://h/api//x/../me", "me"),
        ("GET http://h/api/7/x", "api"),
        ("GET http://h/a/b/c", "left"),
        ("GET http://h/z/b/c", "right"),
    ] {
        check_route(&table, request, expect);
    }
}

#[test]
fn a_wrong_method_at_the_best_pattern_is_405_and_other_conditions_fall_on() {
    let table = table(&responding(&[
        ("all", "{ path = '/*' }"),
        ("get", "{ path = '/x', method = 'GET' }"),
        ("put", "{ path = '/x', method = ['PUT', 'DELETE'] }"),
        ("patch", "{ path = '/x', method = 'PATCH', header = { x-a = '1' } }"),
        ("beta", "{ path = '/y', header = { x-beta = { present = true } } }"),
    ]));
    for (request, expect) in [
        ("GET http://h/x", "get"),
        ("HEAD http://h/x", "get"),
        ("PUT http://h/x", "put"),
        ("POST http://h/x", "method_not_allowed"),
        ("OPTIONS http://h/x", "method_not_allowed"),
        ("PATCH http://h/x\nx-a: 1", "patch"),
        ("GET http://h/y", "all"),
        ("GET http://h/y\nx-beta: ", "beta"),
    ] {
        check_route(&table, request, expect);
    }
    let allow = |request| ask(&table, request).outcome.allow;
    assert_eq!(allow("POST http://h/x").as_deref(), Some("DELETE, GET, HEAD, PUT"));
    assert_eq!(allow("POST http://h/x\nx-a: 1").as_deref(), Some("DELETE, GET, HEAD, PATCH, PUT"));
}

#[test]
fn closer_conditions_come_first() {
    let table = table(&responding(&[
        ("plain", "{}"),
        ("present", "{ header = { x-v = { present = true } } }"),
        ("prefix", "{ header = { x-v = { prefix = '1.' } } }"),
        ("longer", "{ header = { x-v = { prefix = '1.2' } } }"),
        ("exact", "{ header = { x-v = '1.2.3' } }"),
        ("two", "{ header = { x-v = '1.2.3', x-w = '1' } }"),
        ("query", "{ query = { q = 'a b' } }"),
        ("cookie", "{ cookie = { c = '1' } }"),
        ("wide", "{ from = '10.0.0.0/8' }"),
        ("narrow", "{ from = ['10.1.0.0/16', '2001:db8::/32'] }"),
    ]));
    for (request, expect) in [
        ("GET http://h/", "plain"),
        ("GET http://h/\nx-v: 2", "present"),
        ("GET http://h/\nx-v: 1.3", "prefix"),
        ("GET http://h/\nx-v: 1.2.4", "longer"),
        ("GET http://h/\nx-v: 1.2.3", "exact"),
        ("GET http://h/\nx-v: 1.2.3\nx-w: 1", "two"),
        ("GET http://h/?q=a%20b", "query"),
        ("GET http://h/?q=a%20b\ncookie: c=1", "query"),
        ("GET http://h/\ncookie: b=2; c=1", "cookie"),
        ("GET http://h/\nfrom: 10.2.0.1", "wide"),
        ("GET http://h/\nfrom: 10.1.0.1", "narrow"),
        ("GET http://h/\nfrom: ::ffff:10.1.0.1", "narrow"),
        ("GET http://h/\nfrom: 2001:db8::1", "narrow"),
    ] {
        check_route(&table, request, expect);
    }
}

#[test]
fn priority_decides_what_is_equal_and_nothing_else() {
    let table = table(
        "[[route]]\nname = 'low'\nmatch = { path = '/x' }\nrespond = {}\n\
         [[route]]\nname = 'high'\nmatch = { path = '/x' }\npriority = 1\nrespond = {}\n\
         [[route]]\nname = 'highest'\nmatch = { path = '/*' }\npriority = 9\nrespond = {}\n",
    );
    check_route(&table, "GET http://h/x", "high");
    check_route(&table, "GET http://h/y", "highest");
}

#[test]
fn routes_answer_on_public_listeners_unless_they_name_some() {
    let table = table(&responding(&[
        ("plain", "{}"),
        ("inside", "{ path = '/metrics', listen = 'internal' }"),
        ("both", "{ path = '/both', listen = ['internal', 'public'] }"),
    ]));
    for (request, expect) in [
        ("GET http://h/", "plain"),
        ("GET http://h/\nlisten: other", "plain"),
        ("GET http://h/\nlisten: internal", "no_route"),
        ("GET http://h/metrics", "plain"),
        ("GET http://h/metrics\nlisten: internal", "inside"),
        ("GET http://h/both", "both"),
        ("GET http://h/both\nlisten: internal", "both"),
        ("GET http://h/both\nlisten: other", "plain"),
    ] {
        check_route(&table, request, expect);
    }
}

#[test]
fn encoded_slashes_are_refused_unless_the_route_keeps_them() {
    let table = table(
        "[[route]]\nname = 'refuse'\nrespond = {}\n\
         [[route]]\nname = 'keep'\nmatch = { path = ['/k/{id}', '/k/a%2Fb/x'] }\nencoded_slash = 'keep'\nrespond = {}\n",
    );
    for (request, expect) in [
        ("GET http://h/a%2fb", "bad_request"),
        ("GET http://h/a%5Cb", "bad_request"),
        ("GET http://h/a%252Fb", "refuse"),
        ("GET http://h/k/a%2fb", "keep"),
        ("GET http://h/k/a%2fb/x", "keep"),
        ("GET http://h/k/a%00b", "bad_request"),
        ("GET http://h/../x", "bad_request"),
        ("GET http://h:0/", "bad_request"),
        ("OPTIONS http://h*", "refuse"),
        ("GET http://h*", "bad_request"),
    ] {
        check_route(&table, request, expect);
    }
}

#[test]
fn headers_that_routes_write_cannot_be_sent() {
    let table = table(
        "[[route]]\nname = 'a'\nrespond = {}\nrequest_headers = { set = { x_user = 'u' }, remove = 'x-other' }\n\
         [[route]]\nname = 'b'\nmatch = { header = { x-user = '1' } }\nrespond = {}\n",
    );
    check_route(&table, "GET http://h/\nX-User: 1", "a");
    let reserved = |name: &'static str| table.is_reserved(&http::HeaderName::from_static(name));
    assert_eq!(["x-user", "x_user", "x-other", "x-use", "x-user-"].map(reserved), [true, true, false, false, false]);
}
