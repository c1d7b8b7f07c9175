//! What settings mean: mistakes that the shape of a value does not show.
//!
//! Pure: no socket is opened, no name is resolved, no file is read.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use super::certificates;
use super::{Admin, HttpVersion, Limits, Listen, ListenProtocol, Settings, UnknownNames};
use crate::problem::{Path, Problem};

pub(super) const ADDRESS_HELP: &str =
    "write `address:port` with an IP address: \"[::]:443\" (both families), \"127.0.0.1:8080\"";
const ADMIN_HELP: &str = "write \"127.0.0.1:9090\" or \"unix:/run/tollgate/admin.sock\"";
/// Far beyond any machine's cores.
const THREADS_MAX: usize = 1024;
pub(super) const NAME_HELP: &str = "a name holds letters, digits, `-`, `_` and `.`, and no more than 64 of them";
const NETWORK_HELP: &str = "write networks such as \"10.0.0.0/8\" or \"fdaa::/16\", or single addresses";

impl Settings {
    /// Adds every mistake of meaning.
    pub fn check(&self, problems: &mut Vec<Problem>) {
        let top = Path::default();
        let mut error =
            |path: Path, message: String, help: &str| problems.push(Problem::error(path, message).help(help));
        if self.listen.is_empty() {
            let help = "add a [[listen]] with name, address and protocol";
            error(top.at("listen"), "there is no listener".to_owned(), help);
        }
        let mut names = BTreeSet::new();
        let mut addresses: Vec<(SocketAddr, String)> = Vec::new();
        for (index, listen) in self.listen.iter().enumerate() {
            let at = top.at("listen").at(index);
            if !names.insert(&listen.name) {
                let message = format!("another listener is called `{}` too", listen.name);
                error(at.at("name"), message, "give each listener a name of its own");
            }
            if !is_name(&listen.name) {
                error(at.at("name"), format!("`{}` is not a name", listen.name), NAME_HELP);
            }
            listener(listen, &at, &mut error);
            address(&listen.address, at.at("address"), &listen.name, &mut addresses, &mut error);
        }
        if let Some(health) = &self.health {
            address(&health.address, top.at("health").at("address"), "health", &mut addresses, &mut error);
        }
        if let Some(admin) = &self.admin {
            check_admin(admin, &top.at("admin"), &mut addresses, &mut error);
        }
        if let Some(name) = self.node.name.as_deref().filter(|name| !is_name(name)) {
            // It is a word of `Via` and `Proxy-Status`.
            error(top.at("node").at("name"), format!("`{name}` is not a name"), NAME_HELP);
        }
        self.check_rest(&mut error);
    }

    fn check_rest(&self, error: &mut dyn FnMut(Path, String, &str)) {
        let top = Path::default();
        let lag = self.overload.lag.0;
        if !lag.is_zero() && lag < std::time::Duration::from_millis(5) {
            let at = top.at("overload").at("lag");
            error(at, format!("{} is what an idle loop is late by", self.overload.lag), "at least 5ms; `0s` for never");
        }
        for (index, text) in self.trust.forwarded_from.iter().enumerate() {
            if network(text).is_none() {
                let at = top.at("trust").at("forwarded_from").at(index);
                error(at, format!("`{text}` is not a network"), NETWORK_HELP);
            }
        }
        for (index, server) in self.dns.servers.iter().enumerate() {
            if server.parse::<SocketAddr>().is_err() {
                let at = top.at("dns").at("servers").at(index);
                error(
                    at,
                    format!("`{server}` is not the address of a name server"),
                    "write \"10.0.0.2:53\" or \"[fdaa::3]:53\"",
                );
            }
        }
        if self.dns.ttl_min > self.dns.ttl_max {
            let message = format!("ttl_min ({}) is longer than ttl_max ({})", self.dns.ttl_min, self.dns.ttl_max);
            error(top.at("dns").at("ttl_min"), message, "set ttl_min to no more than ttl_max");
        }
        if let Some(traces) = &self.traces {
            let at = top.at("traces");
            if !(0.0..=100.0).contains(&traces.sample_percent) {
                let message = format!("{} is not a percentage", traces.sample_percent);
                error(at.at("sample_percent"), message, "write a number from 0 to 100");
            }
            collector(&traces.endpoint, at.at("endpoint"), error);
        }
        self.check_source(&top, error);
        certificates::check(self, error);
        if !is_level(&self.log.level) {
            let help = "write error, warn, info, debug or trace, or filters such as \"info,tollgate::upstream=debug\"";
            error(top.at("log").at("level"), format!("`{}` is not a log level", self.log.level), help);
        }
        if self.node.threads > THREADS_MAX {
            let help = "leave the key out for one thread on each core";
            error(top.at("node").at("threads"), format!("more than {THREADS_MAX} threads"), help);
        }
        self.check_limits(&top.at("limits"), error);
    }

