//! All pools by name. A pool lives as long as a table, a request or the adopted set holds it; its tasks run only while
//! it is adopted (and while it is warmed, so that it is not empty when its routes are there).

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;

use super::health::Checks;
use super::pool::Pool;
use super::registry::Registry;
use super::resolve::{Resolver, ResolverError};
use super::spec::Spec;
use super::standing::Environment;
use crate::bus::Bus;
use crate::settings;
use crate::tasks::Tasks;

/// All pools by name.
#[derive(Debug)]
pub struct Pools {
    known: Registry<Box<str>, Pool>,
    adopted: Mutex<Vec<Arc<Pool>>>,
    environment: Arc<Environment>,
}

/// Where services register themselves.
#[derive(Clone, Debug)]
pub struct Discovery {
    pub bus: Bus,
    /// The fleet's bucket of services.
    pub bucket: String,
    /// The bus is on this machine alone, and so is who registers.
    pub local: bool,
}

impl Pools {
    /// Nothing is asked or opened yet. The error is a setting that cannot be honoured.
    pub fn new(dns: &settings::Dns, tasks: Tasks) -> Result<Pools, ResolverError> {
        Pools::discovering(dns, tasks, None)
    }

    /// With the bus that services register themselves on.
    pub fn discovering(
        dns: &settings::Dns,
        tasks: Tasks,
        discovery: Option<Discovery>,
    ) -> Result<Pools, ResolverError> {
        let environment = Environment { resolver: Resolver::new(dns)?, discovery, checks: Checks::default(), tasks };
        Ok(Pools { known: Registry::default(), adopted: Mutex::default(), environment: Arc::new(environment) })
    }

    /// The pool of this name, made if there is none. It is empty and has no tasks until adopted.
    pub fn pool(&self, name: &str) -> Arc<Pool> {
        self.known.find_or_make(name.into(), || Pool::new(name))
    }

    /// Resolves names of pools to come, so that these are not empty when their routes are there. Waits until every name
    /// was answered once (by a failure, too), at most `timeout`. Must run within the runtime that carries the tasks.
    pub async fn warm(&self, wanted: &[(Arc<Pool>, Arc<Spec>)], timeout: Duration) {
        let names = wanted.iter().flat_map(|(pool, spec)| pool.prepare(spec, &self.environment));
        let answers = names.map(|mut answered| async move {
            // The sender goes when the name is given up; then nobody waits for it either.
            let _ = answered.wait_for(|answered| *answered).await;
        });
        let all = join_all(answers.collect::<Vec<_>>());
        let _ = tokio::time::timeout(timeout, all).await;
    }

    /// Makes these the pools in use, with these specs. Endpoints that stay keep their state. Tasks of pools no longer
    /// wanted end; requests that still use one find its members as they were. Must run within the runtime that carries
    /// the tasks.
    pub fn adopt(&self, wanted: &[(Arc<Pool>, Arc<Spec>)]) {
        for (pool, spec) in wanted {
            pool.apply(spec, &self.environment);
        }
        let pools: Vec<Arc<Pool>> = wanted.iter().map(|(pool, _)| pool.clone()).collect();
        let kept: HashSet<&Arc<str>> = wanted.iter().map(|(pool, _)| pool.name()).collect();
        let mut adopted = self.adopted.lock().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut *adopted, pools);
        before.iter().filter(|pool| !kept.contains(pool.name())).for_each(|pool| pool.retire());
    }

    /// The pools in use, for `/upstreams` and metrics.
    pub fn adopted(&self) -> Vec<Arc<Pool>> {
        self.adopted.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    #[cfg(test)]
    pub(crate) fn environment(&self) -> &Environment {
        &self.environment
    }
}
