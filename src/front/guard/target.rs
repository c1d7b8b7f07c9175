//! The request line: method, target in one of its four forms, version.

use std::ops::Range;

use super::Refusal;
use super::chars::{is_query, is_token, path_len, percent_codes_are_whole};
use super::host::Host;
use crate::rejection::Code;

/// Longest method; the registered ones have at most 17 letters.
const METHOD_MAX: usize = 32;

/// A legal request line. Ranges count from its first byte.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RequestLine {
    /// 0 or 1, of HTTP/1.
    pub minor: u8,
    pub absolute: Option<Absolute>,
}

/// The scheme and authority of a target in absolute form.
///
/// Pingora wants the authority to be the bytes of Host, case and port included, and answers 400 by itself otherwise; it also
/// sends the target on as it came. So the proxy is given the origin form (RFC 9112 3.2.2: the authority has been compared
/// with Host and says nothing new).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Absolute {
    /// `http://host:port`, from the first byte of the head as it was released.
    pub range: Range<usize>,
    authority: Range<usize>,
    default_port: u16,
    /// What stands for an empty path: `/`, or `*` with OPTIONS (RFC 9112 3.2.4); nothing if there is a path.
    instead: &'static [u8],
}

impl Absolute {
    pub(super) fn authority(&self) -> Range<usize> {
        self.authority.clone()
    }

    pub(super) fn default_port(&self) -> u16 {
        self.default_port
    }

    pub(super) fn moved_by(mut self, bytes: usize) -> Absolute {
        for range in [&mut self.range, &mut self.authority] {
            *range = range.start + bytes..range.end + bytes;
        }
        self
    }

    /// Turns the head into origin form in place. The head then begins that many bytes later: drop them from the front.
    pub(crate) fn remove_from(&self, head: &mut [u8]) -> usize {
        let Some(start) = self.range.end.checked_sub(self.instead.len()) else { return 0 };
        let skip = start.saturating_sub(self.range.start);
        let Some(place) = head.get_mut(start..self.range.end) else { return 0 };
        place.copy_from_slice(self.instead);
        head.copy_within(..self.range.start, skip);
        skip
    }
}

impl RequestLine {
    pub(super) fn parse(line: &[u8]) -> Result<RequestLine, Refusal> {
        let (rest, minor) = match (line.strip_suffix(b" HTTP/1.1"), line.strip_suffix(b" HTTP/1.0")) {
            (Some(rest), _) => (rest, 1),
            (_, Some(rest)) => (rest, 0),
            _ => return Err(Refusal::bad("version is not HTTP/1.1 or HTTP/1.0")),
        };
        let Some(space) = memchr::memchr(b' ', rest) else { return Err(Refusal::bad("request line without a target")) };
        let method = rest.get(..space).unwrap_or_default();
        let target = rest.get(space + 1..).unwrap_or_default();
        if method.len() > METHOD_MAX || !is_token(method) {
            return Err(Refusal::bad("method is not a token or too long"));
        }
        let absolute = match target {
            _ if method == b"CONNECT" => return Err(connect(target)),
            [b'/', ..] => {
                path_and_query(target)?;
                None
            }
            b"*" if method == b"OPTIONS" => None,
            _ => Some(absolute(method, target)?.moved_by(space + 1)),
        };
        Ok(RequestLine { minor, absolute })
    }
}

/// CONNECT is refused, but a wrong one is wrong first.
fn connect(target: &[u8]) -> Refusal {
    match Host::parse(target) {
        Some(Host { port: Some(_), .. }) => Refusal { code: Code::MethodNotAllowed, cause: "CONNECT" },
        _ => Refusal::bad("CONNECT needs a host and a port"),
    }
}

fn absolute(method: &[u8], target: &[u8]) -> Result<Absolute, Refusal> {
    let (scheme, default_port) = match target {
        _ if has_prefix(target, b"http://") => ("http://".len(), 80),
        _ if has_prefix(target, b"https://") => ("https://".len(), 443),
        _ => return Err(Refusal::bad("target is in no form that fits the method")),
    };
    let rest = target.get(scheme..).unwrap_or_default();
    let end = rest.iter().position(|byte| matches!(byte, b'/' | b'?')).unwrap_or(rest.len());
    let (authority, path) = rest.split_at_checked(end).unwrap_or((rest, b""));
    if Host::parse(authority).is_none() {
        return Err(Refusal::bad("malformed authority in the target"));
    }
    path_and_query(path)?;
    let instead: &[u8] = match path {
        [] if method == b"OPTIONS" => b"*",
        [b'/', ..] => b"",
        _ => b"/",
    };
    Ok(Absolute { range: 0..scheme + end, authority: scheme..scheme + end, default_port, instead })
}

