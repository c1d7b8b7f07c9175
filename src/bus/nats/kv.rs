//! A bucket of JetStream, as any NATS client knows it.

use std::sync::Arc;

use async_nats::jetstream::Context;
use async_nats::jetstream::context::KeyValueErrorKind;
use async_nats::jetstream::kv::{Operation, Store};
use async_nats::jetstream::stream::Stream;
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;
use tokio::sync::watch;

use super::{ANSWER, reading};
use crate::bus::{BusError, Change, Entry, Expect, KeyValue, Link, fits, within};

struct Bucket {
    jetstream: Context,
    link: watch::Receiver<Link>,
    store: Store,
    stream: Stream<()>,
}

pub(super) async fn open(
    jetstream: &Context,
    link: watch::Receiver<Link>,
    name: &str,
) -> Result<Arc<dyn KeyValue>, BusError> {
    let store = jetstream.get_key_value(name).await.map_err(|error| match error.kind() {
        KeyValueErrorKind::GetBucket if is_missing(&error) => BusError::Missing(name.to_owned()),
        _ => failed(&error),
    })?;
    let stream = jetstream.get_stream_no_info(format!("KV_{name}")).await.map_err(|error| failed(&error))?;
    Ok(Arc::new(Bucket { jetstream: jetstream.clone(), link, store, stream }))
}

/// The library wraps the answer "stream not found" several times.
fn is_missing(error: &(dyn std::error::Error + 'static)) -> bool {
    chain(error).any(|error| error.to_string().contains("not found"))
}

fn chain<'a>(
    error: &'a (dyn std::error::Error + 'static),
) -> impl Iterator<Item = &'a (dyn std::error::Error + 'static)> {
    std::iter::successors(Some(error), |error| error.source())
}

/// An error with its causes: the outermost alone says next to nothing.
pub(super) fn failed(error: &(dyn std::error::Error + 'static)) -> BusError {
    let mut text: Vec<String> = Vec::new();
    for one in chain(error).map(ToString::to_string) {
        if text.last().is_none_or(|last| !last.contains(&one)) {
            text.push(one);
        }
    }
    BusError::Failed(text.join(": "))
}

#[async_trait]
impl KeyValue for Bucket {
    async fn entry(&self, key: &str) -> Result<Option<Entry>, BusError> {
        let reading = async { self.store.entry(key).await.map_err(|error| failed(&error)) };
        let found = within(ANSWER, reading).await?.filter(|entry| entry.operation == Operation::Put);
        Ok(found.map(|entry| Entry { key: entry.key, value: entry.value, revision: entry.revision }))
    }

    async fn put(&self, key: &str, value: Bytes) -> Result<u64, BusError> {
        fits(key, value.len())?;
        within(ANSWER, async { self.store.put(key, value).await.map_err(|error| failed(&error)) }).await
    }

    async fn swap(&self, key: &str, value: Bytes, expect: Expect) -> Result<u64, BusError> {
        use async_nats::jetstream::kv::{CreateErrorKind, UpdateErrorKind};
        fits(key, value.len())?;
        let lost = || BusError::Lost { key: key.to_owned() };
        let writing = async {
            match expect {
                Expect::Nothing => self.store.create(key, value).await.map_err(|error| match error.kind() {
                    CreateErrorKind::AlreadyExists => lost(),
                    _ => failed(&error),
                }),
                Expect::Revision(revision) => {
                    self.store.update(key, value, revision).await.map_err(|error| match error.kind() {
                        UpdateErrorKind::WrongLastRevision => lost(),
                        _ => failed(&error),
                    })
                }
            }
        };
        within(ANSWER, writing).await
    }

    async fn remove(&self, key: &str, expect: Option<u64>) -> Result<(), BusError> {
        let removing = async {
            // A mark, never a purge: a server of 2.9 that purges one key moves everybody who reads the bucket past what
            // others wrote a moment before, and they never hear of it.
            self.store.delete_expect_revision(key, expect).await.map_err(|error| {
                // The library tells the kind of what it met only in words.
                let lost = chain(&error).any(|one| one.to_string().contains("wrong last sequence"));
                if lost { BusError::Lost { key: key.to_owned() } } else { failed(&error) }
            })
        };
        within(ANSWER, removing).await
    }

    async fn erase(&self, key: &str) -> Result<(), BusError> {
        let erasing = async {
            // Its mark, too, if it was removed before.
            let Some(entry) = self.store.entry(key).await.map_err(|error| failed(&error))? else { return Ok(()) };
            if self.stream.delete_message(entry.revision).await.is_ok() {
                return Ok(());
            }
            // A bucket that others made allows no more than a mark; or somebody else was faster.
            if entry.operation != Operation::Put {
                return Ok(());
            }
            match self.remove(key, Some(entry.revision)).await {
                // What stands there now, if anything does, is not what was to go.
                Err(BusError::Lost { .. }) => Ok(()),
                done => done,
            }
        };
        within(ANSWER, erasing).await
    }

    async fn watch(&self, keys: &str) -> Result<BoxStream<'static, Result<Change, BusError>>, BusError> {
        let prefix = format!("$KV.{}.", self.store.name);
        within(ANSWER, reading::changes(&self.jetstream, &self.stream, prefix, keys, self.link.clone())).await
    }
}
