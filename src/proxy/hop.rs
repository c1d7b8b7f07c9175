//! Hop-by-hop fields of answers (RFC 9110 7.6.1). Pingora removes those of requests and passes those of answers on.

use http::header::{CONNECTION, CONTENT_LENGTH, PROXY_AUTHENTICATE, TE, TRAILER, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderName, Version};
use pingora_http::ResponseHeader;

const HOP_BY_HOP: [HeaderName; 7] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    PROXY_AUTHENTICATE,
    TE,
    TRAILER,
    UPGRADE,
];

/// Options of `Connection` that name no field, or one that goes anyway.
const PLAIN: [&str; 3] = ["keep-alive", "close", ""];

/// Removes what concerned the connection to the upstream only. `Transfer-Encoding` stays: it frames the body that follows.
pub(super) fn strip_response(head: &mut ResponseHeader) {
    let mut unwanted: Vec<HeaderName> = Vec::new();
    for (name, value) in &head.headers {
        if HOP_BY_HOP.contains(name) {
            unwanted.push(name.clone());
        }
        if *name == CONNECTION {
            let options = value.to_str().unwrap_or_default().split(',').map(str::trim);
            let nominated = options.filter(|option| !PLAIN.iter().any(|plain| plain.eq_ignore_ascii_case(option)));
            unwanted.extend(nominated.filter_map(|name| name.to_ascii_lowercase().parse().ok()));
        }
    }
    for name in unwanted.iter().filter(|name| !matches!(**name, TRANSFER_ENCODING | CONTENT_LENGTH)) {
        head.remove_header(name);
    }
}

/// HTTP/1.0 knows no chunks (RFC 9112 6.1): such an answer ends with the connection.
pub(super) fn frame_for(version: Version, head: &mut ResponseHeader) {
    if version == Version::HTTP_10 {
        head.remove_header(&TRANSFER_ENCODING);
    }
}
