//! The bus over NATS with JetStream.
//!
//! What needs a newer server than 2.9 is not used: buckets are made as the streams they are, entries have no time to live of
//! their own, and a watch has one filter.

use crate::tasks::jittered;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use async_nats::jetstream::context::{PublishError, PublishErrorKind};
use async_nats::jetstream::stream::{Config, DiscardPolicy, StorageType};
use async_nats::jetstream::{self, Context, ErrorCode};
use async_nats::{Client, ConnectOptions, Event, HeaderMap, header};
use async_trait::async_trait;
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use tokio::sync::watch;

use super::{Bucket, BusError, Kept, KeyValue, Link, Message, Stream, Wire, fits, within};

mod kv;
mod reading;

/// How long the server may take to answer.
const ANSWER: Duration = Duration::from_secs(5);
/// Pauses between tries to connect.
const AGAIN_MIN: Duration = Duration::from_millis(100);
const AGAIN_MAX: Duration = Duration::from_secs(5);
/// Commands that wait for the connection, and messages that wait for one listener.
const WAITING_MAX: usize = 4096;

/// Who a client is to the server. Each has an inbox of its own, so that permissions can keep answers apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Gateway,
    Operator,
    Controller,
    Service,
}

impl Role {
    pub const ALL: [Role; 4] = [Role::Gateway, Role::Operator, Role::Controller, Role::Service];

    pub fn name(self) -> &'static str {
        match self {
            Role::Gateway => "gateway",
            Role::Operator => "operator",
            Role::Controller => "controller",
            Role::Service => "service",
        }
    }

    pub(crate) fn inbox(self) -> String {
        format!("_INBOX.{}", self.name())
    }
}

/// How a client proves who it is.
#[derive(Clone, Default)]
pub enum Auth {
    #[default]
    None,
    /// The path of a `.creds` file.
    Credentials(PathBuf),
    /// A seed, `SU..`.
    Nkey(String),
    Token(String),
    Password {
        user: String,
        password: String,
    },
}

/// How the bus is reached.
#[derive(Clone, Default)]
pub struct Options {
    pub urls: Vec<String>,
    pub auth: Auth,
    /// Roots that servers are verified by, beside those of the system.
    pub ca: Option<PathBuf>,
    /// Certificate and key shown to servers.
    pub client_certificate: Option<(PathBuf, PathBuf)>,
    /// The JetStream domain, where the streams are on the other side of a leaf node.
    pub domain: Option<String>,
    /// Copies that are kept of what is made.
    pub replicas: usize,
    /// What the connection is called in the server's lists.
    pub name: String,
}

/// Why there is no client at all. That no server answers yet is no such reason.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("`{url}` is no address of a NATS server: {message}")]
    Url { url: String, message: String },
    #[error("credentials {path}: {message}")]
    Credentials { path: PathBuf, message: String },
    #[error("the bus cannot be used: {0}")]
    Failed(String),
}

/// See the module.
pub struct Nats {
    client: Client,
    jetstream: Context,
    replicas: usize,
    link: watch::Receiver<Link>,
    /// Buckets that were told of: what is so stays so.
    told: Mutex<BTreeSet<String>>,
}

