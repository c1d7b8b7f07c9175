//! Reading a stream of JetStream in order, from some place in it.

use std::collections::{HashSet, VecDeque};
use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::jetstream::consumer::push::{Ordered, OrderedConfig};
use async_nats::jetstream::consumer::{DeliverPolicy, ReplayPolicy};
use async_nats::jetstream::stream::Stream;
use async_nats::jetstream::{self, Context};
use futures_util::stream::{self, BoxStream};
use futures_util::{StreamExt as _, TryStreamExt as _};
use tokio::sync::watch;

use super::ANSWER;
use super::kv::failed;
use crate::bus::{BusError, Change, Entry, Kept, Link, Message, within};

/// What marks a removed key: <https://docs.nats.io/nats-concepts/jetstream/key-value-store>.
const OPERATION: &str = "KV-Operation";

/// A reading that ought to tell more and does not for so long asks what there is; doubled each time, up to `PATIENCE`.
const SILENCE: Duration = Duration::from_millis(250);

/// A reading that has told nothing at all after so long has failed.
const PATIENCE: Duration = Duration::from_secs(2);

async fn ordered<I>(context: &Context, stream: &Stream<I>, config: OrderedConfig) -> Result<Ordered, BusError> {
    let deliver_subject = context.client().new_inbox();
    let config = OrderedConfig { deliver_subject, replay_policy: ReplayPolicy::Instant, ..config };
    let consumer = stream.create_consumer(config).await.map_err(|error| failed(&error))?;
    consumer.messages().await.map_err(|error| failed(&error))
}

/// See `KeyValue::watch`. The library's own watch does not tell that a bucket is empty.
pub(super) async fn changes(
    context: &Context,
    stream: &Stream<()>,
    prefix: String,
    keys: &str,
    link: watch::Receiver<Link>,
) -> Result<BoxStream<'static, Result<Change, BusError>>, BusError> {
    let filter = format!("{prefix}{keys}");
    let config = OrderedConfig {
        filter_subject: filter.clone(),
        deliver_policy: DeliverPolicy::LastPerSubject,
        ..OrderedConfig::default()
    };
    let messages = ordered(context, stream, config).await?;
    let mut reading = Reading {
        messages,
        stream: stream.clone(),
        filter,
        prefix,
        link,
        missing: None,
        silence: SILENCE,
        begun: false,
        next: VecDeque::new(),
    };
    reading.ask().await?;
    Ok(stream::unfold(reading, Reading::next).boxed())
}

/// A reading that knows when it has told everything there was: the keys that there were say it. The server's own count of
/// what is still to come does not: in one of 2.9 a value that is written while it is read makes it wrong, either way.
struct Reading {
    messages: Ordered,
    stream: Stream<()>,
    filter: String,
    prefix: String,
    link: watch::Receiver<Link>,
    /// Keys that were there and are not told yet. `None` once everything has been told.
    missing: Option<HashSet<String>>,
    silence: Duration,
    /// It has told something.
    begun: bool,
    next: VecDeque<Result<Change, BusError>>,
}

impl Reading {
    async fn next(mut self) -> Option<(Result<Change, BusError>, Reading)> {
        loop {
            if let Some(change) = self.next.pop_front() {
                return Some((change, self));
            }
            let message = match (&self.missing, self.begun) {
                (None, _) => Ok(self.messages.next().await),
                (Some(_), true) => tokio::time::timeout(self.silence, self.messages.next()).await,
                (Some(_), false) => tokio::time::timeout(PATIENCE, self.messages.next()).await,
            };
            let done = match message {
                Ok(message) => message?.map_err(|error| failed(&error)).and_then(|message| self.tell(&message)),
                // What was dropped for its age is never told.
                Err(_) if self.begun && *self.link.borrow() == Link::Up => {
                    self.silence = (self.silence * 2).min(PATIENCE);
                    within(ANSWER, self.ask()).await
                }
                Err(_) => Err(BusError::Timeout(PATIENCE)),
            };
            if let Err(error) = done {
                self.next.push_back(Err(error));
            }
        }
    }

    fn tell(&mut self, message: &jetstream::Message) -> Result<(), BusError> {
        let change = change(&self.prefix, message)?;
        self.begun = true;
        if let (Some(missing), Change::Put(Entry { key, .. }) | Change::Removed(key)) = (&mut self.missing, &change) {
            missing.remove(key);
        }
        self.next.push_back(Ok(change));
        self.finish();
        Ok(())
    }

    /// Asks which keys there are.
    async fn ask(&mut self) -> Result<(), BusError> {
        let keys = self.stream.info_with_subjects(&self.filter).await.map_err(|error| failed(&error))?;
        let keys: Vec<(String, usize)> = keys.try_collect().await.map_err(|error| failed(&error))?;
        let keys = keys.into_iter().filter_map(|(subject, _)| Some(subject.strip_prefix(&self.prefix)?.to_owned()));
        self.missing = match self.missing.take() {
            None => Some(keys.collect()),
            Some(missing) => Some(keys.filter(|key| missing.contains(key)).collect()),
        };
        self.finish();
        Ok(())
    }

    fn finish(&mut self) {
        if self.missing.as_ref().is_some_and(HashSet::is_empty) {
            self.missing = None;
            self.next.push_back(Ok(Change::Current));
        }
    }
}

fn change(prefix: &str, message: &jetstream::Message) -> Result<Change, BusError> {
    let info = message.info().map_err(BusError::failed)?;
    let key = message.subject.strip_prefix(prefix).unwrap_or(&message.subject).to_owned();
    Ok(match message.headers.as_ref().is_some_and(removes) {
        true => Change::Removed(key),
        false => Change::Put(Entry { key, value: message.payload.clone(), revision: info.stream_sequence }),
    })
}

/// A mark of deletion, or of a value that a server dropped for its age.
fn removes(headers: &HeaderMap) -> bool {
    headers.get(OPERATION).is_some_and(|operation| matches!(operation.as_str(), "DEL" | "PURGE"))
}

/// See `Wire::read`.
pub(super) async fn events(
    context: &Context,
    name: &str,
    after: u64,
) -> Result<BoxStream<'static, Result<Kept, BusError>>, BusError> {
    let stream = context.get_stream(name).await.map_err(|error| match error.kind() {
        jetstream::context::GetStreamErrorKind::JetStream(ref error) if error.code() == 404 => {
            BusError::Missing(name.to_owned())
        }
        _ => failed(&error),
    })?;
    // A stream that was lost with its server begins at 1 again: what is after the end of it would never come.
    let last = stream.cached_info().state.last_sequence;
    let deliver_policy = match after {
        0 => DeliverPolicy::All,
        after if after > last => DeliverPolicy::All,
        after => DeliverPolicy::ByStartSequence { start_sequence: after + 1 },
    };
    let messages = ordered(context, &stream, OrderedConfig { deliver_policy, ..OrderedConfig::default() }).await?;
    Ok(messages.map(|message| kept(&message.map_err(|error| failed(&error))?)).boxed())
}

fn kept(message: &jetstream::Message) -> Result<Kept, BusError> {
    let info = message.info().map_err(BusError::failed)?;
    let (sequence, at) = (info.stream_sequence, info.published.into());
    let message = Message { subject: message.subject.to_string(), payload: message.payload.clone() };
    Ok(Kept { message, sequence, at })
}