    fn check_source(&self, top: &Path, error: &mut dyn FnMut(Path, String, &str)) {
        let at = top.at("routes");
        let routes = &self.routes;
        match (&routes.file, &routes.nats) {
            (None, None) => {
                let help = "add file = \"config/routes.toml\", or nats = {} for a document from the bus";
                error(at.clone(), "no document is named".to_owned(), help);
            }
            (Some(_), Some(_)) => error(at.at("nats"), "`file` is named, too".to_owned(), "keep one of them"),
            (Some(file), None) if file.as_os_str().is_empty() => {
                error(at.at("file"), "the path is empty".to_owned(), "write the path of the document");
            }
            _ => {}
        }
        if let Some(nats) = &routes.nats {
            if self.bus.as_ref().is_none_or(|bus| bus.urls.is_empty()) {
                let help = "add [bus] with urls = [\"nats://host:4222\"]";
                error(at.at("nats"), "there is no bus".to_owned(), help);
            }
            if nats.bucket.as_deref().is_some_and(|bucket| !is_name(bucket) || bucket.contains('.')) {
                let help = "letters, digits, `-` and `_`, and no more than 64 of them";
                error(at.at("nats").at("bucket"), "this is no name for a bucket".to_owned(), help);
            }
        } else if routes.fallback.is_some() {
            let help = "take it out: a file is followed, and the last good one is kept in state.dir";
            error(at.at("fallback"), "only a document from the bus needs a fallback".to_owned(), help);
        }
        if let Some(bus) = &self.bus {
            bus.check(&top.at("bus"), error);
        }
        self.fleet.check(&top.at("fleet"), error);
        if self.fleet.seal.is_some() && self.bus.is_none() {
            let help = "add [bus], or take it out";
            error(top.at("fleet").at("seal"), "there is no bus to keep anything on".to_owned(), help);
        }
        for name in self.secrets.keys().filter(|name| !is_name(name)) {
            error(top.at("secrets").at(name.as_str()), format!("`{name}` is not a name"), NAME_HELP);
        }
        if let Some(id) = self.node.id.as_deref().filter(|id| !id.is_empty() && (!is_name(id) || id.contains('.'))) {
            let help =
                "letters, digits, `-` and `_`, and no more than 64 of them: its report on the bus is called after it";
            error(top.at("node").at("id"), format!("`{id}` is no name in a fleet"), help);
        }
    }

    /// Limits that would let nothing through, and those beyond what the engine can honour.
    fn check_limits(&self, at: &Path, error: &mut dyn FnMut(Path, String, &str)) {
        let Limits { request_line, head, headers, http2, .. } = &self.limits;
        for (what, zero, unit) in self.nothing_allowed() {
            if zero {
                let at = what.iter().fold(at.clone(), |at, step| at.at(step));
                error(at, "zero would let nothing through".to_owned(), unit);
            }
        }
        let number = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
        let (line, window) = (1 << 10..=64 << 10, 64 << 10..=(1 << 31) - 1);
        for (what, value, range, help) in [
            ("request_line", request_line.0, line, "write 1KiB to 64KiB"),
            ("head", head.0, 1 << 10..=1 << 20, "write 1KiB to 1MiB"),
            ("headers", number(*headers), 1..=256, "write 1 to 256"),
            ("http2.stream_window", http2.stream_window.0, window.clone(), "write 64KiB to 2047MiB"),
            ("http2.connection_window", http2.connection_window.0, window, "write 64KiB to 2047MiB"),
        ] {
            if value != 0 && !range.contains(&value) {
                let at = what.split('.').fold(at.clone(), |at, step| at.at(step));
                error(at, "the engine cannot honour this".to_owned(), help);
            }
        }
    }

