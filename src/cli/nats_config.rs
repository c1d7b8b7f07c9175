//! `tollgate nats-config`: a nats-server configuration for the fleet, every role with what it needs and no more.

use super::{Exit, print};
use crate::bus::Role;
use crate::bus::names::Fleet;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// How the servers stand to each other.
    #[arg(long, value_enum, default_value_t)]
    pub(super) topology: Topology,
    /// Name of the fleet.
    #[arg(long, value_name = "NAME", default_value = "tollgate")]
    pub(super) fleet: String,
    /// Bucket of the documents. Default: the name of the fleet.
    #[arg(long, value_name = "NAME")]
    pub(super) bucket: Option<String>,
    /// Address that clients connect to. Other servers connect to the same host: `[::]` where the network is IPv6.
    #[arg(long, value_name = "ADDRESS", default_value = "0.0.0.0:4222")]
    pub(super) listen: String,
    /// Of a hub: address that leaves connect to. Default: port 7422 of the host of --listen.
    #[arg(long, value_name = "ADDRESS")]
    pub(super) leaves: Option<String>,
    /// Of a hub: address that leaves are told of, where it is another than that of --leaves: behind a translated port, say.
    #[arg(long, value_name = "ADDRESS")]
    pub(super) advertise_leaves: Option<String>,
    /// Address of the monitoring pages: for a private network only, since they need no password.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8222")]
    pub(super) monitor: String,
    /// Where streams are kept.
    #[arg(long, value_name = "DIR", default_value = "/data/jetstream")]
    pub(super) store: String,
    /// JetStream domain of the servers that hold the streams.
    #[arg(long, value_name = "NAME", default_value = "hub")]
    pub(super) domain: String,
    /// Servers of the hub or mesh beside this one (`nats-route://host:6222`); of a leaf, the hub's (`nats-leaf://host:7422`).
    /// Where the other side wants a password it stands here: `nats-route://route:PASSWORD@host:6222`.
    #[arg(long, value_name = "URL")]
    pub(super) peer: Vec<String>,
    /// Name of this server, unique.
    #[arg(long, value_name = "NAME")]
    pub(super) name: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Topology {
    /// One server.
    #[default]
    Single,
    /// One of several in the middle, to which leaves connect.
    Hub,
    /// A server of a region, connected to the hub; its streams are there.
    Leaf,
    /// One of several equal servers.
    Mesh,
}

pub(super) fn run(args: &Args) -> Exit {
    if !Fleet::is_name(&args.fleet) || args.bucket.as_deref().is_some_and(|bucket| !Fleet::is_name(bucket)) {
        eprintln!("error: names hold letters, digits, `-` and `_`");
        return Exit::Usage;
    }
    print(&text(args))
}

/// The configuration as nats-server reads it.
pub(super) fn text(args: &Args) -> String {
    let Args { topology, fleet, bucket, listen, leaves, advertise_leaves, monitor, store, domain, peer, name } = args;
    let documents = bucket.clone().unwrap_or_else(|| fleet.clone());
    let (host, port) = listen.rsplit_once(':').unwrap_or(("0.0.0.0", listen));
    let mut out = format!(
        "# nats-server for fleet `{fleet}`: {}. Written by `tollgate nats-config`.\n\
         # Passwords come from the environment; for nkeys or .creds replace `user`/`password` and keep the permissions.\n",
        match topology {
            Topology::Single => "one server",
            Topology::Hub => "a server of the hub",
            Topology::Leaf => "a leaf of a region",
            Topology::Mesh => "one of several equal servers",
        }
    );
    let name = name.clone().unwrap_or_else(|| format!("{fleet}-nats"));
    out.push_str(&format!("server_name: \"{name}\"\nlisten: \"{listen}\"\nhttp: \"{monitor}\"\nmax_payload: 1MB\n"));
    match topology {
        // Clients here use the streams of the hub by its domain.
        Topology::Leaf => out.push_str("# No JetStream here: clients name the hub's domain (bus.domain).\n"),
        Topology::Hub => out.push_str(&format!("jetstream {{ store_dir: \"{store}\", domain: \"{domain}\" }}\n")),
        Topology::Single | Topology::Mesh => out.push_str(&format!("jetstream {{ store_dir: \"{store}\" }}\n")),
    }
    let urls: Vec<String> = peer.iter().map(|url| format!("\"{url}\"")).collect();
    match topology {
        Topology::Single => {}
        Topology::Hub | Topology::Mesh => {
            // JetStream refuses a cluster of one.
            let cluster = format!(
                "cluster {{\n  name: \"{fleet}\"\n  listen: \"{host}:6222\"\n  routes: [{}]\n  \
                 authorization {{ user: \"route\", password: $NATS_ROUTE_PASSWORD }}\n}}\n",
                urls.join(", ")
            );
            if !urls.is_empty() {
                out.push_str(&cluster);
            }
            if *topology == Topology::Hub {
                let leaves = leaves.clone().unwrap_or_else(|| format!("{host}:7422"));
                // A leaf connects again to what it was told, not only to what its configuration names.
                let advertise = advertise_leaves.as_ref().map(|address| format!(", advertise: \"{address}\""));
                out.push_str(&format!("leafnodes {{ listen: \"{leaves}\"{} }}\n", advertise.unwrap_or_default()));
            }
        }
        Topology::Leaf => out.push_str(&format!(
            "leafnodes {{\n  remotes: [ {{ urls: [{}], account: \"{fleet}\" }} ]\n}}\n",
            urls.join(", ")
        )),
    }
    out.push_str(&format!("# Clients: port {port}.\naccounts {{\n  \"{fleet}\" {{\n"));
    if *topology != Topology::Leaf {
        out.push_str("    jetstream: enabled\n");
    }
    out.push_str("    users: [\n");
    let fleet = Fleet::new(fleet.clone());
    let api = if *topology == Topology::Leaf { format!("$JS.{domain}.API") } else { "$JS.API".to_owned() };
    for role in Role::ALL {
        let Rights { publish, subscribe } = rights(role, &fleet, &documents, &api);
        let list = |all: &[String]| all.iter().map(|one| format!("\"{one}\"")).collect::<Vec<_>>().join(", ");
        let variable = format!("NATS_{}_PASSWORD", role.name().to_uppercase());
        out.push_str(&format!(
            "      {{ user: \"{}\", password: ${variable}, permissions: {{\n        publish: {{ allow: [{}] }}\n        \
             subscribe: {{ allow: [{}] }}\n      }} }}\n",
            role.name(),
            list(&publish),
            list(&subscribe)
        ));
    }
    if *topology == Topology::Hub {
        out.push_str("      # Leaves speak for the clients they have let in.\n");
        out.push_str("      { user: \"leaf\", password: $NATS_LEAF_PASSWORD }\n");
    }
    out.push_str("    ]\n  }\n}\n");
    out
}

