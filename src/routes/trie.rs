//! The index of path patterns: one arena of nodes for all hosts, one root per host set.
//!
//! A walk visits the patterns that match a path, best first: segment by segment from the left, literal before capture
//! before `*`. It costs the nodes it steps on, never the number of routes; `widest` bounds them when a table is compiled.

use std::ops::ControlFlow;

use ahash::AHashMap;

use super::pattern::{Pattern, Segment, Spans};

pub(super) type NodeId = u32;

/// More literals than this are hashed.
const FEW: usize = 8;

#[derive(Debug)]
pub(super) struct Trie<L> {
    nodes: Vec<Node>,
    leaves: Vec<L>,
}

#[derive(Debug)]
struct Node {
    literals: Literals,
    capture: Option<NodeId>,
    /// The leaf of the pattern that ends here.
    end: Option<u32>,
    /// The leaf of the pattern that goes on with `/*`.
    rest: Option<u32>,
}

#[derive(Debug)]
enum Literals {
    Few(Vec<(Box<str>, NodeId)>),
    Many(AHashMap<Box<str>, NodeId>),
}

impl<L: Default> Trie<L> {
    pub(super) fn new() -> Trie<L> {
        Trie { nodes: Vec::new(), leaves: Vec::new() }
    }

    pub(super) fn root(&mut self) -> NodeId {
        let id = NodeId::try_from(self.nodes.len()).unwrap_or(NodeId::MAX);
        self.nodes.push(Node { literals: Literals::Few(Vec::new()), capture: None, end: None, rest: None });
        id
    }

    /// The leaf of a pattern below a root, made if it is new; its number, and the leaf.
    pub(super) fn leaf(&mut self, root: NodeId, pattern: &Pattern) -> Option<&mut L> {
        let mut at = root;
        for segment in &pattern.segments {
            at = match self.child(at, segment) {
                Some(child) => child,
                None => self.grow(at, segment)?,
            };
        }
        let next = u32::try_from(self.leaves.len()).ok()?;
        let node = self.nodes.get_mut(usize::try_from(at).ok()?)?;
        let slot = if pattern.rest { &mut node.rest } else { &mut node.end };
        let leaf = *slot.get_or_insert(next);
        if leaf == next {
            self.leaves.push(L::default());
        }
        self.leaves.get_mut(usize::try_from(leaf).ok()?)
    }

    pub(super) fn leaves_mut(&mut self) -> &mut [L] {
        &mut self.leaves
    }

    fn grow(&mut self, parent: NodeId, segment: &Segment) -> Option<NodeId> {
        let child = self.root();
        let node = self.nodes.get_mut(usize::try_from(parent).ok()?)?;
        match segment {
            Segment::Capture => node.capture = Some(child),
            Segment::Literal(text) => node.literals.insert(text.clone(), child),
        }
        Some(child)
    }
}

impl<L> Trie<L> {
    fn node(&self, id: NodeId) -> Option<&Node> {
        self.nodes.get(usize::try_from(id).ok()?)
    }

    fn child(&self, id: NodeId, segment: &Segment) -> Option<NodeId> {
        let node = self.node(id)?;
        match segment {
            Segment::Capture => node.capture,
            Segment::Literal(text) => node.literals.find(text),
        }
    }

    /// Visits the leaves of the patterns that match a normalised path, best first, until `visit` breaks.
    pub(super) fn walk<'t, B>(
        &'t self,
        root: NodeId,
        path: &str,
        visit: &mut impl FnMut(&'t L, &Spans) -> ControlFlow<B>,
    ) -> ControlFlow<B> {
        let mut spans = Spans::default();
        if path.starts_with('/') {
            return self.step(root, path, Some(1), &mut spans, visit);
        }
        // `*`: the server as a whole, which only `/*` stands for.
        match self.node(root) {
            Some(node) => self.visit(node.rest, (path.len(), path.len()), &mut spans, visit),
            None => ControlFlow::Continue(()),
        }
    }

