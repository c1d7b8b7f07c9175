//! What is deployed agrees with what it deploys: ports, commands, paths, times, secrets. No network, no Docker.
//!
//! Where there is a program that checks such a file (`./test` installs it) it is run; the rest is read and held against the
//! settings.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use toml::{Table, Value};

use crate::kit::tollgate::{Ran, tollgate};

mod compose;
mod fly;
mod image;
mod kubernetes;
mod manual;
mod watching;

/// What the image runs.
const PARTS: [&str; 3] = ["edge", "controller", "backend"];
/// Where their settings are: in the image, and for containers elsewhere.
const SETTINGS: [&str; 2] = ["config/NAME.fly.toml", "deploy/container/NAME.toml"];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn text(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn read(path: &str) -> Table {
    text(path).parse().unwrap()
}

fn yaml(path: &str) -> Vec<serde_yaml::Value> {
    let documents = text(path);
    let one = |document| {
        let mut value: serde_yaml::Value = serde::Deserialize::deserialize(document).unwrap();
        value.apply_merge().unwrap();
        value
    };
    serde_yaml::Deserializer::from_str(&documents).map(one).collect()
}

/// Settings of a part, as the image has them.
fn baked(part: &str) -> Table {
    read(&SETTINGS[0].replace("NAME", part))
}

/// Settings of a part, as compose file and manifests hand them in.
fn contained(part: &str) -> Table {
    read(&SETTINGS[1].replace("NAME", part))
}

fn seconds(text: &str) -> u64 {
    text.parse::<tollgate::scalar::Span>().unwrap().0.as_secs()
}

/// How long a part takes to leave, at most.
fn leaving(settings: &Table) -> u64 {
    let of = |word: &str| settings.get("drain").and_then(|drain| drain.get(word)).and_then(Value::as_str);
    of("delay").map_or(0, seconds) + of("grace").map_or(0, seconds)
}

fn port_of(address: &Value) -> u64 {
    address.as_str().unwrap().rsplit(':').next().unwrap().parse().unwrap()
}

/// Where `/health`, `/ready` and `/metrics` of a part are.
fn health_port(part: &str, settings: &Table) -> u64 {
    match part {
        "edge" => port_of(&settings["health"]["address"]),
        "controller" => port_of(&settings["listen"]["address"]),
        _ => port_of(&settings["listen"]),
    }
}

/// Every port that a part listens on.
fn ports(part: &str, settings: &Table) -> BTreeSet<u64> {
    let listeners = settings["listen"].as_array().into_iter().flatten().map(|listen| port_of(&listen["address"]));
    listeners.chain([health_port(part, settings)]).collect()
}

/// The part runs with these arguments: a command that there is, and settings that the image has.
fn is_command_of(part: &str, arguments: &[&str]) {
    let command = if part == "edge" { "run" } else { part };
    assert_eq!(arguments, [command, "-c", &format!("/etc/tollgate/{part}.toml")]);
    assert!(is_there(command), "`tollgate {command}` is no command");
}

fn is_there(command: &str) -> bool {
    tollgate(&root(), &["help", command]).code == 0
}

/// Names between a beginning and a `}`, such as those of `${file:/run/secrets/NAME}`.
fn named<'a>(text: &'a str, beginning: &str) -> BTreeSet<&'a str> {
    text.split(beginning).skip(1).filter_map(|rest| rest.split_once('}')).map(|(name, _)| name).collect()
}

/// Files of secrets that settings read.
fn secrets(part: &str) -> BTreeSet<String> {
    let text = text(&SETTINGS[1].replace("NAME", part));
    named(&text, "${file:/run/secrets/").into_iter().map(str::to_owned).collect()
}

/// A program that `./test` installs, from Debian or into `target/tools`.
fn tool(name: &str) -> Command {
    let built = Path::new(env!("CARGO_BIN_EXE_tollgate"));
    let beside = built.ancestors().map(|at| at.join("tools/bin").join(name)).find(|path| path.exists());
    let mut command = Command::new(beside.unwrap_or_else(|| name.into()));
    command.current_dir(root());
    command
}

fn passes(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}; ./test installs it"));
    Ran::of(output).exits(0);
}

#[test]
fn settings_of_every_part_are_good() {
    let directory = tempfile::tempdir().unwrap();
    for (part, place) in PARTS.iter().flat_map(|part| SETTINGS.map(|place| (part, place))) {
        // Where the image or the container has it.
        let routes = if place == SETTINGS[0] { "config/routes.fly.toml" } else { "deploy/container/routes.toml" };
        let text = text(&place.replace("NAME", part));
        let text = text.replace("/etc/tollgate/routes.toml", &root().join(routes).display().to_string());
        let path = directory.path().join(format!("{part}.toml"));
        std::fs::write(&path, text).unwrap();
        let said = tollgate(directory.path(), &["check", path.to_str().unwrap()]).exits(0).stdout;
        assert!(!said.contains("warning"), "{said}");
    }
}

#[test]
fn first_documents_pass_their_tests() {
    for path in ["config/routes.fly.toml", "deploy/container/routes.toml"] {
        let said = tollgate(&root(), &["test", "--routes", path]).exits(0).stdout;
        assert!(said.contains("passed, 0 failed") && !said.contains("0 passed"), "{said}");
    }
}

#[test]
fn no_settings_hold_a_secret() {
    fn look(at: &str, value: &Value) {
        match value {
            Value::Table(table) => table.iter().for_each(|(key, value)| look(key, value)),
            Value::Array(all) => all.iter().for_each(|value| look(at, value)),
            Value::String(text) if ["password", "seal", "token", "nkey"].contains(&at) => {
                assert!(text.starts_with("${") && text.ends_with('}'), "{at} = {text}");
            }
            _ => {}
        }
    }
    for (part, place) in PARTS.iter().flat_map(|part| SETTINGS.map(|place| (part, place))) {
        let settings = read(&place.replace("NAME", part));
        assert!(settings["bus"].get("password").is_some(), "{part} proves nothing to the bus");
        look("", &Value::Table(settings));
    }
}

#[test]
fn every_part_is_a_role_of_the_bus() {
    let conf = text("deploy/nats.conf");
    for (part, place) in PARTS.iter().flat_map(|part| SETTINGS.map(|place| (part, place))) {
        let bus = &read(&place.replace("NAME", part))["bus"];
        let user = bus["user"].as_str().unwrap();
        assert!(conf.contains(&format!("user: \"{user}\"")), "{user}");
        let port =
            conf.lines().find_map(|line| line.strip_prefix("listen: ")).unwrap().trim_matches('"').rsplit(':').next();
        let url = bus["urls"][0].as_str().unwrap().trim_end_matches('}');
        assert_eq!(url.rsplit(':').next(), port, "{url}");
    }
}
