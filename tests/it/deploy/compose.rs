//! `docker-compose.yml`: the whole platform on one machine.

use std::collections::{BTreeMap, BTreeSet};

use serde_yaml::Value;

use super::{PARTS, contained, health_port, is_command_of, leaving, passes, root, seconds, secrets, text, tool, yaml};
use crate::kit::Gateway;

fn service(name: &str) -> Value {
    yaml("docker-compose.yml")[0]["services"][name].clone()
}

fn words(value: &Value) -> Vec<&str> {
    value.as_sequence().unwrap().iter().map(|word| word.as_str().unwrap()).collect()
}

#[test]
fn compose_takes_the_file() {
    passes(tool("docker-compose").args(["-f", "docker-compose.yml", "config", "-q"]));
}

#[test]
fn containers_run_what_is_there_with_what_it_reads() {
    for part in PARTS {
        let (service, settings) = (service(part), contained(part));
        is_command_of(part, &words(&service["command"]));
        let given: BTreeSet<_> = words(&service["secrets"]).into_iter().map(str::to_owned).collect();
        assert_eq!(given, secrets(part), "{part}");
        assert_eq!(service["read_only"].as_bool(), Some(true), "{part}");
        let grace = seconds(service["stop_grace_period"].as_str().unwrap());
        assert!(grace > leaving(&settings), "{part} is killed before the last request is done");
        let health = words(&service["healthcheck"]["test"]).concat();
        let port = health_port(part, &settings);
        assert!(health.contains(&format!("/127.0.0.1/{port};")) && health.contains(" /ready "), "{health}");
        let mounts: BTreeMap<_, _> = words(&service["volumes"])
            .into_iter()
            .map(|one| one.split(':').collect::<Vec<_>>())
            .map(|parts| (parts[1], parts[0]))
            .collect();
        for path in
            text(&format!("deploy/container/{part}.toml")).split('"').filter(|text| text.starts_with("/etc/tollgate/"))
        {
            assert!(mounts.contains_key(path), "{part} finds no {path}");
        }
        assert!(mounts.contains_key("/data"), "{part}");
    }
}

#[test]
fn only_the_edge_is_open_to_others() {
    let file = yaml("docker-compose.yml").remove(0);
    for (name, service) in file["services"].as_mapping().unwrap() {
        for port in service.get("ports").into_iter().flat_map(words) {
            assert!(name == "edge" || port.starts_with("127.0.0.1:"), "{name:?} listens on {port}");
        }
    }
    assert_eq!(words(&file["services"]["edge"]["ports"]), ["443:8443", "80:8080"]);
}

#[test]
fn what_is_mounted_is_there() {
    let file = yaml("docker-compose.yml").remove(0);
    for (name, service) in file["services"].as_mapping().unwrap() {
        for volume in words(&service["volumes"]) {
            let source = volume.split(':').next().unwrap();
            match source.strip_prefix("./") {
                Some(path) => assert!(root().join(path).exists(), "{name:?}: {source}"),
                None => assert!(file["volumes"].as_mapping().unwrap().contains_key(source), "{name:?}: {source}"),
            }
        }
        for secret in words(&service["secrets"]) {
            let path = file["secrets"][secret]["file"].as_str().unwrap();
            assert_eq!(path, format!("./deploy/secrets/{secret}"));
        }
    }
    for ignore in [".gitignore", ".dockerignore"] {
        assert!(text(ignore).contains("deploy/secrets\n"), "secrets would be committed or built in: {ignore}");
    }
}

/// The image has no program for it but the shell: the very line of the file, on another port.
#[tokio::test]
async fn the_health_check_tells_ready_from_not() {
    let gateway = Gateway::start("").await;
    let edge = service("edge");
    let test = words(&edge["healthcheck"]["test"]);
    assert_eq!(test[0], "CMD");
    let ask = |path: &str| {
        let line =
            test[3].replace("/9100;", &format!("/{};", gateway.address("health").port())).replace("/ready", path);
        std::process::Command::new(test[1]).arg(test[2]).arg(line).status().unwrap().success()
    };
    assert!(ask("/ready"));
    assert!(!ask("/nowhere"));
}

/// The line that hands the secrets to nats-server, with its files elsewhere.
#[test]
fn the_bus_gets_its_passwords_from_the_secrets() {
    let directory = tempfile::tempdir().unwrap();
    let service = service("nats");
    let line = words(&service["command"])[2]
        .replace("$$", "$")
        .replace("/run/secrets/", &format!("{}/", directory.path().display()))
        .replace("/etc/nats/nats-server.conf", "deploy/nats.conf")
        .replace("exec nats-server", "exec nats-server -t");
    let run = || {
        let mut shell = tool("sh");
        shell.arg(words(&service["command"])[1]).arg(&line).env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        shell.output().unwrap().status.success()
    };
    assert!(!run(), "without secrets it must not start");
    for (password, starts) in [("", false), ("p1\n", true)] {
        for secret in words(&service["secrets"]) {
            std::fs::write(directory.path().join(secret), password).unwrap();
        }
        assert_eq!(run(), starts, "{password:?}");
    }
}
