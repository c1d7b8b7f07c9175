//! Words of `[fleet]`: what a gateway has in common with the others.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::problem::Path;
use crate::scalar::Secret;

/// Characters that a seal has at least.
const SEAL_MIN: usize = 32;

/// What a gateway has in common with the others of its fleet. Needs `[bus]`.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Fleet {
    /// Secret of 32 characters or more, the same on every gateway of the fleet: certificates and accounts from CAs, and keys of issuers, are kept on the bus, sealed with it, and one gateway orders or fetches for all. Usually `"${file:/run/secrets/seal}"`. Default: every gateway keeps its own in `state.dir`.
    #[serde(default)]
    pub seal: Option<Secret>,
    /// Requests whose access line is sent to the controller, in a second at most; what more there are it only counts. 0: none. Default 100.
    #[serde(default = "requests")]
    pub requests_per_second: u32,
}

fn requests() -> u32 {
    100
}

impl Default for Fleet {
    fn default() -> Fleet {
        Fleet { seal: None, requests_per_second: requests() }
    }
}

impl Fleet {
    pub(super) fn check(&self, at: &Path, error: &mut dyn FnMut(Path, String, &str)) {
        let short = |seal: &Secret| seal.expose().trim().len() < SEAL_MIN && !seal.expose().contains("${");
        if self.seal.as_ref().is_some_and(short) {
            let help = "at least 32 characters, best random ones: `openssl rand -base64 32`";
            error(at.at("seal"), "the secret is too short".to_owned(), help);
        }
    }
}
