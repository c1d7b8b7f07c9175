//! What `fuzz/` drives; compiled for fuzzing only. Each function states what must hold of any bytes.

use std::time::Instant;

use super::h1::{Guard, Verdict};
use super::h2::Watch;
use super::{HeadLimits, sniff};
use crate::settings::{Http2, Limits};

/// What passed and how it ended must not depend on the pieces the bytes came in.
pub fn h1(bytes: &[u8]) {
    let _ = sniff(bytes);
    assert_eq!(run(bytes, bytes.len().max(1)), run(bytes, 1));
}

fn run(bytes: &[u8], piece: usize) -> (Vec<usize>, usize, Verdict) {
    let mut guard = Guard::new(HeadLimits::from(&Limits::default()));
    let (mut ends, mut at, mut seen) = (Vec::new(), 0, 0);
    loop {
        match guard.inspect(bytes.get(at..seen).unwrap_or_default()) {
            Verdict::Release(n) => {
                assert!(n >= 1 && at + n <= seen);
                at += n;
            }
            Verdict::RequestEnd => {
                ends.push(at);
                guard.next_request();
            }
            Verdict::Incomplete if seen < bytes.len() => seen = (seen + piece).min(bytes.len()),
            end @ (Verdict::Incomplete | Verdict::Refuse(_)) => return (ends, at, end),
        }
    }
}

/// The first byte cuts the rest in two; the cut must make no difference.
pub fn h2(bytes: &[u8]) {
    let Some((&cut, bytes)) = bytes.split_first() else { return };
    let now = Instant::now();
    let whole = Watch::new(&Http2::default()).feed(bytes, now);
    let (a, b) = bytes.split_at_checked(usize::from(cut)).unwrap_or((bytes, b""));
    let mut watch = Watch::new(&Http2::default());
    assert_eq!(watch.feed(a, now).and_then(|()| watch.feed(b, now)), whole);
    watch.sent(bytes.len());
}

#[cfg(test)]
mod tests {
    /// What the fuzzer drives stands, and holds of what clients send every day.
    #[test]
    fn what_must_hold_of_any_bytes_holds_of_these() {
        let requests = [
            &b""[..],
            b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n",
            b"POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\nGET /b HTTP/1.1\r\n",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0\0\0\x08\x06\0\0\0\0\0\x01\x02\x03\x04\x05\x06\x07\x08",
            b"\x16\x03\x01\0\0",
        ];
        for bytes in requests {
            super::h1(bytes);
            super::h2(bytes);
        }
    }
}
