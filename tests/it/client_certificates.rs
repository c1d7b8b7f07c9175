//! Certificates of clients: who must show one, what routes and upstreams learn of it, and what a session is not good for.

use std::sync::Arc;

use rcgen::{DnType, SanType};
use rustls::ClientConfig;

use crate::kit::tls::Identity;
use crate::kit::{Authority, Client, Gateway, Origin, Reply, Settings, routes};

/// An authority for clients, in files that the gateway reads.
struct Clients {
    directory: tempfile::TempDir,
    authority: Authority,
}

impl Clients {
    fn new() -> Clients {
        let clients = Clients { directory: tempfile::tempdir().unwrap(), authority: Authority::new() };
        clients.put("roots.pem", &clients.authority.pem);
        clients
    }

    fn put(&self, name: &str, text: &str) {
        let draft = self.directory.path().join(format!("{name}.new"));
        std::fs::write(&draft, text).unwrap();
        std::fs::rename(draft, self.directory.path().join(name)).unwrap();
    }

    fn settings(&self, settings: &mut Settings) {
        let at = |name: &str| self.directory.path().join(name).display().to_string();
        settings.set("client_ca.partners.roots", at("roots.pem"));
        if self.directory.path().join("revoked.pem").exists() {
            settings.set("client_ca.partners.revoked", at("revoked.pem"));
        }
    }

    fn issue(&self, common_name: &str) -> Identity {
        self.authority.issue_with(&["client.test"], |params| {
            params.distinguished_name.push(DnType::CommonName, common_name);
            params.subject_alt_names.push(SanType::URI("spiffe://example/builder".try_into().unwrap()));
        })
    }
}

fn document(origin: &Origin, mode: &str) -> String {
    let host = format!("[host.\"app.test\"]\nclient_certificate = {{ ca = \"partners\", mode = \"{mode}\" }}\n");
    routes::all_to(origin.address()) + &host
}

async fn ask(gateway: &Gateway, name: &str, config: Arc<ClientConfig>, url: &str) -> Option<Reply> {
    let mut client = Client::tls(gateway.address("https"), name, config).await.ok()?;
    // With TLS 1.3 a client learns of the refusal when it reads.
    client.try_fetch(http::Request::get(url).body(crate::kit::empty()).unwrap()).await.ok()
}

#[tokio::test]
async fn who_must_show_a_certificate_is_not_let_in_without_a_good_one() {
    let (origin, clients, strangers) = (Origin::text("ok"), Clients::new(), Authority::new());
    let gateway = Gateway::with(&document(&origin, "require"), |settings| clients.settings(settings)).await;
    let plain = gateway.authority.client(&[]);
    let url = "https://app.test/";
    let good = clients.issue("builder").shown_by(&plain);
    assert_eq!(ask(&gateway, "app.test", good.clone(), url).await.unwrap().status, 200);
    assert_eq!(ask(&gateway, "app.test", good, url).await.unwrap().status, 200, "a session that is taken up again");
    assert!(ask(&gateway, "app.test", plain.clone(), url).await.is_none());
    let stranger = strangers.issue(&["client.test"]).shown_by(&plain);
    assert!(ask(&gateway, "app.test", stranger.clone(), url).await.is_none());
    // Other names ask for none, and their sessions are not good for this one, nor sessions that name nobody.
    let mut other = Client::tls(gateway.address("https"), "other.test", plain).await.unwrap();
    assert_eq!(other.get("https://other.test/").await.status, 200);
    other.get(url).await.is_rejected(421, "misdirected");
    assert_eq!(ask(&gateway, "localhost", stranger, "https://localhost/").await.unwrap().status, 200);
    // Nor are requests in the clear.
    let reply = gateway.get("http://app.test/x?y=1").await;
    assert_eq!((reply.status.as_u16(), reply.header("location")), (308, "https://app.test/x?y=1"));
}

