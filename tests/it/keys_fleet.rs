//! Keys of issuers in a fleet: one node fetches them, all have them.

use jsonwebtoken::Algorithm;
use serde_json::json;

use crate::kit::nats::Nats;
use crate::kit::tokens::{KeyServer, Signer};
use crate::kit::{Gateway, routes};
use crate::tokens::ask_for;

const URL: &str = "http://app.test/";

fn document(server: &KeyServer) -> String {
    let route = format!("{}auth = {{ any = [{{ jwt = \"accounts\" }}] }}\n", routes::answering("in"));
    format!("{}{route}", server.block("refresh = \"1h\"\ncooldown = \"1s\""))
}

async fn member(nats: &Nats, node: &str, document: &str, seal: Option<&str>) -> Gateway {
    Gateway::with(document, |settings| {
        nats.bus(settings, node);
        if let Some(seal) = seal {
            settings.set("fleet.seal", seal);
        }
    })
    .await
}

#[tokio::test]
async fn one_node_fetches_and_all_have_the_keys() {
    let seal = Some("a seal of thirty-two characters or more");
    let (mut nats, first, second) =
        (Nats::made().await, Signer::new("1", Algorithm::ES256), Signer::new("2", Algorithm::ES256));
    let mut server = KeyServer::start(&[&first]);
    let document = document(&server);
    let passes = async |gateway: &Gateway, signer: &Signer| {
        ask_for(gateway, URL, &signer.token(json!({}))).await.status.as_u16() == 200
    };
    let mut nodes = Vec::new();
    for node in ["n1", "n2", "n3", "n4"] {
        nodes.push(member(&nats, node, &document, seal).await);
    }
    for node in &nodes {
        eventually!(passes(node, &first).await);
    }
    assert_eq!(server.fetches(), 1, "four nodes, one fetch");

    // A key that one node learns of all know at once: nobody else asks for it.
    server.publish(&[&first, &second]);
    eventually!(passes(&nodes[0], &second).await);
    let fetched = server.fetches();
    for node in &nodes {
        eventually!(passes(node, &second).await);
    }
    assert_eq!(server.fetches(), fetched);

    // The issuer is away: whoever begins now has the keys from the others.
    server.origin.kill().await;
    let late = member(&nats, "n5", &document, seal).await;
    assert!(passes(&late, &second).await);
    // Not who has another seal, and not who has none.
    for (node, seal) in [("n6", Some("another seal of thirty-two characters")), ("n7", None)] {
        let stranger = member(&nats, node, &document, seal).await;
        assert_eq!(ask_for(&stranger, URL, &second.token(json!({}))).await.status.as_u16(), 503, "{node}");
    }

    // Without the bus every node is alone, and asks for itself.
    server.origin.revive();
    nats.kill();
    let alone = member(&nats, "n8", &document, seal).await;
    eventually!(passes(&alone, &second).await);
    assert_eq!(server.fetches(), fetched + 1);
}

#[tokio::test]
async fn keys_that_somebody_else_wrote_are_not_believed() {
    let seal = "a seal of thirty-two characters or more";
    let (nats, signer, forger) =
        (Nats::made().await, Signer::new("1", Algorithm::ES256), Signer::new("1", Algorithm::ES256));
    let server = KeyServer::start(&[&signer]);
    let document = document(&server);
    let gateway = member(&nats, "n1", &document, Some(seal)).await;
    eventually!(ask_for(&gateway, URL, &signer.token(json!({}))).await.status.as_u16() == 200);
    let words = tollgate::settings::Bus {
        urls: tollgate::scalar::OneOrMany(vec![nats.url()]),
        ..tollgate::settings::Bus::default()
    };
    let bus = tollgate::bus::open(&words, "test", tollgate::bus::Role::Gateway).await.unwrap();
    let bucket = eventually!(bus.bucket("tollgate_sealed").await);
    let entries = eventually!({
        let entries = bus.entries("tollgate_sealed", "keys.*").await.unwrap();
        (!entries.is_empty()).then_some(entries)
    });
    let forged = json!({ "text": json!({ "keys": [forger.jwk] }).to_string(), "began_ms": u64::MAX, "fresh_s": 3600 })
        .to_string();
    bucket.put(&entries[0].key, forged.into()).await.unwrap();
    eventually!(gateway.log().contains("keys on the bus cannot be used"));
    assert_eq!(ask_for(&gateway, URL, &forger.token(json!({}))).await.status.as_u16(), 401);
    assert_eq!(ask_for(&gateway, URL, &signer.token(json!({}))).await.status.as_u16(), 200);

    // Nor what the fleet itself wrote, if it is older than what is here: somebody may have put it back.
    let sealing = tollgate::seal::Seal::new(&tollgate::scalar::Secret::new(seal)).unwrap();
    let old = json!({ "text": json!({ "keys": [forger.jwk] }).to_string(), "began_ms": 1, "fresh_s": 3600 });
    let old = sealing.seal(&entries[0].key, old.to_string().as_bytes()).unwrap();
    bucket.put(&entries[0].key, old).await.unwrap();
    // Whoever begins with it asks the issuer at once.
    let before = server.fetches();
    let late = member(&nats, "n2", &document, Some(seal)).await;
    eventually!(ask_for(&late, URL, &signer.token(json!({}))).await.status.as_u16() == 200);
    assert_eq!(server.fetches(), before + 1);
    for gateway in [&gateway, &late] {
        assert_eq!(ask_for(gateway, URL, &forger.token(json!({}))).await.status.as_u16(), 401);
    }
}
