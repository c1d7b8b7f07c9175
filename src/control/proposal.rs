//! A document that somebody wants to put in force on a fleet: looked at as every gateway will look at it, by the same code.
//!
//! Pure: nothing is opened or looked up. What commands and the controller have in common.

use std::sync::Arc;

use crate::config::vocabulary::Vocabulary;
use crate::config::{Document, References, read};
use crate::ledger::Draft;
use crate::problem::Problem;
use crate::routes::{self, Env, Table};
use crate::scalar::OneOrMany;
use crate::settings::Dns;
use crate::tasks::Tasks;
use crate::upstream::{Pools, ResolverError};

/// A document with everything that is wrong with it.
#[derive(Debug)]
pub struct Proposal {
    /// Warnings too.
    pub problems: Vec<Problem>,
    /// What its own tests say. Empty unless it could be compiled.
    pub failing: Vec<Problem>,
    /// There if it could be compiled.
    pub table: Option<Table>,
}

impl Proposal {
    /// Looks at a text; listeners are those of `env`, or all that it names.
    pub fn of(text: &str, env: Option<Env>) -> Result<Proposal, ResolverError> {
        let references = References::symbolic().foreign();
        let mut draft = read::draft_document(text, &references);
        let mut table = None;
        if let Some(document) = draft.words() {
            let env = env.unwrap_or_else(|| Env::assumed(document));
            let (compiled, problems) = routes::compile(document, &env, &unused_pools()?);
            draft.add(&references, problems);
            table = compiled;
        }
        let (document, problems) = draft.finish(text);
        let compiled = match (document, table) {
            (Some(document), Some(table)) if !problems.iter().any(Problem::is_error) => Some((document, table)),
            _ => None,
        };
        let failing = compiled.as_ref().map(|(document, table)| failing(document, table)).unwrap_or_default();
        let table = compiled.map(|(_, mut table)| {
            table.revision = routes::revision(text);
            table
        });
        Ok(Proposal { problems, failing, table })
    }

    /// A gateway would take it.
    pub fn is_good(&self) -> bool {
        self.table.is_some() && !self.failing.iter().any(Problem::is_error)
    }
}

fn failing(document: &Document, table: &Table) -> Vec<Problem> {
    routes::cases::run(table, &document.test).iter().flat_map(|result| result.problems()).collect()
}

/// A draft of a new text.
pub fn draft(text: Arc<str>, author: String, reason: String) -> Draft {
    let requires = Vocabulary::document().used(&text);
    Draft { text, author, reason, requires, rollback_of: None }
}

/// Pools to compile against, which nobody will use. A name server is named so that those of this machine are not looked up;
/// none is asked.
pub fn unused_pools() -> Result<Pools, ResolverError> {
    let dns = Dns { servers: OneOrMany(vec!["127.0.0.1:53".to_owned()]), ..Dns::default() };
    Pools::new(&dns, Tasks::default())
}

/// A unified diff; empty if nothing differs.
pub fn unified(old: (&str, &str), new: (&str, &str)) -> String {
    similar::TextDiff::from_lines(old.1, new.1).unified_diff().header(old.0, new.0).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_gateway_would_take_is_told() {
        let good = "format = 1\n[[route]]\nname = 'a'\nrespond = {}\n";
        for (text, good, problems, failing) in [
            (good.to_owned(), true, 0, 0),
            (good.replace("respond", "respnd"), false, 1, 0),
            (format!("{good}[[test]]\nrequest = 'GET http://h/'\nexpect = {{ route = 'b' }}\n"), false, 0, 1),
            (good.replace("{}", "{ body = '${HOME}' }"), false, 1, 0),
        ] {
            let proposal = Proposal::of(&text, None).unwrap();
            let counts = (proposal.problems.len(), proposal.failing.len());
            assert_eq!((proposal.is_good(), counts), (good, (problems, failing)), "{text}");
        }
    }
}
