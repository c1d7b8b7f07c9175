//! Who the client is, and what is believed of what it says about itself.
//!
//! Forwarding headers count only from peers in `trust.forwarded_from`; the client is then the right-most hop that is not
//! trusted itself (a hop further left is the client's own word). `X-Forwarded-*` come before `Forwarded` (RFC 7239).

use std::net::IpAddr;

use http::HeaderMap;
use http::header::{FORWARDED, HeaderName};
use ipnet::IpNet;
use pingora_http::RequestHeader;

use crate::facts::Scheme;
use crate::settings::network;

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
pub struct Trusted(Vec<IpNet>);

impl Trusted {
    /// Networks of the settings, which were checked when they were read; single addresses are networks of one.
    pub fn new<'a>(networks: impl IntoIterator<Item = &'a str>) -> Trusted {
        Trusted(networks.into_iter().filter_map(network).collect())
    }

    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(&address))
    }

    /// The client behind `peer`. A hop that is no address ends the walk at the hop before.
    pub fn client(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        if self.0.is_empty() || !self.contains(peer) {
            return peer;
        }
        let mut client = peer;
        let hops = |name: &HeaderName| -> Vec<&str> {
            let fields = headers.get_all(name).iter().filter_map(|field| field.to_str().ok());
            fields.flat_map(|field| field.split(',')).map(str::trim).collect()
        };
        let told = hops(&X_FORWARDED_FOR);
        let told = match told.is_empty() {
            true => hops(&FORWARDED).into_iter().map(|hop| parameter(hop, "for").unwrap_or_default()).collect(),
            false => told,
        };
        for hop in told.iter().rev() {
            let Some(address) = hop_address(hop) else { break };
            client = address;
            if !self.contains(address) {
                break;
            }
        }
        client
    }
}

/// The scheme that a trusted peer was asked by: the nearest hop's word, where there are several.
pub fn scheme(headers: &HeaderMap) -> Option<Scheme> {
    let last = |name: &HeaderName| headers.get_all(name).iter().next_back()?.to_str().ok()?.rsplit(',').next();
    let word = last(&X_FORWARDED_PROTO).or_else(|| parameter(last(&FORWARDED)?, "proto"))?.trim();
    match () {
        () if word.eq_ignore_ascii_case("https") => Some(Scheme::Https),
        () if word.eq_ignore_ascii_case("http") => Some(Scheme::Http),
        () => None,
    }
}

/// A parameter of one hop of `Forwarded`, its quotes taken off (RFC 7239 4).
fn parameter<'h>(hop: &'h str, name: &str) -> Option<&'h str> {
    hop.split(';').find_map(|pair| {
        let (key, value) = pair.split_once('=')?;
        key.trim().eq_ignore_ascii_case(name).then(|| value.trim().trim_matches('"'))
    })
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
    fn forwarded_is_read_where_there_is_no_x_forwarded() {
        let trusted = Trusted::new(["10.0.0.0/8"]);
        let client = |fields: &[(HeaderName, &str)]| {
            let mut headers = HeaderMap::new();
            for (name, field) in fields {
                headers.append(name, field.parse().expect("a header value"));
            }
            let peer = "10.0.0.1".parse().expect("an address");
            (trusted.client(peer, &headers).to_string(), scheme(&headers))
        };
        let chain = "for=198.51.100.7;proto=http, For=\"[2001:db8::1]:4711\";proto=https;by=10.0.0.9, for=10.0.0.2";
        assert_eq!(client(&[(FORWARDED, chain)]), ("2001:db8::1".to_owned(), None));
        assert_eq!(
            client(&[(FORWARDED, "for=203.0.113.9;proto=https")]),
            ("203.0.113.9".to_owned(), Some(Scheme::Https))
        );
        let both = [(FORWARDED, "for=203.0.113.9"), (X_FORWARDED_FOR, "203.0.113.8"), (X_FORWARDED_PROTO, "HTTP")];
        assert_eq!(client(&both), ("203.0.113.8".to_owned(), Some(Scheme::Http)));
        assert_eq!(client(&[(FORWARDED, "for=_hidden;proto=gopher")]), ("10.0.0.1".to_owned(), None));
    }

    #[test]
    fn nonsense_ends_the_walk() {
        check(&["10.0.0.0/8"], "10.0.0.1", &["203.0.113.9, unknown, 10.0.0.2"], "10.0.0.2");
        check(&["10.0.0.0/8"], "10.0.0.1", &[], "10.0.0.1");
    }
}
