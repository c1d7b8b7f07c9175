//! The head of an HTTP/2 request before Pingora's proxy sees it: what that would refuse in silence is refused here, so that
//! it is answered, logged and counted like every other refusal.
//!
//! As with HTTP/1, a head that is refused becomes a stand-in that runs through the proxy's one way of answering. Streams
//! that the h2 library or Pingora's codec end before there is a request (RFC 9113 8.1.1: broken fields, an authority that
//! Host contradicts) never get here; `app` counts them.

use http::{Method, Uri, Version};
use pingora_http::RequestHeader;

use super::guard::{Host, Refusal};
use crate::rejection::Code;

/// Checks a head; one that does not pass is replaced.
pub(super) fn check(head: &mut RequestHeader) -> Result<(), Refusal> {
    let bad = |cause| Err(Refusal { code: Code::BadRequest, cause });
    let authority = head.uri.authority().map(|authority| authority.as_str().as_bytes());
    let verdict = if head.method == Method::CONNECT {
        Err(Refusal { code: Code::MethodNotAllowed, cause: "CONNECT" })
    } else if authority.and_then(Host::parse).is_none() {
        bad("malformed authority")
    } else {
        Ok(())
    };
    if verdict.is_err() {
        *head = stand_in();
    }
    verdict
}

/// Nothing of the client's head but that there was one.
fn stand_in() -> RequestHeader {
    let mut parts = http::Request::new(()).into_parts().0;
    (parts.uri, parts.version) = (Uri::from_static("https://refused.invalid/refused"), Version::HTTP_2);
    RequestHeader::from(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(method: &str, target: &str, expect: Result<(), &str>) {
        let mut head = RequestHeader::build_no_case(method, b"/", None).expect("a head");
        head.set_uri(target.parse().expect("a target"));
        head.set_version(Version::HTTP_2);
        assert_eq!(super::check(&mut head).map_err(|refusal| refusal.cause), expect, "{method} {target}");
        assert_eq!(head.uri.host() == Some("refused.invalid"), expect.is_err(), "{method} {target}");
    }

    #[test]
    fn a_head_names_a_host_and_opens_no_tunnel() {
        check("GET", "https://app.test/x", Ok(()));
        check("GET", "https://app.test:8443/x", Ok(()));
        check("CONNECT", "https://app.test/x", Err("CONNECT"));
        check("GET", "https://a$b.test/x", Err("malformed authority"));
        check("GET", "https://app.test:99999/x", Err("malformed authority"));
    }
}
