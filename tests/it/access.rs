//! Who may pass without a token: keys, passwords, certificates, the word of a service; from where, and from which pages.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http::{Request, Response, StatusCode};

use crate::kit::{Gateway, Origin, Reply, empty, full, routes, tollgate};

async fn fetch(gateway: &Gateway, url: &str, headers: &[(&str, &str)]) -> Reply {
    let mut request = Request::get(url);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    gateway.h1().await.fetch(request.body(empty()).unwrap()).await
}

fn sha256(text: &str) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes());
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", BASE64_STANDARD.encode(format!("{user}:{password}")))
}

#[tokio::test]
async fn api_keys_pass_by_header_query_and_password() {
    let origin = Origin::text("in");
    let document = format!(
        "[api_keys.partners]\nheader = \"x-api-key\"\nquery = \"key\"\nbasic = true\nkeys = [\n\
         {{ name = \"acme\", sha256 = \"{}\", owner = \"Acme\", limits = \"few\" }},\n\
         {{ name = \"old\", sha256 = \"{}\", expires = \"2020-01-01T00:00:00Z\" }},\n\
         {{ name = \"more\", sha256 = \"{}\" }},\n]\n\
         [limit.few]\nrate = \"3/h\"\nburst = 3\nkey = [\"subject.name\"]\n{}",
        sha256("secret-1"),
        sha256("secret-2"),
        sha256("secret-3"),
        routes::with(
            origin.address(),
            "",
            "auth = { any = [{ api_key = \"partners\" }], pass = { x-owner = \"{subject.owner}\", x-who = \"{subject.name}\" } }"
        )
    );
    let gateway = Gateway::start(&document).await;
    assert_eq!(fetch(&gateway, "http://app.test/", &[("x-api-key", "secret-1"), ("x-who", "root")]).await.text(), "in");
    assert_eq!((origin.last().header("x-owner"), origin.last().header("x-who")), ("Acme".into(), "acme".into()));
    assert_eq!(fetch(&gateway, "http://app.test/a?key=secret-1&b=1", &[]).await.status, 200);
    assert_eq!(origin.last().target(), "/a?b=1");
    let by_password = basic("anybody", "secret-1");
    assert_eq!(fetch(&gateway, "http://app.test/", &[("authorization", &by_password)]).await.status, 200);
    // A key has limits of its own; others are not counted by them.
    let late = fetch(&gateway, "http://app.test/", &[("x-api-key", "secret-1")]).await;
    late.is_rejected(429, "limit");
    assert_eq!(fetch(&gateway, "http://app.test/", &[("x-api-key", "secret-3")]).await.status, 200);
    for (key, cause) in [("secret-2", "API key: the key has run out"), ("secret", "API key: there is no such key")] {
        fetch(&gateway, "http://app.test/", &[("x-api-key", key)]).await.is_rejected(401, "auth_invalid");
        gateway.access_line(|line| line["cause"] == cause).await;
    }
    let nothing = fetch(&gateway, "http://app.test/", &[]).await;
    nothing.is_rejected(401, "auth_required");
    assert_eq!(nothing.header("www-authenticate"), "Basic realm=\"api\", charset=\"UTF-8\"");
    let log = std::fs::read_to_string(gateway.directory().join("access.log")).unwrap() + &gateway.log();
    assert!(!log.contains("secret-"), "a key is in a log");
}

#[tokio::test]
async fn passwords_are_made_and_taken() {
    let made = tollgate::fed(&["hash-password"], "open sesame\n");
    assert_eq!(made.code, 0, "{}", made.said());
    let hash = made.stdout.trim();
    assert!(hash.starts_with("$argon2id$"), "{hash}");
    let key = tollgate::fed(&["hash-password", "--api-key"], "");
    assert!(key.code == 0 && key.stdout.contains("sha256"), "{}", key.said());

    let origin = Origin::text("in");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("alice.hash");
    std::fs::write(&file, format!("{hash}\n")).unwrap();
    let document = format!(
        "[users.staff]\nrealm = \"The \\\"staff\\\"\"\nusers = {{ alice = \"${{file:{}}}\" }}\n{}",
        file.display(),
        routes::with(origin.address(), "", "auth = { any = [{ basic = \"staff\" }] }")
    );
    let gateway = Gateway::start(&document).await;
    for _ in 0..2 {
        let good = basic("alice", "open sesame");
        assert_eq!(
            fetch(&gateway, "http://app.test/", &[("authorization", &good)]).await.status,
            200,
            "{}",
            gateway.log()
        );
    }
    for (user, password) in [("alice", "open"), ("bob", "open sesame"), ("", ""), ("alice", "")] {
        let bad = fetch(&gateway, "http://app.test/", &[("authorization", &basic(user, password))]).await;
        bad.is_rejected(401, "auth_invalid");
        assert_eq!(bad.header("www-authenticate"), "Basic realm=\"The \\\"staff\\\"\", charset=\"UTF-8\"");
    }
    fetch(&gateway, "http://app.test/", &[("authorization", "Basic ???")]).await.is_rejected(401, "auth_invalid");
    assert!(!gateway.log().contains("argon2id") && !gateway.config().await.to_string().contains("argon2id"));
}

