//! Routes that change while traffic flows: nothing fails, nothing half-read applies, what is open stays open.

use std::time::Duration;

use crate::kit::load::Load;
use crate::kit::websocket::{WebSocket, echo};
use crate::kit::{Gateway, Origin, Reply, channel, empty, routes, within};
use rustix::process::Signal;

/// A document that says which version it is; `path` keeps other routes apart.
fn version(number: usize) -> String {
    routes::answering(&format!("version {number}"))
}

async fn text(gateway: &Gateway) -> String {
    gateway.get("http://app.test/").await.text().to_owned()
}

#[tokio::test]
async fn edits_under_load_fail_no_request() {
    let (one, two) = (Origin::text("one"), Origin::text("two"));
    let gateway = Gateway::start(&routes::all_to(one.address())).await;
    let load = Load::start(gateway.http(), "http://app.test/", 6);
    for round in 0..20 {
        let origin = if round % 2 == 0 { &two } else { &one };
        let before = origin.count();
        // Another revision each time, also when the destination is the same as two rounds ago.
        gateway.change(&routes::with(origin.address(), "", &format!("priority = {round}"))).await;
        eventually!(origin.count() > before);
    }
    let tally = load.finish().await.clean();
    assert_eq!(tally.bodies.keys().collect::<Vec<_>>(), ["one", "two"]);
}

#[tokio::test]
async fn a_change_is_whole_or_not_at_all() {
    // Each version answers two paths alike: an answer that mixes versions would be seen.
    let document = |number: usize| {
        format!(
            "[[route]]\nname = \"a\"\nmatch = {{ path = \"/a\" }}\nrespond = {{ body = \"{number}\" }}\n\
             [[route]]\nname = \"b\"\nmatch = {{ path = \"/b\" }}\nrespond = {{ body = \"{number}\" }}\n"
        )
    };
    let gateway = Gateway::start(&document(0)).await;
    let mut client = gateway.h1().await;
    for number in 1..30 {
        gateway.write_routes(&document(number));
        let latest = number.to_string();
        let mut seen = 0_usize;
        eventually!({
            for path in ["/a", "/b"] {
                let reply = client.get(&format!("http://app.test{path}")).await;
                let now: usize = reply.text().parse().unwrap();
                assert!(now >= seen, "{now} after {seen}: time runs backwards");
                seen = now;
            }
            seen.to_string() == latest
        });
    }
}

#[tokio::test]
async fn every_way_of_saving_is_noticed() {
    let gateway = Gateway::start(&version(0)).await;
    let file = gateway.directory().join("routes.toml");
    let whole = |number| format!("format = 1\n{}", version(number));

    std::fs::write(&file, whole(1)).unwrap();
    eventually!(text(&gateway).await == "version 1");

    std::fs::remove_file(&file).unwrap();
    eventually!(!gateway.config().await["source_error"].is_null());
    assert_eq!(text(&gateway).await, "version 1", "without a file the last document stays");
    std::fs::write(&file, whole(2)).unwrap();
    eventually!(text(&gateway).await == "version 2");

    gateway.write_routes(&version(3));
    eventually!(text(&gateway).await == "version 3");

    // As a mounted volume does it: a link to a link to a directory that is swapped.
    for number in [4, 5] {
        let directory = gateway.directory().join(format!("mount-{number}"));
        std::fs::create_dir(&directory).unwrap();
        std::fs::write(directory.join("routes.toml"), whole(number)).unwrap();
        std::os::unix::fs::symlink(&directory, gateway.directory().join("next")).unwrap();
        std::fs::rename(gateway.directory().join("next"), gateway.directory().join("current")).unwrap();
        if number == 4 {
            std::fs::remove_file(&file).unwrap();
            std::os::unix::fs::symlink("current/routes.toml", &file).unwrap();
        }
        eventually!(text(&gateway).await == format!("version {number}"));
    }
}