    /// `start`: where the next segment begins; `None` behind the last one.
    fn step<'t, B>(
        &'t self,
        at: NodeId,
        path: &str,
        start: Option<usize>,
        spans: &mut Spans,
        visit: &mut impl FnMut(&'t L, &Spans) -> ControlFlow<B>,
    ) -> ControlFlow<B> {
        let Some(node) = self.node(at) else { return ControlFlow::Continue(()) };
        let Some(start) = start else {
            if let Some(leaf) = node.end.and_then(|leaf| self.leaves.get(usize::try_from(leaf).ok()?)) {
                visit(leaf, spans)?;
            }
            return self.visit(node.rest, (path.len(), path.len()), spans, visit);
        };
        let rest = path.get(start..).unwrap_or_default();
        let (segment, next) = match memchr::memchr(b'/', rest.as_bytes()) {
            Some(len) => (rest.get(..len).unwrap_or_default(), Some(start + len + 1)),
            None => (rest, None),
        };
        if let Some(child) = node.literals.find(segment) {
            self.step(child, path, next, spans, visit)?;
        }
        if let Some(child) = node.capture.filter(|_| !segment.is_empty()) {
            spans.push(start, start + segment.len());
            self.step(child, path, next, spans, visit)?;
            spans.pop();
        }
        self.visit(node.rest, (start, path.len()), spans, visit)
    }

    fn visit<'t, B>(
        &'t self,
        leaf: Option<u32>,
        (start, end): (usize, usize),
        spans: &mut Spans,
        visit: &mut impl FnMut(&'t L, &Spans) -> ControlFlow<B>,
    ) -> ControlFlow<B> {
        if let Some(leaf) = leaf.and_then(|leaf| self.leaves.get(usize::try_from(leaf).ok()?)) {
            spans.push(start, end);
            visit(leaf, spans)?;
            spans.pop();
        }
        ControlFlow::Continue(())
    }

    /// The leaves below a root in the order they are tried in.
    pub(super) fn all(&self, root: NodeId) -> Vec<&L> {
        let mut leaves = Vec::new();
        // Depth first; what is pushed last comes first.
        let mut open = vec![Open::Node(root)];
        while let Some(next) = open.pop() {
            match next {
                Open::Leaf(leaf) => leaves.extend(usize::try_from(leaf).ok().and_then(|leaf| self.leaves.get(leaf))),
                Open::Node(id) => {
                    let Some(node) = self.node(id) else { continue };
                    open.extend(node.rest.map(Open::Leaf));
                    open.extend(node.capture.map(Open::Node));
                    let mut literals = node.literals.list();
                    literals.sort_unstable();
                    open.extend(literals.into_iter().rev().map(|(_, child)| Open::Node(child)));
                    open.extend(node.end.map(Open::Leaf));
                }
            }
        }
        leaves
    }

    /// For each node, the most nodes that one walk from there can step on.
    pub(super) fn widest(&self) -> Vec<usize> {
        let mut widest = vec![0usize; self.nodes.len()];
        // Children come after their parents.
        for (id, node) in self.nodes.iter().enumerate().rev() {
            let of = |child: NodeId| usize::try_from(child).ok().and_then(|id| widest.get(id).copied()).unwrap_or(0);
            let literal = match &node.literals {
                Literals::Few(list) => list.iter().map(|(_, child)| of(*child)).max(),
                Literals::Many(map) => map.values().map(|child| of(*child)).max(),
            };
            let below = literal.unwrap_or(0).saturating_add(node.capture.map_or(0, of));
            if let Some(slot) = widest.get_mut(id) {
                *slot = below.saturating_add(1);
            }
        }
        widest
    }
}

impl Literals {
    fn find(&self, segment: &str) -> Option<NodeId> {
        match self {
            Literals::Few(list) => list.iter().find(|(text, _)| &**text == segment).map(|(_, child)| *child),
            Literals::Many(map) => map.get(segment).copied(),
        }
    }

