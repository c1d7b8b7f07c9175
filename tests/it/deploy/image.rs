//! `Dockerfile`: one image for every part.

use super::{PARTS, is_command_of, passes, read, root, text, tool};

#[test]
fn the_image_is_made_as_a_linter_of_dockerfiles_wants_it() {
    passes(tool("hadolint").args(["--no-color", "Dockerfile"]));
}

/// Every file that the image takes is there, and so is the command that it runs.
#[test]
fn the_image_takes_what_is_there() {
    let text = text("Dockerfile");
    let mut taken = Vec::new();
    for line in text.lines().filter(|line| line.starts_with("COPY config/")) {
        let [_, source, to] = line.split_whitespace().collect::<Vec<_>>()[..] else { panic!("{line}") };
        assert!(root().join(source).exists(), "{source}");
        taken.push((source.to_owned(), to.to_owned()));
    }
    for part in PARTS {
        let pair = (format!("config/{part}.fly.toml"), format!("/etc/tollgate/{part}.toml"));
        assert!(taken.contains(&pair), "{part} has no settings in the image");
    }
    let fallback = read("config/edge.fly.toml")["routes"]["fallback"].as_str().unwrap().to_owned();
    let alerts = read("config/controller.fly.toml")["alerts"].as_str().unwrap().to_owned();
    for path in [fallback, alerts] {
        assert!(taken.iter().any(|(_, to)| *to == path), "{path} is not in the image");
    }
    let version = read("Cargo.toml")["package"]["rust-version"].as_str().unwrap().to_owned();
    assert!(text.contains(&format!("FROM rust:{version}-")), "the toolchain of the image");
    assert!(text.contains("--profile dist") && text.contains("ENTRYPOINT [\"/usr/local/bin/tollgate\"]"));
    let command = text.lines().find_map(|line| line.strip_prefix("CMD ")).unwrap();
    is_command_of("edge", &serde_json::from_str::<Vec<&str>>(command).unwrap());
}

#[test]
fn nobody_in_the_image_is_root() {
    let text = text("Dockerfile");
    let user = text.lines().rev().find_map(|line| line.strip_prefix("USER ")).unwrap();
    let number: u32 = user.parse().expect("a number: Kubernetes cannot look names up");
    assert!(number > 0 && text.contains(&format!("--uid {number} ")), "{number} has no account");
    assert!(text.contains("install -d -o tollgate -g tollgate /data"), "volumes begin as the directory of the image");
}
