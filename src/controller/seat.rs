//! One of several controllers acts: it tells alerts and decides trials. The others collect, show and wait.

use std::sync::Arc;
use std::time::Duration;

use super::{State, alerts, canary};
use crate::bus::Lease;

/// How long others wait for one that died.
const TERM: Duration = Duration::from_secs(3);

/// Waits for the seat, acts while it has it, for as long as the process lives; gives it back when the process leaves.
pub(super) async fn hold(state: Arc<State>) {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let holder = format!("{host}/{}/{:08x}", std::process::id(), fastrand::u32(..));
    let lease = Lease::new(state.bus.clone(), state.fleet.shared(), "controller", holder, TERM);
    loop {
        let held = tokio::select! {
            held = lease.take() => held,
            () = state.leaving.cancelled() => return std::future::pending().await,
        };
        tracing::info!("this controller acts now");
        state.active.send_replace(true);
        let acting = async {
            tokio::select! {
                () = alerts::act(&state) => {}
                () = canary::act(&state) => {}
                () = state.leaving.cancelled() => {}
            }
        };
        let done = lease.during(held, acting).await;
        state.active.send_replace(false);
        if done.is_none() {
            tracing::warn!("another controller acts now, or the bus cannot be reached");
        }
        if state.leaving.is_cancelled() {
            state.gave_back.cancel();
        }
    }
}
