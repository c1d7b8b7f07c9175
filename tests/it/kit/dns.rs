//! A name server whose answers the test decides.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::{RData, Record, RecordType};
use tokio::net::UdpSocket;
use tokio::task::JoinHandle;

/// What is said about a name.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    Records(Vec<IpAddr>),
    NoSuchName,
    ServerFailure,
    /// No answer at all.
    Silence,
}

/// Ends when dropped.
pub(crate) struct Dns {
    address: SocketAddr,
    zone: Arc<Mutex<Zone>>,
    running: JoinHandle<()>,
}

#[derive(Default)]
struct Zone {
    answers: HashMap<String, Answer>,
    queries: HashMap<String, usize>,
}

/// Every record may be kept for this long.
const TTL_S: u32 = 1;

impl Dns {
    pub(crate) async fn start() -> Dns {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let zone: Arc<Mutex<Zone>> = Arc::default();
        let shared = zone.clone();
        let running = tokio::spawn(async move {
            let mut buffer = [0; 1500];
            while let Ok((length, peer)) = socket.recv_from(&mut buffer).await {
                if let Some(answer) = answer(&shared, &buffer[..length]) {
                    let _ = socket.send_to(&answer, peer).await;
                }
            }
        });
        Dns { address, zone, running }
    }

    pub(crate) fn address(&self) -> String {
        self.address.to_string()
    }

    pub(crate) fn say(&self, name: &str, answer: Answer) {
        self.zone.lock().unwrap().answers.insert(format!("{name}."), answer);
    }

    pub(crate) fn records(&self, name: &str, addresses: &[&str]) {
        self.say(name, Answer::Records(addresses.iter().map(|address| address.parse().unwrap()).collect()));
    }

    /// How often the name was asked for, all record types together.
    pub(crate) fn queries(&self, name: &str) -> usize {
        self.zone.lock().unwrap().queries.get(&format!("{name}.")).copied().unwrap_or(0)
    }
}

impl Drop for Dns {
    fn drop(&mut self) {
        self.running.abort();
    }
}

fn answer(zone: &Mutex<Zone>, query: &[u8]) -> Option<Vec<u8>> {
    let query = Message::from_vec(query).ok()?;
    let question = query.queries.first()?.clone();
    let name = question.name().to_lowercase().to_ascii();
    let said = {
        let mut zone = zone.lock().unwrap();
        *zone.queries.entry(name.clone()).or_default() += 1;
        zone.answers.get(&name).cloned().unwrap_or(Answer::NoSuchName)
    };
    let mut reply = query.into_response();
    reply.metadata.recursion_available = true;
    match said {
        Answer::Silence => return None,
        Answer::NoSuchName => reply.metadata.response_code = ResponseCode::NXDomain,
        Answer::ServerFailure => reply.metadata.response_code = ResponseCode::ServFail,
        Answer::Records(addresses) => {
            for address in addresses {
                let data = match (address, question.query_type()) {
                    (IpAddr::V4(v4), RecordType::A) => RData::A(v4.into()),
                    (IpAddr::V6(v6), RecordType::AAAA) => RData::AAAA(v6.into()),
                    _ => continue,
                };
                reply.add_answer(Record::from_rdata(question.name().clone(), TTL_S, data));
            }
        }
    }
    reply.to_vec().ok()
}
