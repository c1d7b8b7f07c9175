//! `kind = "tcp"`: a connection opens.

use super::Check;
use crate::upstream::dial;

pub(super) async fn check(check: &Check) -> Result<(), String> {
    dial::connect(check.address, &check.transport).await.map(drop).map_err(|error| error.to_string())
}
