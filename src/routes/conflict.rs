//! Routes that can match the same request and cannot be told apart.
//!
//! Only entries of one host, pattern and fit are compared. Where many of them ask for different values of the same name
//! (`x-tenant = "a"`, `"b"`, ..) they are sorted by that value first, so that it does not take every pair.

use std::collections::BTreeSet;

use ahash::AHashMap;

use super::conditions::{Condition, Conditions};
use super::route::Route;
use super::table::Entry;
use crate::facts::CertificateField;

/// Adds the pairs of routes in conflict at a sorted leaf, lower number first.
pub(super) fn find(leaf: &[Entry], routes: &[Route], conflicts: &mut BTreeSet<(u32, u32)>) {
    for equal in leaf.chunk_by(|one, other| one.fit == other.fit).filter(|equal| equal.len() > 1) {
        let Some(name) = most_asked(equal, routes) else {
            pairs(equal.iter(), equal, routes, conflicts);
            continue;
        };
        let mut by_value: AHashMap<&str, Vec<&Entry>> = AHashMap::new();
        let mut others = Vec::new();
        for entry in equal {
            match conditions(entry, routes).and_then(|conditions| name.value(conditions)) {
                Some(value) => by_value.entry(value).or_default().push(entry),
                None => others.push(entry),
            }
        }
        for same in by_value.values() {
            pairs(same.iter().copied(), same.iter().copied(), routes, conflicts);
        }
        pairs(others.into_iter(), equal, routes, conflicts);
    }
}

fn pairs<'e>(
    ones: impl Iterator<Item = &'e Entry>,
    others: impl IntoIterator<Item = &'e Entry> + Clone,
    routes: &[Route],
    conflicts: &mut BTreeSet<(u32, u32)>,
) {
    for one in ones {
        for other in others.clone() {
            if one.route != other.route && overlap(one, other, routes) {
                conflicts.insert((one.route.min(other.route), one.route.max(other.route)));
            }
        }
    }
}

fn overlap(one: &Entry, other: &Entry, routes: &[Route]) -> bool {
    let networks = match (&one.networks, &other.networks) {
        (Some(one), Some(other)) => one.overlap(other),
        (None, _) | (_, None) => true,
    };
    networks
        && match (conditions(one, routes), conditions(other, routes)) {
            (Some(one), Some(other)) => one.overlap(other),
            (None, _) | (_, None) => false,
        }
}

fn conditions<'r>(entry: &Entry, routes: &'r [Route]) -> Option<&'r Conditions> {
    Some(&routes.get(usize::try_from(entry.route).ok()?)?.conditions)
}

/// What a condition is on.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Name<'r> {
    Header(&'r str),
    Query(&'r str),
    Cookie(&'r str),
    ClientCertificate(CertificateField),
}

impl<'r> Name<'r> {
    /// The names a route asks for exact values of.
    fn exact(conditions: &'r Conditions) -> impl Iterator<Item = (Name<'r>, &'r str)> {
        let header = conditions.header.iter().map(|(name, condition)| (Name::Header(name.as_str()), condition));
        let query = conditions.query.iter().map(|(name, condition)| (Name::Query(name), condition));
        let cookie = conditions.cookie.iter().map(|(name, condition)| (Name::Cookie(name), condition));
        // Of names a certificate has several: other values exclude nothing.
        let certificate = conditions.client_certificate.iter().filter(|(field, _)| *field != CertificateField::San);
        let certificate = certificate.map(|(field, condition)| (Name::ClientCertificate(*field), condition));
        header.chain(query).chain(cookie).chain(certificate).filter_map(|(name, condition)| match condition {
            Condition::Exact(value) => Some((name, &**value)),
            Condition::Prefix(_) | Condition::Present | Condition::Absent => None,
        })
    }

    fn value(self, conditions: &'r Conditions) -> Option<&'r str> {
        Name::exact(conditions).find(|(name, _)| *name == self).map(|(_, value)| value)
    }
}

/// The name that most of the entries ask for an exact value of.
fn most_asked<'r>(entries: &[Entry], routes: &'r [Route]) -> Option<Name<'r>> {
    let mut counts: AHashMap<Name<'r>, usize> = AHashMap::new();
    for (name, _) in entries.iter().filter_map(|entry| conditions(entry, routes)).flat_map(Name::exact) {
        *counts.entry(name).or_default() += 1;
    }
    counts.into_iter().max_by_key(|(name, count)| (*count, *name)).map(|(name, _)| name)
}