    /// Limits of which zero cannot be meant.
    fn nothing_allowed(&self) -> [(&[&'static str], bool, &'static str); 14] {
        let limits = &self.limits;
        let (number, size, time) = ("write at least 1", "write at least 1KiB", "write at least 1ms");
        [
            (&["request_line"], limits.request_line.0 == 0, size),
            (&["head"], limits.head.0 == 0, size),
            (&["headers"], limits.headers == 0, number),
            (&["head_timeout"], limits.head_timeout.0.is_zero(), time),
            (&["body_idle"], limits.body_idle.0.is_zero(), time),
            (&["keepalive"], limits.keepalive.0.is_zero(), time),
            (&["handshake_timeout"], limits.handshake_timeout.0.is_zero(), time),
            (&["write_idle"], limits.write_idle.0.is_zero(), time),
            (&["connections"], limits.connections == 0, number),
            (&["connections_per_address"], limits.connections_per_address == 0, number),
            (&["requests_per_connection"], limits.requests_per_connection == 0, number),
            (&["http2", "streams"], limits.http2.streams == 0, number),
            (&["http2", "stream_window"], limits.http2.stream_window.0 == 0, size),
            (&["http2", "connection_window"], limits.http2.connection_window.0 == 0, size),
        ]
    }
}

fn listener(listen: &Listen, at: &Path, error: &mut dyn FnMut(Path, String, &str)) {
    if listen.protocol == ListenProtocol::Http && listen.unknown_names == UnknownNames::Refuse {
        let help = "set protocol = \"https\", or take the key out";
        error(at.at("unknown_names"), "a cleartext listener is told no name by a handshake".to_owned(), help);
    }
    if listen.protocol == ListenProtocol::Http && listen.certificate.is_some() {
        let help = "set protocol = \"https\", or take the certificate out";
        error(at.at("certificate"), "a cleartext listener shows no certificate".to_owned(), help);
    }
    if listen.protocol == ListenProtocol::Https && listen.https_port.is_some() {
        error(at.at("https_port"), "requests here are encrypted already".to_owned(), "take the key out");
    }
    if let Some(proxies) = &listen.proxy_protocol {
        let at = at.at("proxy_protocol").at("from");
        if proxies.from.is_empty() {
            error(at.clone(), "nobody may send a PROXY header".to_owned(), "name the load balancers' networks");
        }
        for (index, text) in proxies.from.iter().enumerate().filter(|(_, text)| network(text).is_none()) {
            error(at.at(index), format!("`{text}` is not a network"), NETWORK_HELP);
        }
    }
    let Some(versions) = &listen.versions else { return };
    if versions.is_empty() {
        let help = "name some of \"h1\" and \"h2\", or leave the key out";
        error(at.at("versions"), "no HTTP version is left".to_owned(), help);
    }
    for version in [HttpVersion::H1, HttpVersion::H2] {
        if versions.iter().filter(|spoken| **spoken == version).count() > 1 {
            error(at.at("versions"), "a version is named twice".to_owned(), "name each version once");
        }
    }
}

/// An address that is opened: legal, and nobody else's.
fn address(
    text: &str,
    at: Path,
    owner: &str,
    taken: &mut Vec<(SocketAddr, String)>,
    error: &mut dyn FnMut(Path, String, &str),
) {
    let Ok(address) = text.parse::<SocketAddr>() else {
        return error(at, format!("`{text}` is not an address to listen on"), ADDRESS_HELP);
    };
    if let Some((_, other)) = taken.iter().find(|(other, _)| clash(*other, address)) {
        error(at, format!("`{other}` listens on this address already"), "give each listener a port of its own");
    }
    taken.push((address, owner.to_owned()));
}

/// Port 0 is any free one. `[::]` takes both families, and every address is part of its family's wildcard.
fn clash(a: SocketAddr, b: SocketAddr) -> bool {
    let (one, other) = (a.ip(), b.ip());
    let wide = |wide: IpAddr, narrow: IpAddr| wide.is_unspecified() && (wide.is_ipv6() || narrow.is_ipv4());
    a.port() != 0 && a.port() == b.port() && (one == other || wide(one, other) || wide(other, one))
}

fn check_admin(
    admin: &Admin,
    at: &Path,
    taken: &mut Vec<(SocketAddr, String)>,
    error: &mut dyn FnMut(Path, String, &str),
) {
    if admin.token.as_deref().is_some_and(|token| token.trim().is_empty()) {
        error(at.at("token"), "the token is empty".to_owned(), "write a secret, or take the key out");
    }
    if let Some(socket) = admin.address.strip_prefix("unix:") {
        if !socket.starts_with('/') {
            error(at.at("address"), format!("`{socket}` is not an absolute path"), ADMIN_HELP);
        }
        return;
    }
    let Ok(parsed) = admin.address.parse::<SocketAddr>() else {
        return error(at.at("address"), format!("`{}` is not an address to listen on", admin.address), ADMIN_HELP);
    };
    if !parsed.ip().is_loopback() && admin.token.is_none() {
        let message = format!("`{}` can be reached from other machines, and there is no token", admin.address);
        error(at.at("address"), message, "listen on 127.0.0.1 or a unix: socket, or set `token`");
    }
    address(&admin.address, at.at("address"), "admin", taken, error);
}

fn collector(endpoint: &str, at: Path, error: &mut dyn FnMut(Path, String, &str)) {
    let help = "write a URL such as \"http://127.0.0.1:4318/v1/traces\"";
    match endpoint.parse::<http::Uri>() {
        Ok(uri) if matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some() => {}
        _ => error(at, format!("`{endpoint}` is not the URL of a collector"), help),
    }
}

/// Levels and filters of `tracing_subscriber::EnvFilter`. A bare word that is no level would be taken for the name of a
/// module, and nothing else would be logged.
pub(super) fn is_level(filter: &str) -> bool {
    let level = |text: &str| ["off", "error", "warn", "info", "debug", "trace"].contains(&text);
    filter.split(',').all(|part| match part.split_once('=') {
        Some((target, part)) => !target.trim().is_empty() && level(part.trim()),
        None => level(part.trim()),
    })
}

/// A network as settings name it; a single address is a network of one.
pub fn network(text: &str) -> Option<IpNet> {
    text.parse::<IpNet>().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))
}

pub(super) fn is_name(name: &str) -> bool {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    (1..=64).contains(&name.len()) && name.bytes().all(legal) && !name.starts_with('.')
}
