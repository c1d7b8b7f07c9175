//! The command line as scripts and people use it.

use http::Request;
use serde_json::Value;
use tempfile::TempDir;

use crate::kit::tollgate::{Ran, tollgate};
use crate::kit::{Gateway, empty};

/// A directory with these files in it.
fn directory(files: &[(&str, &str)]) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    for (name, text) in files {
        std::fs::write(directory.path().join(name), text).unwrap();
    }
    directory
}

const EDGE: &str = "format = 1\nroutes = { file = \"routes.toml\" }\nadmin = { address = \"127.0.0.1:0\" }\n\
                    [[listen]]\nname = \"public\"\naddress = \"127.0.0.1:0\"\nprotocol = \"http\"\n";

const ROUTES: &str = r#"format = 1
[upstream.one]
address = "127.0.0.1:1"
[[route]]
name = "api"
match = { host = "app.test", path = "/api/*", method = "GET" }
upstream = "one"
rewrite = { strip_prefix = "/api" }
[[route]]
name = "user"
match = { host = "app.test", path = "/api/users/{id}", header = { x-beta = "on" } }
redirect = { to = "/u/{path.id}" }
[[route]]
name = "office"
match = { host = "*.app.test", from = "203.0.113.0/24" }
respond = { status = 204 }
[[test]]
request = "GET http://app.test/api/x"
expect = { route = "api", path = "/x" }
"#;

/// Five mistakes of different kinds, with the line of each.
const MISTAKES: &str = r#"format = 1
[upstream.one]
address = "127.0.0.1:1"
balanse = "random"
[[route]]
name = "first"
match = { path = "api/*" }
upstream = "two"
[[route]]
name = "second"
timeout = { head = "fast" }
upstream = "one"
redirect = { to = "/" }
"#;
const LINES: [(u64, &str); 5] = [(4, "balance"), (7, "/api/*"), (8, "upstream.two"), (9, "keep one"), (11, "30s")];

#[test]
fn check_tells_five_mistakes_each_with_its_place_and_a_hint() {
    let directory = directory(&[("routes.toml", MISTAKES)]);
    let ran = tollgate(directory.path(), &["check", "--format", "json", "routes.toml"]).exits(1);
    let told = ran.json();
    let told = told.as_array().unwrap();
    for (line, hint) in LINES {
        let found: Vec<&Value> = told.iter().filter(|one| one["line"] == line).collect();
        assert!(!found.is_empty(), "line {line}: {told:#?}");
        assert!(found.iter().any(|one| one.to_string().contains(hint)), "line {line} has no hint: {found:#?}");
        assert!(found.iter().all(|one| one["column"].as_u64() > Some(0) && one["file"] == "routes.toml"), "{found:#?}");
        assert!(found.iter().any(|one| one["help"].as_str().is_some_and(|help| !help.is_empty())), "{found:#?}");
    }
    let human = tollgate(directory.path(), &["check", "routes.toml"]).exits(1);
    for (line, _) in LINES {
        assert!(human.said().contains(&format!("routes.toml:{line}:")), "line {line}: {}", human.said());
    }
}

#[test]
fn check_does_nothing_else() {
    let directory = directory(&[]);
    let listening = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = listening.local_addr().unwrap().to_string();
    // An address in use, a name nobody knows, a file that is not there: none is looked at.
    let edge = EDGE.replace("address = \"127.0.0.1:0\"\nprotocol", &format!("address = \"{taken}\"\nprotocol"));
    let routes = ROUTES.replace("127.0.0.1:1", "no-such-name.invalid:80").replace("/u/", "/u/${file:/no/such/file}/");
    std::fs::write(directory.path().join("edge.toml"), edge).unwrap();
    std::fs::write(directory.path().join("routes.toml"), routes).unwrap();
    tollgate(directory.path(), &["check", "edge.toml", "routes.toml"]).exits(0);
    let mut left: Vec<_> =
        std::fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["edge.toml", "routes.toml"]);
}

#[test]
fn check_knows_which_kind_of_file_it_is() {
    let directory = directory(&[("a", EDGE), ("b", ROUTES), ("routes.toml", ROUTES)]);
    tollgate(directory.path(), &["check", "a", "b"]).exits(0);
    let wrong = EDGE.replace("admin", "admn");
    std::fs::write(directory.path().join("a"), wrong).unwrap();
    let ran = tollgate(directory.path(), &["check", "a"]).exits(1);
    assert!(ran.said().contains("did you mean") && ran.said().contains("admin"), "{}", ran.said());
}

