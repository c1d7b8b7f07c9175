//! Words of `[overload]`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::scalar::{Size, Span};

/// When requests are turned away (503 `overload`), least important first: see `route.importance`.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Overload {
    /// The event loop is later than this for 100 ms without a break. At least 5ms; `0s`: it does not count. Raise it where other programs take the machine's time. Default 50ms.
    #[serde(default = "overload_lag")]
    pub lag: Span,
    /// Memory that the process may use: from nine tenths of it on a growing share of what is `sheddable` is turned away, beyond the bound of what is `normal`. `0B`: no bound. Default: nine tenths of what its container may have.
    #[serde(default)]
    pub memory: Option<Size>,
}

impl Default for Overload {
    fn default() -> Overload {
        Overload { lag: overload_lag(), memory: None }
    }
}

fn overload_lag() -> Span {
    Span::from_millis(50)
}