#[tokio::test]
async fn a_half_written_file_is_not_applied() {
    use std::io::Write;
    let gateway = Gateway::start(&version(0)).await;
    let load = Load::start(gateway.http(), "http://app.test/", 2);
    let whole = format!("format = 1\n{}", version(1));
    let (half, rest) = whole.split_at(whole.len() / 2);
    let mut file = std::fs::File::create(gateway.directory().join("routes.toml")).unwrap();
    file.write_all(half.as_bytes()).unwrap();
    eventually!(gateway.metric("tollgate_config_last_change_success").await == 0.0);
    assert_eq!(text(&gateway).await, "version 0");
    file.write_all(rest.as_bytes()).unwrap();
    drop(file);
    eventually!(text(&gateway).await == "version 1");
    load.finish().await.clean();
}

#[tokio::test]
async fn of_rapid_saves_the_last_one_stays() {
    let gateway = Gateway::start(&version(0)).await;
    for number in 1..=200 {
        if number % 2 == 0 {
            gateway.write_routes(&version(number));
        } else {
            std::fs::write(gateway.directory().join("routes.toml"), format!("format = 1\n{}", version(number)))
                .unwrap();
        }
    }
    eventually!(text(&gateway).await == "version 200");
}

#[tokio::test]
async fn a_bad_document_changes_nothing_and_is_told_everywhere() {
    let gateway = Gateway::start(&version(1)).await;
    let before = gateway.revision().await;
    gateway.write_routes("[[route]]\nname = \"all\"\nrespond = { boby = \"version 2\" }\n");
    eventually!(gateway.metric("tollgate_config_last_change_success").await == 0.0);
    assert_eq!((text(&gateway).await, gateway.revision().await), ("version 1".into(), before));
    let config = gateway.config().await;
    let problem = &config["problems"][0];
    assert_eq!(problem["line"], 4, "{config}");
    assert!(problem["column"].as_u64().is_some_and(|column| column > 1), "{config}");
    assert!(problem["file"].as_str().unwrap().ends_with("routes.toml"), "{config}");
    assert!(problem["message"].as_str().unwrap().contains("boby"), "{config}");
    assert!(problem.to_string().contains("body"), "no hint: {config}");
    assert!(gateway.log().contains("boby"), "{}", gateway.log());
    assert_eq!(gateway.metric("tollgate_config_changes_total{result=\"refused\"}").await, 1.0);
    assert_eq!(gateway.health("/ready").await.status, 200, "it serves what it has");
    gateway.change(&version(3)).await;
    assert_eq!(text(&gateway).await, "version 3");
    assert_eq!(gateway.metric("tollgate_config_last_change_success").await, 1.0);
    assert_eq!(gateway.config().await["problems"].as_array().map(Vec::len), Some(0));
}

#[tokio::test]
async fn a_document_whose_tests_fail_is_bad() {
    let gateway = Gateway::start(&version(1)).await;
    let test = "[[test]]\nrequest = \"GET http://app.test/\"\nexpect = { route = \"other\" }\n";
    gateway.write_routes(&format!("{}{test}", version(2)));
    eventually!(gateway.metric("tollgate_config_changes_total{result=\"refused\"}").await == 1.0);
    assert_eq!(text(&gateway).await, "version 1");
    gateway.change(&format!("{}{}", version(2), test.replace("other", "all"))).await;
    assert_eq!(text(&gateway).await, "version 2");
}

#[tokio::test]
async fn what_is_open_survives_changes_of_other_routes() {
    let (sockets, events) = (echo(), tokio::sync::mpsc::unbounded_channel());
    let (sender, mut feeds) = events;
    let stream = Origin::scripted(move |_| {
        let (feed, body) = channel();
        let _ = sender.send(feed);
        async { Ok(http::Response::new(body)) }
    });
    let document = |other: usize| {
        format!(
            "[upstream.sockets]\naddress = \"{}\"\n[upstream.events]\naddress = \"{}\"\n\
             [[route]]\nname = \"ws\"\nmatch = {{ path = \"/ws\" }}\nupstream = \"sockets\"\n\
             [[route]]\nname = \"events\"\nmatch = {{ path = \"/events\" }}\nupstream = \"events\"\n{}",
            sockets.address(),
            stream.address(),
            version(other)
        )
    };
    let gateway = Gateway::start(&document(0)).await;
    let mut socket = WebSocket::connect(gateway.http(), "ws://app.test/ws").await;
    let request = http::Request::get("http://app.test/events").body(empty()).unwrap();
    let response = gateway.h1().await.send(request).await.unwrap();
    let feed = feeds.recv().await.unwrap();
    for number in 1..10 {
        gateway.change(&document(number)).await;
        socket.echoes("still here").await;
        assert!(feed.data("tick ").await);
    }
    // Even when their own routes are gone: `on_remove` is `keep` unless told otherwise.
    gateway.change(&version(99)).await;
    socket.echoes("and here").await;
    drop(feed);
    assert_eq!(Reply::read(response).await.unwrap().text(), "tick ".repeat(9));
    assert_eq!(gateway.get("http://app.test/ws").await.text(), "version 99");
}