#[test]
fn routes_that_cannot_be_told_apart_name_each_other() {
    let route = |name: &str| format!("[[route]]\nname = \"{name}\"\nmatch = {{ path = \"/x\" }}\nrespond = {{}}\n");
    let both = format!("format = 1\n{}{}", route("left"), route("right"));
    let directory = directory(&[("routes.toml", &both)]);
    let ran = tollgate(directory.path(), &["check", "routes.toml"]).exits(1);
    assert!(ran.said().contains("left") && ran.said().contains("right"), "{}", ran.said());
    std::fs::write(directory.path().join("routes.toml"), format!("{both}priority = 1\n")).unwrap();
    tollgate(directory.path(), &["check", "routes.toml"]).exits(0);
}

#[test]
fn the_shipped_configuration_is_good() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    for files in [
        &["config/edge.toml", "config/routes.toml"][..],
        &["examples/pet-builder/edge.toml", "examples/pet-builder/routes.toml"],
        &["examples/reply-insights/edge.toml", "examples/reply-insights/routes.toml"],
    ] {
        let mut arguments = vec!["check"];
        arguments.extend(files);
        tollgate(root, &arguments).exits(0);
        tollgate(root, &["test", "-c", files[0]]).exits(0);
    }
    for routes in ["examples/core-v2/routes.toml", "examples/core-ha/routes.toml"] {
        tollgate(root, &["check", routes]).exits(0);
        tollgate(root, &["test", "--routes", routes]).exits(0);
    }
}

#[test]
fn the_schema_in_the_repository_is_the_one_printed() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    for (arguments, file) in [
        (&["schema"][..], "config/routes.schema.json"),
        (&["schema", "edge"], "config/edge.schema.json"),
        (&["schema", "--reference"], "docs/reference.md"),
    ] {
        let ran = tollgate(root, arguments).exits(0);
        assert_eq!(ran.stdout, std::fs::read_to_string(root.join(file)).unwrap(), "{file} is stale: print it again");
    }
}

#[test]
fn test_cases_pass_or_tell_what_they_got() {
    let directory = directory(&[("edge.toml", EDGE), ("routes.toml", ROUTES)]);
    let test = |routes: &str| {
        std::fs::write(directory.path().join("routes.toml"), routes).unwrap();
        tollgate(directory.path(), &["test", "-c", "edge.toml"])
    };
    test(ROUTES).exits(0);
    let ran = test(&ROUTES.replace("path = \"/x\" }", "path = \"/api/x\" }")).exits(4);
    assert!(ran.said().contains("/api/x") && ran.said().contains("/x"), "{}", ran.said());
    assert!(ran.said().contains("routes.toml:1"), "{}", ran.said());
    test("format = 1\n[[route]]\n").exits(1);
}

fn explain(directory: &TempDir, method: &str, url: &str, more: &[&str]) -> Ran {
    let mut arguments = vec!["explain", "-c", "edge.toml", "--format", "json", method, url];
    arguments.extend(more);
    tollgate(directory.path(), &arguments)
}

#[tokio::test]
async fn explain_names_the_route_really_taken() {
    let directory = directory(&[("edge.toml", EDGE), ("routes.toml", ROUTES)]);
    // Every answer names its route; what a route does is not what this test is about.
    let marked: String = ROUTES
        .lines()
        .map(|line| match line {
            "upstream = \"one\"" => "respond = {}".to_owned(),
            "rewrite = { strip_prefix = \"/api\" }" => String::new(),
            other if other.starts_with("expect") => "expect = { route = \"api\" }".to_owned(),
            other => other.to_owned(),
        } + "\n")
        .collect();
    let gateway = Gateway::with(
        &format!("{marked}[defaults]\nresponse_headers = {{ set = {{ x-route = \"{{route.name}}\" }} }}\n"),
        |settings| {
            settings.set("trust.forwarded_from", "127.0.0.1");
        },
    )
    .await;
    for (method, url, header, from) in [
        ("GET", "http://app.test/api/x", None, None),
        ("POST", "http://app.test/api/x", None, None),
        ("GET", "http://app.test/api/users/7", None, None),
        ("GET", "http://app.test/api/users/7", Some(("x-beta", "on")), None),
        ("GET", "http://app.test/api/../api/users/7?x=y", Some(("x-beta", "on")), None),
        ("GET", "http://APP.test./api", None, None),
        ("GET", "http://app.test/", None, None),
        ("GET", "http://a.app.test/", None, Some("203.0.113.9")),
        ("GET", "http://a.app.test/", None, Some("198.51.100.1")),
        ("GET", "http://other.test/", None, None),
    ] {
        let mut request = Request::builder().method(method).uri(url);
        let mut more = Vec::new();
        if let Some((name, value)) = header {
            request = request.header(name, value);
            more.extend(["-H".to_owned(), format!("{name}: {value}")]);
        }
        if let Some(from) = from {
            request = request.header("x-forwarded-for", from);
            more.extend(["--from".to_owned(), from.to_owned()]);
        }
        let reply = gateway.h1().await.fetch(request.body(empty()).unwrap()).await;
        let more: Vec<&str> = more.iter().map(String::as_str).collect();
        let told = explain(&directory, method, url, &more).exits(0).json();
        let outcome = &told["outcome"];
        assert_eq!(outcome["route"].as_str().unwrap_or_default(), reply.header("x-route"), "{method} {url}: {told}");
        if let Some(code) = outcome["code"].as_str() {
            assert_eq!((code, outcome["status"].as_u64()), (reply.code().as_str(), Some(reply.status.as_u16().into())));
        }
    }
}

