//! `kind = "http"`: GET the path as the pool would, over its protocol and TLS, and look at the status.

use bytes::Bytes;
use http::{Request, header};
use http_body_util::Full;

use super::Check;
use crate::upstream::dial::dial;
use crate::upstream::wire::Wire;

pub(super) async fn check(check: &Check) -> Result<(), String> {
    let (stream, protocol) = dial(check.address, &check.transport).await.map_err(|error| error.to_string())?;
    let mut wire = Wire::open(stream, protocol).await.map_err(|error| error.to_string())?;
    let request = request(check, wire.is_h2()).map_err(|error| error.to_string())?;
    let response = wire.send(request).await.map_err(|error| error.into_error().to_string())?;
    let status = response.status().as_u16();
    let expected = &check.words.expect;
    let good = if expected.is_empty() { (200..300).contains(&status) } else { expected.0.contains(&status) };
    if good { Ok(()) } else { Err(format!("status {status}")) }
}

fn request(check: &Check, h2: bool) -> http::Result<Request<Full<Bytes>>> {
    let builder = Request::get(if h2 { absolute(check, &check.words.path) } else { check.words.path.clone() })
        .header(header::USER_AGENT, super::USER_AGENT);
    let builder =
        if h2 { builder } else { builder.header(header::HOST, check.authority()).header(header::CONNECTION, "close") };
    builder.body(Full::default())
}

/// The target as HTTP/2 takes it apart.
pub(super) fn absolute(check: &Check, path: &str) -> String {
    let scheme = if check.transport.tls.is_some() { "https" } else { "http" };
    format!("{scheme}://{}{path}", check.authority())
}
