//! The same load on the gateway, a bare Pingora proxy, and nginx, HAProxy and Caddy where they are installed:
//! `cargo bench --bench side_by_side [-- --seconds 4 --rounds 5]`. Each alone on one core, in turn; medians of rounds.

// A failure here is a failure of the run.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

#[path = "rig/mod.rs"]
#[allow(dead_code)] // each bench uses its part
mod rig;

use rig::driver::{self, Wire};
use rig::process::{Process, free_port, leave_the_core};
use rig::report::{self, Line};
use rig::tls::{Resumption, client};

/// A program under test: how it is started for an origin, with and without TLS.
struct Contender {
    name: &'static str,
    start: fn(&Setup) -> Process,
}

/// What a contender is started with.
struct Setup<'a> {
    binaries: &'a Path,
    directory: &'a Path,
    origin: SocketAddr,
    listen: SocketAddr,
    tls: bool,
}

impl Setup<'_> {
    fn file(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        std::fs::write(self.file(name), text).expect("a writable directory");
        self.file(name)
    }

    fn start(&self, program: impl AsRef<OsStr>, arguments: &[&OsStr]) -> Process {
        let log = self.file("log");
        let home = [("HOME", self.directory.as_os_str()), ("XDG_DATA_HOME", self.directory.as_os_str())];
        Process::start(program, arguments, &home, &log).listens(self.listen, &log)
    }
}

const CONTENDERS: [Contender; 5] = [
    Contender { name: "tollgate", start: tollgate },
    Contender { name: "bare", start: bare },
    Contender { name: "nginx", start: nginx },
    Contender { name: "haproxy", start: haproxy },
    Contender { name: "caddy", start: caddy },
];

fn tollgate(setup: &Setup) -> Process {
    let Setup { origin, listen, tls, .. } = setup;
    let (chain, key, access) = (setup.file("cert.pem"), setup.file("key.pem"), setup.file("access.log"));
    let protocol = if *tls { "https" } else { "http" };
    let certificate =
        if *tls { format!("certificate = {{ chain = {chain:?}, key = {key:?} }}") } else { String::new() };
    let routes = setup.write(
        "routes.toml",
        &format!(
            "format = 1\n[upstream.origin]\naddress = \"{origin}\"\n[[route]]\nname = \"bench\"\n\
             match = {{ host = \"bench.test\", path = \"/bench/*\" }}\nupstream = \"origin\"\n"
        ),
    );
    let edge = setup.write(
        "edge.toml",
        &format!(
            "format = 1\nnode = {{ threads = 1 }}\nroutes = {{ file = {routes:?} }}\n\
             log = {{ access = {access:?}, level = \"warn\" }}\nlimits = {{ requests_per_connection = 1000000000 }}\n\
             [[listen]]\nname = \"l\"\naddress = \"{listen}\"\nprotocol = \"{protocol}\"\n{certificate}\n"
        ),
    );
    setup.start(setup.binaries.join("tollgate"), &["run".as_ref(), "-c".as_ref(), edge.as_ref()])
}

fn bare(setup: &Setup) -> Process {
    let (listen, origin) = (setup.listen.to_string(), setup.origin.to_string());
    let (chain, key) = (setup.file("cert.pem"), setup.file("key.pem"));
    let mut arguments: Vec<&OsStr> = vec![listen.as_ref(), origin.as_ref()];
    if setup.tls {
        arguments.extend([chain.as_os_str(), key.as_os_str()]);
    }
    setup.start(setup.binaries.join("examples/bare"), &arguments)
}

fn nginx(setup: &Setup) -> Process {
    let Setup { origin, listen, tls, directory, .. } = setup;
    let (ssl, chain, key) = (if *tls { "ssl http2" } else { "" }, setup.file("cert.pem"), setup.file("key.pem"));
    let certificate =
        if *tls { format!("ssl_certificate {chain:?}; ssl_certificate_key {key:?};") } else { String::new() };
    let directory = directory.display();
    let conf = setup.write(
        "nginx.conf",
        &format!(
            "worker_processes 1; daemon off; pid {directory}/nginx.pid; error_log {directory}/nginx.error;\n\
             events {{ worker_connections 4096; }}\n\
             http {{ access_log {directory}/nginx.access; keepalive_requests 1000000000; client_body_temp_path {directory}/b;\n\
             proxy_temp_path {directory}/p; fastcgi_temp_path {directory}/f; uwsgi_temp_path {directory}/u;\n\
             scgi_temp_path {directory}/s;\n\
             upstream o {{ server {origin}; keepalive 256; keepalive_requests 1000000000; }}\n\
             server {{ listen {listen} {ssl}; server_name bench.test; {certificate}\n\
             location /bench/ {{ proxy_pass http://o; proxy_http_version 1.1; proxy_set_header Connection \"\";\n\
             proxy_set_header Host $host; proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; }} }} }}\n"
        ),
    );
    setup.start("nginx", &["-c".as_ref(), conf.as_ref()])
}

