//! What is wrong now: rules against facts. Pure.

use std::collections::BTreeMap;

use crate::controller::meter::{Rate, add, quantile};
use crate::controller::picture::{Inner, Stand};
use crate::fleet::Counted;
use crate::settings::{Alert, Alerts, Bad, Expiry, Latency, Rate as RateRule, Silence, When};

/// What rules are held against.
#[derive(Debug)]
pub(super) struct Facts<'a> {
    pub(super) picture: &'a Inner,
    /// Traffic by how many seconds back it begins, then by route; `""` is all of it.
    pub(super) windows: &'a BTreeMap<u64, BTreeMap<String, Counted>>,
    pub(super) now_ms: u64,
}

/// A rule that is true of something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wrong {
    pub(super) alert: String,
    pub(super) subject: String,
    pub(super) text: String,
}

/// How far back rules look, in seconds.
pub(super) fn windows(rules: &Alerts) -> Vec<u64> {
    let over = rules.alert.iter().filter_map(|alert| match &alert.when {
        When { rate: Some(rate), .. } => Some(rate.over.0.as_secs()),
        When { latency: Some(latency), .. } => Some(latency.over.0.as_secs()),
        _ => None,
    });
    let mut all: Vec<u64> = over.collect();
    all.sort_unstable();
    all.dedup();
    all
}

/// Traffic of all nodes together, by route.
pub(super) fn by_route<'a>(
    all: impl IntoIterator<Item = (&'a (String, String), &'a Counted)>,
) -> BTreeMap<String, Counted> {
    let mut total: BTreeMap<String, Counted> = BTreeMap::new();
    for ((_, route), counted) in all {
        add(total.entry(route.clone()).or_default(), counted);
    }
    total
}

/// Everything that is wrong now.
pub(super) fn wrong(rules: &Alerts, facts: &Facts<'_>) -> Vec<Wrong> {
    let mut found = Vec::new();
    for Alert { name, when, .. } in &rules.alert {
        let mut add = |subject: &str, text: String| {
            found.push(Wrong { alert: name.clone(), subject: subject.to_owned(), text });
        };
        let When { rate, latency, expiry, drift, silence } = when;
        if let Some(rate) = rate {
            rates(rate, facts, &mut add);
        }
        if let Some(latency) = latency {
            latencies(latency, facts, &mut add);
        }
        if let Some(Expiry { within }) = expiry {
            expiries(within.0.as_secs(), facts, &mut add);
        }
        if drift.is_some() {
            drifts(facts, &mut add);
        }
        if let Some(Silence { of }) = silence {
            silences(of.as_deref(), facts, &mut add);
        }
    }
    found
}

fn window<'a>(facts: &'a Facts<'_>, seconds: u64, route: Option<&str>, least: u64) -> Option<&'a Counted> {
    let counted = facts.windows.get(&seconds)?.get(route.unwrap_or_default())?;
    (counted.requests() >= least.max(1)).then_some(counted)
}

fn named(route: Option<&str>) -> (String, String) {
    match route {
        Some(route) => (route.to_owned(), format!("of route {route}")),
        None => ("all".to_owned(), "of all routes".to_owned()),
    }
}

fn rates(rule: &RateRule, facts: &Facts<'_>, add: &mut dyn FnMut(&str, String)) {
    let RateRule { of, above, route, over, requests } = rule;
    let Some(counted) = window(facts, over.0.as_secs(), route.as_deref(), *requests) else { return };
    let rate = Rate::of(counted, 1.0);
    let (share, what) = match of {
        Bad::Server => (rate.server_errors, "5xx"),
        Bad::Client => (rate.client_errors, "4xx"),
        Bad::Rejected => (rate.rejected, "refused by the gateway"),
    };
    if share > *above {
        let (subject, which) = named(route.as_deref());
        let number = counted.requests();
        add(
            &subject,
            format!("{share:.1} % of {number} requests {which} are {what}, over {over}; the bound is {above} %"),
        );
    }
}

fn latencies(rule: &Latency, facts: &Facts<'_>, add: &mut dyn FnMut(&str, String)) {
    let Latency { above, route, over, requests } = rule;
    let Some(counted) = window(facts, over.0.as_secs(), route.as_deref(), *requests) else { return };
    if let Some(p99) = quantile(&counted.took, 0.99).filter(|p99| *p99 > above.0.as_secs_f64() * 1000.0) {
        let (subject, which) = named(route.as_deref());
        add(&subject, format!("the 99th percentile {which} is {p99:.0} ms, over {over}; the bound is {above}"));
    }
}

fn expiries(within_seconds: u64, facts: &Facts<'_>, add: &mut dyn FnMut(&str, String)) {
    let now = facts.now_ms / 1000;
    for report in facts.picture.nodes.values().filter(|report| !report.is_silent(facts.now_ms)) {
        for certificate in &report.certificates {
            let subject = format!("{} on {}", certificate.name, report.who.node);
            let left = certificate.not_after_unix.map(|ends| ends.saturating_sub(now));
            match left {
                Some(left) if left < within_seconds => {
                    add(&subject, format!("the certificate ends in {} hours", left / 3600));
                }
                _ if certificate.failing => add(&subject, "what was last done about the certificate failed".to_owned()),
                _ => {}
            }
        }
    }
}

