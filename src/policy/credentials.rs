//! Where credentials stand in a request: read without doubt, or not at all.
//!
//! What stands twice, or cannot be read, is no credential that is missing but one that is bad: another proof, or nobody's,
//! must not pass it on as if it were good.

use std::borrow::Cow;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http::HeaderName;
use http::header::{AUTHORIZATION, COOKIE};

use crate::facts::Head;

/// `None`: there are none. The error is for the log.
pub(super) type Found<T> = Option<Result<T, &'static str>>;

const TWICE: &str = "credentials that stand twice";

/// A scheme of `Authorization` (RFC 9110 11.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scheme {
    Bearer,
    Basic,
}

impl Scheme {
    fn is(self, name: &str) -> bool {
        name.eq_ignore_ascii_case(match self {
            Scheme::Bearer => "bearer",
            Scheme::Basic => "basic",
        })
    }
}

/// What follows the scheme.
pub(super) fn authorization<'h>(head: &Head<'h>, scheme: Scheme) -> Found<&'h str> {
    let mut fields = head.headers.get_all(AUTHORIZATION).iter();
    let first = fields.next()?;
    if fields.next().is_some() {
        return Some(Err("several Authorization headers"));
    }
    let Ok(text) = first.to_str() else { return Some(Err("an Authorization header that cannot be read")) };
    let (name, rest) = text.trim_start().split_once([' ', '\t']).unwrap_or((text, ""));
    if !scheme.is(name) {
        return None;
    }
    match rest.trim_matches([' ', '\t']) {
        "" => Some(Err("an Authorization header without credentials")),
        rest => Some(Ok(rest)),
    }
}

/// User and password (RFC 7617).
pub(super) fn basic(head: &Head<'_>) -> Found<(String, String)> {
    let encoded = match authorization(head, Scheme::Basic)? {
        Ok(encoded) => encoded,
        Err(cause) => return Some(Err(cause)),
    };
    let decoded = BASE64_STANDARD.decode(encoded).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let pair =
        decoded.and_then(|text| text.split_once(':').map(|(user, password)| (user.to_owned(), password.to_owned())));
    Some(pair.ok_or("Basic credentials that are none"))
}

pub(super) fn header<'h>(head: &Head<'h>, name: &HeaderName) -> Found<&'h [u8]> {
    one(head.headers.get_all(name).iter().map(http::HeaderValue::as_bytes))
}

pub(super) fn cookie<'h>(head: &Head<'h>, name: &str) -> Found<&'h str> {
    let fields = head.headers.get_all(COOKIE).iter().filter_map(|field| field.to_str().ok());
    one(fields.flat_map(|field| field.split(';')).filter_map(|pair| {
        let (key, value) = pair.trim_start().split_once('=')?;
        (key == name).then_some(value)
    }))
}

pub(super) fn query<'h>(head: &Head<'h>, name: &str) -> Found<Cow<'h, str>> {
    let values = one(head.query?.split('&').filter_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        percent_encoding::percent_decode_str(key).eq(name.bytes()).then_some(value)
    }))?;
    Some(values.and_then(|value| {
        percent_encoding::percent_decode_str(value).decode_utf8().map_err(|_| "a query parameter that cannot be read")
    }))
}

fn one<T>(mut all: impl Iterator<Item = T>) -> Found<T> {
    let first = all.next()?;
    Some(if all.next().is_some() { Err(TWICE) } else { Ok(first) })
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue, Method};

    use super::*;
    use crate::facts;

    fn check(fields: &[(HeaderName, &[u8])], query_text: Option<&str>, act: impl FnOnce(&Head<'_>)) {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(name, HeaderValue::from_bytes(value).unwrap());
        }
        act(&Head {
            method: &Method::GET,
            scheme: facts::Scheme::Https,
            host: "a.test",
            path: "/",
            query: query_text,
            headers: &headers,
            client: "192.0.2.1".parse().unwrap(),
            listener: "",
            sni: None,
            client_certificate: None,
            request_id: "",
        });
    }

    #[test]
    fn what_is_in_doubt_is_bad_and_not_missing() {
        for (fields, expect) in [
            (vec![&b"Bearer abc"[..]], Some(Ok("abc"))),
            (vec![b"bEARER\tabc"], Some(Ok("abc"))),
            (vec![b"Bearer   abc "], Some(Ok("abc"))),
            (vec![b"Basic abc"], None),
            (vec![b"Bearerabc"], None),
            (vec![], None),
            (vec![b"Bearer"], Some(Err("an Authorization header without credentials"))),
            (vec![b"Bearer "], Some(Err("an Authorization header without credentials"))),
            (vec![b"Bearer \xff"], Some(Err("an Authorization header that cannot be read"))),
            (vec![b"Basic x", b"Bearer y"], Some(Err("several Authorization headers"))),
            (vec![b"Bearer x", b"Bearer x"], Some(Err("several Authorization headers"))),
        ] {
            let named: Vec<_> = fields.iter().map(|field| (AUTHORIZATION, *field)).collect();
            check(&named, None, |head| assert_eq!(authorization(head, Scheme::Bearer), expect, "{fields:?}"));
        }
        check(&[(COOKIE, b"a=1; b=2"), (COOKIE, b"a=3")], Some("a=1&%61=2&b=x%20y&c=%ff"), |head| {
            assert_eq!(
                (cookie(head, "a"), cookie(head, "b"), cookie(head, "c")),
                (Some(Err(TWICE)), Some(Ok("2")), None)
            );
            assert_eq!(query(head, "a"), Some(Err(TWICE)));
            assert_eq!(query(head, "b"), Some(Ok("x y".into())));
            assert!(matches!(query(head, "c"), Some(Err(_))));
        });
    }

    #[test]
    fn users_and_passwords_are_read() {
        for (text, expect) in [
            ("Basic YTpiOmM=", Some(Ok(("a".to_owned(), "b:c".to_owned())))),
            ("Basic YQ==", Some(Err("Basic credentials that are none"))),
            ("Basic ???", Some(Err("Basic credentials that are none"))),
            ("Bearer YTpiOmM=", None),
        ] {
            check(&[(AUTHORIZATION, text.as_bytes())], None, |head| assert_eq!(basic(head), expect, "{text}"));
        }
    }
}
