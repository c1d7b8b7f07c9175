//! Conditions of a route beyond host and path: one function decides for data plane, `explain` and tests.

use std::net::IpAddr;

use http::header::ACCESS_CONTROL_REQUEST_HEADERS;
use http::{HeaderName, Method};
use ipnet::IpNet;

use super::fit::{Fit, Strength};
use crate::facts::{CertificateField, Head, cookie};

/// All must hold.
#[derive(Debug)]
pub(super) struct Conditions {
    /// Bits of the listeners the route answers on.
    pub(super) listen: u64,
    /// The author named listeners.
    pub(super) listen_named: bool,
    /// Empty: any. With GET there is HEAD.
    pub(super) methods: Box<[Method]>,
    pub(super) header: Box<[(HeaderName, Condition)]>,
    pub(super) query: Box<[(Box<str>, Condition)]>,
    pub(super) cookie: Box<[(Box<str>, Condition)]>,
    pub(super) client_certificate: Box<[(CertificateField, Condition)]>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Condition {
    Exact(Box<str>),
    Prefix(Box<str>),
    Present,
    Absent,
}

/// Client networks of one length, sorted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Networks {
    len: u8,
    list: Box<[IpNet]>,
}

/// The part of a request that conditions look at.
#[derive(Clone, Copy)]
pub(super) struct Asked<'a> {
    pub(super) head: &'a Head<'a>,
    /// The bit of its listener; 0 if the table does not know it.
    pub(super) listener: u64,
    /// IPv4 as IPv4, also when mapped.
    pub(super) client: IpAddr,
    /// The method that a cross-origin preflight is about.
    pub(super) preflight: Option<&'a Method>,
}

/// The first condition that did not hold. The method is looked at last: `Method` means that all others do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Miss<'t> {
    Listen,
    Header(&'t HeaderName),
    Query(&'t str),
    Cookie(&'t str),
    ClientCertificate(CertificateField),
    From,
    Method,
}

impl Conditions {
    /// `cors`: the route answers preflights. One is about a request to come, which alone has the headers.
    pub(super) fn check(&self, networks: Option<&Networks>, asked: &Asked<'_>, cors: bool) -> Result<(), Miss<'_>> {
        let preflight = asked.preflight.filter(|_| cors);
        let Conditions { listen, listen_named: _, methods, header, query, cookie: cookies, client_certificate } = self;
        if listen & asked.listener == 0 {
            return Err(Miss::Listen);
        }
        for (name, condition) in header {
            let value = asked.head.headers.get(name);
            let holds = match preflight {
                // The request to come will have what the preflight announces; its value is not known yet.
                Some(_) => (*condition != Condition::Absent) == announces(asked.head, name),
                None => condition.holds(value.map(|value| value.as_bytes().iter().copied())),
            };
            if !holds {
                return Err(Miss::Header(name));
            }
        }
        for (name, condition) in query {
            if !condition.holds(query_value(asked.head.query, name)) {
                return Err(Miss::Query(name));
            }
        }
        for (name, condition) in cookies {
            if !condition.holds(cookie(asked.head.headers, name).map(str::bytes)) {
                return Err(Miss::Cookie(name));
            }
        }
        for (field, condition) in client_certificate {
            let certificate = asked.head.client_certificate;
            let mut values = certificate.into_iter().flat_map(|certificate| certificate.values(*field)).peekable();
            let holds = match values.peek() {
                None => condition.holds(None::<std::iter::Empty<u8>>),
                Some(_) => values.any(|value| condition.holds(Some(value.bytes()))),
            };
            if !holds {
                return Err(Miss::ClientCertificate(*field));
            }
        }
        if networks.is_some_and(|networks| !networks.contain(asked.client)) {
            return Err(Miss::From);
        }
        let takes = |method: &Method| methods.is_empty() || methods.contains(method);
        if !takes(asked.head.method) && !preflight.is_some_and(takes) {
            return Err(Miss::Method);
        }
        Ok(())
    }

    /// Without network and priority.
    pub(super) fn fit(&self) -> Fit {
        fn strength<N>(conditions: &[(N, Condition)]) -> Strength {
            Strength::of(conditions.iter().map(|(_, condition)| condition))
        }
        Fit {
            method: !self.methods.is_empty(),
            header: strength(&self.header),
            query: strength(&self.query),
            cookie: strength(&self.cookie),
            client_certificate: strength(&self.client_certificate),
            network: 0,
            listen: self.listen_named,
            priority: 0,
        }
    }

    /// Whether one request can meet both.
    pub(super) fn overlap(&self, other: &Conditions) -> bool {
        let methods = self.methods.is_empty()
            || other.methods.is_empty()
            || self.methods.iter().any(|method| other.methods.contains(method));
        methods
            && self.listen & other.listen != 0
            && agree(&self.header, &other.header)
            && agree(&self.query, &other.query)
            && agree(&self.cookie, &other.cookie)
            && agree_on_certificate(&self.client_certificate, &other.client_certificate)
    }
}

/// Whether no name has conditions that exclude each other.
fn agree<N: PartialEq>(one: &[(N, Condition)], other: &[(N, Condition)]) -> bool {
    one.iter().all(|(name, condition)| {
        other.iter().filter(|(other, _)| other == name).all(|(_, other)| condition.overlaps(other))
    })
}

/// As `agree`; but a certificate has several names, so that different ones exclude each other only where there must be none.
fn agree_on_certificate(one: &[(CertificateField, Condition)], other: &[(CertificateField, Condition)]) -> bool {
    one.iter().all(|(field, condition)| {
        other.iter().filter(|(other, _)| other == field).all(|(_, other)| match field {
            CertificateField::San => (*condition == Condition::Absent) == (*other == Condition::Absent),
            _ => condition.overlaps(other),
        })
    })
}

impl Condition {
    fn holds(&self, value: Option<impl Iterator<Item = u8>>) -> bool {
        match (self, value) {
            (Condition::Exact(text), Some(value)) => value.eq(text.bytes()),
            (Condition::Prefix(prefix), Some(mut value)) => prefix.bytes().all(|byte| value.next() == Some(byte)),
            (Condition::Present, value) => value.is_some(),
            (Condition::Absent, value) => value.is_none(),
            (Condition::Exact(_) | Condition::Prefix(_), None) => false,
        }
    }

    fn overlaps(&self, other: &Condition) -> bool {
        use Condition::{Absent, Exact, Prefix, Present};
        match (self, other) {
            (Absent, Absent) => true,
            (Absent, _) | (_, Absent) => false,
            (Present, _) | (_, Present) => true,
            (Exact(one), Exact(other)) => one == other,
            (Exact(text), Prefix(prefix)) | (Prefix(prefix), Exact(text)) => text.starts_with(&**prefix),
            (Prefix(one), Prefix(other)) => one.starts_with(&**other) || other.starts_with(&**one),
        }
    }
}

/// Whether a preflight says that the request to come has a header.
fn announces(head: &Head<'_>, name: &HeaderName) -> bool {
    let fields = head.headers.get_all(ACCESS_CONTROL_REQUEST_HEADERS).iter().filter_map(|field| field.to_str().ok());
    fields.flat_map(|field| field.split(',')).any(|one| one.trim().eq_ignore_ascii_case(name.as_str()))
}

/// The first value of a query parameter, percent-decoded as it is compared.
fn query_value<'q>(query: Option<&'q str>, name: &str) -> Option<percent_encoding::PercentDecode<'q>> {
    query?.split('&').find_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let same = percent_encoding::percent_decode_str(key).eq(name.bytes());
        same.then(|| percent_encoding::percent_decode_str(value))
    })
}