impl Nats {
    /// A client that connects in the background, for as long as it takes, and again when the connection is lost.
    pub async fn connect(options: &Options, role: Role) -> Result<Nats, ConnectError> {
        let Options { urls, auth, ca, client_certificate, domain, replicas, name } = options;
        let servers: Vec<async_nats::ServerAddr> = urls
            .iter()
            .map(|url| {
                let wrong = |error: std::io::Error| ConnectError::Url { url: url.clone(), message: error.to_string() };
                url.parse().map_err(wrong)
            })
            .collect::<Result<_, _>>()?;
        let (told, link) = watch::channel(Link::Down { since: SystemTime::now() });
        let told = Arc::new(told);
        let mut connecting = ConnectOptions::new()
            .name(name)
            .custom_inbox_prefix(role.inbox())
            .retry_on_initial_connect()
            .connection_timeout(ANSWER)
            .request_timeout(Some(ANSWER))
            .ping_interval(Duration::from_secs(10))
            .client_capacity(WAITING_MAX)
            .subscription_capacity(WAITING_MAX)
            .reconnect_delay_callback(pause)
            .event_callback(move |event| {
                let told = told.clone();
                async move { tell(&told, &event) }
            });
        // Whoever names an authority wants it asked: what a server says of itself does not decide that.
        connecting = connecting.require_tls(ca.is_some() || client_certificate.is_some());
        if let Some(ca) = ca {
            connecting = connecting.add_root_certificates(ca.clone());
        }
        if let Some((chain, key)) = client_certificate {
            connecting = connecting.add_client_certificate(chain.clone(), key.clone());
        }
        connecting = match auth {
            Auth::None => connecting,
            Auth::Credentials(path) => connecting
                .credentials_file(path)
                .await
                .map_err(|error| ConnectError::Credentials { path: path.clone(), message: error.to_string() })?,
            Auth::Nkey(seed) => connecting.nkey(seed.clone()),
            Auth::Token(token) => connecting.token(token.clone()),
            Auth::Password { user, password } => connecting.user_and_password(user.clone(), password.clone()),
        };
        let client = connecting.connect(servers).await.map_err(|error| ConnectError::Failed(error.to_string()))?;
        let mut jetstream = match domain {
            Some(domain) => jetstream::with_domain(client.clone(), domain),
            None => jetstream::new(client.clone()),
        };
        jetstream.set_timeout(ANSWER);
        Ok(Nats { client, jetstream, replicas: (*replicas).max(1), link, told: Mutex::default() })
    }

    async fn make(&self, config: Config) -> Result<(), BusError> {
        let name = config.name.clone();
        let making = async {
            match self.jetstream.get_stream(&name).await {
                Ok(there) => {
                    let now = &there.cached_info().config;
                    if now.deny_delete && self.told.lock().unwrap_or_else(PoisonError::into_inner).insert(name.clone())
                    {
                        tracing::warn!(
                            stream = name,
                            "nothing can be erased from it, it was made with deny_delete: marks of what is gone stay and add up"
                        );
                    }
                    // What somebody else chose for a bucket stays; a stream's bounds are ours.
                    if name.starts_with("KV_") || (now.max_age, now.max_bytes) == (config.max_age, config.max_bytes) {
                        return Ok(());
                    }
                    let wanted = Config { num_replicas: now.num_replicas, ..config };
                    self.jetstream.update_stream(&wanted).await.map(drop).map_err(BusError::failed)
                }
                Err(_) => self.jetstream.create_stream(config).await.map(drop).map_err(BusError::failed),
            }
        };
        within(ANSWER * 2, making).await
    }
}

fn pause(attempts: usize) -> Duration {
    let doubled = AGAIN_MIN.saturating_mul(1 << attempts.min(6));
    jittered(doubled.min(AGAIN_MAX))
}

fn tell(told: &watch::Sender<Link>, event: &Event) {
    match event {
        Event::Connected => {
            tracing::info!("connected to the bus");
            told.send_replace(Link::Up);
        }
        Event::Disconnected | Event::Closed => {
            told.send_if_modified(|link| {
                let was_up = *link == Link::Up;
                if was_up {
                    tracing::warn!("the connection to the bus is lost; it is tried again until it stands");
                    *link = Link::Down { since: SystemTime::now() };
                }
                was_up
            });
        }
        Event::LameDuckMode => tracing::info!("the server of the bus goes; another is looked for"),
        Event::Draining => {}
        Event::SlowConsumer(_) => tracing::warn!("messages of the bus came faster than they were taken; some are lost"),
        Event::ServerError(error) => tracing::warn!(%error, "the bus refuses"),
        Event::ClientError(error) => tracing::warn!(%error, "the bus cannot be used"),
    }
}

