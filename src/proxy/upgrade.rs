//! Upgrades over HTTP/1: WebSocket.
//!
//! Pingora ends a tunnel when either side ends, and the end of the upgrade request itself, if it is told to the upstream
//! half after the 101 has been read, counts as such an end: the tunnel dies as it opens (0.9.1, proxy_h1.rs, more often the
//! quicker the upstream answers). So an upgrade request is given a body that does not end: the client's stream holds back,
//! the 101 turns it into the tunnel, and any other answer ends it (`Connection::end_body`). Upstream sees no body.

use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderValue, StatusCode};
use pingora_http::RequestHeader;
use pingora_proxy::Session;

use super::ctx::Ctx;

pub(super) fn asks_for_websocket(session: &Session) -> bool {
    let upgrade = session.req_header().headers.get(UPGRADE);
    upgrade.is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"))
}

/// Before the first attempt of a WebSocket request whose upstream speaks HTTP/1.
pub(super) fn hold_body(session: &mut Session, ctx: &mut Ctx) {
    if ctx.http2 || ctx.held_body {
        return;
    }
    let request = session.req_header_mut();
    let bodyless = request.headers.get(CONTENT_LENGTH).is_none_or(|length| length.as_bytes() == b"0")
        && !request.headers.contains_key(TRANSFER_ENCODING);
    if bodyless {
        ctx.held_body = request.insert_header(TRANSFER_ENCODING, HeaderValue::from_static("chunked")).is_ok();
    }
}

/// The head that goes upstream says that there is no body, or Pingora would frame one.
pub(super) fn hide_body(ctx: &Ctx, upstream: &mut RequestHeader) {
    if ctx.held_body {
        upstream.remove_header(&TRANSFER_ENCODING);
        let _ = upstream.insert_header(CONTENT_LENGTH, HeaderValue::from_static("0"));
    }
}

/// The answer is here: the tunnel opens, or the request was an ordinary one after all.
pub(super) fn settle(ctx: &mut Ctx, status: StatusCode) {
    let Some(connection) = &ctx.connection else { return };
    if status == StatusCode::SWITCHING_PROTOCOLS {
        ctx.upgraded = true;
        ctx.flow.upgraded();
        connection.become_tunnel();
    } else if ctx.held_body {
        connection.end_body();
    }
}
