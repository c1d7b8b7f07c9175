//! What the gateway speaks to origins: HTTP/1 or HTTP/2, cleartext or TLS, and whom it believes.

use http::{Response, Version};

use crate::kit::origin::Wire;
use crate::kit::tls::Identity;
use crate::kit::{Authority, Gateway, Origin, Port, full, get, routes};

fn over(wire: Wire) -> Origin {
    Origin::replying_at(Port::free(), wire, |_| Response::new(full("hello")))
}

fn tls_origin(identity: &Identity, alpn: &[&str]) -> Origin {
    over(Wire::Tls(identity.server(alpn)))
}

/// An inline TLS table, PEM texts in it.
fn tls(lines: &[(&str, &str)]) -> String {
    let fields: Vec<_> = lines.iter().map(|(name, value)| format!("{name} = {value:?}")).collect();
    format!("tls = {{ {} }}", fields.join(", "))
}

#[tokio::test]
async fn speaks_http2_by_prior_knowledge() {
    let origin = over(Wire::H2);
    let gateway = Gateway::start(&routes::with(origin.address(), "protocol = \"h2\"", "")).await;
    assert_eq!(gateway.get("http://app.test/").await.text(), "hello");
    assert_eq!(origin.last().version, Version::HTTP_2);
    assert_eq!(origin.last().uri.authority().unwrap(), "app.test");
    // Streams share a connection. Pingora gives it back a moment after the client has its answer, so that a request which
    // is quicker than that opens another one.
    let mut used = std::collections::HashSet::from([origin.last().connection]);
    eventually!({
        assert_eq!(gateway.get("http://app.test/").await.text(), "hello");
        !used.insert(origin.last().connection)
    });
}

#[tokio::test]
async fn verifies_the_origin() {
    let authority = Authority::new();
    let origin = tls_origin(&authority.issue(&["origin.test"]), &[]);
    let block = tls(&[("server_name", "origin.test"), ("ca", &authority.pem)]);
    let gateway = Gateway::start(&routes::with(origin.address(), &block, "")).await;
    let reply = gateway.get("http://app.test/").await;
    assert_eq!((reply.status.as_u16(), reply.text()), (200, "hello"));
    assert_eq!(origin.last().header("host"), "app.test");
}

#[tokio::test]
async fn refuses_an_origin_of_another_authority() {
    let (authority, another) = (Authority::new(), Authority::new());
    let origin = tls_origin(&another.issue(&["origin.test"]), &[]);
    let block = tls(&[("server_name", "origin.test"), ("ca", &authority.pem)]);
    let gateway = Gateway::start(&routes::with(origin.address(), &block, "")).await;
    gateway.get("http://app.test/").await.is_rejected(502, "upstream_tls");
    assert_eq!(origin.count(), 0);
}

#[tokio::test]
async fn refuses_an_origin_of_another_name() {
    let authority = Authority::new();
    let origin = tls_origin(&authority.issue(&["somebody.test"]), &[]);
    let block = tls(&[("server_name", "origin.test"), ("ca", &authority.pem)]);
    let gateway = Gateway::start(&routes::with(origin.address(), &block, "")).await;
    gateway.get("http://app.test/").await.is_rejected(502, "upstream_tls");
    assert_eq!(origin.count(), 0);
}

#[tokio::test]
async fn accepts_anybody_only_when_told_so() {
    let origin = tls_origin(&Authority::new().issue(&["somebody.test"]), &[]);
    let block = "tls = { server_name = \"origin.test\", verify = false }";
    let gateway = Gateway::start(&routes::with(origin.address(), block, "")).await;
    assert_eq!(gateway.get("http://app.test/").await.text(), "hello");
}

#[tokio::test]
async fn refuses_an_origin_without_tls() {
    let origin = over(Wire::H1);
    let block = "tls = { server_name = \"origin.test\", verify = false }";
    let gateway = Gateway::start(&routes::with(origin.address(), block, "")).await;
    gateway.get("http://app.test/").await.is_rejected(502, "upstream_tls");
}

#[tokio::test]
async fn shows_its_certificate_to_an_origin_that_wants_one() {
    let authority = Authority::new();
    let (own, client) = (authority.issue(&["origin.test"]), authority.issue(&["gateway.test"]));
    let origin = over(Wire::Tls(own.server_for_clients_of(Some(&authority), &[])));
    let (name, ca) = (("server_name", "origin.test"), ("ca", authority.pem.as_str()));
    let with =
        tls(&[name, ca, ("client_certificate", client.chain_pem.as_str()), ("client_key", client.key_pem.as_str())]);
    let gateway = Gateway::start(&routes::with(origin.address(), &with, "")).await;
    assert_eq!(gateway.get("http://app.test/").await.text(), "hello");

    let gateway = Gateway::start(&routes::with(origin.address(), &tls(&[name, ca]), "")).await;
    let refused = gateway.get("http://app.test/").await;
    // In TLS 1.3 the refusal comes behind the handshake.
    assert!(["upstream_tls", "upstream_reset"].contains(&refused.code().as_str()), "{refused:?}");
    assert_eq!(origin.count(), 1);
}

#[tokio::test]
async fn takes_the_version_the_origin_offers() {
    let authority = Authority::new();
    let identity = authority.issue(&["origin.test"]);
    let block = format!("protocol = \"auto\"\n{}", tls(&[("server_name", "origin.test"), ("ca", &authority.pem)]));
    for (offered, version) in
        [(&["h2", "http/1.1"][..], Version::HTTP_2), (&["http/1.1"], Version::HTTP_11), (&[], Version::HTTP_11)]
    {
        let origin = tls_origin(&identity, offered);
        let gateway = Gateway::start(&routes::with(origin.address(), &block, "")).await;
        assert_eq!(gateway.get("http://app.test/").await.text(), "hello");
        assert_eq!(origin.last().version, version, "{offered:?}");
    }
}

