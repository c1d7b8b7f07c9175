//! Every mistake in an upstream is named at its place, all at once.

use super::{compile, spec, spec_in};
use crate::problem::Severity;
use crate::upstream::targets::{Rank, Target};

/// Paths below `upstream.p` of what is wrong.
fn places(text: &str) -> Vec<String> {
    let (spec, problems) = compile(text, None);
    assert!(spec.is_none(), "{text}");
    let errors = problems.iter().filter(|problem| problem.is_error());
    errors.map(|problem| problem.path.to_string().trim_start_matches("upstream.p.").to_owned()).collect()
}

fn wrong(place: &str, text: &str) {
    let text = if text.contains("address") { text.to_owned() } else { format!("address = 'a:80'\n{text}") };
    assert_eq!(places(&text), [place], "{text}");
}

#[test]
fn each_mistake_has_its_place() {
    wrong("address", "address = 'a'");
    wrong("address", "address = 'http://a:80/'");
    wrong("address", "address = []");
    wrong("address", "address = [{ to = 'a:80', weight = 0 }]");
    wrong("address.1.to", "address = [{ to = 'a:80' }, { to = 'b' }]");
    wrong("address.1.to", "address = [{ to = 'a:80' }, { to = 'A:80' }]");
    wrong("address.0.weight", "address = [{ to = 'a:80', weight = 1001 }]");
    wrong("hash_by", "balance = 'hash'\nhash_by = 'client.port'");
    wrong("hash_by", "hash_by = 'client.ip'");
    wrong("sticky.cookie", "sticky = { cookie = 'a b' }");
    wrong("sticky.max_age", "sticky = { cookie = 'a', max_age = '0s' }");
    wrong("protocol", "protocol = 'auto'");
    wrong("tls", "tls = {}\naddress = '127.0.0.1:443'");
    wrong("tls.server_name", "tls = { server_name = 'a b' }");
    wrong("tls.ca", "tls = { ca = 'nonsense' }");
    wrong("tls.client_key", "tls = { client_key = 'x' }");
    wrong("tls.client_certificate", "tls = { client_certificate = 'x' }");
    wrong("connections.idle", "connections = { idle = '0s' }");
    wrong("connections.max_age", "connections = { max_age = '0s' }");
    wrong("connections.streams", "connections = { streams = 0 }");
    wrong("health.path", "health = { path = 'health' }");
    wrong("health.path", "health = { path = '/a b' }");
    wrong("health.host", "health = { kind = 'tcp', host = 'a' }");
    wrong("health.host", "health = { host = 'a b' }");
    wrong("health.service", "health = { service = 'x' }");
    wrong("health.expect", "health = { expect = 99 }");
    wrong("health.expect", "health = { kind = 'grpc', expect = 200 }");
    wrong("health.every", "health = { every = '0s' }");
    wrong("health.timeout", "health = { timeout = '0s' }");
    wrong("health.rise", "health = { rise = 0 }");
    wrong("health.fall", "health = { fall = 0 }");
    wrong("eject.errors", "eject = { errors = 0 }");
    wrong("eject.errors", "eject = { errors = 1001 }");
    wrong("eject.within", "eject = { within = '0s' }");
    wrong("eject.for", "eject = { for = '0s' }");
    wrong("breaker.in_flight", "breaker = { in_flight = 0 }");
    wrong("panic_percent", "panic_percent = 101");
    wrong("retry_budget.percent", "retry_budget = { percent = 101 }");
}

#[test]
fn all_mistakes_are_named_at_once() {
    let text = "address = ['x']\nprotocol = 'auto'\nbreaker = { in_flight = 0 }\nhealth = { every = '0s' }";
    let text = text.replace("['x']", "[{ to = 'x' }]");
    assert_eq!(places(&text), ["protocol", "address.0.to", "health.every", "breaker.in_flight"]);
}

