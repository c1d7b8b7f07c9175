//! Who the client is, and what is believed of what it says about itself.
//!
//! Forwarding headers count only from peers in `trust.forwarded_from`; the client is then the right-most hop that is not
//! trusted itself (a hop further left is the client's own word).

use std::net::IpAddr;

use http::HeaderMap;
use http::header::{FORWARDED, HeaderName};
use ipnet::IpNet;
use pingora_http::RequestHeader;

pub(crate) const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
pub(crate) const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
pub(crate) const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
const X_FORWARDED_PREFIX: HeaderName = HeaderName::from_static("x-forwarded-prefix");
const X_FORWARDED_SERVER: HeaderName = HeaderName::from_static("x-forwarded-server");
const X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");

const FORWARDING: [HeaderName; 8] = [
    X_FORWARDED_FOR,
    X_FORWARDED_PROTO,
    X_FORWARDED_HOST,
    X_FORWARDED_PORT,
    X_FORWARDED_PREFIX,
    X_FORWARDED_SERVER,
    X_REAL_IP,
    FORWARDED,
];

/// Networks whose forwarding headers are believed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Trusted(Vec<IpNet>);

impl Trusted {
    /// Networks of the settings, which were checked when they were read; single addresses are networks of one.
    pub(crate) fn new<'a>(networks: impl IntoIterator<Item = &'a str>) -> Trusted {
        let parse = |text: &str| text.parse::<IpNet>().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from));
        Trusted(networks.into_iter().filter_map(parse).collect())
    }

    pub(crate) fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(&address))
    }

    /// The client behind `peer`. Reads `X-Forwarded-For`; a hop that is no address ends the walk at the hop before.
    pub(crate) fn client(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        if self.0.is_empty() || !self.contains(peer) {
            return peer;
        }
        let mut client = peer;
        let fields: Vec<&str> =
            headers.get_all(&X_FORWARDED_FOR).iter().filter_map(|field| field.to_str().ok()).collect();
        for hop in fields.iter().rev().flat_map(|field| field.rsplit(',')) {
            let Some(address) = hop_address(hop.trim()) else { break };
            client = address;
            if !self.contains(address) {
                break;
            }
        }
        client
    }
}

/// `1.2.3.4`, `1.2.3.4:80`, `2001:db8::1`, `[2001:db8::1]:80`.
fn hop_address(text: &str) -> Option<IpAddr> {
    text.parse::<IpAddr>()
        .ok()
        .or_else(|| text.parse::<std::net::SocketAddr>().ok().map(|address| address.ip()))
        .or_else(|| text.strip_prefix('[')?.strip_suffix(']')?.parse().ok())
        .map(|address| address.to_canonical())
}

/// Removes what a stranger says about where it comes from, headers that only routes may set, and names that differ from
/// others only by `_` (many servers read `_` and `-` as one).
pub(crate) fn strip(head: &mut RequestHeader, trusted: bool, is_reserved: impl Fn(&HeaderName) -> bool) {
    let mut unwanted: Vec<HeaderName> = Vec::new();
    for name in head.headers.keys() {
        if name.as_str().contains('_') || is_reserved(name) || (!trusted && FORWARDING.contains(name)) {
            unwanted.push(name.clone());
        }
    }
    for name in unwanted {
        head.remove_header(&name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(trusted: &[&str], peer: &str, forwarded_for: &[&str], expect: &str) {
        let trusted = Trusted::new(trusted.iter().copied());
        let mut headers = HeaderMap::new();
        for field in forwarded_for {
            headers.append(X_FORWARDED_FOR, field.parse().expect("a header value"));
        }
        let client = trusted.client(peer.parse().expect("an address"), &headers);
        assert_eq!(client.to_string(), expect, "{forwarded_for:?}");
    }

    #[test]
    fn a_stranger_is_who_it_is() {
        check(&[], "203.0.113.9", &["10.0.0.1"], "203.0.113.9");
        check(&["10.0.0.0/8"], "203.0.113.9", &["10.0.0.1"], "203.0.113.9");
    }

    #[test]
    fn the_right_most_stranger_is_the_client() {
        check(&["10.0.0.0/8"], "10.0.0.1", &["198.51.100.7, 203.0.113.9, 10.0.0.2"], "203.0.113.9");
        check(&["10.0.0.0/8"], "10.0.0.1", &["198.51.100.7", "203.0.113.9"], "203.0.113.9");
        check(&["10.0.0.0/8"], "10.0.0.1", &["10.0.0.3, 10.0.0.2"], "10.0.0.3");
        check(&["fdaa::/16"], "fdaa::1", &["[2001:db8::1]:4711"], "2001:db8::1");
    }

    #[test]
    fn nonsense_ends_the_walk() {
        check(&["10.0.0.0/8"], "10.0.0.1", &["203.0.113.9, unknown, 10.0.0.2"], "10.0.0.2");
        check(&["10.0.0.0/8"], "10.0.0.1", &[], "10.0.0.1");
    }
}
