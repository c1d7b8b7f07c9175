//! A trial's judgement: what the nodes on trial did against what the others did in the same time. Pure.

use serde::{Deserialize, Serialize};

use super::meter::{Rate, percent};
use crate::fleet::Counted;
use crate::ledger::Judged;

/// One side of the comparison, as numbers that people read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Side {
    pub(super) requests: u64,
    /// Per mille of the requests.
    pub(super) server_errors: f64,
    pub(super) client_errors: f64,
    pub(super) rejected: f64,
    pub(super) p99_ms: Option<f64>,
}

/// What is to become of a trial.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Too few requests yet.
    Wait,
    Promote,
    TakeBack(String),
}

impl Side {
    pub(super) fn of(counted: &Counted) -> Side {
        let Rate { p99_ms, .. } = Rate::of(counted, 1.0);
        let requests = counted.requests();
        let share = |number: u64| percent(number, requests) * 10.0;
        let class = |class: usize| counted.classes.get(class).copied().unwrap_or_default();
        Side {
            requests,
            server_errors: share(class(5)),
            client_errors: share(class(4)),
            rejected: share(counted.rejected.values().sum()),
            p99_ms,
        }
    }
}

/// Compares as soon as both sides have answered enough; whatever is undecided at the deadline is taken back.
pub(super) fn judge(judged: &Judged, trial: &Side, control: &Side, ran_ms: u64) -> Verdict {
    let Judged { sample, deadline_s, worse_per_mille, slower_percent } = *judged;
    if trial.requests < sample.max(1) || control.requests < sample.max(1) {
        if ran_ms / 1000 >= deadline_s {
            let (on_trial, others) = (trial.requests, control.requests);
            return Verdict::TakeBack(format!(
                "undecided after {deadline_s} s: {on_trial} requests on trial and {others} elsewhere, of {sample} needed"
            ));
        }
        return Verdict::Wait;
    }
    for (what, trial, control) in [
        ("answers with 5xx", trial.server_errors, control.server_errors),
        ("answers with 4xx", trial.client_errors, control.client_errors),
        ("refusals by the gateway", trial.rejected, control.rejected),
    ] {
        if trial > control + worse_per_mille as f64 {
            return Verdict::TakeBack(format!("{what}: {trial:.1} per mille on trial, {control:.1} elsewhere"));
        }
    }
    if let (Some(trial), Some(control)) = (trial.p99_ms, control.p99_ms)
        && trial > control * (1.0 + slower_percent as f64 / 100.0)
    {
        return Verdict::TakeBack(format!("99th percentile: {trial:.1} ms on trial, {control:.1} ms elsewhere"));
    }
    Verdict::Promote
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn side(requests: u64, server_errors: f64, p99_ms: f64) -> Side {
        Side { requests, server_errors, client_errors: 0.0, rejected: 0.0, p99_ms: Some(p99_ms) }
    }

    #[test]
    fn waits_for_both_samples_then_compares() {
        let judged = Judged { sample: 100, deadline_s: 60, worse_per_mille: 10, slower_percent: 50 };
        let good = side(100, 0.0, 10.0);
        for (trial, control, ran_ms, expect) in [
            (side(99, 0.0, 10.0), good.clone(), 0, "wait"),
            (good.clone(), side(99, 0.0, 10.0), 0, "wait"),
            (good.clone(), side(99, 0.0, 10.0), 60_000, "undecided after 60 s"),
            (good.clone(), good.clone(), 60_000, "promote"),
            (side(100, 10.0, 10.0), good.clone(), 0, "promote"),
            (side(100, 10.1, 10.0), good.clone(), 0, "answers with 5xx: 10.1"),
            (side(100, 500.0, 10.0), side(100, 495.0, 10.0), 0, "promote"),
            (side(100, 0.0, 15.0), good.clone(), 0, "promote"),
            (side(100, 0.0, 15.1), good.clone(), 0, "99th percentile: 15.1 ms"),
            (Side { client_errors: 11.0, ..good.clone() }, good.clone(), 0, "answers with 4xx"),
            (Side { rejected: 11.0, ..good.clone() }, good.clone(), 0, "refusals by the gateway"),
        ] {
            let said = match judge(&judged, &trial, &control, ran_ms) {
                Verdict::Wait => "wait".to_owned(),
                Verdict::Promote => "promote".to_owned(),
                Verdict::TakeBack(why) => why,
            };
            assert!(said.starts_with(expect), "{trial:?} {control:?} {ran_ms}: {said}");
        }
    }

    #[test]
    fn counts_become_shares() {
        let counted = Counted { classes: [0, 0, 980, 0, 15, 5], ..Counted::default() };
        let side = Side::of(&counted);
        assert_eq!((side.requests, side.server_errors, side.client_errors), (1000, 5.0, 15.0));
    }

    proptest! {
        #[test]
        fn what_is_no_worse_is_never_taken_back_for_it(
            requests in 100u64..10_000, errors in 0.0..1000.0f64, p99 in 0.1..10_000.0f64, worse in 0u64..100, slower in 0u64..100
        ) {
            let judged = Judged { sample: 100, deadline_s: 60, worse_per_mille: worse, slower_percent: slower };
            let same = side(requests, errors, p99);
            prop_assert_eq!(judge(&judged, &same, &same, 0), Verdict::Promote);
            let worst = side(requests, errors + worse as f64 + 1.0, p99);
            prop_assert!(matches!(judge(&judged, &worst, &same, 0), Verdict::TakeBack(_)));
        }
    }
}