    fn insert(&mut self, segment: Box<str>, child: NodeId) {
        match self {
            Literals::Few(list) if list.len() < FEW => list.push((segment, child)),
            Literals::Few(list) => {
                let all = std::mem::take(list).into_iter().chain([(segment, child)]);
                *self = Literals::Many(all.collect());
            }
            Literals::Many(map) => {
                map.insert(segment, child);
            }
        }
    }

    fn list(&self) -> Vec<(&str, NodeId)> {
        match self {
            Literals::Few(list) => list.iter().map(|(text, child)| (&**text, *child)).collect(),
            Literals::Many(map) => map.iter().map(|(text, child)| (&**text, *child)).collect(),
        }
    }
}

enum Open {
    Node(NodeId),
    Leaf(u32),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn visited(patterns: &[&str], path: &str) -> Vec<String> {
        let mut trie = Trie::<String>::new();
        let root = trie.root();
        for text in patterns {
            let pattern: Pattern = text.parse().expect(text);
            *trie.leaf(root, &pattern).expect("leaf") = (*text).to_owned();
        }
        let mut seen = Vec::new();
        let _ = trie.walk(root, path, &mut |leaf: &String, _| {
            seen.push(leaf.clone());
            ControlFlow::<()>::Continue(())
        });
        seen
    }

    #[test]
    fn best_pattern_first() {
        let all = ["/*", "/{a}", "/{a}/*", "/x", "/x/*", "/x/{b}", "/x/y", "/{a}/y", "/x/", "/"];
        assert_eq!(visited(&all, "/x/y"), ["/x/y", "/x/{b}", "/x/*", "/{a}/y", "/{a}/*", "/*"]);
        assert_eq!(visited(&all, "/x"), ["/x", "/x/*", "/{a}", "/{a}/*", "/*"]);
        assert_eq!(visited(&all, "/x/"), ["/x/", "/x/*", "/{a}/*", "/*"]);
        assert_eq!(visited(&all, "/"), ["/", "/*"]);
        assert_eq!(visited(&all, "/xy"), ["/{a}", "/{a}/*", "/*"]);
        assert_eq!(visited(&all, "*"), ["/*"]);
    }

    #[test]
    fn lists_in_the_order_they_are_tried_in() {
        let mut trie = Trie::<String>::new();
        let root = trie.root();
        for text in ["/*", "/{a}/y", "/b", "/a/*", "/", "/a", "/a/{b}", "/a/c"] {
            *trie.leaf(root, &text.parse().expect(text)).expect("leaf") = text.to_owned();
        }
        assert_eq!(trie.all(root), ["/", "/a", "/a/c", "/a/{b}", "/a/*", "/b", "/{a}/y", "/*"]);
    }

    #[test]
    fn many_literals_are_found_as_few_are() {
        let texts: Vec<String> = (0..100).map(|n| format!("/s{n}")).collect();
        let patterns: Vec<&str> = texts.iter().map(String::as_str).collect();
        for text in &patterns {
            assert_eq!(visited(&patterns, text), [*text]);
        }
        assert!(visited(&patterns, "/s100").is_empty());
    }

    #[test]
    fn knows_how_wide_a_walk_can_get() {
        let mut trie = Trie::<()>::new();
        let root = trie.root();
        for bits in 0..32u32 {
            let text: String = (0..5).map(|at| if bits >> at & 1 == 1 { "/{c}" } else { "/a" }).collect();
            let text = text.split("{c}").enumerate().map(|(n, part)| format!("{part}{{c{n}}}")).collect::<String>();
            let text = text.strip_suffix('}').and_then(|t| t.rfind('{').map(|at| &t[..at])).expect("pattern");
            trie.leaf(root, &text.parse().expect(text));
        }
        assert_eq!(trie.widest()[0], 63);
    }
}