/// A service that knows `cookie: session=good`, sends others to its login, and knows nothing of some.
fn decider() -> Origin {
    Origin::replying(|seen| {
        let cookie = seen.header("cookie");
        let answer = Response::builder();
        if cookie.contains("session=good") {
            return answer.header("x-user", "alice").header("x-secret", "kept").body(full("")).unwrap();
        }
        if cookie.contains("session=broken") {
            return answer.status(StatusCode::INTERNAL_SERVER_ERROR).body(full("")).unwrap();
        }
        if cookie.contains("session=denied") {
            return answer.status(403).header("content-type", "text/plain").body(full("not you")).unwrap();
        }
        answer.status(302).header("location", "https://login.test/").header("set-cookie", "a=1").body(full("")).unwrap()
    })
}

#[tokio::test]
async fn a_service_decides() {
    let (mut service, origin) = (decider(), Origin::text("in"));
    let decides = service.address();
    let with = |on_failure: &str| {
        format!(
            "[upstream.sso]\naddress = \"{}\"\n[forward_auth.sso]\nupstream = \"sso\"\npath = \"/verify\"\ntake = [\"x-user\"]\n\
             send = [\"cookie\"]\ntimeout = \"500ms\"\non_failure = \"{on_failure}\"\n{}",
            decides,
            routes::with(origin.address(), "", "auth = { any = [{ forward = \"sso\" }] }")
        )
    };
    let gateway = Gateway::start(&with("deny")).await;
    let ask = async |cookie: &str| {
        let headers = [("cookie", cookie), ("x-user", "root"), ("authorization", "Bearer not-sent")];
        fetch(&gateway, "http://app.test/a/b?c=1", &headers).await
    };
    assert_eq!(ask("session=good").await.text(), "in");
    assert_eq!((origin.last().header("x-user"), origin.last().header("x-secret")), ("alice".into(), "".into()));
    let question = service.last();
    assert_eq!((question.method.as_str(), question.target()), ("GET", "/verify"));
    for (name, value) in [
        ("x-forwarded-method", "GET"),
        ("x-forwarded-uri", "/a/b?c=1"),
        ("x-forwarded-host", "app.test"),
        ("x-forwarded-proto", "http"),
        ("x-forwarded-for", "127.0.0.1"),
        ("authorization", ""),
    ] {
        assert_eq!(question.header(name), value, "{name}");
    }
    let login = ask("").await;
    assert_eq!(
        (login.status.as_u16(), login.header("location"), login.header("set-cookie")),
        (302, "https://login.test/", "a=1")
    );
    let denied = ask("session=denied").await;
    assert_eq!((denied.status.as_u16(), denied.text()), (403, "not you"));
    let broken = ask("session=broken").await;
    broken.is_rejected(503, "auth_unavailable");
    assert_eq!(origin.count(), 1);
    service.kill().await;
    ask("session=good").await.is_rejected(503, "auth_unavailable");
    gateway.change(&with("allow")).await;
    assert_eq!(ask("session=good").await.text(), "in");
    assert_eq!(origin.last().header("x-user"), "", "who nobody knows has no name");
}

#[tokio::test]
async fn any_of_several_proofs_will_do() {
    let origin = Origin::text("in");
    let document = |more: &str| {
        format!(
            "[api_keys.a]\nkeys = [{{ name = \"one\", sha256 = \"{}\" }}]\n[api_keys.b]\nheader = \"x-other\"\nkeys = [{{ name = \"two\", sha256 = \"{}\" }}]\n{}",
            sha256("k1"),
            sha256("k2"),
            routes::with(
                origin.address(),
                "",
                &format!("auth = {{ any = [{{ api_key = \"a\" }}, {{ api_key = \"b\" }}{more}] }}")
            )
        )
    };
    let gateway = Gateway::start(&document("")).await;
    for headers in [vec![("x-api-key", "k1")], vec![("x-other", "k2")], vec![("x-api-key", "bad"), ("x-other", "k2")]] {
        assert_eq!(fetch(&gateway, "http://app.test/", &headers).await.status, 200, "{headers:?}");
    }
    fetch(&gateway, "http://app.test/", &[("x-api-key", "k2")]).await.is_rejected(401, "auth_invalid");
    fetch(&gateway, "http://app.test/", &[]).await.is_rejected(401, "auth_required");
    gateway.change(&document(", { anonymous = true }")).await;
    assert_eq!(fetch(&gateway, "http://app.test/", &[]).await.status, 200);
    fetch(&gateway, "http://app.test/", &[("x-api-key", "bad")]).await.is_rejected(401, "auth_invalid");
}

