//! Certificates by name: which one a client is shown, how it changes, and what a name asks of its sessions.

use std::path::Path;
use std::sync::Arc;

use http::Request;
use rustls::ClientConfig;
use tokio::net::TcpStream;

use crate::kit::tls::{connect, trusting};
use crate::kit::{Authority, Client, Gateway, Origin, Settings, empty, get, routes};

/// Certificates of the test, each of an authority of its own, so that trusting one tells which was shown.
struct Shelf {
    directory: tempfile::TempDir,
}

impl Shelf {
    fn new() -> Shelf {
        Shelf { directory: tempfile::tempdir().unwrap() }
    }

    /// Writes a certificate; the authority that it can be told by.
    fn write(&self, name: &str, names: &[&str]) -> Authority {
        let authority = Authority::new();
        let identity = authority.issue(names);
        self.put(&format!("{name}.key"), &identity.key_pem);
        self.put(&format!("{name}.pem"), &identity.chain_pem);
        authority
    }

    fn put(&self, name: &str, text: &str) {
        let draft = self.directory.path().join(format!("{name}.new"));
        std::fs::write(&draft, text).unwrap();
        std::fs::rename(draft, self.directory.path().join(name)).unwrap();
    }

    fn names(&self, settings: &mut Settings, name: &str) {
        let at = |end: &str| Path::new(self.directory.path()).join(format!("{name}.{end}")).display().to_string();
        settings.set(&format!("certificate.{name}.chain"), at("pem"));
        settings.set(&format!("certificate.{name}.key"), at("key"));
    }
}

/// Whether a client that trusts this authority alone gets through.
async fn shows(gateway: &Gateway, name: &str, trusted: &Arc<ClientConfig>) -> bool {
    let tcp = TcpStream::connect(gateway.address("https")).await.unwrap();
    // A session that is taken up again shows no certificate.
    let mut whole = ClientConfig::clone(trusted);
    whole.resumption = rustls::client::Resumption::disabled();
    connect(tcp, name, Arc::new(whole)).await.is_ok()
}

fn local_ca(gateway: &Gateway) -> Arc<ClientConfig> {
    trusting(&std::fs::read_to_string(gateway.directory().join("state/local-ca.pem")).unwrap())
}

#[tokio::test]
async fn a_name_shows_its_own_certificate() {
    let (origin, shelf) = (Origin::text("ok"), Shelf::new());
    let one = shelf.write("one", &["one.test"]).client(&[]);
    let wild = shelf.write("wild", &["*.wild.test"]).client(&[]);
    let document = routes::all_to(origin.address())
        + "[host.\"one.test\"]\ncertificate = \"one\"\n[host.\"*.wild.test\"]\ncertificate = \"wild\"\n\
           [host.\"own.wild.test\"]\ncertificate = \"internal\"\n";
    let gateway = Gateway::with(&document, |settings| {
        shelf.names(settings, "one");
        shelf.names(settings, "wild");
    })
    .await;
    let own = gateway.authority.client(&[]);
    assert!(shows(&gateway, "one.test", &one).await);
    assert!(shows(&gateway, "ONE.test", &one).await);
    assert!(shows(&gateway, "a.wild.test", &wild).await);
    assert!(shows(&gateway, "app.test", &own).await, "a name nobody speaks of gets the listener's");
    assert!(shows(&gateway, "own.wild.test", &local_ca(&gateway)).await, "exact beats wildcard");
    assert!(!shows(&gateway, "own.wild.test", &wild).await);
    assert!(!shows(&gateway, "one.test", &own).await);
    // A session for one name is not good for another.
    let mut client = Client::tls(gateway.address("https"), "one.test", one).await.unwrap();
    assert_eq!(client.get("https://one.test/").await.status, 200);
    client.get("https://a.wild.test/").await.is_rejected(421, "misdirected");
}