#[tokio::test]
async fn routes_and_upstreams_learn_what_the_certificate_says() {
    let (origin, clients) = (Origin::text("ok"), Clients::new());
    let headers = r#"request_headers.set = { x-client = "{tls.client.subject}", x-names = "{tls.client.san}", x-print = "{tls.client.fingerprint}", client-cert = "{tls.client.certificate}" }
"#;
    let document = routes::with(origin.address(), "", headers)
        + "[host.\"app.test\"]\nclient_certificate = { ca = \"partners\", mode = \"request\" }\n"
        + r#"
[[route]]
name = "builders"
match = { client_certificate = { subject = "CN=builder" } }
respond = { body = "builders" }
[[route]]
name = "workload"
match = { path = "/workload", client_certificate = { san = "uri:spiffe://example/builder" } }
respond = { body = "workload of {tls.client.subject}" }
[[route]]
name = "any"
match = { path = "/any", client_certificate = {} }
respond = { body = "any" }
"#;
    let gateway = Gateway::with(&document, |settings| clients.settings(settings)).await;
    let plain = gateway.authority.client(&[]);
    let text = async |config: Arc<ClientConfig>, path: &str| {
        ask(&gateway, "app.test", config, &format!("https://app.test{path}")).await.unwrap().text().to_owned()
    };
    let (builder, other) = (clients.issue("builder"), clients.issue("other, O=Admins"));
    assert_eq!(text(builder.shown_by(&plain), "/x").await, "builders");
    assert_eq!(text(other.shown_by(&plain), "/workload").await, "workload of CN=other\\, O\\=Admins");
    assert_eq!(text(other.shown_by(&plain), "/any").await, "any");
    for path in ["/any", "/workload", "/x"] {
        assert_eq!(text(plain.clone(), path).await, "ok", "{path}: without a certificate only the general route fits");
    }
    assert_eq!(origin.seen().last().unwrap().header("x-client"), "");
    // What the client says of itself under these names goes nowhere.
    let mut client = Client::tls(gateway.address("https"), "app.test", other.shown_by(&plain)).await.unwrap();
    let forged = http::Request::get("https://app.test/x").header("x-client", "CN=admin").header("client_cert", ":x:");
    assert_eq!(client.fetch(forged.body(crate::kit::empty()).unwrap()).await.status, 200);
    let seen = origin.seen().last().unwrap().clone();
    assert_eq!(seen.header("x-client"), "CN=other\\, O\\=Admins");
    assert_eq!(seen.header("x-names"), "dns:client.test,uri:spiffe://example/builder");
    assert_eq!(seen.header("x-print").len(), 64);
    assert!(seen.header("client-cert").starts_with(":MII"), "{seen:?}");
    assert_eq!(seen.header("client_cert"), "");
}

#[tokio::test]
async fn whoever_is_revoked_is_out_with_the_next_handshake() {
    let (origin, clients) = (Origin::text("ok"), Clients::new());
    let (kept, gone) = (clients.issue("kept"), clients.issue("gone"));
    clients.put("revoked.pem", &clients.authority.revoke(&[]));
    let gateway = Gateway::with(&document(&origin, "require"), |settings| clients.settings(settings)).await;
    let plain = gateway.authority.client(&[]);
    let (kept, gone) = (kept.shown_by(&plain), (gone.shown_by(&plain), gone));
    let url = "https://app.test/";
    assert_eq!(ask(&gateway, "app.test", gone.0.clone(), url).await.unwrap().status, 200);
    clients.put("revoked.pem", &clients.authority.revoke(&[&gone.1]));
    // Its session cannot be taken up either: tickets end with the authorities they were given under.
    eventually!(ask(&gateway, "app.test", gone.0.clone(), url).await.is_none());
    assert_eq!(ask(&gateway, "app.test", kept.clone(), url).await.unwrap().status, 200);
    clients.put("revoked.pem", "nonsense");
    eventually!(gateway.admin("/certs").await.text().contains("holds no revocation list"));
    assert_eq!(ask(&gateway, "app.test", kept, url).await.unwrap().status, 200, "what was read before holds");
    assert!(ask(&gateway, "app.test", gone.0, url).await.is_none());
}

/// A change of the document makes sessions unfit that were begun under another policy.
#[tokio::test]
async fn open_sessions_are_held_to_the_policy_in_force() {
    let (origin, clients) = (Origin::text("ok"), Clients::new());
    let plain_document = routes::all_to(origin.address());
    let gateway = Gateway::with(&plain_document, |settings| clients.settings(settings)).await;
    let mut open = gateway.tls("app.test", &["h2"]).await;
    assert_eq!(open.get("https://app.test/").await.status, 200);
    gateway.change(&document(&origin, "require")).await;
    open.get("https://app.test/").await.is_rejected(421, "misdirected");
    gateway.change(&plain_document).await;
    assert_eq!(open.get("https://app.test/").await.status, 200);
}

#[tokio::test]
async fn a_name_may_offer_fewer_versions_of_http() {
    let origin = Origin::text("ok");
    let document = routes::all_to(origin.address()) + "[host.\"old.app.test\"]\nversions = [\"h1\"]\n";
    let gateway = Gateway::start(&document).await;
    let both = gateway.authority.client(&["h2", "http/1.1"]);
    let reply = ask(&gateway, "old.app.test", both.clone(), "https://old.app.test/").await.unwrap();
    assert_eq!(reply.version, http::Version::HTTP_11);
    let mut client = Client::tls(gateway.address("https"), "new.app.test", both).await.unwrap();
    assert_eq!(client.get("https://new.app.test/").await.version, http::Version::HTTP_2);
    client.get("https://old.app.test/").await.is_rejected(421, "misdirected");
    let h2 = gateway.authority.client(&["h2"]);
    assert!(Client::tls(gateway.address("https"), "old.app.test", h2).await.is_err());
}