#[tokio::test]
async fn defaults_guard_every_route_that_does_not_say_otherwise() {
    let document = format!(
        "[api_keys.a]\nkeys = [{{ name = \"one\", sha256 = \"{}\" }}]\n[defaults]\nauth = {{ any = [{{ api_key = \"a\" }}] }}\n\
         [[route]]\nname = \"in\"\nmatch = {{ path = \"/in\" }}\nrespond = {{ body = \"in\" }}\n\
         [[route]]\nname = \"out\"\nmatch = {{ path = \"/out\" }}\nauth = \"none\"\nrespond = {{ body = \"out\" }}\n",
        sha256("k1")
    );
    let gateway = Gateway::start(&document).await;
    gateway.get("http://app.test/in").await.is_rejected(401, "auth_required");
    assert_eq!(gateway.get("http://app.test/out").await.text(), "out");
    assert_eq!(fetch(&gateway, "http://app.test/in", &[("x-api-key", "k1")]).await.text(), "in");
}

#[tokio::test]
async fn who_fails_too_often_is_not_listened_to() {
    let origin = Origin::text("in");
    let document = format!(
        "[auth_failures]\nrate = \"1/h\"\nburst = 3\n[api_keys.a]\nkeys = [{{ name = \"one\", sha256 = \"{}\" }}]\n{}",
        sha256("k1"),
        routes::with(origin.address(), "", "auth = { any = [{ api_key = \"a\" }] }")
    );
    let trusting = |settings: &mut crate::kit::Settings| {
        settings.set("trust.forwarded_from", vec!["127.0.0.1"]);
    };
    let gateway = Gateway::with(&document, trusting).await;
    let from = async |client: &str, key: &str| {
        fetch(&gateway, "http://app.test/", &[("x-forwarded-for", client), ("x-api-key", key)]).await
    };
    assert_eq!(from("203.0.113.1", "k1").await.status, 200);
    for _ in 0..4 {
        from("203.0.113.1", "bad").await.is_rejected(401, "auth_invalid");
    }
    let refused = from("203.0.113.1", "worse").await;
    refused.is_rejected(429, "limit");
    assert!(refused.header("retry-after").parse::<u64>().unwrap() > 1_000, "{refused:?}");
    assert_eq!(from("203.0.113.1", "k1").await.status, 200, "what its network has shown before passes all the same");
    for _ in 0..4 {
        from("203.0.113.3", "bad").await.is_rejected(401, "auth_invalid");
    }
    from("203.0.113.3", "k1").await.is_rejected(429, "limit");
    from("203.0.113.2", "bad").await.is_rejected(401, "auth_invalid");
    // The count outlives a change of the document.
    gateway
        .change(&format!("{document}[[route]]\nname = \"more\"\nmatch = {{ path = \"/more\" }}\nrespond = {{}}\n"))
        .await;
    from("203.0.113.1", "bad").await.is_rejected(429, "limit");
}

#[tokio::test]
async fn addresses_are_allowed_and_denied() {
    let trusting = |settings: &mut crate::kit::Settings| {
        settings.set("trust.forwarded_from", vec!["127.0.0.1"]);
    };
    let words = "addresses = { allow = [\"10.0.0.0/8\", \"2001:db8::/32\"], deny = \"10.6.6.0/24\" }\n";
    let gateway = Gateway::with(&format!("{}{words}", routes::answering("in")), trusting).await;
    for (client, passes) in
        [("10.1.2.3", true), ("10.6.6.1", false), ("192.0.2.1", false), ("2001:db8::1", true), ("2001:db9::1", false)]
    {
        let reply = fetch(&gateway, "http://app.test/", &[("x-forwarded-for", client)]).await;
        if passes {
            assert_eq!(reply.text(), "in", "{client}");
        } else {
            reply.is_rejected(403, "address_denied");
        }
    }
    // What a client says of itself does not count where nobody trusts it.
    let gateway = Gateway::start(&format!("{}{words}", routes::answering("in"))).await;
    fetch(&gateway, "http://app.test/", &[("x-forwarded-for", "10.1.2.3")]).await.is_rejected(403, "address_denied");
}

