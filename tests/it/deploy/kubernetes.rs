//! `deploy/kubernetes`: manifests by the schemas of Kubernetes, and as the parts need them.

use std::collections::BTreeSet;

use serde_yaml::Value;

use super::{PARTS, contained, health_port, is_command_of, leaving, passes, ports, root, secrets, text, tool, yaml};

const FILES: [&str; 6] =
    ["namespace.yaml", "nats.yaml", "edge.yaml", "controller.yaml", "backend.yaml", "network.yaml"];
const SECRET: &str = "deploy/kubernetes/secret.yaml.template";

fn file(name: &str) -> Vec<Value> {
    yaml(&format!("deploy/kubernetes/{name}"))
}

fn all() -> Vec<Value> {
    FILES.iter().flat_map(|name| file(name)).collect()
}

/// The one object of a kind in the file of a part.
fn object(part: &str, kind: &str) -> Value {
    file(&format!("{part}.yaml"))
        .into_iter()
        .find(|one| one["kind"] == kind)
        .unwrap_or_else(|| panic!("{part}: {kind}"))
}

fn workload(part: &str) -> Value {
    object(part, if part == "edge" { "Deployment" } else { "StatefulSet" })
}

fn list(value: &Value) -> Vec<Value> {
    value.as_sequence().cloned().unwrap_or_default()
}

fn container(part: &str) -> Value {
    workload(part)["spec"]["template"]["spec"]["containers"][0].clone()
}

/// A port by its name or number.
fn port(container: &Value, port: &Value) -> u64 {
    let named = list(&container["ports"]).into_iter().find(|one| one["name"] == *port);
    named
        .map_or(port.clone(), |one| one["containerPort"].clone())
        .as_u64()
        .unwrap_or_else(|| panic!("no port {port:?}"))
}

#[test]
fn manifests_are_by_the_schemas() {
    let mut check = tool("kubernetes-validate");
    passes(check.args(["--strict", "--quiet", SECRET]).args(FILES.map(|name| format!("deploy/kubernetes/{name}"))));
    let there = std::fs::read_dir(root().join("deploy/kubernetes")).unwrap().count();
    assert_eq!(there, FILES.len() + 1, "a manifest is not looked at");
}

#[test]
fn pods_run_what_is_there_with_what_it_reads() {
    for part in PARTS {
        let (settings, container, workload) = (contained(part), container(part), workload(part));
        let pod = &workload["spec"]["template"]["spec"];
        let arguments = list(&container["args"]);
        is_command_of(part, &arguments.iter().map(|one| one.as_str().unwrap()).collect::<Vec<_>>());
        let open: BTreeSet<_> =
            list(&container["ports"]).iter().map(|one| one["containerPort"].as_u64().unwrap()).collect();
        assert_eq!(open, ports(part, &settings), "{part}");
        for (probe, path) in [("readinessProbe", "/ready"), ("livenessProbe", "/health")] {
            let get = &container[probe]["httpGet"];
            assert_eq!(get["path"], path, "{part}");
            assert_eq!(port(&container, &get["port"]), health_port(part, &settings), "{part}");
        }
        let grace = pod["terminationGracePeriodSeconds"].as_u64().unwrap();
        assert!(grace > leaving(&settings), "{part} is killed before the last request is done");
        let volumes = list(&pod["volumes"]);
        let secret = volumes.iter().find(|one| one["name"] == "secrets").unwrap();
        let given: BTreeSet<_> = list(&secret["secret"]["items"])
            .iter()
            .map(|item| {
                assert_eq!(item["key"], item["path"]);
                item["key"].as_str().unwrap().to_owned()
            })
            .collect();
        assert_eq!(given, secrets(part), "{part}");
        let mounts = list(&container["volumeMounts"]);
        for (name, at) in [("secrets", "/run/secrets"), ("config", "/etc/tollgate"), ("data", "/data")] {
            assert!(mounts.iter().any(|mount| mount["name"] == name && mount["mountPath"] == at), "{part}: {at}");
        }
    }
}

#[test]
fn nobody_is_root_and_nothing_of_the_image_can_be_written() {
    for part in PARTS.iter().chain(&["nats"]) {
        let (workload, container) = (workload(part), container(part));
        let pod = &workload["spec"]["template"]["spec"];
        assert_eq!(pod["automountServiceAccountToken"].as_bool(), Some(false), "{part}");
        assert_eq!(pod["securityContext"]["runAsNonRoot"].as_bool(), Some(true), "{part}");
        let rights = &container["securityContext"];
        assert_eq!(rights["readOnlyRootFilesystem"].as_bool(), Some(true), "{part}");
        assert_eq!(rights["allowPrivilegeEscalation"].as_bool(), Some(false), "{part}");
        assert_eq!(list(&rights["capabilities"]["drop"]), ["ALL"], "{part}");
        assert!(container["resources"]["limits"].get("memory").is_some(), "{part}");
    }
}

