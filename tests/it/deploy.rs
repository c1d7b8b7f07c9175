//! What is deployed agrees with what it deploys: ports, signals, times, paths.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use toml::{Table, Value};

use crate::kit::tollgate::tollgate;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> Table {
    std::fs::read_to_string(root().join(path)).unwrap().parse().unwrap()
}

fn seconds(value: &Value) -> u64 {
    value.as_str().unwrap().parse::<tollgate::scalar::Span>().unwrap().0.as_secs()
}

fn port_of(address: &Value) -> u64 {
    address.as_str().unwrap().rsplit(':').next().unwrap().parse().unwrap()
}

#[test]
fn fly_hands_raw_connections_to_both_listeners_and_waits_for_the_last_request() {
    let (fly, edge) = (read("fly-edge.toml"), read("config/edge.fly.toml"));
    let mut ports = BTreeSet::new();
    for service in fly["services"].as_array().unwrap() {
        let internal = service["internal_port"].as_integer().unwrap();
        for port in service["ports"].as_array().unwrap() {
            assert_eq!(port["handlers"], Value::Array(vec!["proxy_proto".into()]), "{port}");
            ports.insert((port["port"].as_integer().unwrap(), u64::try_from(internal).unwrap()));
        }
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
    assert_eq!(fly["kill_signal"].as_str(), Some("SIGTERM"));
    let leaving = seconds(&edge["drain"]["grace"]) + seconds(&edge["drain"]["delay"]);
    assert!(seconds(&fly["kill_timeout"]) > leaving, "killed before the last request is done");
    let health = port_of(&edge["health"]["address"]);
    for at in ["checks.ready", "metrics"] {
        let table = at.split('.').fold(&Value::Table(fly.clone()), |table, key| &table[key]).clone();
        assert_eq!(u64::try_from(table["port"].as_integer().unwrap()).unwrap(), health, "{at}");
        assert!(["/ready", "/metrics"].contains(&table["path"].as_str().unwrap()));
    }
    assert_eq!(fly["mounts"]["destination"], edge["state"]["dir"]);
    let most = fly["services"][0]["concurrency"]["hard_limit"].as_integer();
    assert_eq!(most, edge["limits"]["connections"].as_integer());
}

#[test]
fn the_settings_of_the_image_are_good() {
    let directory = tempfile::tempdir().unwrap();
    let text = std::fs::read_to_string(root().join("config/edge.fly.toml")).unwrap();
    // Where the image has them.
    let routes = root().join("config/routes.toml");
    let text = text.replace("/etc/tollgate/routes.toml", &routes.display().to_string());
    let path = directory.path().join("edge.toml");
    std::fs::write(&path, text).unwrap();
    tollgate(directory.path(), &["check", path.to_str().unwrap()]).exits(0);
}

/// Every file that the image takes is there, and so is the command that it runs.
#[test]
fn the_image_takes_what_is_there() {
    let text = std::fs::read_to_string(root().join("Dockerfile")).unwrap();
    for line in text.lines().filter(|line| line.starts_with("COPY config/")) {
        let source = line.split_whitespace().nth(1).unwrap();
        assert!(root().join(Path::new(source)).exists(), "{source}");
    }
    let version = read("Cargo.toml")["package"]["rust-version"].as_str().unwrap().to_owned();
    assert!(text.contains(&format!("FROM rust:{version}-")), "the toolchain of the image");
    assert!(text.contains("\nUSER tollgate\n") && text.contains("--profile dist"));
    assert!(text.contains("CMD [\"run\", \"-c\", \"/etc/tollgate/edge.toml\"]"));
}
