//! A port that stays ours while nothing listens on it: what is killed comes back where it was.

use std::net::SocketAddr;

use socket2::{Domain, Socket, Type};
use tokio::net::TcpListener;

/// A bound socket that never listens: connections are refused, and nobody else gets the port.
#[derive(Debug)]
pub(crate) struct Port {
    address: SocketAddr,
    _held: Socket,
}

impl Port {
    pub(crate) fn free() -> Port {
        Port::at("127.0.0.1:0".parse().unwrap()).unwrap()
    }

    pub(crate) fn at(address: SocketAddr) -> std::io::Result<Port> {
        let socket = bound(address)?;
        let address = socket.local_addr()?.as_socket().unwrap();
        Ok(Port { address, _held: socket })
    }

    /// The same port on several loopback addresses, for names with several records.
    pub(crate) fn on_each(addresses: &[&str]) -> Vec<Port> {
        for _ in 0..100 {
            let port = Port::free().address.port();
            let all: Result<Vec<Port>, _> =
                addresses.iter().map(|ip| Port::at(SocketAddr::new(ip.parse().unwrap(), port))).collect();
            if let Ok(ports) = all {
                return ports;
            }
        }
        panic!("no port is free on all of {addresses:?}");
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn listen(&self) -> TcpListener {
        let socket = bound(self.address).unwrap();
        socket.listen(1024).unwrap();
        socket.set_nonblocking(true).unwrap();
        TcpListener::from_std(socket.into()).unwrap()
    }
}

fn bound(address: SocketAddr) -> std::io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}