#[test]
fn there_are_as_many_of_each_as_may_be() {
    let number = |part: &str| workload(part)["spec"]["replicas"].as_u64().unwrap();
    assert!(number("edge") >= 2);
    assert_eq!(number("controller"), 2, "one acts, one stands by");
    assert_eq!(number("backend"), 1, "the only writer");
    for part in ["edge", "controller"] {
        let budget = object(part, "PodDisruptionBudget");
        assert_eq!(budget["spec"]["selector"]["matchLabels"]["app"], part);
    }
}

#[test]
fn services_lead_to_ports_of_pods() {
    let mut found = 0;
    for service in all().iter().filter(|one| one["kind"] == "Service") {
        let app = service["spec"]["selector"]["app"].as_str().unwrap();
        let container = container(app);
        for one in list(&service["spec"]["ports"]) {
            port(&container, &one["targetPort"]);
            found += 1;
        }
        let public = service["spec"].get("type").is_some_and(|kind| kind == "LoadBalancer");
        assert_eq!(public, service["metadata"]["name"] == "edge", "only the edge is public");
        if public {
            assert_eq!(service["spec"]["externalTrafficPolicy"], "Local");
        }
    }
    assert!(found >= 6);
}

#[test]
fn the_network_opens_ports_that_somebody_listens_on() {
    let policies: Vec<_> = file("network.yaml");
    for part in PARTS.iter().chain(&["nats"]) {
        let policy = policies.iter().find(|one| one["spec"]["podSelector"]["matchLabels"]["app"] == **part).unwrap();
        let container = container(part);
        let listens: BTreeSet<_> =
            list(&container["ports"]).iter().map(|one| one["containerPort"].as_u64().unwrap()).collect();
        let rules = list(&policy["spec"]["ingress"]);
        let open: BTreeSet<_> =
            rules.iter().flat_map(|rule| list(&rule["ports"])).map(|one| one["port"].as_u64().unwrap()).collect();
        assert_eq!(open, listens, "{part}");
        let anybody = rules.iter().filter(|rule| rule.get("from").is_none()).count();
        assert_eq!(anybody, usize::from(*part == "edge"), "{part} is open to everybody");
    }
    assert!(
        policies.iter().any(|one| one["spec"]["podSelector"].as_mapping().unwrap().is_empty()),
        "nothing is closed"
    );
}

#[test]
fn configmaps_hold_the_files_of_the_repository() {
    for (part, key, path) in [
        ("nats", "nats-server.conf", "deploy/nats.conf"),
        ("edge", "edge.toml", "deploy/container/edge.toml"),
        ("edge", "routes.toml", "deploy/container/routes.toml"),
        ("controller", "controller.toml", "deploy/container/controller.toml"),
        ("controller", "alerts.toml", "config/alerts.toml"),
        ("backend", "backend.toml", "deploy/container/backend.toml"),
    ] {
        assert_eq!(object(part, "ConfigMap")["data"][key].as_str(), Some(&*text(path)), "{path} has changed");
    }
}

#[test]
fn the_secret_has_every_key_and_no_value() {
    let template = yaml(SECRET).remove(0);
    let keys: BTreeSet<_> =
        template["stringData"].as_mapping().unwrap().keys().map(|key| key.as_str().unwrap()).collect();
    for (key, value) in template["stringData"].as_mapping().unwrap() {
        assert_eq!(value, "", "{key:?}");
    }
    for key in PARTS.iter().flat_map(|part| secrets(part)) {
        assert!(keys.contains(&*key), "{key}");
    }
    for variable in list(&container("nats")["env"]) {
        let from = &variable["valueFrom"]["secretKeyRef"];
        let key = from["key"].as_str().unwrap();
        assert!(keys.contains(key) && from["name"] == "tollgate");
        let name = format!("{}_PASSWORD", key.to_uppercase());
        assert_eq!(variable["name"], *name);
        assert!(text("deploy/nats.conf").contains(&format!("${name},")), "{name}");
    }
    assert!(!all().iter().any(|one| one["kind"] == "Secret"), "it would be applied with its empty values");
}
