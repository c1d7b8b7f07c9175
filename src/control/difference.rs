//! What a document says, by name, small enough to keep: for telling what a change touched.

use std::collections::BTreeMap;
use std::fmt;
use std::hash::{BuildHasher as _, Hasher as _};
use std::io;

use serde::Serialize;

use super::status::{Difference, Names};
use crate::config::Document;

/// Names told in full.
const NAMES_MAX: usize = 20;

/// A digest per route, upstream and host. `route NAME` and `upstream NAME`, because the two may share a name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Contents(BTreeMap<String, u64>);

impl Contents {
    pub(super) fn of(document: &Document) -> Contents {
        // Defaults are part of every route: who changes them changes all.
        let defaults = digest(&document.defaults, 0);
        let routes = document.route.iter().map(|route| (format!("route {}", route.name), digest(route, defaults)));
        let upstreams = document.upstream.iter().map(|(name, words)| (format!("upstream {name}"), digest(words, 0)));
        let hosts = document.host.iter().map(|(name, words)| (format!("host {name}"), digest(words, 0)));
        let limits = document.limit.iter().map(|(name, words)| (format!("limit {name}"), digest(words, 0)));
        let issuers = document.issuer.iter().map(|(name, words)| (format!("issuer {name}"), digest(words, 0)));
        Contents(routes.chain(upstreams).chain(hosts).chain(limits).chain(issuers).collect())
    }

    pub(super) fn since(&self, before: &Contents) -> Difference {
        let mut difference = Difference::default();
        for (name, digest) in &self.0 {
            match before.0.get(name) {
                None => difference.added.push(name),
                Some(before) if before != digest => difference.changed.push(name),
                Some(_) => {}
            }
        }
        for name in before.0.keys().filter(|name| !self.0.contains_key(*name)) {
            difference.removed.push(name);
        }
        difference
    }
}

impl Names {
    fn push(&mut self, name: &str) {
        self.total += 1;
        if self.names.len() < NAMES_MAX {
            self.names.push(name.to_owned());
        }
    }
}

impl fmt::Display for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.names.join(", "))?;
        match self.total - self.names.len() {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

/// Of words in memory only; it never leaves the process, and a collision costs a word in a log line.
fn digest(words: &impl Serialize, seed: u64) -> u64 {
    struct Sink(ahash::AHasher);
    impl io::Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.write(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut sink = Sink(ahash::RandomState::with_seeds(seed, 1, 2, 3).build_hasher());
    // Words are plain data with text keys: writing them to memory does not fail.
    let _ = serde_json::to_writer(&mut sink, words);
    sink.0.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contents(text: &str) -> Contents {
        Contents::of(&toml::from_str(&format!("format = 1\n{text}")).unwrap())
    }

    fn route(name: &str, body: &str) -> String {
        format!("[[route]]\nname = \"{name}\"\nrespond = {{ body = \"{body}\" }}\n")
    }

    #[test]
    fn tells_what_was_added_changed_and_removed() {
        let before = contents(&(route("same", "1") + &route("gone", "1") + &route("other", "1")));
        let after = contents(&(route("other", "2") + &route("new", "1") + &route("same", "1")));
        let Difference { added, changed, removed } = after.since(&before);
        assert_eq!(
            (added.names, changed.names, removed.names),
            (vec!["route new".to_owned()], vec!["route other".to_owned()], vec!["route gone".to_owned()])
        );
        assert_eq!(after.since(&after), Difference::default());
    }

    #[test]
    fn defaults_are_part_of_every_route() {
        let before = contents(&route("a", "1"));
        let after = contents(&format!("[defaults]\nbody = {{ max = \"1KiB\" }}\n{}", route("a", "1")));
        assert_eq!(after.since(&before).changed.names, ["route a"]);
    }

    #[test]
    fn long_lists_are_cut_and_counted() {
        let many: String = (0..100).map(|number| route(&format!("r{number:03}"), "1")).collect();
        let added = contents(&many).since(&Contents::default()).added;
        assert_eq!((added.total, added.names.len()), (100, NAMES_MAX));
        assert!(added.to_string().ends_with("route r019 and 80 more"), "{added}");
    }
}
