//! Reading a stream of JetStream in order, from some place in it.

use std::collections::VecDeque;
use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::jetstream::consumer::push::{Ordered, OrderedConfig};
use async_nats::jetstream::consumer::{DeliverPolicy, ReplayPolicy};
use async_nats::jetstream::stream::Stream;
use async_nats::jetstream::{self, Context};
use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};
use tokio::sync::watch;

use super::kv::failed;
use crate::bus::{BusError, Change, Entry, Kept, Link, Message};

/// What marks a removed key: <https://docs.nats.io/nats-concepts/jetstream/key-value-store>.
const OPERATION: &str = "KV-Operation";

/// A reading that has told something and then nothing for so long has told everything there was.
const SILENCE: Duration = Duration::from_secs(2);

/// The messages, and how many there were already.
async fn ordered<I>(context: &Context, stream: &Stream<I>, config: OrderedConfig) -> Result<(Ordered, u64), BusError> {
    let deliver_subject = context.client().new_inbox();
    let config = OrderedConfig { deliver_subject, replay_policy: ReplayPolicy::Instant, ..config };
    let consumer = stream.create_consumer(config).await.map_err(|error| failed(&error))?;
    let pending = consumer.cached_info().num_pending;
    Ok((consumer.messages().await.map_err(|error| failed(&error))?, pending))
}

/// See `KeyValue::watch`. The library's own watch does not tell that a bucket is empty.
pub(super) async fn changes(
    context: &Context,
    stream: &Stream<()>,
    prefix: String,
    keys: &str,
    link: watch::Receiver<Link>,
) -> Result<BoxStream<'static, Result<Change, BusError>>, BusError> {
    let config = OrderedConfig {
        filter_subject: format!("{prefix}{keys}"),
        deliver_policy: DeliverPolicy::LastPerSubject,
        ..OrderedConfig::default()
    };
    let (messages, pending) = ordered(context, stream, config).await?;
    let (current, begun, told) = (pending == 0, false, VecDeque::new());
    let reading = Reading { messages, prefix, link, current, begun, told };
    let first = stream::iter((pending == 0).then_some(Ok(Change::Current)));
    Ok(first.chain(stream::unfold(reading, Reading::next)).boxed())
}

/// A reading that knows when it has told everything there was.
struct Reading {
    messages: Ordered,
    prefix: String,
    link: watch::Receiver<Link>,
    current: bool,
    /// It has told something.
    begun: bool,
    told: VecDeque<Result<Change, BusError>>,
}

impl Reading {
    async fn next(mut self) -> Option<(Result<Change, BusError>, Reading)> {
        loop {
            if let Some(change) = self.told.pop_front() {
                return Some((change, self));
            }
            let message = match self.current {
                true => self.messages.next().await?,
                // What a value takes the place of may still count as to come, in a server of 2.9: then nothing comes.
                false => match tokio::time::timeout(SILENCE, self.messages.next()).await {
                    Ok(message) => message?,
                    Err(_) if self.begun && *self.link.borrow() == Link::Up => {
                        self.current = true;
                        return Some((Ok(Change::Current), self));
                    }
                    Err(_) => return Some((Err(BusError::Timeout(SILENCE)), self)),
                },
            };
            let told = message.map_err(|error| failed(&error)).and_then(|message| change(&self.prefix, &message));
            self.begun = true;
            match told {
                Ok((change, left)) => {
                    self.told.push_back(Ok(change));
                    if !self.current && left == 0 {
                        self.current = true;
                        self.told.push_back(Ok(Change::Current));
                    }
                }
                Err(error) => self.told.push_back(Err(error)),
            }
        }
    }
}

/// What a message says, and how many are still to come.
fn change(prefix: &str, message: &jetstream::Message) -> Result<(Change, u64), BusError> {
    let info = message.info().map_err(BusError::failed)?;
    let key = message.subject.strip_prefix(prefix).unwrap_or(&message.subject).to_owned();
    let change = if message.headers.as_ref().is_some_and(removes) {
        Change::Removed(key)
    } else {
        Change::Put(Entry { key, value: message.payload.clone(), revision: info.stream_sequence })
    };
    Ok((change, info.pending))
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
    let (messages, _) = ordered(context, &stream, OrderedConfig { deliver_policy, ..OrderedConfig::default() }).await?;
    Ok(messages.map(|message| kept(&message.map_err(|error| failed(&error))?)).boxed())
}

fn kept(message: &jetstream::Message) -> Result<Kept, BusError> {
    let info = message.info().map_err(BusError::failed)?;
    let (sequence, at) = (info.stream_sequence, info.published.into());
    let message = Message { subject: message.subject.to_string(), payload: message.payload.clone() };
    Ok(Kept { message, sequence, at })
}
