//! The routes in the order they are tried in, for people.

use serde::Serialize;

use super::destination::Destination;
use super::route::Route;
use super::table::{Entry, Table};

/// A route under one of its hosts and paths.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Listed {
    pub host: String,
    pub path: String,
    pub route: String,
    /// Empty: any.
    pub methods: Vec<String>,
    /// What else must hold, in short.
    pub fit: String,
    /// `upstream NAME`, `split A 95, B 5`, `redirect 308`, `respond 200`.
    pub destination: String,
}

impl Table {
    /// Every route under each of its hosts and paths, best first within a host.
    pub fn listing(&self) -> Vec<Listed> {
        let mut listed: Vec<Listed> = Vec::new();
        for (host, root) in self.hosts.patterns() {
            let host = host.to_string();
            for entry in self.trie.all(root).into_iter().flatten() {
                let route = usize::try_from(entry.route).ok().and_then(|id| self.routes.get(id));
                listed.extend(route.map(|route| list(&host, route, entry)));
            }
        }
        listed
    }
}

fn list(host: &str, route: &Route, entry: &Entry) -> Listed {
    Listed {
        host: host.to_owned(),
        path: route.patterns.get(usize::from(entry.pattern)).map(ToString::to_string).unwrap_or_default(),
        route: route.name.to_string(),
        methods: route.conditions.methods.iter().map(ToString::to_string).collect(),
        fit: entry.fit.to_string(),
        destination: route.destination.to_string(),
    }
}

impl std::fmt::Display for Destination {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Destination::Upstream(pool) => write!(f, "upstream {}", pool.name()),
            Destination::Redirect(redirect) => write!(f, "redirect {}", redirect.status.as_u16()),
            Destination::Respond(respond) => write!(f, "respond {}", respond.status.as_u16()),
            Destination::Split(split) => {
                f.write_str("split ")?;
                for (index, share) in split.shares().iter().enumerate() {
                    let comma = if index == 0 { "" } else { ", " };
                    write!(f, "{comma}{} {}", share.pool.name(), share.weight)?;
                }
                Ok(())
            }
        }
    }
}
