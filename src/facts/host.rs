//! The host as it is matched: how a request names one.
//!
//! Case, port and a trailing dot do not count (RFC 9110 4.2.3, RFC 1034 3.1). What is no host is refused: userinfo,
//! empty labels, a port that is none, bytes that no name has.

use std::borrow::Cow;
use std::net::Ipv6Addr;

/// Longest name in text form (RFC 1035 2.3.4).
const NAME_MAX: usize = 253;

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HostError {
    #[error("the host is empty")]
    Empty,
    #[error("the host holds user information")]
    UserInfo,
    #[error("the host holds a character that no host has")]
    Character,
    #[error("the host has an empty label, or is longer than 253 bytes, or a label is longer than 63")]
    Labels,
    #[error("the host is no IPv6 address in brackets")]
    Address,
    #[error("the port is not a number from 1 to 65535")]
    Port,
}

/// The host of an authority (`Host`, `:authority`, absolute target): lower case, without port and trailing dot.
pub fn normalise(authority: &str) -> Result<Cow<'_, str>, HostError> {
    let (host, port) = split_port(authority)?;
    if let Some(port) = port {
        check_port(port)?;
    }
    if host.starts_with('[') {
        return normalise_v6(host);
    }
    let host = host.strip_suffix('.').unwrap_or(host);
    check_name(host)?;
    if host.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Ok(Cow::Owned(host.to_ascii_lowercase()));
    }
    Ok(Cow::Borrowed(host))
}

/// The authority in host and port, neither of them checked yet.
pub(crate) fn split_port(authority: &str) -> Result<(&str, Option<&str>), HostError> {
    if authority.contains('@') {
        return Err(HostError::UserInfo);
    }
    if authority.starts_with('[') {
        let close = authority.find(']').ok_or(HostError::Address)?;
        let (host, after) = authority.split_at(close + 1);
        return match after.strip_prefix(':') {
            Some(port) => Ok((host, Some(port))),
            None if after.is_empty() => Ok((host, None)),
            None => Err(HostError::Address),
        };
    }
    match authority.split_once(':') {
        Some((host, port)) => Ok((host, Some(port))),
        None => Ok((authority, None)),
    }
}

fn check_port(port: &str) -> Result<(), HostError> {
    let digits = !port.is_empty() && port.len() <= 5 && port.bytes().all(|byte| byte.is_ascii_digit());
    match port.parse::<u16>() {
        Ok(number) if digits && number > 0 => Ok(()),
        _ => Err(HostError::Port),
    }
}

fn normalise_v6(host: &str) -> Result<Cow<'_, str>, HostError> {
    let inner = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).ok_or(HostError::Address)?;
    let address: Ipv6Addr = inner.parse().map_err(|_| HostError::Address)?;
    let canonical = format!("[{address}]");
    Ok(if canonical == host { Cow::Borrowed(host) } else { Cow::Owned(canonical) })
}

fn check_name(name: &str) -> Result<(), HostError> {
    if name.is_empty() {
        return Err(HostError::Empty);
    }
    let mut label_len = 0;
    for byte in name.bytes() {
        match byte {
            b'.' if label_len == 0 => return Err(HostError::Labels),
            b'.' => label_len = 0,
            b'-' | b'_' => label_len += 1,
            _ if byte.is_ascii_alphanumeric() => label_len += 1,
            _ => return Err(HostError::Character),
        }
        if label_len > 63 {
            return Err(HostError::Labels);
        }
    }
    if label_len == 0 || name.len() > NAME_MAX { Err(HostError::Labels) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_port_and_trailing_dot_do_not_count() {
        for (authority, expect) in [
            ("example.com", "example.com"),
            ("EXAMPLE.com.:8443", "example.com"),
            ("a_b.example.com:1", "a_b.example.com"),
            ("127.0.0.1:80", "127.0.0.1"),
            ("[::1]:80", "[::1]"),
            ("[0:0::1]", "[::1]"),
            ("[2001:DB8::1]", "[2001:db8::1]"),
        ] {
            assert_eq!(normalise(authority).as_deref(), Ok(expect), "{authority}");
        }
        assert!(matches!(normalise("example.com:80"), Ok(Cow::Borrowed(_))));
    }

    #[test]
    fn refuses_what_is_no_host() {
        for (authority, expect) in [
            ("", HostError::Empty),
            (":80", HostError::Empty),
            (".", HostError::Empty),
            ("user@example.com", HostError::UserInfo),
            ("a b", HostError::Character),
            ("a/b", HostError::Character),
            ("a%2eb", HostError::Character),
            ("bücher.example", HostError::Character),
            ("a..b", HostError::Labels),
            ("a.b..", HostError::Labels),
            (".a", HostError::Labels),
            ("a:", HostError::Port),
            ("a:0", HostError::Port),
            ("a:65536", HostError::Port),
            ("a:+80", HostError::Port),
            ("a:80:80", HostError::Port),
            ("::1", HostError::Port),
            ("[::1", HostError::Address),
            ("[::1]x", HostError::Address),
            ("[fe80::1%25eth0]", HostError::Address),
            ("[]", HostError::Address),
        ] {
            assert_eq!(normalise(authority), Err(expect), "{authority}");
        }
        assert_eq!(normalise(&"a".repeat(64)), Err(HostError::Labels));
        assert_eq!(normalise(&"a.".repeat(127)), Ok("a.".repeat(127).trim_end_matches('.').to_owned().into()));
        assert_eq!(normalise(&"a.".repeat(128)), Err(HostError::Labels));
    }
}