fn haproxy(setup: &Setup) -> Process {
    let Setup { origin, listen, tls, .. } = setup;
    let both = setup.file("both.pem");
    let ssl = if *tls { format!("ssl crt {} alpn h2,http/1.1", both.display()) } else { String::new() };
    let conf = setup.write(
        "haproxy.cfg",
        &format!(
            "global\n  nbthread 1\n  log stdout format raw local0\ndefaults\n  mode http\n  log global\n  option httplog\n\
             \x20 timeout connect 5s\n  timeout client 60s\n  timeout server 60s\n  option forwardfor\n\
             frontend f\n  bind {listen} {ssl}\n  acl ours path_beg /bench/\n  use_backend b if ours\n\
             backend b\n  http-reuse always\n  server o {origin}\n"
        ),
    );
    setup.start("haproxy", &["-f".as_ref(), conf.as_ref()])
}

fn caddy(setup: &Setup) -> Process {
    let Setup { origin, listen, tls, .. } = setup;
    let (chain, key, access) = (setup.file("cert.pem"), setup.file("key.pem"), setup.file("caddy.access"));
    let scheme = if *tls { "https" } else { "http" };
    let certificate = if *tls { format!("tls {} {}", chain.display(), key.display()) } else { String::new() };
    let conf = setup.write(
        "Caddyfile",
        &format!(
            "{{\n  admin off\n  auto_https disable_redirects\n}}\n{scheme}://bench.test:{port} {{\n  bind 127.0.0.1\n  {certificate}\n\
             \x20 log {{\n    output file {access}\n  }}\n  reverse_proxy /bench/* {origin}\n}}\n",
            port = listen.port(),
            access = access.display(),
        ),
    );
    setup.start(
        "caddy",
        &["run".as_ref(), "--adapter".as_ref(), "caddyfile".as_ref(), "--config".as_ref(), conf.as_ref()],
    )
}

fn installed(name: &str) -> bool {
    matches!(name, "tollgate" | "bare")
        || Command::new("sh").args(["-c", &format!("command -v {name}")]).output().is_ok_and(|out| out.status.success())
}

fn main() {
    let time = Duration::from_secs(rig::number("--seconds", 4));
    let rounds = rig::number("--rounds", 5);
    let binaries = rig::build(&["--bin", "tollgate", "--example", "bare"]);
    leave_the_core();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let origin = rig::origin::start().await;
        let mut lines: BTreeMap<(usize, usize), Vec<Line>> = BTreeMap::new();
        let mut loads = Vec::new();
        for round in 0..rounds {
            for (number, contender) in CONTENDERS.iter().enumerate().filter(|(_, one)| installed(one.name)) {
                for tls in [false, true] {
                    let directory = tempfile::tempdir().expect("a directory");
                    let trusted = rig::tls::write(directory.path());
                    let setup =
                        Setup { binaries: &binaries, directory: directory.path(), origin, listen: free_port(), tls };
                    let process = (contender.start)(&setup);
                    loads = vec![("HTTP/1.1, 1 KiB, keep-alive", Wire::H1, 32)];
                    if tls {
                        loads = vec![
                            ("the same over TLS", Wire::H1Tls(client(&trusted, b"http/1.1", Resumption::On)), 32),
                            ("HTTP/2 over TLS", Wire::H2Tls(client(&trusted, b"h2", Resumption::On), 8), 4),
                            (
                                "handshake and request",
                                Wire::Handshakes(client(&trusted, b"http/1.1", Resumption::Off), 0),
                                8,
                            ),
                            (
                                "resumed handshake and request",
                                Wire::Handshakes(client(&trusted, b"http/1.1", Resumption::On), 0),
                                8,
                            ),
                        ];
                    }
                    for (load, (_, wire, clients)) in loads.iter().enumerate() {
                        driver::run(setup.listen, wire, *clients, time / 4).await;
                        let before = process.cpu();
                        let seen = driver::run(setup.listen, wire, *clients, time).await;
                        let line = Line::of(&seen, time, process.cpu() - before, &process);
                        lines.entry((load + usize::from(tls), number)).or_default().push(line);
                    }
                }
                eprintln!("round {}: {} done", round + 1, contender.name);
            }
        }
        let names = ["HTTP/1.1, 1 KiB, keep-alive"].into_iter().chain(loads.iter().map(|(name, ..)| *name));
        for (load, name) in names.enumerate() {
            println!("\n{name}");
            report::head();
            for (number, contender) in CONTENDERS.iter().enumerate() {
                match lines.get(&(load, number)) {
                    Some(rounds) => report::line(contender.name, &Line::median(rounds)),
                    None => println!("{:<24} not installed", contender.name),
                }
            }
            let cpu = |number| lines.get(&(load, number)).map_or(f64::NAN, |rounds| Line::median(rounds).cpu_us);
            println!("tollgate to bare Pingora: {:.2} in CPU per request", cpu(0) / cpu(1));
        }
    });
}
