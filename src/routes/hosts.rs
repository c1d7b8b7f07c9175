//! The index of hosts: which one set of routes a request is looked up in. There is no falling through to another.

use std::ops::ControlFlow;

use ahash::AHashMap;

use super::host::HostPattern;
use super::trie::NodeId;

/// Roots of the trie by host pattern.
#[derive(Debug, Default)]
pub(super) struct Hosts {
    exact: AHashMap<Box<str>, NodeId>,
    one_label: AHashMap<Box<str>, NodeId>,
    labels: AHashMap<Box<str>, NodeId>,
    any: Option<NodeId>,
}

impl Hosts {
    /// The root of a pattern, made if it is new.
    pub(super) fn root(&mut self, pattern: &HostPattern, make: impl FnOnce() -> NodeId) -> NodeId {
        match pattern {
            HostPattern::Exact(name) => root_of(&mut self.exact, name, make),
            HostPattern::OneLabel(suffix) => root_of(&mut self.one_label, suffix, make),
            HostPattern::Labels(suffix) => root_of(&mut self.labels, suffix, make),
            HostPattern::Any => *self.any.get_or_insert_with(make),
        }
    }

    /// The root of the best set for a normalised host.
    pub(super) fn find(&self, host: &str) -> Option<NodeId> {
        match self.candidates(host) {
            ControlFlow::Break(root) => Some(root),
            ControlFlow::Continue(()) => self.any,
        }
    }

    fn candidates(&self, host: &str) -> ControlFlow<NodeId> {
        let found = |root: Option<&NodeId>| root.map_or(ControlFlow::Continue(()), |root| ControlFlow::Break(*root));
        found(self.exact.get(host))?;
        let Some((_, rest)) = host.split_once('.') else { return ControlFlow::Continue(()) };
        if !self.one_label.is_empty() {
            found(self.one_label.get(rest))?;
        }
        if !self.labels.is_empty() {
            // Longest first; a host has at most 127 labels.
            let mut suffix = Some(rest);
            while let Some(text) = suffix {
                found(self.labels.get(text))?;
                suffix = text.split_once('.').map(|(_, rest)| rest);
            }
        }
        ControlFlow::Continue(())
    }

    /// All patterns with their roots, in the order they are tried in: for listings.
    pub(super) fn patterns(&self) -> Vec<(HostPattern, NodeId)> {
        let mut all: Vec<(HostPattern, NodeId)> = Vec::new();
        all.extend(self.exact.iter().map(|(name, root)| (HostPattern::Exact(name.clone()), *root)));
        all.extend(self.one_label.iter().map(|(suffix, root)| (HostPattern::OneLabel(suffix.clone()), *root)));
        all.extend(self.labels.iter().map(|(suffix, root)| (HostPattern::Labels(suffix.clone()), *root)));
        all.extend(self.any.map(|root| (HostPattern::Any, root)));
        all.sort_unstable_by(|(one, _), (other, _)| match (one, other) {
            (HostPattern::Labels(one), HostPattern::Labels(other)) => {
                other.len().cmp(&one.len()).then_with(|| one.cmp(other))
            }
            (one, other) => one.cmp(other),
        });
        all
    }
}

fn root_of(map: &mut AHashMap<Box<str>, NodeId>, key: &str, make: impl FnOnce() -> NodeId) -> NodeId {
    if let Some(root) = map.get(key) {
        return *root;
    }
    let root = make();
    map.insert(key.into(), root);
    root
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exact_then_one_label_then_longest_then_any() {
        let texts = ["a.b.example.com", "*.b.example.com", "**.b.example.com", "**.example.com", "*.other.com"];
        let mut hosts = Hosts::default();
        for (id, text) in texts.iter().enumerate() {
            hosts.root(&text.parse().expect(text), || u32::try_from(id).expect("few"));
        }
        for (host, expect) in [
            ("a.b.example.com", Some(0)),
            ("x.b.example.com", Some(1)),
            ("x.y.b.example.com", Some(2)),
            ("b.example.com", Some(3)),
            ("example.com", None),
            ("x.y.other.com", None),
            ("[::1]", None),
        ] {
            assert_eq!(hosts.find(host), expect, "{host}");
        }
        hosts.root(&HostPattern::Any, || 9);
        assert_eq!(hosts.find("example.com"), Some(9));
        let listed: Vec<String> = hosts.patterns().into_iter().map(|(pattern, _)| pattern.to_string()).collect();
        let order =
            ["a.b.example.com", "*.b.example.com", "*.other.com", "**.b.example.com", "**.example.com", "any host"];
        assert_eq!(listed, order);
    }
}
