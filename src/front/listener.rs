//! Listening sockets: bound by us or handed over, and the loop that accepts.

use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::Arc;
use std::time::Duration;

use pingora_core::apps::HttpServerApp;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::app::Door;
use crate::telemetry::metrics::Gauge;

const BACKLOG: i32 = 4096;

/// Binds an address. `[::]` takes both families.
pub(crate) fn bind(address: SocketAddr) -> io::Result<StdListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// Accepts until `stop`. Every connection is a task of `connections`, ended early only by `force`.
pub(crate) async fn accept<A: HttpServerApp + Send + Sync + 'static>(
    listener: TcpListener,
    door: Arc<Door<A>>,
    connections: TaskTracker,
    stop: CancellationToken,
    force: CancellationToken,
) {
    let mut left = BACKLOG;
    loop {
        // What stands in the backlog when the listener stops was accepted by the kernel: it is served, and no more than that.
        if stop.is_cancelled() {
            left -= 1;
            if left <= 0 {
                break;
            }
        }
        let accepted = tokio::select! {
            biased;
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => break,
        };
        let (socket, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(_) if stop.is_cancelled() => break,
            Err(error) => {
                // Out of descriptors or memory: the backlog holds the clients for a moment.
                tracing::warn!(%error, listener = %door.info.name, "cannot accept");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let Some(mut permit) = door.admit(peer) else { continue };
        let _ = socket.set_nodelay(true);
        let door = door.clone();
        let force = force.child_token();
        let open = OpenGauge::new(&door);
        connections.spawn(async move {
            let _open = open;
            tokio::select! {
                biased;
                () = force.cancelled() => {}
                () = door.serve(socket, peer, &mut permit) => {}
            }
        });
    }
}

/// Counts a connection among the open ones while it lives.
struct OpenGauge(Gauge);

impl OpenGauge {
    fn new<A>(door: &Door<A>) -> OpenGauge {
        let open = door.telemetry.metrics.front.open.clone();
        open.inc();
        OpenGauge(open)
    }
}

impl Drop for OpenGauge {
    fn drop(&mut self) {
        self.0.dec();
    }
}