#[tokio::test]
async fn a_change_of_routes_changes_the_next_handshake() {
    let (origin, shelf) = (Origin::text("ok"), Shelf::new());
    let one = shelf.write("one", &["app.test"]).client(&[]);
    let plain = routes::all_to(origin.address());
    let gateway = Gateway::with(&plain, |settings| shelf.names(settings, "one")).await;
    let own = gateway.authority.client(&[]);
    assert!(shows(&gateway, "app.test", &own).await);
    let mut open = Client::tls(gateway.address("https"), "app.test", own.clone()).await.unwrap();
    gateway.change(&format!("{plain}[host.\"app.test\"]\ncertificate = \"one\"\n")).await;
    assert!(shows(&gateway, "app.test", &one).await);
    assert!(!shows(&gateway, "app.test", &own).await);
    assert_eq!(open.get("https://app.test/").await.status, 200, "what is open stays");
    gateway.change(&plain).await;
    assert!(shows(&gateway, "app.test", &own).await);
    // A name that nobody has a certificate for changes nothing.
    let before = gateway.revision().await;
    gateway.write_routes(&format!("{plain}[host.\"app.test\"]\ncertificate = \"on\"\n"));
    eventually!(gateway.config().await["problems"].to_string().contains("did you mean `one`?"));
    assert_eq!(gateway.revision().await, before);
}

#[tokio::test]
async fn operators_see_what_is_shown_and_until_when() {
    let (origin, shelf) = (Origin::text("ok"), Shelf::new());
    shelf.write("one", &["one.test"]);
    let document = routes::all_to(origin.address())
        + "[host.\"one.test\"]\ncertificate = \"one\"\n[host.\"two.test\"]\ncertificate = \"internal\"\n";
    let gateway = Gateway::with(&document, |settings| shelf.names(settings, "one")).await;
    let all = gateway.admin("/certs").await.json()["certificates"].clone();
    let find = |name: &str| all.as_array().unwrap().iter().find(|one| one["name"] == name).unwrap().clone();
    assert_eq!((&find("one")["source"], &find("one")["names"][0]), (&"file".into(), &"one.test".into()));
    assert!(find("one")["issuer"].as_str().unwrap().contains("authority of a test"));
    assert_eq!(find("local CA")["source"], "internal");
    assert_eq!(find("https")["names"].as_array().unwrap().len(), 4, "the listener's own");
    let ends = find("one")["not_after_unix"].as_f64().unwrap();
    let metric = "tollgate_certificate_expiry_timestamp_seconds{certificate=\"one\",source=\"file\"}";
    assert_eq!(gateway.metric(metric).await, ends);
    shelf.put("one.pem", "nonsense");
    eventually!(gateway.admin("/certs").await.text().contains("one.pem holds no certificate in PEM"));
}

#[tokio::test]
async fn files_are_taken_up_and_broken_ones_are_not() {
    let (origin, shelf) = (Origin::text("ok"), Shelf::new());
    let first = shelf.write("one", &["app.test"]).client(&[]);
    let document = routes::all_to(origin.address()) + "[host.\"app.test\"]\ncertificate = \"one\"\n";
    let gateway = Gateway::with(&document, |settings| shelf.names(settings, "one")).await;
    assert!(shows(&gateway, "app.test", &first).await);
    shelf.put("one.pem", "-----BEGIN CERTIFICATE-----\nnonsense");
    eventually!(gateway.log().contains("the certificate stays as it was"));
    assert!(shows(&gateway, "app.test", &first).await);
    let second = shelf.write("one", &["app.test"]).client(&[]);
    eventually!(shows(&gateway, "app.test", &second).await);
}

#[tokio::test]
async fn no_handshake_fails_while_certificates_change() {
    let (origin, shelf) = (Origin::text("ok"), Shelf::new());
    let authority = Authority::new();
    let put = |number: u32| {
        let identity = authority.issue(&["app.test"]);
        shelf.put("one.key", &identity.key_pem);
        shelf.put("one.pem", &identity.chain_pem);
        format!("{}[host.\"app.test\"]\ncertificate = \"one\"\n# {number}\n", routes::all_to(origin.address()))
    };
    let document = put(0);
    let gateway = Gateway::with(&document, |settings| shelf.names(settings, "one")).await;
    let trusted = authority.client(&[]);
    let changes = async {
        for number in 1..10 {
            let document = put(number);
            gateway.change(&document).await;
            gateway.signal(rustix::process::Signal::HUP);
        }
    };
    let handshakes = async {
        for _ in 0..125 {
            let eight = futures_util::future::join_all((0..8).map(|_| shows(&gateway, "app.test", &trusted))).await;
            assert!(eight.into_iter().all(|done| done));
        }
    };
    tokio::join!(changes, handshakes);
}

