//! The two regions of core-ha, for `dev`: in each a nats-server, a gateway and two nodes; and lines that can be cut.
//!
//! ```text
//! gateway eu ── hub, with the streams ──╳── leaf ── gateway us
//!     └───╳── eu-1, eu-2                us-1, us-2 ──╳───┘         ╳: lines
//! ```
//! Nodes of the other region are reached by the same lines. Controller and backend are in the first region.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use serde_json::json;
use tokio::net::TcpListener;

use super::Exit;
use super::gateway_process::GatewayProcess;
use super::nats_config::{self, Topology};
use super::nats_server::Server;
use super::run;
use super::system::{Buses, FLEET};
use crate::bus::names::Fleet;
use crate::bus::{self, Bus, Link, Role};
use crate::control::signals::Signals;
use crate::durable;
use crate::scalar::{OneOrMany, Secret, hex};
use crate::settings::{self, Settings};
use crate::tasks::Tasks;

#[path = "../../examples/core-ha/lines.rs"]
mod lines;

/// JetStream domain of the hub.
const DOMAIN: &str = "hub";
/// What the settings of the second gateway refer to, and `nats-config`.
const PASSWORD: &str = "NATS_GATEWAY_PASSWORD";
/// What stands in the routes for the address of each node, and the node's name.
const NODES: [(&str, &str); 4] = [
    ("eu-1.core-node.internal:8090", "eu-1"),
    ("eu-2.core-node.internal:8090", "eu-2"),
    ("us-1.core-node.internal:8090", "us-1"),
    ("us-2.core-node.internal:8090", "us-2"),
];
/// Until a server that has just begun answers.
const REACH: Duration = Duration::from_secs(10);
const AGAIN: Duration = Duration::from_millis(200);

/// See the module.
pub(super) struct Regions {
    hub: SocketAddr,
    leaf: SocketAddr,
    passwords: Passwords,
    laid: Laid,
    signals: Signals,
}