#[tokio::test]
async fn pages_of_other_origins_may_ask() {
    let origin = Origin::replying(|_| {
        // What a service says about origins of its own does not stand beside what the gateway says.
        Response::builder()
            .header("access-control-allow-origin", "*")
            .header("vary", "accept")
            .body(full("in"))
            .unwrap()
    });
    let words = "cors = { origins = [\"https://app.test\", \"https://*.example.test\"], methods = [\"PUT\"], headers = [\"x-a\"], \
                 expose = [\"x-total\"], credentials = true, max_age = \"1h\" }\n[api_keys.a]\nkeys = []\n";
    let gateway = Gateway::start(&routes::with(
        origin.address(),
        "",
        &format!("auth = {{ any = [{{ api_key = \"a\" }}, {{ anonymous = true }}] }}\n{words}"),
    ))
    .await;
    let preflight = async |from: &str, method: &str, headers: &str| {
        let request = Request::options("http://app.test/")
            .header("origin", from)
            .header("access-control-request-method", method)
            .header("access-control-request-headers", headers)
            .body(empty())
            .unwrap();
        gateway.h1().await.fetch(request).await
    };
    let good = preflight("https://app.test", "PUT", "x-a").await;
    assert_eq!(good.status, 204, "{good:?}");
    assert_eq!(good.header("access-control-allow-origin"), "https://app.test");
    assert_eq!(good.header("access-control-allow-credentials"), "true");
    assert!(good.header("access-control-allow-methods").contains("PUT"), "{good:?}");
    assert_eq!(good.header("access-control-max-age"), "3600");
    assert_eq!(origin.count(), 0, "the gateway answers by itself");
    for bad in ["https://evil.test", "null", "https://app.test.evil.test", "http://app.test", "https://example.test"] {
        let reply = preflight(bad, "PUT", "x-a").await;
        assert!(!reply.headers.contains_key("access-control-allow-origin"), "{bad}: {reply:?}");
    }
    let real = fetch(&gateway, "http://app.test/", &[("origin", "https://a.b.example.test")]).await;
    assert_eq!((real.text(), real.header("access-control-allow-origin")), ("in", "https://a.b.example.test"));
    assert_eq!(real.header("access-control-expose-headers"), "x-total");
    let vary: Vec<_> = real.headers.get_all("vary").iter().map(|v| v.to_str().unwrap().to_lowercase()).collect();
    assert!(vary.join(",").contains("origin") && vary.join(",").contains("accept"), "{vary:?}");
    // A page can read why it was refused.
    let refused = fetch(&gateway, "http://app.test/", &[("origin", "https://app.test"), ("x-api-key", "bad")]).await;
    refused.is_rejected(401, "auth_invalid");
    assert_eq!(refused.header("access-control-allow-origin"), "https://app.test");
    let same = fetch(&gateway, "http://app.test/", &[]).await;
    assert!(!same.headers.contains_key("access-control-allow-origin"), "{same:?}");
}

/// A preflight is about a request to come: it takes the route that would take that.
#[tokio::test]
async fn preflights_find_the_route_of_what_they_ask_about() {
    let cors = "cors = { origins = \"https://app.test\" }";
    let document = format!(
        "[[route]]\nname = \"read\"\nmatch = {{ path = \"/x\", method = \"GET\" }}\n{cors}\nrespond = {{ body = \"read\" }}\n\
         [[route]]\nname = \"write\"\nmatch = {{ path = \"/x\", method = [\"PUT\", \"DELETE\"], header = {{ x-version = \"2\" }} }}\n{cors}\nrespond = {{ body = \"write\" }}\n\
         [[route]]\nname = \"closed\"\nmatch = {{ path = \"/closed\", method = \"GET\" }}\nrespond = {{}}\n"
    );
    let gateway = Gateway::start(&document).await;
    let preflight = async |path: &str, method: &str, headers: &str| {
        let request = Request::options(format!("http://app.test{path}"))
            .header("origin", "https://app.test")
            .header("access-control-request-method", method)
            .header("access-control-request-headers", headers)
            .body(empty())
            .unwrap();
        gateway.h1().await.fetch(request).await
    };
    let write = preflight("/x", "PUT", "content-type, X-Version").await;
    assert_eq!((write.status.as_u16(), write.header("access-control-allow-methods")), (204, "PUT, DELETE"));
    let read = preflight("/x", "GET", "").await;
    assert_eq!(read.header("access-control-allow-methods"), "GET, HEAD");
    preflight("/x", "PUT", "content-type").await.is_rejected(405, "method_not_allowed");
    preflight("/x", "PATCH", "x-version").await.is_rejected(405, "method_not_allowed");
    preflight("/closed", "GET", "").await.is_rejected(405, "method_not_allowed");
    let plain = Request::options("http://app.test/x").body(empty()).unwrap();
    gateway.h1().await.fetch(plain).await.is_rejected(405, "method_not_allowed");
}