#[tokio::test]
async fn insists_on_http2_where_the_words_do() {
    let authority = Authority::new();
    let block = format!("protocol = \"h2\"\n{}", tls(&[("server_name", "origin.test"), ("ca", &authority.pem)]));
    let identity = authority.issue(&["origin.test"]);
    let both = tls_origin(&identity, &["h2", "http/1.1"]);
    let gateway = Gateway::start(&routes::with(both.address(), &block, "")).await;
    assert_eq!(gateway.get("http://app.test/").await.text(), "hello");
    assert_eq!(both.last().version, Version::HTTP_2);

    let old = tls_origin(&identity, &["http/1.1"]);
    let gateway = Gateway::start(&routes::with(old.address(), &block, "")).await;
    assert_eq!(gateway.get("http://app.test/").await.status, 502);
    assert_eq!(old.count(), 0);
}

#[tokio::test]
async fn a_connection_of_a_lax_route_is_not_used_for_a_strict_one() {
    let (authority, another) = (Authority::new(), Authority::new());
    let origin = tls_origin(&another.issue(&["origin.test"]), &[]);
    let to = origin.address();
    let strict = tls(&[("server_name", "origin.test"), ("ca", &authority.pem)]);
    let gateway = Gateway::start(&format!(
        r#"
        [upstream.lax]
        address = "{to}"
        tls = {{ server_name = "origin.test", verify = false }}
        [upstream.strict]
        address = "{to}"
        {strict}
        [[route]]
        name = "lax"
        match = {{ path = "/lax" }}
        upstream = "lax"
        [[route]]
        name = "strict"
        match = {{ path = "/strict" }}
        upstream = "strict"
        "#
    ))
    .await;
    for _ in 0..5 {
        assert_eq!(gateway.get("http://app.test/lax").await.status, 200);
        gateway.get("http://app.test/strict").await.is_rejected(502, "upstream_tls");
    }
    assert!(origin.seen().iter().all(|seen| seen.target() == "/lax"));
}

#[tokio::test]
async fn stricter_words_of_the_same_upstream_leave_its_old_connections() {
    let (authority, another) = (Authority::new(), Authority::new());
    let origin = tls_origin(&another.issue(&["origin.test"]), &[]);
    let lax = "tls = { server_name = \"origin.test\", verify = false }";
    let gateway = Gateway::start(&routes::with(origin.address(), lax, "")).await;
    assert_eq!(gateway.get("http://app.test/").await.status, 200);
    let strict = tls(&[("server_name", "origin.test"), ("ca", &authority.pem)]);
    gateway.change(&routes::with(origin.address(), &strict, "")).await;
    gateway.get("http://app.test/").await.is_rejected(502, "upstream_tls");
    assert_eq!(get(gateway.http(), "http://app.test/").await.status, 502);
    assert_eq!(origin.count(), 1);
}

/// Certificate and key are files that are replaced: connections made from then on show the new one, without a signal.
#[tokio::test]
async fn a_client_certificate_is_rotated_with_its_files() {
    let (authority, clients) = (Authority::new(), Authority::new());
    let shown = std::sync::Arc::new(std::sync::Mutex::new(String::new()));
    let server = authority.issue(&["origin.test"]).server_for_clients_of(Some(&clients), &[]);
    let port = Port::free();
    let listener = port.listen();
    let acceptor = tokio_rustls::TlsAcceptor::from(server);
    let seen = shown.clone();
    tokio::spawn(async move {
        // Every request on a connection of its own, which tells who made it.
        while let Ok((tcp, _)) = listener.accept().await {
            let Ok(mut stream) = acceptor.accept(tcp).await else { continue };
            let leaf = stream.get_ref().1.peer_certificates().unwrap()[0].clone();
            *seen.lock().unwrap() = tollgate::tls::read_client(&leaf).unwrap().san.join(",");
            let mut head = [0; 4096];
            let _ = tokio::io::AsyncReadExt::read(&mut stream, &mut head).await;
            let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok";
            let _ = tokio::io::AsyncWriteExt::write_all(&mut stream, answer).await;
            let _ = tokio::io::AsyncWriteExt::shutdown(&mut stream).await;
        }
    });
    let files = tempfile::tempdir().unwrap();
    let put = |identity: &Identity| {
        for (name, text) in [("client.pem", &identity.chain_pem), ("client.key", &identity.key_pem)] {
            let draft = files.path().join(format!("{name}.new"));
            std::fs::write(&draft, text).unwrap();
            std::fs::rename(draft, files.path().join(name)).unwrap();
        }
    };
    put(&clients.issue(&["first.test"]));
    let reference = |name: &str| format!("${{file:{}}}", files.path().join(name).display());
    let block = tls(&[
        ("server_name", "origin.test"),
        ("ca", &authority.pem),
        ("client_certificate", &reference("client.pem")),
        ("client_key", &reference("client.key")),
    ]);
    let gateway = Gateway::start(&routes::with(port.address(), &block, "")).await;
    assert_eq!(gateway.get("http://app.test/").await.text(), "ok");
    assert_eq!(*shown.lock().unwrap(), "dns:first.test");
    put(&clients.issue(&["second.test"]));
    eventually!({
        assert_eq!(gateway.get("http://app.test/").await.status, 200);
        *shown.lock().unwrap() == "dns:second.test"
    });
}