struct Rights {
    publish: Vec<String>,
    subscribe: Vec<String>,
}

/// What a role may say and hear.
fn rights(role: Role, fleet: &Fleet, documents: &str, api: &str) -> Rights {
    let inbox = format!("_INBOX.{}.>", role.name());
    let name = fleet.name();
    // Reading a stream: what it is, its values, and a consumer of one's own in it.
    let read = |stream: &str| {
        vec![
            format!("{api}.STREAM.INFO.{stream}"),
            format!("{api}.DIRECT.GET.{stream}.>"),
            format!("{api}.DIRECT.GET.{stream}"),
            format!("{api}.CONSUMER.CREATE.{stream}"),
            format!("{api}.CONSUMER.CREATE.{stream}.>"),
            format!("{api}.CONSUMER.DELETE.{stream}.>"),
            format!("{api}.CONSUMER.INFO.{stream}.>"),
            format!("$JS.FC.{stream}.>"),
        ]
    };
    let bucket = |bucket: &str| read(&format!("KV_{bucket}"));
    // With a domain, values are written by way of its API.
    let write = |keys: String| match api {
        "$JS.API" => vec![format!("$KV.{keys}")],
        _ => vec![format!("$KV.{keys}"), format!("{api}.$KV.{keys}")],
    };
    let all = [documents.to_owned(), fleet.status(), fleet.shared(), fleet.sealed(), fleet.found()];
    let erase = |bucket: &str| format!("{api}.STREAM.MSG.DELETE.KV_{bucket}");
    let mut publish = Vec::new();
    let mut subscribe = vec![inbox];
    match role {
        Role::Gateway => {
            all.iter().for_each(|one| publish.extend(bucket(one)));
            for keys in
                [format!("{}.>", fleet.status()), format!("{}.>", fleet.shared()), format!("{}.>", fleet.sealed())]
            {
                publish.extend(write(keys));
            }
            publish.push(erase(&fleet.shared()));
            for what in ["event", "request", "traffic", "usage", "tapped"] {
                publish.push(format!("{name}.{what}.>"));
            }
            subscribe.extend([format!("{name}.usage.*"), format!("{name}.tap")]);
        }
        Role::Operator => {
            all.iter().for_each(|one| publish.extend(bucket(one)));
            publish.extend(write(format!("{documents}.>")));
            publish.push(erase(documents));
            publish.extend(made(&all, fleet, api));
            publish.push(format!("{name}.tap"));
            subscribe.push(format!("{name}.tapped.*"));
        }
        Role::Controller => {
            all.iter().for_each(|one| publish.extend(bucket(one)));
            [fleet.events(), fleet.requests()].iter().for_each(|stream| publish.extend(read(stream)));
            publish.extend(write(format!("{documents}.>")));
            publish.push(erase(documents));
            publish.extend(write(format!("{}.>", fleet.shared())));
            // To forget one that is gone.
            publish.extend(write(format!("{}.node.*", fleet.status())));
            publish.extend(made(&all, fleet, api));
            publish.extend([format!("{name}.event.>"), format!("{name}.tap")]);
            subscribe.extend([format!("{name}.traffic.*"), format!("{name}.tapped.*")]);
        }
        Role::Service => {
            publish.push(format!("{name}.event.>"));
            publish.extend(bucket(&fleet.found()));
            publish.extend(write(format!("{}.>", fleet.found())));
        }
    }
    Rights { publish, subscribe }
}

/// Making what a fleet keeps on the bus.
fn made(buckets: &[String], fleet: &Fleet, api: &str) -> Vec<String> {
    let streams = buckets.iter().map(|bucket| format!("KV_{bucket}")).chain([fleet.events(), fleet.requests()]);
    streams
        .flat_map(|stream| ["CREATE", "UPDATE", "INFO"].map(|verb| format!("{api}.STREAM.{verb}.{stream}")))
        .collect()
}