#[tokio::test]
async fn unknown_names_can_be_refused() {
    let origin = Origin::text("ok");
    let document = routes::all_to(origin.address()) + "[host.\"app.test\"]\n";
    let gateway = Gateway::with(&document, |settings| {
        settings.at("listen", "https", "unknown_names", "refuse");
    })
    .await;
    let own = gateway.authority.client(&[]);
    assert!(shows(&gateway, "app.test", &own).await);
    assert!(!shows(&gateway, "other.test", &own).await);
}

#[tokio::test]
async fn a_name_may_ask_for_tls_1_3() {
    let origin = Origin::text("ok");
    let document = routes::all_to(origin.address()) + "[host.\"strict.app.test\"]\nmin_version = \"1.3\"\n";
    let gateway = Gateway::start(&document).await;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let old = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS12])
        .unwrap()
        .with_root_certificates(gateway.authority.roots())
        .with_no_client_auth();
    let (old, new) = (Arc::new(old), gateway.authority.client(&[]));
    assert!(shows(&gateway, "strict.app.test", &new).await);
    assert!(!shows(&gateway, "strict.app.test", &old).await);
    assert!(shows(&gateway, "app.test", &old).await);
    // Nor by way of a session for another name.
    for (config, status) in [(old, 421), (new, 200)] {
        let mut client = Client::tls(gateway.address("https"), "app.test", config).await.unwrap();
        assert_eq!(client.get("https://strict.app.test/").await.status.as_u16(), status);
    }
}

#[tokio::test]
async fn a_name_may_send_browsers_to_https_for_good() {
    let origin = Origin::text("ok");
    let document = routes::all_to(origin.address())
        + "[host.\"app.test\"]\nhttp = \"redirect\"\nhsts = { include_subdomains = true }\n\
           [[route]]\nname = \"acme\"\nmatch = { host = \"app.test\", path = \"/plain\", listen = \"http\" }\n\
           respond = { body = \"in the clear\" }\n\
           [[test]]\nrequest = \"GET http://app.test/x?y=1\"\ngiven = { listen = \"http\" }\n\
           expect = { status = 308, location = \"https://app.test/x?y=1\" }\n";
    let gateway = Gateway::start(&document).await;
    const HSTS: &str = "max-age=31536000; includeSubDomains";
    let reply = get(gateway.http(), "http://app.test/a%7Eb?c=d").await;
    assert_eq!((reply.status.as_u16(), reply.header("location")), (308, "https://app.test/a~b?c=d"));
    assert!(!reply.headers.contains_key("strict-transport-security"), "not to be believed in the clear");
    assert_eq!(get(gateway.http(), "http://app.test/plain").await.text(), "in the clear");
    assert_eq!(get(gateway.http(), "http://other.test/").await.status, 200);
    let mut client = gateway.tls("app.test", &["h2"]).await;
    for path in ["/", "/plain"] {
        let reply = client.get(&format!("https://app.test{path}")).await;
        assert_eq!(reply.header("strict-transport-security"), HSTS, "{path}");
    }
    let refused = Request::builder().method("TRACE").uri("https://app.test/").body(empty()).unwrap();
    assert_eq!(client.fetch(refused).await.status, 405);
    let reply = gateway.tls("other.test", &["h2"]).await.get("https://other.test/").await;
    assert!(!reply.headers.contains_key("strict-transport-security"));
}

