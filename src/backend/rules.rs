//! Who may do what with the records of a collection.

use serde::{Deserialize, Serialize};

use super::refusal::Refusal;
use super::who::Who;

#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub(super) enum Rule {
    Anyone,
    /// Whoever has an account.
    User,
    /// Whoever made the record.
    Owner,
    Admin,
}

/// One for each thing that can be done. Administrators may do everything.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub(super) struct Rules {
    pub(super) list: Rule,
    pub(super) read: Rule,
    pub(super) create: Rule,
    pub(super) update: Rule,
    pub(super) delete: Rule,
}

/// Which records somebody reaches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    All,
    Own(String),
}

impl Rule {
    pub(super) fn admits(self, who: &Who) -> Result<Reach, Refusal> {
        if who.is_admin() {
            return Ok(Reach::All);
        }
        match self {
            Rule::Anyone => Ok(Reach::All),
            Rule::User => who.user().map(|_| Reach::All),
            Rule::Owner => who.user().map(|user| Reach::Own(user.user.clone())),
            Rule::Admin => who.user().and(Err(Refusal::Forbidden)),
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Rule::Anyone => "anyone",
            Rule::User => "user",
            Rule::Owner => "owner",
            Rule::Admin => "admin",
        }
    }

    pub(super) fn of(name: &str) -> Option<Rule> {
        [Rule::Anyone, Rule::User, Rule::Owner, Rule::Admin].into_iter().find(|rule| rule.name() == name)
    }
}

impl Reach {
    /// What is out of reach is not there: an answer that said otherwise would tell of others' records.
    pub(super) fn covers(&self, owner: Option<&str>) -> Result<(), Refusal> {
        match self {
            Reach::All => Ok(()),
            Reach::Own(user) if owner == Some(user) => Ok(()),
            Reach::Own(_) => Err(Refusal::NotFound),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::sessions::Session;
    use super::super::tokens::Role;
    use super::*;

    fn user(role: Role) -> Who {
        Who::User(Session { id: "s".to_owned(), user: "u1".to_owned(), role })
    }

    #[test]
    fn each_rule_admits_whom_it_names() {
        let own = || Ok(Reach::Own("u1".to_owned()));
        for (rule, anyone, someone) in [
            (Rule::Anyone, Ok(Reach::All), Ok(Reach::All)),
            (Rule::User, Err(Refusal::Anonymous), Ok(Reach::All)),
            (Rule::Owner, Err(Refusal::Anonymous), own()),
            (Rule::Admin, Err(Refusal::Anonymous), Err(Refusal::Forbidden)),
        ] {
            assert_eq!(rule.admits(&Who::Anyone), anyone, "{rule:?}");
            assert_eq!(rule.admits(&user(Role::User)), someone, "{rule:?}");
            assert_eq!(rule.admits(&user(Role::Admin)), Ok(Reach::All), "{rule:?}");
            assert_eq!(Rule::of(rule.name()), Some(rule));
        }
    }

    #[test]
    fn what_others_own_is_not_there() {
        let own = Reach::Own("u1".to_owned());
        assert_eq!(own.covers(Some("u1")), Ok(()));
        for other in [Some("u2"), None] {
            assert_eq!(own.covers(other), Err(Refusal::NotFound));
            assert_eq!(Reach::All.covers(other), Ok(()));
        }
    }
}
