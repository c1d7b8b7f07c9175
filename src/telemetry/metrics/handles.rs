//! Handles by name: those that are shown, and those that were dropped but are still held by somebody.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

#[derive(Debug)]
pub(super) struct Handles<T>(Mutex<Names<T>>);

#[derive(Debug)]
struct Names<T> {
    shown: BTreeMap<Arc<str>, Arc<T>>,
    /// A pool outlives its name's absence while a request uses it, and keeps its handle.
    departed: BTreeMap<Arc<str>, Weak<T>>,
}

impl<T> Default for Handles<T> {
    fn default() -> Self {
        Handles(Mutex::new(Names { shown: BTreeMap::new(), departed: BTreeMap::new() }))
    }
}

impl<T: Default> Handles<T> {
    pub(super) fn fetch(&self, name: &str) -> Arc<T> {
        let mut names = self.lock();
        if let Some(handle) = names.shown.get(name) {
            return handle.clone();
        }
        let handle = names.departed.remove(name).and_then(|handle| handle.upgrade()).unwrap_or_default();
        names.shown.insert(name.into(), handle.clone());
        handle
    }

    pub(super) fn retain(&self, kept: &BTreeSet<&str>) {
        let mut names = self.lock();
        let Names { shown, departed } = &mut *names;
        shown.retain(|name, handle| {
            let keep = kept.contains(&**name);
            if !keep {
                departed.insert(name.clone(), Arc::downgrade(handle));
            }
            keep
        });
        departed.retain(|_, handle| handle.strong_count() > 0);
    }

    /// Copied out, so that a slow scrape never holds the lock a change of routes waits for.
    pub(super) fn shown(&self) -> Vec<(Arc<str>, Arc<T>)> {
        self.lock().shown.iter().map(|(name, handle)| (name.clone(), handle.clone())).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Names<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