impl Regions {
    /// Starts lines, nodes and servers. What the servers keep is below `dir`, and new each time.
    pub(super) async fn start(dir: &Path, tasks: &Tasks) -> Result<Regions, String> {
        let said = |error: io::Error| error.to_string();
        // From here on a signal is kept until the gateways can be told: no server is left behind.
        let signals = Signals::of_process().map_err(said)?;
        // A server that outlived a `dev` that was killed may still write to what it had.
        let servers = dir.join("nats");
        match std::fs::remove_dir_all(&servers) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(said(error)),
            _ => {}
        }
        let servers = servers.join(format!("{:x}", fastrand::u64(..)));
        durable::directory(&servers).map_err(said)?;
        let passwords = Passwords::new().map_err(said)?;
        let [hub, leaf, leaves] = free().map_err(said)?;
        let laid = Laid::start(leaves, tasks).await.map_err(said)?;
        let config = |topology, name: &str, listen: SocketAddr, peer: Vec<String>| {
            nats_config::text(&nats_config::Args {
                topology,
                fleet: FLEET.to_owned(),
                bucket: None,
                listen: listen.to_string(),
                leaves: Some(leaves.to_string()),
                advertise_leaves: Some(laid.upward.to_string()),
                // Any port that is free; the log of the server names it.
                monitor: "127.0.0.1:-1".to_owned(),
                store: servers.join(name).display().to_string(),
                domain: DOMAIN.to_owned(),
                peer,
                name: Some(name.to_owned()),
            })
        };
        let text = config(Topology::Hub, "hub", hub, Vec::new());
        Server::start("hub", &servers, &text, hub, passwords.variables(), tasks).await?;
        let peer = format!("nats-leaf://leaf:{}@{}", passwords.of("leaf"), laid.upward);
        let text = config(Topology::Leaf, "leaf", leaf, vec![peer]);
        Server::start("leaf", &servers, &text, leaf, passwords.variables(), tasks).await?;
        durable::replace(&dir.join("operator.password"), passwords.of("operator").as_bytes()).map_err(said)?;
        let places = json!({
            "hub": format!("nats://{hub}"), "leaf": format!("nats://{leaf}"), "switch": laid.switch.to_string(),
        });
        durable::replace(&dir.join("regions.json"), places.to_string().as_bytes()).map_err(said)?;
        Ok(Regions { hub, leaf, passwords, laid, signals })
    }

    /// What controller and backend are given: connections to the hub, and on it all that a fleet keeps.
    pub(super) async fn buses(&self) -> Result<Buses, String> {
        let open = async |role: Role| {
            let words = self.words(self.hub, role);
            let bus = bus::open(&words, &format!("tollgate dev {}", role.name()), role).await;
            bus.map_err(|error| error.to_string())
        };
        let buses = Buses { controller: open(Role::Controller).await?, service: open(Role::Service).await? };
        let making = tokio::time::timeout(REACH, made(&buses.controller)).await;
        making.map_err(|_| "the nats-server of the hub does not answer".to_owned())?;
        Ok(buses)
    }

    fn words(&self, server: SocketAddr, role: Role) -> settings::Bus {
        settings::Bus {
            urls: OneOrMany(vec![format!("nats://{server}")]),
            fleet: FLEET.to_owned(),
            user: Some(role.name().to_owned()),
            password: Some(Secret::new(self.passwords.of(role.name()))),
            ..settings::Bus::default()
        }
    }

    /// The routes with every node where it is.
    pub(super) fn place(&self, routes: &str) -> String {
        self.laid.nodes.iter().fold(routes.to_owned(), |routes, (place, at)| routes.replace(place, &at.to_string()))
    }

    /// Who the gateway of the second region is, as its settings say it: it is a process of its own, and is told the password
    /// by its environment.
    pub(super) fn second(&self, fallback: &Path) -> String {
        let fallback = toml::Value::String(fallback.display().to_string());
        format!(
            "node = {{ name = \"tollgate-dev\", id = \"us\", region = \"us\" }}\n\
             routes = {{ nats = {{}}, fallback = {fallback} }}\n\
             bus = {{ urls = [\"nats://{leaf}\"], fleet = \"{FLEET}\", user = \"{user}\", password = \"${{{PASSWORD}}}\", domain = \"{DOMAIN}\" }}\n",
            leaf = self.leaf,
            user = Role::Gateway.name(),
        )
    }

    /// Runs both gateways until they are told to leave, the second with the settings of a file. `up` is called once they
    /// serve, with what runs where: the port of the first and the directory of everything stand in it.
    pub(super) async fn serve(
        mut self,
        mut eu: Settings,
        us: &Path,
        (http, dir): (u16, &Path),
        up: impl FnOnce(&str),
    ) -> Result<Exit, String> {
        eu.node.id = Some("eu".to_owned());
        eu.node.region = Some("eu".to_owned());
        eu.bus = Some(self.words(self.hub, Role::Gateway));
        let ports = dir.join("us.ports.json");
        let secret = (PASSWORD, self.passwords.of(Role::Gateway.name()));
        let mut second = GatewayProcess::start(us, secret, &ports).await?;
        let shown = self.shown(http, address_of_http(&ports)?, dir);
        let (tell_first, to_first) = Signals::injected();
        let mut first = std::pin::pin!(run::serve_until(to_first, eu, None, None, || up(&shown)));
        let (mut exit, mut second_left) = (None, false);
        loop {
            tokio::select! {
                done = &mut first, if exit.is_none() => exit = Some(done),
                left = second.left(), if !second_left => {
                    second_left = true;
                    if !left.as_ref().is_ok_and(|status| status.success()) {
                        tracing::error!(?left, "the gateway of us ended");
                    }
                }
                signal = self.signals.next() => {
                    // Who does not listen any more has left.
                    let _ = tell_first.send(signal).await;
                    second.tell(signal);
                }
            }
            match exit {
                // One that did not come up takes the other with it.
                Some(exit) if second_left || exit != Exit::Ok => return Ok(exit),
                _ => {}
            }
        }
    }

    /// What runs where, for whoever reads it.
    fn shown(&self, http: u16, us: SocketAddr, dir: &Path) -> String {
        let (Regions { hub, leaf, .. }, switch, us) = (self, self.laid.switch, us.port());
        let password = dir.join("operator.password");
        format!(
            "\n\
             What runs where\n  \
               eu   gateway http://localhost:{http}   nats-server nats://{hub} (hub: the streams)   eu-1, eu-2, backend, controller\n  \
               us   gateway http://localhost:{us}   nats-server nats://{leaf} (leaf of the hub)   us-1, us-2\n  \
               curl http://{switch}/                       the lines that can be cut: `leaf`, and one to each node\n\
             \n\
             Lose the nodes of a region\n  \
               curl http://localhost:{us}/where            us-1 or us-2\n  \
               curl -X POST http://{switch}/us-1/cut; curl -X POST http://{switch}/us-2/cut\n  \
               curl http://localhost:{us}/where            eu-1 or eu-2; /heal in the place of /cut brings them back\n\
             \n\
             Lose the line between the regions\n  \
               curl -X POST http://{switch}/leaf/cut\n  \
               change the routes (below): eu has it at once, us serves what it had\n  \
               curl -X POST http://{switch}/leaf/heal      us takes it, too\n\
             \n\
             Ask the fleet\n  \
               export TOLLGATE_NATS=nats://{hub} TOLLGATE_NATS_USER=\"operator:$(cat {password})\"\n  \
               tollgate status; tollgate log; tollgate pull routes.toml; tollgate push routes.toml --wait\n",
            password = password.display(),
        )
    }
}

