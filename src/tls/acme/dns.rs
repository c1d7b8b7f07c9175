//! TXT records for DNS-01 (RFC 8555 8.4): by a program of the operator, or by updates (RFC 2136) signed with TSIG (RFC 8945).

use std::process::Stdio;
use std::time::{SystemTime, UNIX_EPOCH};

use hickory_proto::ProtoError;
use hickory_proto::op::update_message::{append, delete_by_rdata};
use hickory_proto::op::{Message, Query, ResponseCode};
use hickory_proto::rr::rdata::TXT;
use hickory_proto::rr::rdata::tsig::TsigAlgorithm;
use hickory_proto::rr::{Name, RData, Record, RecordSet, RecordType, TSigner};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::settings::{self, DnsProof, TsigKey};

/// How far the clocks of the server and ours may be apart, in seconds (RFC 8945 10).
const FUDGE: u16 = 300;
/// Of what a failed program says on stderr, this much is told.
const SAID_MAX: usize = 300;

#[derive(Debug, thiserror::Error)]
pub(super) enum DnsError {
    #[error("`{program}` cannot be run: {source}")]
    Run { program: String, source: std::io::Error },
    #[error("`{program}` failed ({status}): {said}")]
    Failed { program: String, status: std::process::ExitStatus, said: String },
    #[error("the record was not written in time")]
    Late,
    #[error("name server {server}: {source}")]
    Connection { server: String, source: std::io::Error },
    #[error("name server {server}: {source}")]
    Protocol { server: String, source: ProtoError },
    #[error("name server {server} refused the update: {code}")]
    Refused { server: String, code: ResponseCode },
    #[error("name server {server} knows no zone of {name}")]
    NoZone { server: String, name: String },
    #[error("the settings do not say how records are written")]
    Unsaid,
}

/// What becomes of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Set,
    Clear,
}

/// Adds a TXT record beside others of its name, or takes it away again.
pub(super) async fn change(words: &DnsProof, change: Change, name: &str, value: &str) -> Result<(), DnsError> {
    let work = async {
        match (&words.server, &words.key) {
            (Some(server), Some(key)) => update(words, server, key, change, name, value).await,
            _ => run(words, change, name, value).await,
        }
    };
    tokio::time::timeout(words.timeout.0, work).await.unwrap_or(Err(DnsError::Late))
}

async fn run(words: &DnsProof, change: Change, name: &str, value: &str) -> Result<(), DnsError> {
    let mut all = words.command.iter();
    let program = all.next().ok_or(DnsError::Unsaid)?.clone();
    let word = match change {
        Change::Set => "set",
        Change::Clear => "clear",
    };
    let output = tokio::process::Command::new(&program)
        .args(all)
        .args([word, name, value])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .output()
        .await
        .map_err(|source| DnsError::Run { program: program.clone(), source })?;
    if output.status.success() {
        return Ok(());
    }
    let said: String = String::from_utf8_lossy(&output.stderr).trim().chars().take(SAID_MAX).collect();
    Err(DnsError::Failed { program, status: output.status, said })
}

async fn update(
    words: &DnsProof,
    server: &str,
    key: &TsigKey,
    change: Change,
    name: &str,
    value: &str,
) -> Result<(), DnsError> {
    let protocol = |source| DnsError::Protocol { server: server.to_owned(), source };
    let mut connection = Connection::open(server).await?;
    let record_name = absolute(name).map_err(protocol)?;
    let zone = match &words.zone {
        Some(zone) => absolute(zone).map_err(protocol)?,
        None => connection.zone_of(&record_name).await?,
    };
    if !zone.zone_of(&record_name) {
        return Err(DnsError::NoZone { server: server.to_owned(), name: name.to_owned() });
    }
    let ttl = u32::try_from(words.ttl.0.as_secs()).unwrap_or(u32::MAX);
    let mut set = RecordSet::with_ttl(record_name.clone(), RecordType::TXT, ttl);
    set.insert(Record::from_rdata(record_name, ttl, RData::TXT(TXT::new(vec![value.to_owned()]))), 0);
    let mut message = match change {
        Change::Set => append(set, zone, false, false),
        Change::Clear => delete_by_rdata(set, zone, false),
    };
    let secret = key.secret.base64().ok_or(DnsError::Unsaid)?.to_vec();
    let algorithm = match key.algorithm {
        settings::TsigAlgorithm::HmacSha256 => TsigAlgorithm::HmacSha256,
        settings::TsigAlgorithm::HmacSha384 => TsigAlgorithm::HmacSha384,
        settings::TsigAlgorithm::HmacSha512 => TsigAlgorithm::HmacSha512,
    };
    let signed_as = absolute(&key.name).map_err(protocol)?;
    let signer = TSigner::new(secret, algorithm, signed_as, FUDGE)
        .map_err(|error| protocol(ProtoError::from(error.to_string())))?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let verifier = message.finalize(&signer, now).map_err(protocol)?;
    let answer = connection.ask(&message).await?;
    // What is refused may be refused without a signature; what is done must be signed.
    let code = decoded(server, &answer)?.metadata.response_code;
    if code != ResponseCode::NoError {
        return Err(DnsError::Refused { server: server.to_owned(), code });
    }
    if let Some(mut verifier) = verifier {
        verifier.verify(&answer).map_err(protocol)?;
    }
    Ok(())
}

fn decoded(server: &str, message: &[u8]) -> Result<Message, DnsError> {
    Message::from_vec(message)
        .map_err(|source| DnsError::Protocol { server: server.to_owned(), source: ProtoError::from(source) })
}

fn absolute(name: &str) -> Result<Name, ProtoError> {
    let mut name = Name::from_ascii(name)?;
    name.set_fqdn(true);
    Ok(name)
}

/// DNS over TCP (RFC 7766): each message behind its length.
struct Connection<'s> {
    server: &'s str,
    stream: TcpStream,
}

impl<'s> Connection<'s> {
    async fn open(server: &'s str) -> Result<Connection<'s>, DnsError> {
        let failed = |source| DnsError::Connection { server: server.to_owned(), source };
        Ok(Connection { server, stream: TcpStream::connect(server).await.map_err(failed)? })
    }

    async fn ask(&mut self, message: &Message) -> Result<Vec<u8>, DnsError> {
        let server = || self.server.to_owned();
        let bytes = message.to_vec().map_err(|source| DnsError::Protocol { server: server(), source })?;
        let failed = |source| DnsError::Connection { server: server(), source };
        let length = u16::try_from(bytes.len()).map_err(|_| failed(std::io::ErrorKind::InvalidInput.into()))?;
        self.stream.write_all(&[&length.to_be_bytes()[..], &bytes].concat()).await.map_err(failed)?;
        let length = self.stream.read_u16().await.map_err(failed)?;
        let mut answer = vec![0; usize::from(length)];
        self.stream.read_exact(&mut answer).await.map_err(failed)?;
        Ok(answer)
    }

    /// The zone that a name is in: the server says it in the SOA record of its answer (RFC 2308 3).
    async fn zone_of(&mut self, name: &Name) -> Result<Name, DnsError> {
        let mut query = Message::query();
        query.metadata.recursion_desired = false;
        query.add_query(Query::query(name.clone(), RecordType::SOA));
        let answer = self.ask(&query).await?;
        let answer = decoded(self.server, &answer)?;
        let mut records = answer.answers.iter().chain(&answer.authorities);
        let soa = records.find(|record| record.record_type() == RecordType::SOA);
        let missing = || DnsError::NoZone { server: self.server.to_owned(), name: name.to_string() };
        soa.map(|soa| soa.name.clone()).ok_or_else(missing)
    }
}
