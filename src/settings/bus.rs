//! Words of the bus: how a process takes part in its fleet.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::CertificateFiles;
use crate::problem::Path;
use crate::scalar::{OneOrMany, Secret};

/// The bus of a fleet: NATS with JetStream, 2.9 or newer.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Bus {
    /// Servers, `nats://host:4222` or `tls://host:4222`; another is taken when one is lost. Empty texts are left out. Default: none, the process is alone.
    #[serde(default)]
    pub urls: OneOrMany<String>,
    /// Name of the fleet: what it keeps on the bus is called after it. Letters, digits, `-` and `_`. Default `tollgate`.
    #[serde(default = "fleet")]
    pub fleet: String,
    /// Path of a `.creds` file. One of `credentials`, `nkey`, `token` and `user`.
    #[serde(default)]
    pub credentials: Option<PathBuf>,
    /// Seed of an nkey, `SU..`. Usually `"${file:/run/secrets/edge.nk}"`.
    #[serde(default)]
    pub nkey: Option<Secret>,
    /// Token. Usually `"${file:/run/secrets/nats-token}"`.
    #[serde(default)]
    pub token: Option<Secret>,
    /// User name. Needs `password`.
    #[serde(default)]
    pub user: Option<String>,
    /// Password of `user`.
    #[serde(default)]
    pub password: Option<Secret>,
    /// PEM file of roots that servers are verified by, beside those of the system.
    #[serde(default)]
    pub ca: Option<PathBuf>,
    /// Certificate shown to servers that ask for one.
    #[serde(default)]
    pub certificate: Option<CertificateFiles>,
    /// JetStream domain, where the server is a leaf node and the streams are on its hub. Default: none.
    #[serde(default)]
    pub domain: Option<String>,
    /// Copies that servers keep of what `push` and the controller make, 1 to 5. Default 1.
    #[serde(default = "one")]
    pub replicas: usize,
    /// Events and telemetry that wait while the bus cannot be reached; beyond it the oldest telemetry goes first. Default 10000.
    #[serde(default = "buffer")]
    pub buffer: usize,
}

fn fleet() -> String {
    "tollgate".to_owned()
}
fn one() -> usize {
    1
}
fn buffer() -> usize {
    10_000
}

impl Default for Bus {
    fn default() -> Bus {
        Bus {
            urls: OneOrMany::default(),
            fleet: fleet(),
            credentials: None,
            nkey: None,
            token: None,
            user: None,
            password: None,
            ca: None,
            certificate: None,
            domain: None,
            replicas: one(),
            buffer: buffer(),
        }
    }
}

/// What buckets and subjects may be called after.
pub(crate) fn is_fleet_name(name: &str) -> bool {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    (1..=64).contains(&name.len()) && name.bytes().all(legal)
}

impl Bus {
    /// The servers that are named; a variable that is not set names none.
    pub fn servers(&self) -> Vec<String> {
        self.urls.iter().filter(|url| !url.trim().is_empty()).cloned().collect()
    }

    /// Whether all servers are on this machine, as far as their names say.
    pub fn is_local(&self) -> bool {
        self.servers().iter().all(|url| {
            let rest = url.split_once("://").map_or(&**url, |(_, rest)| rest);
            let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
            let host = host.split(['/', '?']).next().unwrap_or_default();
            let name = host.rsplit_once(':').map_or(host, |(name, _)| name).trim_matches(['[', ']']);
            name == "localhost" || name.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
        })
    }

    /// The same for people to read, without what may be a password in them.
    pub fn shown(&self) -> String {
        let bare = |url: String| match (url.split_once("://"), url.rsplit_once('@')) {
            (Some((scheme, _)), Some((_, host))) => format!("{scheme}://{host}"),
            (None, Some((_, host))) => host.to_owned(),
            (_, None) => url,
        };
        self.servers().into_iter().map(bare).collect::<Vec<_>>().join(", ")
    }

    /// Adds every mistake of meaning.
    pub fn check(&self, at: &Path, error: &mut dyn FnMut(Path, String, &str)) {
        if !is_fleet_name(&self.fleet) {
            let help =
                "letters, digits, `-` and `_`, and no more than 64 of them: buckets and subjects are called after it";
            error(at.at("fleet"), format!("`{}` is no name for a fleet", self.fleet), help);
        }
        for (index, url) in self.urls.iter().enumerate().filter(|(_, url)| !url.trim().is_empty()) {
            let scheme = url.split_once("://").map(|(scheme, _)| scheme);
            if !matches!(scheme, Some("nats" | "tls")) && !url.contains("${") {
                let message = format!("`{url}` is no address of a NATS server");
                error(at.at("urls").at(index), message, "write \"nats://host:4222\" or \"tls://host:4222\"");
            }
            if url.contains('@') {
                let help = "use `user` and `password`, `token` or `credentials`: addresses are logged";
                error(at.at("urls").at(index), "a secret does not belong in an address".to_owned(), help);
            }
        }
        let proofs = [
            ("credentials", self.credentials.is_some()),
            ("nkey", self.nkey.is_some()),
            ("token", self.token.is_some()),
            ("user", self.user.is_some()),
        ];
        let given: Vec<&str> = proofs.iter().filter(|(_, given)| *given).map(|(name, _)| *name).collect();
        if let [_, second, ..] = given.as_slice() {
            let message = format!("{} are given, and one is used", given.join(" and "));
            error(at.at(*second), message, "keep one of them");
        }
        if self.user.is_some() != self.password.is_some() {
            let (there, missing) = if self.user.is_some() { ("user", "password") } else { ("password", "user") };
            error(at.at(there), format!("`{there}` without `{missing}`"), "give both, or neither");
        }
        if !(1..=5).contains(&self.replicas) {
            error(
                at.at("replicas"),
                format!("{} copies cannot be kept", self.replicas),
                "write 1 to 5, best an odd number",
            );
        }
        if self.buffer == 0 {
            error(at.at("buffer"), "nothing could wait".to_owned(), "write at least 1");
        }
    }
}