#[tokio::test]
async fn a_removed_route_can_end_what_it_carries() {
    let origin = echo();
    let stays = routes::with(origin.address(), "", "stream = { on_remove = \"drain\" }");
    let gateway = Gateway::start(&stays).await;
    let mut socket = WebSocket::connect(gateway.http(), "ws://app.test/").await;
    socket.echoes("here").await;
    gateway.change(&format!("{stays}priority = 1\n")).await;
    socket.echoes("a changed route is no removed one").await;
    gateway.change("[[route]]\nname = \"another\"\nrespond = {}\n").await;
    assert_eq!(socket.next().await, None);
}

#[tokio::test]
async fn a_removed_upstream_serves_what_it_has_begun() {
    let gate = std::sync::Arc::new(tokio::sync::Notify::new());
    let waiting = gate.clone();
    let origin = Origin::scripted(move |_| {
        let waiting = waiting.clone();
        async move {
            waiting.notified().await;
            Ok(http::Response::new(crate::kit::full("late")))
        }
    });
    let gateway = Gateway::start(&routes::with(origin.address(), "connections = { idle = \"200ms\" }", "")).await;
    let address = gateway.http();
    let request = tokio::spawn(async move { crate::kit::get(address, "http://app.test/").await });
    eventually!(origin.count() == 1);
    gateway.change(&version(1)).await;
    gate.notify_one();
    assert_eq!(request.await.unwrap().text(), "late");
    eventually!(origin.open() == 0);
}

#[tokio::test]
async fn hup_reads_referenced_files_again() {
    let gateway = Gateway::start(&version(0)).await;
    let secret = gateway.directory().join("secret");
    std::fs::write(&secret, "first").unwrap();
    gateway.change(&routes::answering(&format!("${{file:{}}}", secret.display()))).await;
    assert_eq!(text(&gateway).await, "first");
    std::fs::write(&secret, "second").unwrap();
    let before = gateway.config().await["applied_at_ms"].clone();
    gateway.signal(Signal::HUP);
    eventually!(text(&gateway).await == "second");
    eventually!(gateway.config().await["applied_at_ms"] != before);
    // Nothing is new now: nothing is applied.
    let unchanged = "tollgate_config_changes_total{result=\"unchanged\"}";
    let (before, applied) = (gateway.metric(unchanged).await, gateway.config().await["applied_at_ms"].clone());
    gateway.signal(Signal::HUP);
    eventually!(gateway.metric(unchanged).await > before);
    assert_eq!(gateway.config().await["applied_at_ms"], applied);
}

#[tokio::test]
async fn hup_reads_certificates_again() {
    let gateway = Gateway::start(&version(0)).await;
    let before = gateway.tls("app.test", &[]).await;
    let renewed = crate::kit::Authority::new();
    let identity = renewed.issue(&["app.test"]);
    std::fs::write(gateway.directory().join("chain.pem"), &identity.chain_pem).unwrap();
    std::fs::write(gateway.directory().join("key.pem"), &identity.key_pem).unwrap();
    gateway.signal(Signal::HUP);
    let connect = || crate::kit::Client::tls(gateway.address("https"), "app.test", renewed.client(&[]));
    let mut after = eventually!(connect().await);
    assert_eq!(after.get("https://app.test/").await.text(), "version 0");
    assert!(!before.is_closed(), "connections that stand are not touched");
}