/// What `:80` does by default, on a port of the test.
#[tokio::test]
async fn requests_in_the_clear_are_sent_to_https_unless_somebody_says_otherwise() {
    let origin = Origin::text("ok");
    let document = routes::all_to(origin.address())
        + "[[route]]\nname = \"meant\"\nmatch = { path = \"/meant\", listen = \"http\" }\nupstream = \"origin\"\n\
           [[route]]\nname = \"named\"\nmatch = { host = \"only.test\", path = \"/known\" }\nupstream = \"origin\"\n\
           [host.\"plain.test\"]\nhttp = \"serve\"\n";
    let gateway = Gateway::with(&document, |settings| {
        settings.at("listen", "http", "https_port", 8443);
        settings.at("listen", "h2c", "https_port", 443);
    })
    .await;
    let location = async |address, url: &str| {
        let reply = get(address, url).await;
        (reply.status.as_u16(), reply.header("location").to_owned())
    };
    let (http, h2c) = (gateway.http(), gateway.address("h2c"));
    assert_eq!(location(http, "http://app.test/x?y=1").await, (308, "https://app.test:8443/x?y=1".to_owned()));
    assert_eq!(location(h2c, "http://app.test/").await, (308, "https://app.test/".to_owned()));
    assert_eq!(location(http, "http://app.test/meant").await.0, 200);
    assert_eq!(location(http, "http://plain.test/").await.0, 200);
    assert_eq!(location(http, "http://only.test/unknown").await.0, 404, "what is nowhere is not sent there");
}

/// The responder is OpenSSL's; what it says is shown, and what says anything else is not.
#[tokio::test]
async fn a_certificate_that_names_a_responder_is_shown_with_its_answer() {
    let (origin, shelf, port) = (Origin::text("ok"), Shelf::new(), crate::kit::Port::free());
    let at = |name: &str| shelf.directory.path().join(name);
    let run = |script: &str| {
        let out = std::process::Command::new("sh").args(["-ec", script]).current_dir(shelf.directory.path()).output();
        let out = out.unwrap();
        assert!(out.status.success(), "{script}: {}", String::from_utf8_lossy(&out.stderr));
    };
    run(&format!(
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout ca.key -out ca.pem -subj /CN=stapling -days 2
         openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout leaf.key -out leaf.csr -subj /CN=app.test
         printf 'subjectAltName=DNS:app.test\\nauthorityInfoAccess=OCSP;URI:http://{}/\\n' > ext
         openssl x509 -req -in leaf.csr -CA ca.pem -CAkey ca.key -set_serial 4660 -days 2 -extfile ext -out leaf.pem
         cat leaf.pem ca.pem > chain.pem
         printf 'V\\t491231235959Z\\t\\t1234\\tunknown\\t/CN=app.test\\n' > index.txt",
        port.address()
    ));
    let mut responder = std::process::Command::new("openssl")
        .args(["ocsp", "-index", "index.txt", "-rsigner", "ca.pem", "-rkey", "ca.key", "-CA", "ca.pem", "-nmin", "10"])
        .args(["-port", &port.address().port().to_string(), "-ignore_err"])
        .current_dir(shelf.directory.path())
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let document = routes::all_to(origin.address()) + "[host.\"app.test\"]\ncertificate = \"stapled\"\n";
    let gateway = Gateway::with(&document, |settings| {
        settings.set("certificate.stapled.chain", at("chain.pem").display().to_string());
        settings.set("certificate.stapled.key", at("leaf.key").display().to_string());
    })
    .await;
    let address = gateway.address("https");
    let status = || {
        let script =
            format!("openssl s_client -connect {address} -servername app.test -status -CAfile ca.pem < /dev/null");
        let out = std::process::Command::new("sh").args(["-c", &script]).current_dir(shelf.directory.path()).output();
        String::from_utf8_lossy(&out.unwrap().stdout).into_owned()
    };
    eventually!({
        let shown = status();
        shown.contains("Cert Status: good") && shown.contains("OCSP Response Status: successful")
    });
    let _ = responder.kill();
    let _ = responder.wait();
    assert!(status().contains("Cert Status: good"), "a responder that is away takes nothing back");
}
