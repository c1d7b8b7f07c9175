//! Which client addresses may ask at all.

use std::net::IpAddr;

use ipnet::IpNet;

use super::Reading;
use crate::config;
use crate::problem::Path;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Addresses {
    /// `None`: all.
    allow: Option<Box<[IpNet]>>,
    deny: Box<[IpNet]>,
}

impl Addresses {
    pub fn compile(words: &config::Addresses, at: &Path, reading: &mut Reading<'_>) -> Addresses {
        let config::Addresses { allow, deny } = words;
        if allow.is_empty() && deny.is_empty() {
            reading.error(at, "it names no network", "write `allow`, `deny`, or leave the block out");
        }
        let allow_list = networks(allow, &at.at("allow"), reading);
        Addresses { allow: (!allow.is_empty()).then_some(allow_list), deny: networks(deny, &at.at("deny"), reading) }
    }

    pub fn allow(&self, client: IpAddr) -> bool {
        let client = client.to_canonical();
        let among = |list: &[IpNet]| list.iter().any(|network| network.contains(&client));
        !among(&self.deny) && self.allow.as_ref().is_none_or(|list| among(list))
    }
}

fn networks(words: &crate::scalar::OneOrMany<String>, at: &Path, reading: &mut Reading<'_>) -> Box<[IpNet]> {
    let mut list = Vec::new();
    for (index, text) in words.iter().enumerate() {
        match text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from)) {
            Ok(network) => list.push(canonical(network)),
            Err(_) if text.contains("${") => {}
            Err(_) => {
                let help = "a network is like `203.0.113.0/24` or `2001:db8::/32`, an address like `203.0.113.7`";
                reading.error(&at.at(index), format!("`{text}` is not a network"), help);
            }
        }
    }
    list.into()
}

/// Clients over IPv4 are IPv4, also where the socket says `::ffff:`.
fn canonical(network: IpNet) -> IpNet {
    let IpNet::V6(v6) = network else { return network };
    let mapped = v6.addr().to_ipv4_mapped().zip(v6.prefix_len().checked_sub(96));
    mapped.and_then(|(v4, len)| IpNet::new(v4.into(), len).ok()).unwrap_or(network)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Presence;

    #[test]
    fn deny_comes_before_allow() {
        let words: config::Addresses =
            toml::from_str("allow = ['10.0.0.0/8', '2001:db8::/32']\ndeny = '10.1.0.0/16'").unwrap();
        let mut problems = Vec::new();
        let mut reading = Reading { captures: &|_| Presence::Never, problems: &mut problems };
        let addresses = Addresses::compile(&words, &Path::default(), &mut reading);
        for (client, expect) in [
            ("10.0.0.1", true),
            ("::ffff:10.0.0.1", true),
            ("10.1.0.1", false),
            ("192.0.2.1", false),
            ("2001:db8::1", true),
        ] {
            assert_eq!(addresses.allow(client.parse().unwrap()), expect, "{client}");
        }
        assert_eq!(problems, []);
    }
}
