//! BIND, a real name server that takes signed updates of its zone.

use std::net::{SocketAddr, UdpSocket};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use super::Port;

/// The key that may write TXT records, as `tsig-keygen` prints it.
pub(crate) const KEY: (&str, &str) = ("tollgate", "c2VjcmV0IG9mIGEgdGVzdCwgdGhpcnR5LXR3byBieXRlcw==");

/// Answers for one zone, every name of which is 127.0.0.1. Ends when dropped.
pub(crate) struct Bind {
    address: SocketAddr,
    _port: Port,
    _directory: TempDir,
    running: Child,
}

impl Bind {
    pub(crate) async fn start(zone: &str) -> Bind {
        let directory = tempfile::tempdir().unwrap();
        let port = Port::free();
        let (at, address) = (directory.path().display().to_string(), port.address());
        let (name, secret) = KEY;
        let config = format!(
            "options {{ directory \"{at}\"; pid-file none; session-keyfile \"{at}/session.key\"; recursion no;\n\
             dnssec-validation no; listen-on port {port} {{ 127.0.0.1; }}; listen-on-v6 {{ none; }}; }};\n\
             controls {{ }};\nkey \"{name}\" {{ algorithm hmac-sha256; secret \"{secret}\"; }};\n\
             zone \"{zone}\" {{ type primary; file \"{at}/zone\"; update-policy {{ grant {name} zonesub TXT; }}; }};\n",
            port = address.port()
        );
        let records = format!(
            "$TTL 1\n@ IN SOA ns.{zone}. root.{zone}. 1 60 60 60 1\n@ IN NS ns.{zone}.\n@ IN A 127.0.0.1\n* IN A 127.0.0.1\n"
        );
        std::fs::write(directory.path().join("named.conf"), config).unwrap();
        std::fs::write(directory.path().join("zone"), records).unwrap();
        let log = std::fs::File::create(directory.path().join("log")).unwrap();
        let running = Command::new("named")
            .args(["-g", "-n", "1", "-c"])
            .arg(directory.path().join("named.conf"))
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("named: ./test installs it");
        let bind = Bind { address, _port: port, _directory: directory, running };
        eventually!(tokio::net::TcpStream::connect(bind.address).await);
        bind
    }

    pub(crate) fn address(&self) -> String {
        self.address.to_string()
    }

    /// Adds a TXT record.
    pub(crate) fn add(&self, name: &str, text: &str) {
        let (ip, port) =
            self.address.to_string().split_once(':').map(|(ip, port)| (ip.to_owned(), port.to_owned())).unwrap();
        let script = format!(
            "printf 'server {ip} {port}\\nupdate add {name} 1 TXT \"{text}\"\\nsend\\n' | nsupdate -y hmac-sha256:{}:{}",
            KEY.0, KEY.1
        );
        assert!(Command::new("sh").args(["-c", &script]).status().unwrap().success());
        assert_eq!(self.texts(name), [text]);
    }

    /// The TXT records of a name.
    pub(crate) fn texts(&self, name: &str) -> Vec<String> {
        use hickory_proto::op::{Message, Query};
        use hickory_proto::rr::{Name, RData, RecordType};
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(super::PATIENCE)).unwrap();
        let mut query = Message::query();
        query.add_query(Query::query(Name::from_ascii(format!("{name}.")).unwrap(), RecordType::TXT));
        socket.send_to(&query.to_vec().unwrap(), self.address).unwrap();
        let mut buffer = [0; 4096];
        let length = socket.recv(&mut buffer).unwrap();
        let answer = Message::from_vec(&buffer[..length]).unwrap();
        let texts = answer.answers.iter().filter_map(|record| match &record.data {
            RData::TXT(text) => Some(text.to_string()),
            _ => None,
        });
        texts.collect()
    }
}

impl Drop for Bind {
    fn drop(&mut self) {
        let _ = self.running.kill();
        let _ = self.running.wait();
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self._directory.path().join("log")).unwrap_or_default();
            eprintln!("--- named's log\n{log}");
        }
    }
}