#[tokio::test]
async fn explain_asks_a_running_gateway_with_live() {
    let gateway = Gateway::start(ROUTES).await;
    let edge = EDGE.replace("127.0.0.1:0\" }", &format!("{}\" }}", gateway.address("admin")));
    // The files say something else than what runs.
    let directory = directory(&[("edge.toml", &edge), ("routes.toml", "format = 1\n")]);
    let url = "http://app.test/api/x";
    assert_eq!(explain(&directory, "GET", url, &["--live"]).exits(0).json()["outcome"]["route"], "api");
    assert_eq!(explain(&directory, "GET", url, &[]).exits(0).json()["outcome"]["code"], "no_route");
    drop(gateway);
    explain(&directory, "GET", url, &["--live"]).exits(3);
}

#[test]
fn routes_lists_them_in_the_order_they_are_tried() {
    let directory = directory(&[("edge.toml", EDGE), ("routes.toml", ROUTES)]);
    let ran = tollgate(directory.path(), &["routes", "-c", "edge.toml"]).exits(0);
    let at = |name: &str| ran.stdout.find(name).unwrap_or_else(|| panic!("{name}: {}", ran.said()));
    assert!(at("user") < at("api "), "the more specific one first: {}", ran.said());
    assert!(ran.stdout.contains("office"));
}

#[test]
fn exit_codes_mean_what_they_say() {
    let directory = directory(&[("edge.toml", EDGE), ("routes.toml", "format = 2\n")]);
    for (arguments, code) in [
        (&["version"][..], 0),
        (&["--version"], 0),
        (&["help"], 0),
        (&["completion", "bash"], 0),
        (&["nonsense"], 2),
        (&["check"], 2),
        (&["explain", "GET"], 2),
        (&["check", "routes.toml"], 1),
        (&["check", "missing.toml"], 3),
        (&["run", "-c", "missing.toml"], 3),
        (&["run", "-c", "edge.toml"], 1),
        (&["test", "-c", "edge.toml"], 1),
    ] {
        let ran = tollgate(directory.path(), arguments);
        assert_eq!(ran.code, code, "{arguments:?}: {}", ran.said());
    }
}

#[test]
fn secrets_are_printed_by_no_command() {
    let secret = "request_headers = { set = { x-key = \"${SECRET_OF_TEST}\" } }\nrewrite =";
    let routes = ROUTES.replace("rewrite =", secret);
    let directory = directory(&[("edge.toml", EDGE), ("routes.toml", &routes)]);
    for arguments in [
        &["check", "routes.toml"][..],
        &["routes", "-c", "edge.toml"],
        &["explain", "-c", "edge.toml", "GET", "http://app.test/api/users/7"],
    ] {
        let mut command = crate::kit::tollgate::command();
        command.args(arguments).current_dir(directory.path()).env("SECRET_OF_TEST", "hunter2");
        let ran = Ran::of(command.output().unwrap()).exits(0);
        assert!(!ran.said().contains("hunter2"), "{arguments:?}: {}", ran.said());
    }
}

#[tokio::test]
async fn routes_in_the_place_of_settings_are_told_as_such() {
    let folder = directory(&[("routes.toml", ROUTES), ("empty.toml", "format = 1\n")]);
    for command in ["run", "routes", "certs"] {
        let ran = tollgate(folder.path(), &[command, "-c", "routes.toml"]);
        assert_eq!(ran.code, 1, "{}", ran.said());
        assert!(ran.stderr.contains("is a document") && !ran.stderr.contains("unknown key"), "{}", ran.said());
        let ran = tollgate(folder.path(), &[command, "-c", "empty.toml"]);
        assert!(ran.code == 1 && ran.stderr.contains("listen"), "{}", ran.said());
    }
}
