//! Who gets to the controller by a client certificate: whoever shows one of the authority, and nobody by any other.

use std::sync::Arc;

use http::{Request, header};
use rustls::ClientConfig;

use crate::kit::controller::{Controller, TOKEN};
use crate::kit::nats::Nats;
use crate::kit::{Authority, Client, empty};

/// What comes of a question: its status, or nothing if the connection is refused. TLS 1.3 tells that only when one reads.
async fn asks(controller: &Controller, config: &Arc<ClientConfig>, path: &str, token: Option<&str>) -> Option<u16> {
    let mut client = Client::tls(controller.address(), "localhost", config.clone()).await.ok()?;
    let request = Request::get(format!("https://localhost{path}"));
    let request = match token {
        Some(token) => request.header(header::AUTHORIZATION, format!("Bearer {token}")),
        None => request,
    };
    client.try_fetch(request.body(empty()).unwrap()).await.ok().map(|reply| reply.status.as_u16())
}

#[tokio::test]
async fn a_client_certificate_of_the_authority_lets_one_in_and_no_other() {
    let nats = Nats::start().await;
    let (servers, operators, strangers) = (Authority::new(), Authority::new(), Authority::new());
    let own = servers.issue(&["localhost"]);
    let nobody = servers.client(&[]);
    let operator = operators.issue(&["operator"]).shown_by(&nobody);
    let stranger = strangers.issue(&["operator"]).shown_by(&nobody);
    let token = format!("token = {TOKEN:?}");
    let (only, either) = tokio::join!(
        Controller::for_clients_of(&nats, "", &operators, &own),
        Controller::for_clients_of(&nats, &token, &operators, &own)
    );
    for controller in [&only, &either] {
        for path in ["/api/nodes", "/", "/metrics"] {
            assert_eq!(asks(controller, &operator, path, None).await, Some(200), "{path}");
        }
        assert_eq!(asks(controller, &stranger, "/api/nodes", None).await, None, "no certificate of ours");
        assert_eq!(asks(controller, &stranger, "/api/nodes", Some(TOKEN)).await, None, "whatever it knows");
    }
    assert_eq!(asks(&only, &nobody, "/health", None).await, None, "without a token nobody else connects");
    assert_eq!(asks(&only, &nobody, "/api/nodes", Some(TOKEN)).await, None);
    assert_eq!(asks(&either, &nobody, "/api/nodes", None).await, Some(401));
    assert_eq!(asks(&either, &nobody, "/api/nodes", Some("a token that is wrong")).await, Some(401));
    assert_eq!(asks(&either, &nobody, "/api/nodes", Some(TOKEN)).await, Some(200));
    // What came in the clear is not answered.
    assert!(
        Client::h1(only.address())
            .await
            .try_fetch(Request::get("http://localhost/").body(empty()).unwrap())
            .await
            .is_err()
    );
}
