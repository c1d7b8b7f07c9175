//! The life of an alert: pure, in milliseconds that somebody else measures.
//!
//! ```text
//! ─true─▶ pending ─true for `for`─▶ firing ─untrue for `clear`─▶ resolved ─told, an hour later─▶ gone
//!            └─untrue─▶ gone          ▲                              │
//!                                     └─────────true for `for`───────┘
//! ```

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

/// What is over is shown for so long.
const SHOWN_MS: u64 = 3_600_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(in crate::controller) enum Stage {
    Pending,
    Firing,
    Resolved,
}

impl Stage {
    pub(in crate::controller) fn name(self) -> &'static str {
        match self {
            Stage::Pending => "pending",
            Stage::Firing => "firing",
            Stage::Resolved => "resolved",
        }
    }
}

/// An alert as the bus holds it: whoever acts next goes on from here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::controller) struct Standing {
    pub(in crate::controller) alert: String,
    /// What the rule is true of.
    pub(in crate::controller) subject: String,
    pub(in crate::controller) stage: Stage,
    /// When this stage began.
    pub(in crate::controller) since_ms: u64,
    /// Since when it has been otherwise: untrue while firing, true again while resolved.
    #[serde(default)]
    pub(in crate::controller) turning_ms: Option<u64>,
    /// What was seen.
    pub(in crate::controller) text: String,
    /// Of this stage, unique: whoever is told twice knows it by this.
    pub(in crate::controller) id: String,
    /// Whom this stage concerns: they are told of it even if the rule is gone by then.
    #[serde(default)]
    pub(in crate::controller) whom: BTreeSet<String>,
    /// Who has been told of this stage.
    #[serde(default)]
    pub(in crate::controller) told: BTreeSet<String>,
}

/// What becomes of an alert.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Next {
    Same,
    Written(Standing),
    Gone,
}

/// The two spans of a rule.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spans {
    pub(super) lasting_ms: u64,
    pub(super) clear_ms: u64,
}

impl Standing {
    /// One that has just become true.
    pub(super) fn begun(alert: &str, subject: &str, text: &str, spans: Spans, now_ms: u64) -> Standing {
        let pending = Standing {
            alert: alert.to_owned(),
            subject: subject.to_owned(),
            stage: Stage::Pending,
            since_ms: now_ms,
            turning_ms: None,
            text: text.to_owned(),
            id: id(alert, subject, Stage::Pending, now_ms),
            whom: BTreeSet::new(),
            told: BTreeSet::new(),
        };
        if spans.lasting_ms == 0 { pending.at(Stage::Firing, now_ms, text) } else { pending }
    }

    fn at(&self, stage: Stage, now_ms: u64, text: &str) -> Standing {
        Standing {
            stage,
            since_ms: now_ms,
            turning_ms: None,
            text: text.to_owned(),
            id: id(&self.alert, &self.subject, stage, now_ms),
            told: BTreeSet::new(),
            ..self.clone()
        }
    }

    fn turning(&self, since: Option<u64>) -> Next {
        if self.turning_ms == since {
            return Next::Same;
        }
        Next::Written(Standing { turning_ms: since, ..self.clone() })
    }

    /// The next stage. `seen` says what is wrong, if it is; `all_told` that nobody waits to be told of the present stage.
    pub(super) fn next(&self, seen: Option<&str>, spans: Spans, all_told: bool, now_ms: u64) -> Next {
        let since = self.turning_ms.unwrap_or(now_ms);
        let turned_for = now_ms.saturating_sub(since);
        match (self.stage, seen) {
            (Stage::Pending, None) => Next::Gone,
            (Stage::Pending, Some(text)) if now_ms.saturating_sub(self.since_ms) >= spans.lasting_ms => {
                Next::Written(self.at(Stage::Firing, now_ms, text))
            }
            (Stage::Pending, Some(_)) => Next::Same,
            (Stage::Firing, Some(_)) => self.turning(None),
            (Stage::Firing, None) if turned_for >= spans.clear_ms => {
                Next::Written(self.at(Stage::Resolved, now_ms, &self.text))
            }
            (Stage::Resolved, Some(text)) if turned_for >= spans.lasting_ms => {
                Next::Written(self.at(Stage::Firing, now_ms, text))
            }
            (Stage::Firing, None) | (Stage::Resolved, Some(_)) => self.turning(Some(since)),
            (Stage::Resolved, None) if all_told && now_ms.saturating_sub(self.since_ms) >= SHOWN_MS => Next::Gone,
            (Stage::Resolved, None) => self.turning(None),
        }
    }
}

fn id(alert: &str, subject: &str, stage: Stage, now_ms: u64) -> String {
    format!("{alert}/{subject}/{}/{now_ms}", stage.name())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SPANS: Spans = Spans { lasting_ms: 100, clear_ms: 200 };

    /// The stages that a run of truths leads through, one every 50 ms.
    fn stages(truths: &[bool]) -> Vec<Option<Stage>> {
        let mut standing: Option<Standing> = None;
        let mut stages = Vec::new();
        for (tick, truth) in truths.iter().enumerate() {
            let now = tick as u64 * 50;
            let seen = truth.then_some("x");
            standing = match (standing, seen) {
                (None, None) => None,
                (None, Some(text)) => Some(Standing::begun("a", "s", text, SPANS, now)),
                (Some(standing), seen) => match standing.next(seen, SPANS, true, now) {
                    Next::Same => Some(standing),
                    Next::Written(next) => Some(next),
                    Next::Gone => None,
                },
            };
            stages.push(standing.as_ref().map(|standing| standing.stage));
        }
        stages
    }

    #[test]
    fn fires_after_its_time_and_clears_after_its_time() {
        use Stage::{Firing as F, Pending as P, Resolved as R};
        let told = stages(&[true, true, true, false, true, false, false, false, false, false]);
        assert_eq!(told, [Some(P), Some(P), Some(F), Some(F), Some(F), Some(F), Some(F), Some(F), Some(F), Some(R)]);
        assert_eq!(stages(&[true, false, true]), [Some(P), None, Some(P)], "shorter than `for`: nothing");
        let again = stages(&[true, true, true, false, false, false, false, false, true, false, true, true, true]);
        assert_eq!(again[7..], [Some(R), Some(R), Some(R), Some(R), Some(R), Some(F)], "back after `for` again");
    }

    #[test]
    fn without_a_time_it_fires_at_once_and_stays_until_all_are_told() {
        let spans = Spans { lasting_ms: 0, clear_ms: 0 };
        let firing = Standing::begun("a", "s", "x", spans, 5);
        assert_eq!((firing.stage, firing.id.as_str()), (Stage::Firing, "a/s/firing/5"));
        let Next::Written(over) = firing.next(None, spans, true, 6) else { panic!("resolved") };
        assert_eq!(over.next(None, spans, false, SHOWN_MS * 2), Next::Same);
        assert_eq!(over.next(None, spans, true, SHOWN_MS * 2), Next::Gone);
    }

    proptest! {
        #[test]
        fn stages_follow_each_other(truths in proptest::collection::vec(any::<bool>(), 1..60)) {
            let stages = stages(&truths);
            for pair in stages.windows(2) {
                let fine = match (pair[0], pair[1]) {
                    (before, after) if before == after => true,
                    (None, Some(Stage::Pending)) | (Some(Stage::Pending), _) => pair[1] != Some(Stage::Resolved),
                    (Some(Stage::Firing), Some(Stage::Resolved)) | (Some(Stage::Resolved), Some(Stage::Firing)) => true,
                    _ => false,
                };
                prop_assert!(fine, "{pair:?}");
            }
        }
    }
}
