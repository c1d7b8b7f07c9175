//! The sockets of a gateway: opened or inherited, reported, and given to those who accept on them.

use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, TcpListener as StdListener, ToSocketAddrs};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener as StdUnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::watch;

use super::{Gateway, StartError};
use crate::admin;
use crate::front::admission::Admission;
use crate::front::app::Door;
use crate::front::conn::ListenerInfo;
use crate::front::handover::Inherited;
use crate::front::listener::{accept, bind};
use crate::proxy::Proxy;
use crate::settings::{ListenProtocol, Settings, network};
use crate::tls;

const HEALTH: &str = "health";
const ADMIN: &str = "admin";

/// Sockets that listen, and are not accepted on yet.
pub(super) struct Bound {
    public: Vec<StdListener>,
    health: Option<StdListener>,
    admin: Option<AdminSocket>,
    names: Vec<String>,
}

enum AdminSocket {
    Tcp(StdListener),
    Unix(StdUnixListener, PathBuf),
}

impl Bound {
    pub(super) fn open(settings: &Settings, inherited: &mut Inherited) -> Result<Bound, StartError> {
        let mut public = Vec::new();
        let mut names = Vec::new();
        for listen in &settings.listen {
            public.push(open_tcp(&listen.name, &format!("listen.{}", listen.name), &listen.address, inherited)?);
            names.push(listen.name.clone());
        }
        let health = match &settings.health {
            Some(health) => Some(open_tcp(HEALTH, HEALTH, &health.address, inherited)?),
            None => None,
        };
        let admin = match &settings.admin {
            Some(admin) => Some(match admin.address.strip_prefix("unix:") {
                Some(path) => open_unix(Path::new(path), inherited)?,
                None => AdminSocket::Tcp(open_tcp(ADMIN, ADMIN, &admin.address, inherited)?),
            }),
            None => None,
        };
        for name in inherited.names() {
            tracing::info!(name, "hand-over: a listener of the old gateway is not in the settings any more");
        }
        Ok(Bound { public, health, admin, names })
    }

    /// Duplicates under the names by which a successor asks for them.
    pub(super) fn duplicates(&self) -> Vec<(String, OwnedFd)> {
        let tcp = self.names.iter().zip(&self.public).map(|(name, socket)| (format!("listen.{name}"), socket.as_fd()));
        let health = self.health.iter().map(|socket| (HEALTH.to_owned(), socket.as_fd()));
        let admin = self.admin.iter().map(|socket| {
            let socket = match socket {
                AdminSocket::Tcp(socket) => socket.as_fd(),
                AdminSocket::Unix(socket, _) => socket.as_fd(),
            };
            (ADMIN.to_owned(), socket)
        });
        tcp.chain(health).chain(admin).filter_map(|(name, fd)| Some((name, fd.try_clone_to_owned().ok()?))).collect()
    }

    /// Where everything listens, by name.
    pub(super) fn addresses(&self) -> BTreeMap<String, String> {
        let text = |socket: &StdListener| socket.local_addr().map(|address| address.to_string()).unwrap_or_default();
        let mut all: BTreeMap<String, String> =
            self.names.iter().zip(&self.public).map(|(name, socket)| (name.clone(), text(socket))).collect();
        all.extend(self.health.iter().map(|socket| (HEALTH.to_owned(), text(socket))));
        all.extend(self.admin.iter().map(|socket| {
            let address = match socket {
                AdminSocket::Tcp(socket) => text(socket),
                AdminSocket::Unix(_, path) => format!("unix:{}", path.display()),
            };
            (ADMIN.to_owned(), address)
        }));
        all
    }
}

fn open_tcp(name: &str, tag: &str, address: &str, inherited: &mut Inherited) -> Result<StdListener, StartError> {
    let resolved: SocketAddr = address
        .parse()
        .ok()
        .or_else(|| address.to_socket_addrs().ok()?.next())
        .ok_or_else(|| StartError::Address { name: name.to_owned(), address: address.to_owned() })?;
    if let Some(socket) = inherited.take_tcp(tag, resolved) {
        return Ok(socket);
    }
    bind(resolved).map_err(|source| StartError::Listen { name: name.to_owned(), address: address.to_owned(), source })
}

fn open_unix(path: &Path, inherited: &mut Inherited) -> Result<AdminSocket, StartError> {
    if let Some(socket) = inherited.take_unix(ADMIN, path) {
        return Ok(AdminSocket::Unix(socket, path.to_owned()));
    }
    let failed = |source| StartError::Listen { name: ADMIN.to_owned(), address: path.display().to_string(), source };
    // What a crash left behind; a socket that somebody listens on stays.
    if std::os::unix::net::UnixStream::connect(path)
        .is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
    {
        std::fs::remove_file(path).map_err(failed)?;
    }
    let socket = StdUnixListener::bind(path).map_err(failed)?;
    std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).map_err(failed)?;
    socket.set_nonblocking(true).map_err(failed)?;
    Ok(AdminSocket::Unix(socket, path.to_owned()))
}