fn drifts(facts: &Facts<'_>, add: &mut dyn FnMut(&str, String)) {
    let head = facts.picture.head.as_ref().map_or(0, |head| head.revision);
    for report in facts.picture.nodes.values() {
        if facts.picture.stand(report, facts.now_ms) == Stand::Behind {
            let runs = report.revision.map_or_else(|| report.serving.clone(), |number| format!("revision {number}"));
            let why = report.problem.as_ref().map(|problem| format!(": {problem}")).unwrap_or_default();
            add(&report.who.node, format!("the gateway runs {runs}, not revision {head}{why}"));
        }
    }
}

fn silences(of: Option<&str>, facts: &Facts<'_>, add: &mut dyn FnMut(&str, String)) {
    let meant = |name: &str| of.is_none_or(|of| of == name);
    let now = facts.now_ms;
    let settled = now >= facts.picture.settled_at_ms;
    for report in facts.picture.nodes.values().filter(|report| settled && meant(&report.who.node)) {
        if facts.picture.stand(report, now) == Stand::Silent {
            add(
                &report.who.node,
                format!("the gateway has said nothing for {} s", now.saturating_sub(report.at_ms) / 1000),
            );
        }
    }
    for (name, service) in facts.picture.services.iter().filter(|(name, service)| meant(name) && !service.ready) {
        let why = service.problem.as_deref().unwrap_or("not ready");
        add(name, format!("the service is not ready: {why}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{References, read};
    use crate::controller::picture::Service;
    use crate::fleet::{CertificateReport, Node, Report};

    const NOW: u64 = 1_000_000_000;

    fn rules(text: &str) -> Alerts {
        let text = format!("format = 1\n[[alert]]\nname = 'a'\nwhen = {{ {text} }}");
        let (rules, problems) = read::boot(&text, &References::symbolic(), &[]);
        rules.unwrap_or_else(|| panic!("{problems:?}"))
    }

    fn report(node: &str, silent: bool) -> Report {
        let who = Node {
            node: node.to_owned(),
            region: None,
            version: String::new(),
            format: 1,
            words: String::new(),
            started_at_ms: 0,
            every_ms: 5000,
        };
        Report {
            who,
            revision: Some(1),
            digest: "aaaa".to_owned(),
            applied_at_ms: 0,
            serving: "source".to_owned(),
            refuses: None,
            problem: None,
            ready: true,
            draining: false,
            at_ms: if silent { NOW - 60_000 } else { NOW },
            certificates: Vec::new(),
        }
    }

    fn told(text: &str, picture: &Inner, counted: Counted) -> Vec<String> {
        let windows = BTreeMap::from([(60, BTreeMap::from([(String::new(), counted)]))]);
        let found = wrong(&rules(text), &Facts { picture, windows: &windows, now_ms: NOW });
        found.into_iter().map(|wrong| wrong.subject).collect()
    }

    #[test]
    fn shares_and_percentiles_above_their_bound() {
        let mut counted = Counted { classes: [0, 0, 90, 0, 0, 10], took: vec![0; 17], ..Counted::default() };
        counted.took[10] = 100;
        let picture = Inner::default();
        for (text, expect) in [
            ("rate = { of = '5xx', above = 9.9 }", &["all"][..]),
            ("rate = { of = '5xx', above = 10 }", &[]),
            ("rate = { of = '4xx', above = 0 }", &[]),
            ("rate = { of = '5xx', above = 1, requests = 101 }", &[]),
            ("rate = { of = '5xx', above = 1, route = 'other' }", &[]),
            ("latency = { above = '400ms' }", &["all"]),
            ("latency = { above = '1s' }", &[]),
        ] {
            assert_eq!(told(text, &picture, counted.clone()), expect, "{text}");
        }
    }

    #[test]
    fn nodes_services_and_certificates() {
        let mut picture = Inner::default();
        let mut ending = report("ending", false);
        let certificate = |hours: u64, failing| CertificateReport {
            name: format!("c{hours}"),
            source: "file".to_owned(),
            not_after_unix: Some(NOW / 1000 + hours * 3600),
            failing,
        };
        ending.certificates = vec![certificate(1, false), certificate(1000, false), certificate(2000, true)];
        let left = Report { draining: true, ..report("left", true) };
        for report in [report("gone", true), report("here", false), ending, left] {
            picture.nodes.insert(report.who.node.clone(), report);
        }
        let service = |ready| Service { ready, since_ms: 0, problem: None };
        picture.services = BTreeMap::from([("up".to_owned(), service(true)), ("down".to_owned(), service(false))]);
        let check = |text: &str, picture: &Inner, expect: &[&str]| {
            assert_eq!(told(text, picture, Counted::default()), expect, "{text}");
        };
        check("silence = {}", &picture, &["gone", "down"]);
        check("silence = { of = 'down' }", &picture, &["down"]);
        let unsettled = Inner { settled_at_ms: NOW + 1, ..picture.clone() };
        check("silence = {}", &unsettled, &["down"]);
        check("expiry = {}", &picture, &["c1 on ending", "c2000 on ending"]);
        check("drift = {}", &picture, &[]);
        let pointer = |digest: &str| serde_json::json!({ "revision": 2, "digest": digest, "parent": 1, "author": "", "reason": "", "at_ms": 0 });
        picture.head = serde_json::from_value(pointer("bbbb")).ok();
        check("drift = {}", &picture, &["ending", "here"]);
        picture.head = serde_json::from_value(pointer("aaaabbbb")).ok();
        check("drift = {}", &picture, &[]);
    }
}
