//! HTTP/2 frame by frame: a client that may do what no library would.

use std::net::SocketAddr;

use super::Raw;

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;

pub(crate) const END_STREAM: u8 = 1;
pub(crate) const ACK: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;

pub(crate) const CANCEL: u32 = 8;
pub(crate) const ENHANCE_YOUR_CALM: u32 = 11;

pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

/// The bytes of one frame.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = vec![length[1], length[2], length[3], kind, flags];
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// A header block (HPACK, RFC 7541, nothing indexed beyond the static table) for `http://x.test/`.
pub(crate) fn block(method: &str, fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = match method {
        "GET" => vec![0x82],
        "POST" => vec![0x83],
        other => panic!("{other}"),
    };
    block.extend([0x86, 0x84]); // :scheme http, :path /
    block.push(0x01); // :authority
    text(&mut block, "x.test");
    for (name, value) in fields {
        block.push(0x00);
        text(&mut block, name);
        text(&mut block, value);
    }
    block
}

/// Length as an integer with a prefix of seven bits, then the text as it is.
fn text(block: &mut Vec<u8>, text: &str) {
    match text.len() {
        short @ 0..127 => block.push(u8::try_from(short).unwrap()),
        long => {
            block.push(127);
            let mut rest = long - 127;
            while rest >= 128 {
                block.push(u8::try_from(rest % 128 + 128).unwrap());
                rest /= 128;
            }
            block.push(u8::try_from(rest).unwrap());
        }
    }
    block.extend(text.as_bytes());
}

/// A connection after its preface and an empty SETTINGS.
pub(crate) struct Peer(Raw);

impl Peer {
    pub(crate) async fn connect(address: SocketAddr) -> Peer {
        Peer::with_settings(address, &[]).await
    }

    /// `(identifier, value)`: RFC 9113 6.5.2.
    pub(crate) async fn with_settings(address: SocketAddr, settings: &[(u16, u32)]) -> Peer {
        let mut raw = Raw::connect(address).await;
        let mut payload = Vec::new();
        for (identifier, value) in settings {
            payload.extend(identifier.to_be_bytes());
            payload.extend(value.to_be_bytes());
        }
        raw.send(PREFACE).await;
        raw.send(frame(SETTINGS, 0, 0, &payload)).await;
        Peer(raw)
    }

    /// `false`: the gateway has gone.
    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.0.send(bytes).await
    }

    /// `GET /` or `POST /` in one frame.
    pub(crate) async fn request(&mut self, method: &str, stream: u32, flags: u8) -> bool {
        self.send(frame(HEADERS, flags | END_HEADERS, stream, &block(method, &[]))).await
    }

    /// The next frame; SETTINGS are acknowledged on the way. `None` at the end of the connection.
    pub(crate) async fn next(&mut self) -> Option<Frame> {
        loop {
            let head = self.0.exactly(9).await?;
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
            let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
            let payload = self.0.exactly(length).await?;
            if head[3] == SETTINGS {
                if head[4] & ACK == 0 {
                    self.send(frame(SETTINGS, ACK, 0, &[])).await;
                }
                continue;
            }
            return Some(Frame { kind: head[3], stream, payload });
        }
    }

    /// The next frame of this kind, others skipped.
    pub(crate) async fn until(&mut self, kind: u8) -> Option<Frame> {
        loop {
            let frame = self.next().await?;
            if frame.kind == kind {
                return Some(frame);
            }
        }
    }

    /// Reads to the end: the code of the last GOAWAY, if one came.
    pub(crate) async fn ended(&mut self) -> Option<u32> {
        let mut code = None;
        while let Some(frame) = self.next().await {
            if frame.kind == GOAWAY {
                code = Some(u32::from_be_bytes(frame.payload[4..8].try_into().unwrap()));
            }
        }
        code
    }
}
