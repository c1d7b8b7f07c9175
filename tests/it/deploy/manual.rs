//! `docs/deploy.md`: what it tells to type is there.

use super::{is_there, root, text};

/// Lines of code blocks.
fn lines() -> Vec<String> {
    let text = text("docs/deploy.md");
    text.split("```").skip(1).step_by(2).flat_map(|block| block.lines().skip(1).map(str::to_owned)).collect()
}

#[test]
fn every_command_of_ours_is_there() {
    let lines = lines();
    let mut found = 0;
    for line in &lines {
        let words: Vec<_> = line.split(|character: char| character.is_whitespace() || character == '"').collect();
        for (index, pair) in words.windows(2).enumerate() {
            // kubectl's namespace and secret have the name, too.
            let other = index > 0 && ["-n", "generic"].contains(&words[index - 1]);
            if other || pair[0] != "tollgate" || !pair[1].starts_with(char::is_alphabetic) {
                continue;
            }
            assert!(is_there(pair[1]), "`{}` is no command: {line}", pair[1]);
            found += 1;
        }
    }
    assert!(found > 10, "{found}");
}

#[test]
fn every_file_is_there() {
    let mut found = 0;
    for line in lines() {
        for word in line.split([' ', '=', '"']) {
            let ours = ["fly-", "config/", "deploy/"].iter().any(|beginning| word.starts_with(beginning));
            if ours && word.ends_with(".toml") {
                assert!(root().join(word).exists(), "{word}: {line}");
                found += 1;
            }
        }
    }
    assert!(found > 4, "{found}");
}
