//! A name server on loopback that says what the test wants.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::{RData, Record, RecordType};
use tokio::net::UdpSocket;

use super::super::Pools;
use crate::scalar::{OneOrMany, Span};
use crate::settings;
use crate::tasks::Tasks;

/// What the server says about a name.
#[derive(Clone, Debug)]
pub(super) enum Say {
    Addresses(Vec<IpAddr>, u32),
    Code(ResponseCode),
    Nothing,
}

#[derive(Default)]
struct Zone {
    says: HashMap<String, Say>,
    asked: HashMap<(String, RecordType), usize>,
}

/// A name server; it ends with the test's runtime.
#[derive(Clone)]
pub(super) struct NameServer {
    pub(super) address: SocketAddr,
    zone: Arc<Mutex<Zone>>,
}

impl NameServer {
    pub(super) async fn start() -> NameServer {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let server = NameServer { address: socket.local_addr().unwrap(), zone: Arc::default() };
        tokio::spawn(serve(socket, server.zone.clone()));
        server
    }

    pub(super) fn say(&self, name: &str, say: Say) {
        self.zone.lock().unwrap().says.insert(format!("{name}."), say);
    }

    pub(super) fn addresses(&self, name: &str, addresses: &[&str], ttl: u32) {
        let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
        self.say(name, Say::Addresses(addresses, ttl));
    }

    /// How often addresses of the family were asked for.
    pub(super) fn asked(&self, name: &str, kind: RecordType) -> usize {
        self.zone.lock().unwrap().asked.get(&(format!("{name}."), kind)).copied().unwrap_or_default()
    }

    /// Pools that ask this server, TTLs held between these.
    pub(super) fn pools(&self, ttl_min: Duration, ttl_max: Duration) -> Pools {
        Pools::new(&self.settings(ttl_min, ttl_max), Tasks::default()).unwrap()
    }

    pub(super) fn settings(&self, ttl_min: Duration, ttl_max: Duration) -> settings::Dns {
        settings::Dns {
            servers: OneOrMany(vec![self.address.to_string()]),
            timeout: Span::from_millis(200),
            ttl_min: Span(ttl_min),
            ttl_max: Span(ttl_max),
        }
    }
}

async fn serve(socket: UdpSocket, zone: Arc<Mutex<Zone>>) {
    let mut buffer = vec![0; 4096];
    while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
        let asked = Message::from_vec(&buffer[..length]).unwrap();
        if let Some(answer) = answer(&asked, &zone) {
            socket.send_to(&answer.to_vec().unwrap(), from).await.unwrap();
        }
    }
}

fn answer(asked: &Message, zone: &Mutex<Zone>) -> Option<Message> {
    let query = asked.queries[0].clone();
    let name = query.name().to_string().to_lowercase();
    let mut zone = zone.lock().unwrap();
    *zone.asked.entry((name.clone(), query.query_type())).or_default() += 1;
    let mut answer = Message::response(asked.metadata.id, asked.metadata.op_code);
    answer.add_query(query.clone());
    match zone.says.get(&name).cloned().unwrap_or(Say::Code(ResponseCode::NXDomain)) {
        Say::Nothing => return None,
        Say::Code(code) => answer.metadata.response_code = code,
        Say::Addresses(addresses, ttl) => {
            let data = addresses.iter().map(|address| RData::from(*address));
            let wanted = data.filter(|data| data.record_type() == query.query_type());
            answer.add_answers(wanted.map(|data| Record::from_rdata(query.name().clone(), ttl, data)));
        }
    }
    Some(answer)
}
