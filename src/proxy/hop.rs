//! Hop-by-hop fields of answers (RFC 9110 7.6.1). Pingora removes those of requests and passes those of answers on.

use http::HeaderName;
use http::Version;
use http::header::TRANSFER_ENCODING;
use http::header::{CONNECTION, PROXY_AUTHENTICATE, TE, TRAILER, UPGRADE};
use pingora_http::ResponseHeader;

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// Removes what concerned the connection to the upstream only. `Transfer-Encoding` stays: it frames the body that follows.
pub(super) fn strip_response(head: &mut ResponseHeader) {
    let nominated: Vec<HeaderName> = head
        .headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().to_ascii_lowercase().parse().ok())
        .filter(|name| !matches!(*name, http::header::TRANSFER_ENCODING | http::header::CONTENT_LENGTH))
        .collect();
    for name in &nominated {
        head.remove_header(name);
    }
    for name in [CONNECTION, KEEP_ALIVE, PROXY_CONNECTION, PROXY_AUTHENTICATE, TE, TRAILER, UPGRADE] {
        if head.headers.contains_key(&name) {
            head.remove_header(&name);
        }
    }
}

/// HTTP/1.0 knows no chunks (RFC 9112 6.1): such an answer ends with the connection.
pub(super) fn frame_for(version: Version, head: &mut ResponseHeader) {
    if version == Version::HTTP_10 {
        head.remove_header(&TRANSFER_ENCODING);
    }
}
