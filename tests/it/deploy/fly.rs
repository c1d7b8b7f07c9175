//! `fly-*.toml`: what Fly.io runs, hands over, asks and ends.

use std::collections::BTreeSet;

use toml::{Table, Value};

use super::{baked, health_port, is_command_of, leaving, named, passes, port_of, read, root, seconds, text, tool};
use crate::kit::tollgate::tollgate;

const PRIVATE: [&str; 3] = ["nats", "controller", "backend"];

fn fly(part: &str) -> Table {
    read(&format!("fly-{part}.toml"))
}

#[test]
fn fly_hands_raw_connections_to_both_listeners_and_waits_for_the_last_request() {
    let (fly, edge) = (fly("edge"), baked("edge"));
    let mut ports = BTreeSet::new();
    for service in fly["services"].as_array().unwrap() {
        let internal = service["internal_port"].as_integer().unwrap();
        for port in service["ports"].as_array().unwrap() {
            assert_eq!(port["handlers"], Value::Array(vec!["proxy_proto".into()]), "{port}");
            ports.insert((port["port"].as_integer().unwrap(), u64::try_from(internal).unwrap()));
        }
        let most = service["concurrency"]["hard_limit"].as_integer();
        assert_eq!(most, edge["limits"]["connections"].as_integer());
    }
    let listener = |protocol: &str| {
        let all = edge["listen"].as_array().unwrap();
        let one = all.iter().find(|one| one["protocol"].as_str() == Some(protocol)).unwrap();
        assert!(one.get("proxy_protocol").is_some(), "{one}");
        port_of(&one["address"])
    };
    assert_eq!(ports, BTreeSet::from([(443, listener("https")), (80, listener("http"))]));
    let plain = edge["listen"].as_array().unwrap().iter().find(|one| one["name"].as_str() == Some("plain")).unwrap();
    assert_eq!(plain["https_port"].as_integer(), Some(443), "outside it is another port than inside");
    assert!(leaving(&edge) > 0);
    let vm = &fly["vm"][0];
    assert_eq!((vm["cpu_kind"].as_str(), vm["cpus"].as_integer()), (Some("shared"), Some(1)));
    assert_eq!(vm["memory"].as_str(), Some("256mb"));
}

/// A machine may be lost with everything on it: document and certificates are on the bus.
#[test]
fn an_edge_keeps_nothing_that_is_not_on_the_bus() {
    let edge = baked("edge");
    assert!(edge["routes"].get("nats").is_some() && edge["fleet"].get("seal").is_some());
    assert_eq!(edge["node"]["id"].as_str(), Some("${FLY_MACHINE_ID:-}"));
    assert!(edge["node"]["region"].as_str().unwrap().contains("${FLY_REGION"));
    if let Some(mounts) = fly("edge").get("mounts") {
        assert_eq!(mounts["destination"], edge["state"]["dir"]);
    }
}

#[test]
fn only_the_edge_is_public() {
    for part in PRIVATE {
        let fly = fly(part);
        assert!(!fly.contains_key("services") && !fly.contains_key("http_service"), "{part}");
        assert!(fly.contains_key("mounts"), "{part} keeps something");
    }
}

#[test]
fn fly_runs_asks_and_ends_every_part_as_it_is_made() {
    for part in ["edge", "controller", "backend"] {
        let (fly, settings) = (fly(part), baked(part));
        assert_eq!(fly["build"]["dockerfile"].as_str(), Some("Dockerfile"), "{part}");
        // The edge is what the image runs by itself.
        if let Some(processes) = fly.get("processes") {
            is_command_of(part, &processes["app"].as_str().unwrap().split(' ').collect::<Vec<_>>());
        } else {
            assert_eq!(part, "edge");
        }
        assert_eq!(fly["kill_signal"].as_str(), Some("SIGTERM"), "{part}");
        let patience = seconds(fly["kill_timeout"].as_str().unwrap());
        assert!(patience > leaving(&settings), "{part} is killed before the last request is done");
        let ready = &fly["checks"]["ready"];
        assert_eq!(ready["path"].as_str(), Some("/ready"), "{part}");
        let health = i64::try_from(health_port(part, &settings)).unwrap();
        assert_eq!(ready["port"].as_integer(), Some(health), "{part}");
        if let Some(metrics) = fly.get("metrics") {
            assert_eq!((metrics["port"].as_integer(), metrics["path"].as_str()), (Some(health), Some("/metrics")));
        }
        if let (Some(mounts), Some(data)) = (fly.get("mounts"), settings.get("data")) {
            assert!(data.as_str().unwrap().starts_with(mounts["destination"].as_str().unwrap()), "{part}");
        }
    }
}

#[test]
fn every_file_says_which_secrets_it_wants() {
    for part in ["edge", "controller", "backend"] {
        let (settings, fly) = (text(&format!("config/{part}.fly.toml")), text(&format!("fly-{part}.toml")));
        let wanted = named(&settings, "${");
        let wanted: Vec<_> = wanted.iter().filter(|name| !name.contains(":-")).collect();
        assert!(!wanted.is_empty());
        for name in wanted {
            assert!(fly.contains(name), "fly-{part}.toml does not speak of {name}");
        }
        assert!(!fly.contains("[env]"), "secrets come by `fly secrets`");
    }
    let (conf, fly) = (text("deploy/nats.conf"), text("fly-nats.toml"));
    for name in conf.split("password: $").skip(1).map(|rest| rest.split(',').next().unwrap()) {
        assert!(fly.contains(name), "fly-nats.toml does not speak of {name}");
    }
}

#[test]
fn the_bus_is_configured_as_the_program_says() {
    let fly = fly("nats");
    let conf = text("deploy/nats.conf");
    let comment = text("fly-nats.toml");
    let line = comment.lines().find_map(|line| line.split_once("tollgate nats-config ")).unwrap().1;
    let arguments: Vec<&str> =
        ["nats-config"].into_iter().chain(line.split(' ').map(|one| one.trim_matches('"'))).collect();
    assert_eq!(conf, tollgate(&root(), &arguments).exits(0).stdout, "print deploy/nats.conf again");
    let file = &fly["files"][0];
    assert_eq!(file["local_path"].as_str(), Some("deploy/nats.conf"));
    assert_eq!(file["guest_path"].as_str(), Some("/etc/nats/nats-server.conf"), "where the image looks for it");
    let port = fly["checks"]["health"]["port"].as_integer().unwrap();
    assert!(conf.contains(&format!("http: \"[::]:{port}\"")), "the check asks elsewhere");
    let store = conf.split("store_dir: \"").nth(1).unwrap();
    assert!(store.starts_with(fly["mounts"]["destination"].as_str().unwrap()), "streams are not on the volume");
    let mut server = tool("nats-server");
    server.args(["-t", "-c", "deploy/nats.conf"]).env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    for role in ["GATEWAY", "OPERATOR", "CONTROLLER", "SERVICE"] {
        server.env(format!("NATS_{role}_PASSWORD"), "p1");
    }
    passes(&mut server);
}