/// Lines and nodes that run.
struct Laid {
    /// The way of the leaf to the hub.
    upward: SocketAddr,
    /// What stands in the routes, and the line to it.
    nodes: Vec<(&'static str, SocketAddr)>,
    switch: SocketAddr,
}

impl Laid {
    async fn start(leaves: SocketAddr, tasks: &Tasks) -> io::Result<Laid> {
        let run = |name: &'static str, work: std::pin::Pin<Box<dyn Future<Output = io::Result<()>> + Send>>| {
            tasks.spawn_forever("example", async move {
                if let Err(error) = work.await {
                    tracing::error!(%error, name, "a part of the example ended");
                }
            });
        };
        let mut switched = BTreeMap::new();
        let mut line = async |name: &'static str, to: SocketAddr| {
            let line = lines::Line::to(to).await?;
            let address = line.address()?;
            switched.insert(name, line.whole());
            run(name, Box::pin(line.carry()));
            Ok::<_, io::Error>(address)
        };
        let upward = line("leaf", leaves).await?;
        let mut nodes = Vec::new();
        for (place, name) in NODES {
            let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
            nodes.push((place, line(name, listener.local_addr()?).await?));
            run(name, Box::pin(lines::node(listener, name)));
        }
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let switch = listener.local_addr()?;
        run("switch", Box::pin(lines::switch(listener, switched)));
        Ok(Laid { upward, nodes, switch })
    }
}

/// A password for each role, and for leaves.
struct Passwords(BTreeMap<&'static str, String>);

impl Passwords {
    fn new() -> io::Result<Passwords> {
        let roles = Role::ALL.into_iter().map(Role::name).chain(["leaf"]);
        let password = |role| {
            let mut bytes = [0; 16];
            aws_lc_rs::rand::fill(&mut bytes).map_err(|_| io::Error::other("no random bytes"))?;
            // A letter first: nats-server reads what begins with a digit as a number.
            Ok((role, format!("p{}", hex(&bytes))))
        };
        roles.map(password).collect::<io::Result<_>>().map(Passwords)
    }

    fn of(&self, role: &str) -> &str {
        self.0.get(role).map_or("", String::as_str)
    }

    /// As `nats-config` refers to them.
    fn variables(&self) -> BTreeMap<String, String> {
        let named =
            |(role, password): (&&str, &String)| (format!("NATS_{}_PASSWORD", role.to_uppercase()), password.clone());
        self.0.iter().map(named).collect()
    }
}

/// Ports that were free a moment ago: nats-server tells nobody where leaves find it if it chooses by itself.
fn free() -> io::Result<[SocketAddr; 3]> {
    let bind = || std::net::TcpListener::bind(("127.0.0.1", 0));
    let held = [bind()?, bind()?, bind()?];
    let [one, two, three] = held.map(|listener| listener.local_addr());
    Ok([one?, two?, three?])
}

/// Makes what a fleet keeps, as soon as the server is ready for it.
async fn made(bus: &Bus) {
    let mut link = bus.link();
    // A bus that is dropped is waited for in vain, and the caller bounds that.
    let _ = link.wait_for(|link| *link == Link::Up).await;
    while let Err(error) = Fleet::new(FLEET).make(bus, FLEET).await {
        tracing::debug!(%error, "the hub is not ready yet");
        tokio::time::sleep(AGAIN).await;
    }
}

/// Where a gateway that has written its ports takes requests in the clear.
fn address_of_http(ports: &Path) -> Result<SocketAddr, String> {
    let text = std::fs::read_to_string(ports).map_err(|error| format!("{}: {error}", ports.display()))?;
    let ports: BTreeMap<String, String> = serde_json::from_str(&text).map_err(|error| error.to_string())?;
    ports.get("http").and_then(|address| address.parse().ok()).ok_or_else(|| "no listener `http`".to_owned())
}
