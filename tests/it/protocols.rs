//! Protocols.
use crate::kit::{Gateway, Origin};

#[tokio::test]
async fn carries_http1() {
    let origin = Origin::text("hello");
    let gateway = Gateway::start(&format!(
        "[upstream.o]\naddress = \"{}\"\n[[route]]\nname = \"all\"\nupstream = \"o\"\n",
        origin.address()
    ))
    .await;
    let reply = gateway.get("http://app.test/").await;
    assert_eq!((reply.status.as_u16(), reply.text()), (200, "hello"));
}
