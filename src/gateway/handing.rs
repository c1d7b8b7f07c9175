//! Hand-over: taking the place of an old gateway, and giving it to a new one.

use std::time::Duration;

use super::{Gateway, StartError};
use crate::front::handover::{HandoverError, Offer, Successor};

impl Gateway {
    /// Tells the old gateway, if there is one, that this one serves; then offers the same to the next.
    pub(super) async fn succeed(&mut self, successor: Option<Successor>) -> Result<(), StartError> {
        if let Some(successor) = successor {
            successor.serving().await?;
        }
        if let Some(path) = &self.settings.drain.handover {
            self.offer = Some(offer(path).await?);
        }
        Ok(())
    }

    /// Hands the listening sockets over, if a new gateway comes for them and says that it serves.
    pub(super) fn hand_over(&mut self) -> Option<impl Future<Output = (Offer, Result<(), HandoverError>)> + use<>> {
        let mut offer = self.offer.take()?;
        let within = self.settings.drain.handover_timeout.0;
        let sockets: Vec<_> =
            self.sockets.iter().filter_map(|(name, fd)| Some((name.clone(), fd.try_clone().ok()?))).collect();
        Some(async move {
            let done = offer.hand_over(sockets, within).await;
            (offer, done)
        })
    }
}

/// The old gateway may still be listening there for a moment while it leaves.
async fn offer(path: &std::path::Path) -> Result<Offer, HandoverError> {
    let ends = tokio::time::Instant::now() + Duration::from_secs(5);
    loop {
        match Offer::bind(path) {
            Err(HandoverError::InUse(_)) if tokio::time::Instant::now() < ends => {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            done => return done,
        }
    }
}