fn has_prefix(target: &[u8], prefix: &[u8]) -> bool {
    target.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
}

fn path_and_query(target: &[u8]) -> Result<(), Refusal> {
    match target.get(path_len(target)..).unwrap_or_default() {
        [] => {}
        [b'?', query @ ..] if is_query(query) => {}
        [b' ', ..] => return Err(Refusal::bad("space in the target")),
        [b'#', ..] => return Err(Refusal::bad("fragment in the target")),
        _ => return Err(Refusal::bad("invalid character in the target")),
    }
    if percent_codes_are_whole(target) { Ok(()) } else { Err(Refusal::bad("broken percent-code in the target")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(line: &str) -> Refusal {
        RequestLine::parse(line.as_bytes()).expect_err(line)
    }

    #[test]
    fn takes_the_forms_of_a_target() {
        for line in [
            "GET / HTTP/1.1",
            "M-SEARCH /a?b=[1]|2 HTTP/1.1",
            "OPTIONS * HTTP/1.1",
            "GET //x/ HTTP/1.1",
            "g / HTTP/1.1",
        ] {
            assert_eq!(RequestLine::parse(line.as_bytes()), Ok(RequestLine { minor: 1, absolute: None }), "{line}");
        }
        assert_eq!(RequestLine::parse(b"GET / HTTP/1.0").map(|line| line.minor), Ok(0));
    }

    fn check_origin_form(line: &str, expect: &str) {
        let absolute = RequestLine::parse(line.as_bytes()).expect(line).absolute.expect(line);
        let mut head = line.as_bytes().to_vec();
        let skip = absolute.remove_from(&mut head);
        assert_eq!(std::str::from_utf8(&head[skip..]).unwrap(), expect);
    }

    #[test]
    fn turns_absolute_form_into_origin_form() {
        check_origin_form("GET http://a.test/x?y HTTP/1.1", "GET /x?y HTTP/1.1");
        check_origin_form("GET HTTPS://a.test:444 HTTP/1.1", "GET / HTTP/1.1");
        check_origin_form("GET http://a.test?q=/ HTTP/1.0", "GET /?q=/ HTTP/1.0");
        check_origin_form("OPTIONS http://a.test HTTP/1.1", "OPTIONS * HTTP/1.1");
        check_origin_form("OPTIONS http://[::1]/ HTTP/1.1", "OPTIONS / HTTP/1.1");
    }

    #[test]
    fn refuses_other_request_lines() {
        for line in [
            "GET /",
            "GET",
            "",
            "GET / HTTP/1.2",
            "GET / HTTP/2.0",
            "GET / http/1.1",
            "GET / HTTP/1.1 ",
            "GET  / HTTP/1.1",
            "GET /  HTTP/1.1",
            " GET / HTTP/1.1",
            "GET / HTTP/01.1",
            "GET /\tHTTP/1.1",
            "GET\t/ HTTP/1.1",
            "GET  HTTP/1.1",
            "GE(T / HTTP/1.1",
            "GET /a b HTTP/1.1",
            "GET /#a HTTP/1.1",
            "GET /\0 HTTP/1.1",
            "GET /% HTTP/1.1",
            "GET /é HTTP/1.1",
            "GET /\" HTTP/1.1",
            "GET /<a> HTTP/1.1",
            "GET /a\\b HTTP/1.1",
            "GET /?a#b HTTP/1.1",
            "GET x HTTP/1.1",
            "GET ?q HTTP/1.1",
            "GET * HTTP/1.1",
            "OPTIONS ** HTTP/1.1",
            "GET a.test:80 HTTP/1.1",
            "GET ftp://a.test/ HTTP/1.1",
            "GET http:/a.test/ HTTP/1.1",
            "GET http:///x HTTP/1.1",
            "GET http://u@a.test/ HTTP/1.1",
            "GET http://a.test\\@b.test/ HTTP/1.1",
            "GET http://a.test#x HTTP/1.1",
            "CONNECT / HTTP/1.1",
            "CONNECT a.test HTTP/1.1",
            "CONNECT http://a.test/ HTTP/1.1",
            "ABCDEFGHIJKLMNOPQRSTUVWXYZABCDEFG / HTTP/1.1",
        ] {
            assert_eq!(refusal(line).code, Code::BadRequest, "{line}");
        }
        assert_eq!(refusal("CONNECT a.test:443 HTTP/1.1").code, Code::MethodNotAllowed);
    }
}