/// Written whole or not at all: whoever waits for the file reads all of it.
pub(super) fn write_ports(path: &Path, addresses: &BTreeMap<String, String>) -> io::Result<()> {
    let mut partial = path.as_os_str().to_owned();
    partial.push(".part");
    std::fs::write(&partial, serde_json::to_vec(addresses)?)?;
    std::fs::rename(&partial, path)
}

impl Gateway {
    /// Accepts on everything that is bound.
    pub(super) fn accept(
        &self,
        bound: Bound,
        proxy: Arc<Proxy>,
        admission: Arc<Admission>,
        state: admin::State,
        shutdown: watch::Receiver<bool>,
    ) -> Result<(), StartError> {
        let settings = &self.settings;
        let limits = Arc::new(settings.limits.clone());
        for (listen, socket) in settings.listen.iter().zip(bound.public) {
            let listen_error =
                |source| StartError::Listen { name: listen.name.clone(), address: listen.address.clone(), source };
            let tls = match listen.protocol {
                ListenProtocol::Http => None,
                ListenProtocol::Https => {
                    let failed = |source| StartError::Certificate { name: listen.name.clone(), source };
                    Some(self.identities.listener(settings, listen).map_err(failed)?)
                }
            };
            let (h1, h2) = Door::<Proxy>::versions(listen);
            let door = Arc::new(Door {
                info: Arc::new(ListenerInfo { name: listen.name.as_str().into(), tls: tls.is_some() }),
                tls,
                // Checked when they were read.
                proxies: listen
                    .proxy_protocol
                    .iter()
                    .flat_map(|proxies| proxies.from.iter())
                    .filter_map(|text| network(text))
                    .collect(),
                h1,
                h2,
                limits: limits.clone(),
                admission: admission.clone(),
                telemetry: self.telemetry.clone(),
                app: proxy.clone(),
                connections: self.connections.clone(),
                draining: self.drain.stop_accepting().clone(),
                shutdown: shutdown.clone(),
            });
            let socket = tokio::net::TcpListener::from_std(socket).map_err(listen_error)?;
            let (stop, force) = (self.drain.stop_accepting().clone(), self.drain.force().clone());
            self.acceptors.spawn(accept(socket, door, self.connections.clone(), stop, force));
        }
        self.serve_operators(bound.health, bound.admin, state)
    }

    /// Files are looked at all the time, and at once when the document is read again.
    pub(super) fn look_after_certificates(&self) {
        let files = self.identities.watched();
        self.tasks.spawn_forever("certificates", tls::watch(files.clone()));
        let identities = self.identities.clone();
        self.tasks.spawn_forever("staples", tls::keep_staples(move || identities.stapled()));
        if let Some(acme) = self.identities.acme() {
            // Challenges come to whoever accepts: a gateway that leaves orders nothing more, and ends what it has begun.
            let (acme, drain) = (acme.clone(), self.drain.clone());
            let stop = tokio_util::sync::CancellationToken::new();
            self.tasks.spawn_forever("acme", async move {
                let leaving = async {
                    drain.begun().await;
                    stop.cancel();
                    std::future::pending().await
                };
                tokio::select! {
                    () = acme.run(stop.clone()) => std::future::pending().await,
                    () = leaving => {}
                }
            });
        }
        self.control.on_reload(Box::new(move || files.iter().for_each(|one| one.look())));
    }

    /// The health and admin listeners stay until the very end, to tell how leaving goes; unless a successor answers there.
    fn serve_operators(
        &self,
        health: Option<StdListener>,
        admin: Option<AdminSocket>,
        state: admin::State,
    ) -> Result<(), StartError> {
        let failed = |name: &str| {
            let name = name.to_owned();
            move |source| StartError::Listen { address: name.clone(), name, source }
        };
        if let Some(socket) = health {
            let socket = tokio::net::TcpListener::from_std(socket).map_err(failed(HEALTH))?;
            let router = admin::health_router(state.clone());
            self.operators.spawn(admin::serve(socket, router, self.operators_stop.clone()));
        }
        if let (Some(socket), Some(settings)) = (admin, &self.settings.admin) {
            let socket: admin::Listener = match socket {
                AdminSocket::Tcp(socket) => tokio::net::TcpListener::from_std(socket).map_err(failed(ADMIN))?.into(),
                AdminSocket::Unix(socket, _) => {
                    tokio::net::UnixListener::from_std(socket).map_err(failed(ADMIN))?.into()
                }
            };
            let router = admin::admin_router(state, admin::Guard::new(settings)?);
            self.operators.spawn(admin::serve(socket, router, self.operators_stop.clone()));
        }
        Ok(())
    }
}