impl Networks {
    /// Networks by length: requests from a longer network are described more closely.
    pub(super) fn by_len(mut networks: Vec<IpNet>) -> Vec<Networks> {
        networks.sort_by_key(|network| (network.prefix_len(), *network));
        networks.dedup();
        networks
            .chunk_by(|one, other| one.prefix_len() == other.prefix_len())
            .map(|list| Networks { len: list.first().map_or(0, IpNet::prefix_len), list: list.into() })
            .collect()
    }

    pub(super) fn rank(&self) -> u8 {
        self.len.saturating_add(1)
    }

    fn contain(&self, client: IpAddr) -> bool {
        IpNet::new(client, self.len).is_ok_and(|network| self.list.binary_search(&network.trunc()).is_ok())
    }

    /// Of one length: they overlap where they are equal.
    pub(super) fn overlap(&self, other: &Networks) -> bool {
        self.len == other.len && self.list.iter().any(|network| other.list.binary_search(network).is_ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holds(condition: &Condition, value: Option<&str>) -> bool {
        condition.holds(value.map(str::bytes))
    }

    #[test]
    fn conditions_hold_on_values() {
        let exact = Condition::Exact("ab".into());
        let prefix = Condition::Prefix("ab".into());
        for (value, expect) in [
            (Some("ab"), [true, true, true, false]),
            (Some("abc"), [false, true, true, false]),
            (Some("a"), [false, false, true, false]),
            (Some(""), [false, false, true, false]),
            (None, [false, false, false, true]),
        ] {
            let got = [&exact, &prefix, &Condition::Present, &Condition::Absent].map(|c| holds(c, value));
            assert_eq!(got, expect, "{value:?}");
        }
    }

    #[test]
    fn query_parameters_are_compared_decoded() {
        let value = |query, name| query_value(Some(query), name).map(|value| value.collect::<Vec<u8>>());
        assert_eq!(value("a=1&b=2&b=3", "b"), Some(b"2".to_vec()));
        assert_eq!(value("%61=x%20y", "a"), Some(b"x y".to_vec()));
        assert_eq!(value("flag", "flag"), Some(Vec::new()));
        assert_eq!(value("ab=1", "a"), None);
    }

    #[test]
    fn networks_of_one_length_are_searched() {
        let list = ["10.1.0.0/16", "10.0.0.0/8", "10.2.0.0/16", "2001:db8::/32", "192.0.2.1/32"];
        let by_len = Networks::by_len(list.iter().map(|text| text.parse().expect(text)).collect());
        assert_eq!(by_len.iter().map(Networks::rank).collect::<Vec<_>>(), [9, 17, 33]);
        let holding = |client: &str| -> Vec<u8> {
            let client = client.parse().expect(client);
            by_len.iter().filter(|networks| networks.contain(client)).map(Networks::rank).collect()
        };
        assert_eq!(holding("10.1.2.3"), [9, 17]);
        assert_eq!(holding("10.3.2.3"), [9]);
        assert_eq!(holding("2001:db8::1"), [33]);
        assert_eq!(holding("192.0.2.1"), [33]);
        assert_eq!(holding("::1"), Vec::<u8>::new());
    }
}
