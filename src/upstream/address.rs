//! Where a target is: a literal address, a name with a port, or wherever a service says it is.

use std::net::{Ipv6Addr, SocketAddr};

/// A target's address as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Address {
    Literal(SocketAddr),
    /// Lower case, without the trailing dot of a name that is not to be searched for (`rooted`).
    Name {
        host: Box<str>,
        port: u16,
        rooted: bool,
    },
    /// What registers itself on the bus under this name.
    Found {
        service: Box<str>,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AddressError {
    #[error("`{0}` is a URL; an address is `host:port`")]
    Url(String),
    #[error("`{0}` has no port")]
    NoPort(String),
    #[error("`{0}` is an IPv6 address without brackets")]
    NoBrackets(String),
    #[error("`{0}` is not a port; ports are 1 to 65535")]
    Port(String),
    #[error("`{0}` is not an IPv6 address")]
    Ipv6(String),
    #[error("`{0}` is neither a host name nor an IP address")]
    Host(String),
}

impl AddressError {
    pub(crate) fn help(&self) -> String {
        match self {
            AddressError::Url(_) => "leave out scheme and path; TLS is asked for by `tls = {}`".to_owned(),
            AddressError::NoPort(text) => format!("write `{text}:80`, or whatever port it listens on"),
            AddressError::NoBrackets(_) => "write `[address]:port`".to_owned(),
            AddressError::Port(_) | AddressError::Ipv6(_) | AddressError::Host(_) => {
                "write `name:80`, `1.2.3.4:80` or `[fdaa::3]:80`".to_owned()
            }
        }
    }
}

impl std::str::FromStr for Address {
    type Err = AddressError;
    fn from_str(text: &str) -> Result<Address, AddressError> {
        if text.contains('/') {
            return Err(AddressError::Url(text.to_owned()));
        }
        if let Some(rest) = text.strip_prefix('[') {
            let (host, port) = rest.split_once(']').ok_or_else(|| AddressError::Ipv6(text.to_owned()))?;
            let host: Ipv6Addr = host.parse().map_err(|_| AddressError::Ipv6(host.to_owned()))?;
            let port = port.strip_prefix(':').ok_or_else(|| AddressError::NoPort(text.to_owned()))?;
            return Ok(Address::Literal((host, parse_port(port)?).into()));
        }
        if text.parse::<Ipv6Addr>().is_ok() {
            return Err(AddressError::NoBrackets(text.to_owned()));
        }
        let (host, port) = text.split_once(':').ok_or_else(|| AddressError::NoPort(text.to_owned()))?;
        if port.contains(':') {
            return Err(AddressError::NoBrackets(text.to_owned()));
        }
        let port = parse_port(port)?;
        if let Ok(ip) = host.parse() {
            return Ok(Address::Literal(SocketAddr::new(ip, port)));
        }
        let name = host.strip_suffix('.').unwrap_or(host);
        if !is_host_name(name) {
            return Err(AddressError::Host(host.to_owned()));
        }
        Ok(Address::Name { host: name.to_ascii_lowercase().into(), port, rooted: name.len() != host.len() })
    }
}

impl Address {
    /// The host alone, as a certificate names it.
    pub(crate) fn host(&self) -> String {
        match self {
            Address::Literal(address) => address.ip().to_string(),
            Address::Name { host, .. } => host.to_string(),
            Address::Found { service } => service.to_string(),
        }
    }

    /// What stands in `Host` and `:authority` of requests that the gateway makes itself to an endpoint of it.
    pub(crate) fn authority(&self, endpoint: SocketAddr) -> String {
        match self {
            Address::Literal(_) | Address::Found { .. } => endpoint.to_string(),
            Address::Name { host, port, .. } => format!("{host}:{port}"),
        }
    }
}

/// As it was written.
impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Address::Literal(address) => write!(f, "{address}"),
            Address::Name { host, port, .. } => write!(f, "{host}:{port}"),
            Address::Found { service } => write!(f, "bus:{service}"),
        }
    }
}

fn parse_port(text: &str) -> Result<u16, AddressError> {
    match text.parse() {
        Ok(port) if port != 0 && text.bytes().all(|b| b.is_ascii_digit()) => Ok(port),
        _ => Err(AddressError::Port(text.to_owned())),
    }
}

/// RFC 1123 2.1, with `_` (service names in private zones). A last label of digits alone would be a mistyped IPv4 address.
pub(crate) fn is_host_name(name: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    name.len() <= 253
        && name.split('.').all(label)
        && name.rsplit('.').next().is_some_and(|last| !last.bytes().all(|b| b.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_literals_and_names() {
        for (text, authority) in [
            ("127.0.0.1:80", "127.0.0.1:80"),
            ("[fdaa::3]:8090", "[fdaa::3]:8090"),
            ("Core-PB.internal:8090", "core-pb.internal:8090"),
            ("backend.:1", "backend:1"),
            ("my_svc:65535", "my_svc:65535"),
        ] {
            assert_eq!(text.parse::<Address>().map(|a| a.to_string()).as_deref(), Ok(authority), "{text}");
        }
    }

    #[test]
    fn says_what_is_wrong_with_an_address() {
        let error = |text: &str| text.parse::<Address>().err();
        assert_eq!(error("http://a:80"), Some(AddressError::Url("http://a:80".into())));
        assert_eq!(error("a"), Some(AddressError::NoPort("a".into())));
        assert_eq!(error("[::1]"), Some(AddressError::NoPort("[::1]".into())));
        assert_eq!(error("fdaa::3"), Some(AddressError::NoBrackets("fdaa::3".into())));
        assert_eq!(error("fdaa:::3:80"), Some(AddressError::NoBrackets("fdaa:::3:80".into())));
        assert_eq!(error("a:0"), Some(AddressError::Port("0".into())));
        assert_eq!(error("a:70000"), Some(AddressError::Port("70000".into())));
        assert_eq!(error("a:+80"), Some(AddressError::Port("+80".into())));
        assert_eq!(error("[zz]:80"), Some(AddressError::Ipv6("zz".into())));
        for host in ["", "-a", "a..b", "a b", "1.2.3", "256.1.1.1", "ä"] {
            assert_eq!(error(&format!("{host}:80")), Some(AddressError::Host(host.into())), "{host}");
        }
    }
}
