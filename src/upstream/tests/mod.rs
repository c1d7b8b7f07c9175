//! Pools as a whole: against real servers on loopback, on ports of their own.

use std::sync::Arc;
use std::time::Duration;

use super::{Pool, Pools, Spec};
use crate::config;
use crate::problem::{Path, Problem};
use crate::settings;
use crate::tasks::Tasks;

mod checks;
mod dns;
mod ejection;
mod exchanges;
mod model;
mod names;
mod origin;
mod picking;
mod specs;

/// Compiles `[upstream.p]` with this body.
fn compile(text: &str, region: Option<&str>) -> (Option<Spec>, Vec<Problem>) {
    let words: config::Upstream = toml::from_str(text).unwrap();
    let mut problems = Vec::new();
    let spec = Spec::compile("p", &words, &Path::of(["upstream", "p"]), region, &mut problems);
    (spec, problems)
}

fn spec_in(text: &str, region: Option<&str>) -> Arc<Spec> {
    let (spec, problems) = compile(text, region);
    Arc::new(spec.unwrap_or_else(|| panic!("{problems:?}")))
}

fn spec(text: &str) -> Arc<Spec> {
    spec_in(text, None)
}

fn pools() -> Pools {
    Pools::new(&settings::Dns::default(), Tasks::default()).unwrap()
}

/// The pool `p` with this body.
fn adopt(pools: &Pools, text: &str) -> Arc<Pool> {
    adopt_spec(pools, &spec(text))
}

fn adopt_spec(pools: &Pools, spec: &Arc<Spec>) -> Arc<Pool> {
    let pool = pools.pool("p");
    pools.adopt(&[(pool.clone(), spec.clone())]);
    pool
}

/// Polls until the condition holds.
async fn eventually(what: &str, condition: impl Fn() -> bool) {
    let ends = std::time::Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(std::time::Instant::now() < ends, "not within 10 s: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The endpoints' addresses, in order.
fn addresses(pool: &Pool) -> Vec<String> {
    pool.snapshot().endpoints.into_iter().map(|endpoint| endpoint.address).collect()
}