#[test]
fn references_that_are_not_resolved_are_taken_to_be_right() {
    let text = "address = '${BACKEND}'\nbalance = 'hash'\nhash_by = '${FACT}'\nsticky = { cookie = '${COOKIE}' }
        tls = { server_name = '${NAME}', ca = '${file:/ca.pem}', client_certificate = '${file:/c}', client_key = '${file:/k}' }
        health = { path = '${PATH}', host = '${HOST}' }";
    assert_eq!(compile(text, None).1, []);
}

fn certificate() -> (String, String) {
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(["a".to_owned()]).unwrap().self_signed(&key).unwrap();
    (certificate.pem(), key.serialize_pem())
}

fn tls(fields: &str) -> String {
    format!("address = 'a:443'\n[tls]\n{fields}")
}

#[test]
fn reads_certificates_and_keys_and_finds_those_that_do_not_belong_together() {
    let ((one, key), (_, other)) = (certificate(), certificate());
    let pair =
        |key: &str| tls(&format!("ca = '''{one}'''\nclient_certificate = '''{one}'''\nclient_key = '''{key}'''"));
    let spec = spec(&pair(&key));
    let transport = &spec.targets[0].transport;
    let tls_of = transport.tls.as_ref().unwrap();
    assert_eq!((tls_of.server_name.as_str(), tls_of.verify), ("a", true));
    assert_eq!(tls_of.ca_der.as_ref().unwrap().len(), 1);
    assert!(tls_of.client.is_some());
    assert!(!format!("{tls_of:?}").contains("client"), "the key is not shown");
    assert_eq!(places(&pair(&other)), ["tls.client_key"]);
    let broken = other.replace("PRIVATE KEY", "PRIVATE KEX");
    let (_, problems) = compile(&pair(&broken), None);
    assert_eq!(problems.len(), 1);
    assert!(!problems[0].to_string().contains(&broken[30..60]), "the key is not shown");
}

#[test]
fn connections_differ_by_all_that_is_verified() {
    let ((one, _), (two, _)) = (certificate(), certificate());
    let texts = [
        "address = 'a:443'".to_owned(),
        "address = 'a:443'\nprotocol = 'h2'".to_owned(),
        tls(""),
        tls("server_name = 'b'"),
        tls("verify = false"),
        tls(&format!("ca = '''{one}'''")),
        tls(&format!("ca = '''{two}'''")),
    ];
    let identity = |text: &String| spec(text).targets[0].transport.identity;
    let mut identities: Vec<u64> = texts.iter().map(identity).collect();
    assert_eq!(identities, texts.iter().map(identity).collect::<Vec<_>>(), "the same words, the same identity");
    identities.sort_unstable();
    identities.dedup();
    assert_eq!(identities.len(), texts.len());
}

#[test]
fn accepting_any_certificate_is_a_warning() {
    let (spec, problems) = compile(&tls("verify = false"), None);
    assert!(spec.is_some());
    assert_eq!((problems.len(), problems[0].severity), (1, Severity::Warning));
    let (ca, _) = certificate();
    assert_eq!(places(&tls(&format!("verify = false\nca = '''{ca}'''"))), ["tls.ca"]);
}

#[test]
fn every_host_has_its_own_server_name_and_rank() {
    let text = "tls = {}\naddress = [{ to = 'a:443', region = 'x' }, { to = 'b:443' }, { to = 'a:444', region = 'y' }]";
    let spec = spec_in(text, Some("y"));
    let names: Vec<_> = spec.targets.iter().map(|t| t.transport.tls.as_ref().unwrap().server_name.clone()).collect();
    assert_eq!(names, ["a", "b", "a"]);
    let rank = |target: &Target| Rank::of(target.tier, target.region.as_deref(), spec.region.as_deref());
    assert_eq!(spec.targets.iter().map(|target| rank(target).foreign).collect::<Vec<_>>(), [true, true, false]);
    assert_eq!(spec.addresses().collect::<Vec<_>>(), ["a:443", "b:443", "a:444"]);
}
