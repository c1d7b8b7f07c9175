//! `Host` and the authority of a target: a name or address literal and a port, and nothing that could be read otherwise.

use std::net::Ipv6Addr;

use super::chars::is_name_byte;

/// A host that is legal, borrowed from the head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Host<'a> {
    pub name: &'a [u8],
    pub port: Option<u16>,
}

impl<'a> Host<'a> {
    /// Narrower than `uri-host [":" port]` of RFC 9110 7.2: no percent-codes, no sub-delims, no empty port, no zone. Nothing
    /// that names a service needs them, and parsers differ about them.
    pub(crate) fn parse(bytes: &'a [u8]) -> Option<Host<'a>> {
        let (name, port) = if bytes.first() == Some(&b'[') {
            let end = memchr::memchr(b']', bytes)?;
            let address = std::str::from_utf8(bytes.get(1..end)?).ok()?;
            address.parse::<Ipv6Addr>().ok()?;
            bytes.split_at_checked(end + 1)?
        } else {
            let end = bytes.iter().position(|&byte| !is_name_byte(byte)).unwrap_or(bytes.len());
            let (name, port) = bytes.split_at_checked(end)?;
            is_name(name).then_some((name, port))?
        };
        let port = match port {
            [] => None,
            [b':', digits @ ..] => Some(parse_port(digits)?),
            _ => return None,
        };
        Some(Host { name, port })
    }

    /// Whether both name the same place for a scheme of this default port.
    pub(crate) fn same_as(&self, other: &Host<'_>, default_port: u16) -> bool {
        self.name.eq_ignore_ascii_case(other.name)
            && self.port.unwrap_or(default_port) == other.port.unwrap_or(default_port)
    }
}

/// Labels of 1 to 63 bytes, 253 in all, and perhaps the root's dot (RFC 1035 2.3.4).
fn is_name(name: &[u8]) -> bool {
    let name = name.strip_suffix(b".").unwrap_or(name);
    !name.is_empty()
        && name.len() <= 253
        && name.split(|&byte| byte == b'.').all(|label| (1..=63).contains(&label.len()))
}

fn parse_port(digits: &[u8]) -> Option<u16> {
    let value = super::chars::decimal(digits)?;
    (digits.len() <= 5 && value > 0).then(|| u16::try_from(value).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expect: Option<(&str, Option<u16>)>) {
        let host = Host::parse(text.as_bytes());
        assert_eq!(host, expect.map(|(name, port)| Host { name: name.as_bytes(), port }), "{text:?}");
    }

    #[test]
    fn takes_names_and_addresses() {
        check("example.com", Some(("example.com", None)));
        check("EXAMPLE.com:8443", Some(("EXAMPLE.com", Some(8443))));
        check("a_b.internal.", Some(("a_b.internal.", None)));
        check("127.0.0.1:80", Some(("127.0.0.1", Some(80))));
        check("[::1]", Some(("[::1]", None)));
        check("[fdaa::1]:65535", Some(("[fdaa::1]", Some(65535))));
    }

    #[test]
    fn refuses_what_could_be_read_otherwise() {
        let long = "a".repeat(64);
        for bad in [
            "",
            ".",
            "..",
            "a..b",
            ".a",
            "a b",
            "a/b",
            "a\"b",
            "a,b",
            "a@b",
            "a%41",
            "a:b",
            "a:",
            "a:0",
            "a:99999",
            "a:+80",
            "a:80:80",
            "a:000080",
            "[::1",
            "::1",
            "[::1]x",
            "[::1%25eth0]",
            "[v1.a]",
            "[]",
            "[127.0.0.1]",
            "a\\b",
            "a?b",
            "a#b",
            "é.com",
            "a!b",
            "*",
            &long,
            &"a.".repeat(128),
        ] {
            check(bad, None);
        }
    }

    #[test]
    fn compares_without_case_and_default_port() {
        let same = |a: &str, b: &str, port| {
            Host::parse(a.as_bytes()).unwrap().same_as(&Host::parse(b.as_bytes()).unwrap(), port)
        };
        assert!(same("A.test", "a.TEST:80", 80));
        assert!(same("[::A]:443", "[::a]", 443));
        assert!(!same("a.test", "a.test:80", 443));
        assert!(!same("a.test", "b.test", 80));
        assert!(!same("a.test:81", "a.test:82", 80));
    }
}
