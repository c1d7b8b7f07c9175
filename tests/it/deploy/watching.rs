//! Prometheus and Grafana: they ask where the parts answer, and for what the parts tell.

use std::collections::BTreeSet;

use super::{contained, health_port, passes, root, text, tool, yaml};

const DASHBOARD: &str = "deploy/grafana/dashboards/tollgate.json";

/// What docs/metrics.md has, with what Prometheus makes of it.
fn known() -> BTreeSet<String> {
    let mut known = BTreeSet::new();
    for line in text("docs/metrics.md").lines() {
        let Some(rest) = line.strip_prefix("| `tollgate_") else { continue };
        let name = format!("tollgate_{}", rest.split('`').next().unwrap());
        if line.contains("| histogram |") {
            known.extend(["_bucket", "_sum", "_count"].map(|end| format!("{name}{end}")));
        }
        known.insert(name);
    }
    known
}

/// Names of metrics in a text.
fn metrics(text: &str) -> BTreeSet<String> {
    let legal = |character: char| character.is_ascii_alphanumeric() || character == '_';
    text.split(|character| !legal(character)).filter(|word| word.starts_with("tollgate_")).map(str::to_owned).collect()
}

fn unknown(used: &BTreeSet<String>) -> Vec<String> {
    used.difference(&known()).cloned().collect()
}

#[test]
fn prometheus_takes_its_files() {
    let directory = tempfile::tempdir().unwrap();
    let token = directory.path().join("token");
    std::fs::write(&token, "t").unwrap();
    let config = text("deploy/prometheus.yml").replace("/run/secrets/controller_token", &token.display().to_string());
    std::fs::write(directory.path().join("prometheus.yml"), config).unwrap();
    for name in ["prometheus-alerts.yml", "prometheus-alerts.test.yml"] {
        std::fs::copy(root().join("deploy").join(name), directory.path().join(name)).unwrap();
    }
    passes(tool("promtool").current_dir(directory.path()).args(["check", "config", "prometheus.yml"]));
    passes(tool("promtool").current_dir(directory.path()).args(["test", "rules", "prometheus-alerts.test.yml"]));
}

#[test]
fn prometheus_asks_every_part_where_it_answers() {
    let config = yaml("deploy/prometheus.yml").remove(0);
    let jobs = config["scrape_configs"].as_sequence().unwrap();
    assert_eq!(jobs.len(), 3);
    for job in jobs {
        let part = job["job_name"].as_str().unwrap();
        let asked = &job["dns_sd_configs"][0];
        assert_eq!(asked["port"].as_u64(), Some(health_port(part, &contained(part))), "{part}");
        assert_eq!(asked["names"][0], part, "the name of the service");
        // By default /metrics is asked for; only the controller wants a proof.
        assert!(job.get("metrics_path").is_none());
        assert_eq!(job.get("authorization").is_some(), part == "controller");
    }
}

#[test]
fn alerts_watch_metrics_that_there_are() {
    let rules = yaml("deploy/prometheus-alerts.yml").remove(0);
    let rules = rules["groups"][0]["rules"].as_sequence().unwrap().clone();
    let expressions: Vec<_> = rules.iter().map(|rule| rule["expr"].as_str().unwrap()).collect();
    let used = metrics(&expressions.join("\n"));
    assert!(used.len() > 8);
    assert_eq!(unknown(&used), [""; 0]);
    for rule in &rules {
        assert!(rule["labels"].get("severity").is_some() && rule["annotations"].get("summary").is_some(), "{rule:?}");
    }
    let unheard = BTreeSet::from(["tollgate_unheard_total".to_owned()]);
    assert_eq!(unknown(&unheard), ["tollgate_unheard_total"]);
}

/// Every expression of a dashboard.
fn expressions(value: &serde_json::Value, found: &mut Vec<String>) {
    match value {
        serde_json::Value::Object(object) => {
            for (key, value) in object {
                match (key.as_str(), value.as_str()) {
                    ("expr" | "definition", Some(text)) => found.push(text.to_owned()),
                    _ => expressions(value, found),
                }
            }
        }
        serde_json::Value::Array(all) => all.iter().for_each(|one| expressions(one, found)),
        _ => {}
    }
}

#[test]
fn the_dashboard_shows_metrics_that_there_are() {
    let dashboard: serde_json::Value = serde_json::from_str(&text(DASHBOARD)).unwrap();
    let mut found = Vec::new();
    expressions(&dashboard, &mut found);
    let used = metrics(&found.join("\n"));
    assert!(used.len() > 20);
    assert_eq!(unknown(&used), [""; 0]);
    let panels = dashboard["panels"].as_array().unwrap();
    let ids: BTreeSet<_> = panels.iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
    assert_eq!(ids.len(), panels.len(), "two panels have one id");
    let cells = panels.iter().flat_map(|panel| {
        let at = |key: &str| panel["gridPos"][key].as_u64().unwrap();
        let (x, y, w, h) = (at("x"), at("y"), at("w"), at("h"));
        (x..x + w).flat_map(move |x| (y..y + h).map(move |y| (x, y)))
    });
    let all: Vec<_> = cells.collect();
    assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len(), "two panels lie on each other");
}

/// Prometheus itself reads them: as rules, since it checks those without a server.
#[test]
fn the_expressions_of_the_dashboard_are_promql() {
    let dashboard: serde_json::Value = serde_json::from_str(&text(DASHBOARD)).unwrap();
    let mut found = Vec::new();
    expressions(&dashboard, &mut found);
    let rules: Vec<_> = found
        .iter()
        .filter(|text| !text.starts_with("label_values("))
        .enumerate()
        .map(|(index, text)| {
            let expr = text.replace("$__rate_interval", "1m").replace("$instance", ".*").replace("$route", ".*");
            serde_json::json!({ "record": format!("panel:{index}"), "expr": expr })
        })
        .collect();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("rules.yml");
    let text = serde_json::json!({ "groups": [{ "name": "dashboard", "rules": rules }] });
    std::fs::write(&path, text.to_string()).unwrap();
    passes(tool("promtool").args(["check", "rules"]).arg(&path));
}

#[test]
fn grafana_finds_dashboard_and_prometheus() {
    let compose = yaml("docker-compose.yml").remove(0);
    let volumes = format!("{:?}", compose["services"]["grafana"]["volumes"]);
    let provider = yaml("deploy/grafana/provisioning/dashboards/tollgate.yml").remove(0);
    let path = provider["providers"][0]["options"]["path"].as_str().unwrap();
    assert!(volumes.contains(&format!("./deploy/grafana/dashboards:{path}:")), "{volumes}");
    assert!(volumes.contains("./deploy/grafana/provisioning:/etc/grafana/provisioning:"), "{volumes}");
    let source = yaml("deploy/grafana/provisioning/datasources/prometheus.yml").remove(0);
    assert_eq!(source["datasources"][0]["url"], "http://prometheus:9090");
}