#[async_trait]
impl Wire for Nats {
    async fn bucket(&self, name: &str) -> Result<Arc<dyn KeyValue>, BusError> {
        within(ANSWER, kv::open(&self.jetstream, self.link.clone(), name)).await
    }

    async fn make_bucket(&self, bucket: &Bucket) -> Result<(), BusError> {
        let Bucket { name, max_age } = bucket;
        // As `create_key_value` would; that does not understand the answers of a 2.9 server.
        self.make(Config {
            name: format!("KV_{name}"),
            subjects: vec![format!("$KV.{name}.>")],
            max_messages_per_subject: 1,
            max_bytes: -1,
            max_messages: -1,
            max_age: *max_age,
            discard: DiscardPolicy::New,
            storage: StorageType::File,
            num_replicas: self.replicas,
            allow_direct: true,
            allow_rollup: true,
            // So that what nobody follows can be erased.
            deny_delete: false,
            ..Config::default()
        })
        .await
    }

    async fn make_stream(&self, stream: &Stream) -> Result<(), BusError> {
        let Stream { name, subjects, max_age, max_bytes } = stream;
        self.make(Config {
            name: name.clone(),
            subjects: subjects.clone(),
            max_age: *max_age,
            max_bytes: i64::try_from(*max_bytes).unwrap_or(i64::MAX),
            max_messages: -1,
            discard: DiscardPolicy::Old,
            storage: StorageType::File,
            num_replicas: self.replicas,
            allow_direct: true,
            ..Config::default()
        })
        .await
    }

    async fn publish(&self, message: Message) -> Result<(), BusError> {
        let Message { subject, payload } = message;
        fits(&subject, payload.len())?;
        self.client.publish(subject, payload).await.map_err(BusError::failed)
    }

    async fn append(&self, message: Message, id: &str) -> Result<(), BusError> {
        let Message { subject, payload } = message;
        fits(&subject, payload.len())?;
        let mut headers = HeaderMap::new();
        headers.insert(header::NATS_MESSAGE_ID, id);
        let sending = async {
            let kept = self.jetstream.publish_with_headers(subject.clone(), headers, payload).await;
            kept.map_err(|error| not_kept(&error, &subject))?
                .await
                .map(drop)
                .map_err(|error| not_kept(&error, &subject))
        };
        within(ANSWER, sending).await
    }

    async fn subscribe(&self, subject: &str) -> Result<BoxStream<'static, Message>, BusError> {
        let messages = self.client.subscribe(subject.to_owned()).await.map_err(BusError::failed)?;
        let plain =
            |message: async_nats::Message| Message { subject: message.subject.to_string(), payload: message.payload };
        Ok(messages.map(plain).boxed())
    }

    async fn read(&self, stream: &str, after: u64) -> Result<BoxStream<'static, Result<Kept, BusError>>, BusError> {
        within(ANSWER, reading::events(&self.jetstream, stream, after)).await
    }

    fn link(&self) -> watch::Receiver<Link> {
        self.link.clone()
    }
}

/// Why an event is not in its stream.
fn not_kept(error: &PublishError, subject: &str) -> BusError {
    let too_long = [ErrorCode::STREAM_MESSAGE_EXCEEDS_MAXIMUM, ErrorCode::STREAM_HEADER_EXCEEDS_MAXIMUM];
    let said = std::error::Error::source(error).and_then(|source| source.downcast_ref::<jetstream::Error>());
    match (error.kind(), said) {
        (PublishErrorKind::StreamNotFound, _) => BusError::Missing(subject.to_owned()),
        (PublishErrorKind::MaxPayloadExceeded, _) => refused(error, subject),
        (_, Some(said)) if too_long.contains(&said.error_code()) => refused(said, subject),
        _ => kv::failed(error),
    }
}

fn refused(why: &dyn std::fmt::Display, subject: &str) -> BusError {
    BusError::Refused { subject: subject.to_owned(), why: why.to_string() }
}
