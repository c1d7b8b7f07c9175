//! Where a spec's endpoints are: its targets, and the order in which they are preferred.

use std::sync::Arc;

use super::address::{Address, AddressError};
use super::spec::Transports;
use super::tls::is_symbolic;
use super::transport::Transport;
use crate::bus::found;
use crate::config;
use crate::problem::{Path, Problem};

/// One target: an endpoint, or as many as its name has addresses.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) address: Address,
    /// Of each of its endpoints, unless these say otherwise themselves.
    pub(crate) weight: u16,
    pub(crate) tier: u8,
    pub(crate) region: Option<Box<str>>,
    pub(crate) transport: Arc<Transport>,
}

/// Order of preference: the tier, and within it the own region before all others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rank {
    pub(crate) tier: u8,
    pub(crate) foreign: bool,
}

impl Rank {
    pub(crate) fn of(tier: u8, region: Option<&str>, own_region: Option<&str>) -> Rank {
        Rank { tier, foreign: own_region.is_none() || region != own_region }
    }
}

/// The targets that `address` or `discover` name.
pub(super) fn targets(
    address: Option<&config::Address>,
    discover: Option<&str>,
    transports: &Transports<'_>,
    path: &Path,
    problems: &mut Vec<Problem>,
) -> Vec<Target> {
    match (address, discover) {
        (Some(words), None) => addresses(words, transports, &path.at("address"), problems),
        (None, Some(words)) => discovered(words, transports, &path.at("discover"), problems).into_iter().collect(),
        (Some(_), Some(_)) => {
            let problem = Problem::error(path.at("discover"), "`address` says already where the endpoints are");
            problems.push(problem.help("write either `address` or `discover`"));
            Vec::new()
        }
        (None, None) => {
            let problem = Problem::error(path.clone(), "it is not said where the endpoints are");
            problems.push(problem.help("write `address = \"host:port\"`, or `discover = \"bus:SERVICE\"`"));
            Vec::new()
        }
    }
}

/// What registers itself under the name of a service.
fn discovered(words: &str, transports: &Transports<'_>, path: &Path, problems: &mut Vec<Problem>) -> Option<Target> {
    if is_symbolic(words) {
        return None;
    }
    let Some(service) = words.strip_prefix("bus:") else {
        let problem = Problem::error(path.clone(), format!("`{words}` does not say where services register"));
        problems.push(problem.help("write `bus:SERVICE`; names in DNS stand in `address`"));
        return None;
    };
    if !found::is_service(service) {
        let message = found::RegistrationError::Service(service.to_owned()).to_string();
        problems.push(Problem::error(path.clone(), message));
        return None;
    }
    let address = Address::Found { service: service.into() };
    let transport = transports.of(&address, problems);
    Some(Target { address, weight: 1, tier: 1, region: None, transport })
}

fn addresses(
    words: &config::Address,
    transports: &Transports<'_>,
    path: &Path,
    problems: &mut Vec<Problem>,
) -> Vec<Target> {
    let mut targets = Vec::new();
    match words {
        config::Address::One(to) => {
            let words = config::Target { to: to.clone(), weight: 1, tier: 1, region: None };
            target(&words, path, transports, &mut targets, problems);
        }
        config::Address::Many(list) => {
            if list.is_empty() {
                problems.push(Problem::error(path.clone(), "there is no address"));
            } else if list.iter().all(|target| target.weight == 0) {
                problems.push(Problem::error(path.clone(), "every weight is 0: no endpoint would get a request"));
            }
            for (index, words) in list.iter().enumerate() {
                let path = path.at(index);
                if words.weight > 1_000 {
                    let message = format!("{} is more than 1000", words.weight);
                    problems.push(Problem::error(path.at("weight"), message));
                }
                target(words, &path.at("to"), transports, &mut targets, problems);
            }
        }
    }
    targets
}

fn target(
    words: &config::Target,
    path: &Path,
    transports: &Transports<'_>,
    targets: &mut Vec<Target>,
    problems: &mut Vec<Problem>,
) {
    let config::Target { to, weight, tier, region } = words;
    if is_symbolic(to) {
        return;
    }
    let address: Address = match to.parse() {
        Ok(address) => address,
        Err(error) => {
            let error: AddressError = error;
            problems.push(Problem::error(path.clone(), error.to_string()).help(error.help()));
            return;
        }
    };
    if targets.iter().any(|target| target.address == address) {
        problems.push(Problem::error(path.clone(), format!("`{to}` is listed twice")).help("one entry with a weight"));
        return;
    }
    let transport = match targets.iter().find(|target| target.address.host() == address.host()) {
        Some(target) => target.transport.clone(),
        None => transports.of(&address, problems),
    };
    let region = region.as_deref().map(Into::into);
    targets.push(Target { address, weight: *weight, tier: *tier, region, transport });
}