/// A wildcard says what holds for the names below it, also for those that a route names and a CA would give a certificate.
#[tokio::test]
async fn what_a_wildcard_asks_holds_for_the_names_of_routes() {
    let (origin, clients) = (Origin::text("ok"), Clients::new());
    let document =
        routes::with(origin.address(), "", "match = { host = [\"app.test\", \"a.app.test\", \"b.app.test\"] }")
            + "[host.\"*.app.test\"]\ncertificate = \"internal\"\nclient_certificate = { ca = \"partners\" }\n";
    let automatic = document.replace("certificate = \"internal\"\n", "");
    let nobody = crate::kit::Port::free();
    let gateway = Gateway::with(&document, |settings| {
        clients.settings(settings);
        settings.set("ca.nobody.directory", format!("https://{}/dir", nobody.address()));
        settings.at("listen", "https", "certificate", "acme");
    })
    .await;
    let local = std::fs::read_to_string(gateway.directory().join("state/local-ca.pem")).unwrap();
    let plain = crate::kit::tls::trusting(&local);
    for document in [&document, &automatic] {
        gateway.write_routes(document);
        gateway.signal(rustix::process::Signal::HUP);
        let same = document.contains("internal");
        eventually!(
            (gateway.config().await["revision"]
                == tollgate::routes::revision(&format!("format = 1\n{document}")).as_ref())
                || same
        );
        let url = "https://a.app.test/";
        assert!(ask(&gateway, "a.app.test", plain.clone(), url).await.is_none());
        let builder = clients.issue("builder").shown_by(&plain);
        assert_eq!(ask(&gateway, "a.app.test", builder, url).await.unwrap().status, 200);
    }
}

/// A load balancer that ended TLS has no certificate of the client's to show.
#[tokio::test]
async fn the_word_of_a_trusted_proxy_is_no_certificate() {
    let (origin, clients) = (Origin::text("ok"), Clients::new());
    let gateway = Gateway::with(&document(&origin, "require"), |settings| {
        clients.settings(settings);
        settings.set("trust.forwarded_from", "127.0.0.0/8");
    })
    .await;
    let request = http::Request::get("http://app.test/").header("x-forwarded-proto", "https");
    let reply = gateway.h1().await.fetch(request.body(crate::kit::empty()).unwrap()).await;
    reply.is_rejected(421, "misdirected");
    assert_eq!(origin.count(), 0);
}

/// rustls takes the certificate of a session that is taken up again out of its ticket, however old.
#[tokio::test]
async fn a_certificate_that_has_run_out_does_not_live_on_in_tickets() {
    let (origin, clients) = (Origin::text("ok"), Clients::new());
    let gateway = Gateway::with(&document(&origin, "require"), |settings| clients.settings(settings)).await;
    let plain = gateway.authority.client(&[]);
    let ends = std::time::SystemTime::now() + std::time::Duration::from_secs(4);
    let short = clients.authority.issue_with(&["client.test"], |params| params.not_after = ends.into());
    let short = short.shown_by(&plain);
    let url = "https://app.test/";
    assert_eq!(ask(&gateway, "app.test", short.clone(), url).await.unwrap().status, 200);
    // The test's client goes on offering its ticket.
    eventually!(ask(&gateway, "app.test", short.clone(), url).await.is_none());
    assert!(std::time::SystemTime::now() >= ends);
}

#[tokio::test]
async fn a_certificate_proves_who_asks() {
    let (origin, clients) = (Origin::text("ok"), Clients::new());
    let auth = "auth = { any = [{ client_certificate = true }, { anonymous = true }], pass = { x-who = \"{subject.name}\" } }\n";
    let document = routes::with(origin.address(), "", auth)
        + "[host.\"app.test\"]\nclient_certificate = { ca = \"partners\", mode = \"request\" }\n"
        + "[[route]]\nname = \"builders\"\nmatch = { path = \"/builders\" }\nrespond = { body = \"in\" }\n\
           auth = { any = [{ client_certificate = true }], require = { fact = \"tls.client.san\", contains = \"uri:spiffe://example/builder\" } }\n\
           [[route]]\nname = \"admins\"\nmatch = { path = \"/admins\" }\nrespond = { body = \"in\" }\n\
           auth = { any = [{ client_certificate = true }], require = { fact = \"subject.name\", equals = \"CN=admin\" } }\n";
    let gateway = Gateway::with(&document, |settings| clients.settings(settings)).await;
    let plain = gateway.authority.client(&[]);
    let builder = clients.issue("builder").shown_by(&plain);
    let fetch = async |config: &Arc<ClientConfig>, path: &str| {
        ask(&gateway, "app.test", config.clone(), &format!("https://app.test{path}")).await.unwrap()
    };
    assert_eq!(fetch(&builder, "/").await.text(), "ok");
    assert_eq!(origin.last().header("x-who"), "CN=builder");
    gateway.access_line(|line| line["subject"] == "CN=builder").await;
    assert_eq!(fetch(&plain, "/").await.text(), "ok");
    assert_eq!(origin.last().header("x-who"), "");
    assert_eq!(fetch(&builder, "/builders").await.text(), "in");
    fetch(&plain, "/builders").await.is_rejected(401, "auth_required");
    fetch(&builder, "/admins").await.is_rejected(403, "auth_forbidden");
}