#[tokio::test]
async fn the_series_of_a_route_leave_with_it() {
    let origin = Origin::text("ok");
    let gateway = Gateway::start(&routes::all_to(origin.address())).await;
    gateway.get("http://app.test/").await;
    eventually!(gateway.metric("tollgate_requests_total{route=\"all\",class=\"2xx\"}").await == 1.0);
    gateway.change("[[route]]\nname = \"renamed\"\nrespond = { body = \"x\" }\n").await;
    eventually!({
        let metrics = gateway.metrics().await;
        !metrics.values("route").contains(&"all") && !metrics.values("upstream").contains(&"origin")
    });
}

#[tokio::test]
async fn a_bad_document_at_start_is_replaced_by_the_last_good_one() {
    let mut gateway = Gateway::start(&version(7)).await;
    gateway.stop().await;
    gateway.write_routes("nonsense");
    let next = gateway.successor(&[]).await.unwrap_or_else(|ran| panic!("{}", ran.said()));
    assert_eq!(text(&next).await, "version 7");
    let config = next.config().await;
    assert_eq!(config["serving"], "last_good", "{config}");
    assert!(config["problems_total"].as_u64().is_some_and(|count| count > 0), "{config}");
    next.change(&version(8)).await;
    assert_eq!(text(&next).await, "version 8");
    assert_eq!(next.config().await["serving"], "source");
}

#[tokio::test]
async fn without_any_good_document_it_does_not_start() {
    let Err(ran) = Gateway::try_with("[[route]]\nname = \"x\"\nrespnd = {}\n", |_| {}).await else {
        panic!("it started");
    };
    assert_eq!(ran.code, 1, "{}", ran.said());
    assert!(ran.said().contains("respnd") && ran.said().contains("routes.toml"), "{}", ran.said());
}

#[tokio::test]
async fn settings_that_make_no_sense_stop_the_start() {
    for (key, value, told) in [
        ("admin.address", "0.0.0.0:0", "token"),
        ("listen.0.port", "x", "port"),
        ("limits.head_timout", "1s", "head_timeout"),
    ] {
        let document = version(0);
        let started = Gateway::try_with(&document, |settings| {
            if let Some(key) = key.strip_prefix("listen.0.") {
                settings.listen(&format!("name = \"odd\"\nprotocol = \"http\"\n{key} = \"{value}\""));
            } else {
                settings.set(key, value);
            }
        });
        let Err(ran) = started.await else { panic!("it started with {key} = {value}") };
        assert_eq!(ran.code, 1, "{key}: {}", ran.said());
        assert!(ran.said().contains(told), "{key}: {}", ran.said());
    }
}

#[tokio::test]
async fn an_address_in_use_stops_the_start() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let document = version(0);
    let started = Gateway::try_with(&document, |settings| {
        settings.listen(&format!("name = \"taken\"\nprotocol = \"http\"\naddress = \"{address}\""));
    });
    let Err(ran) = started.await else { panic!("it started") };
    assert_eq!(ran.code, 3, "{}", ran.said());
    assert!(ran.said().contains(&address), "{}", ran.said());
}

#[tokio::test]
async fn ten_thousand_routes_apply_under_load() {
    let gateway = Gateway::start(&version(0)).await;
    let load = Load::start(gateway.http(), "http://app.test/", 2);
    let mut document = version(1);
    for number in 0..10_000 {
        document.push_str(&format!(
            "[[route]]\nname = \"r{number}\"\nmatch = {{ host = \"h{}.test\", path = \"/p{number}/*\" }}\n\
             respond = {{ body = \"{number}\" }}\n",
            number % 100
        ));
    }
    gateway.write_routes(&document);
    // A debug build on a busy machine: the time itself is measured by a bench.
    eventually!(Duration::from_secs(60), text(&gateway).await == "version 1");
    assert_eq!(gateway.get("http://h99.test/p9999/x").await.text(), "9999");
    within("the end of the load", load.finish()).await.clean();
}
