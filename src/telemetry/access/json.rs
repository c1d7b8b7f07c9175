//! JSON written straight into bytes: one pass, no tree, no allocation beyond the buffer.

use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// The name of a field as it stands in the line, its comma and colon included. Names are ours: letters and underscores,
/// nothing to escape.
#[derive(Clone, Copy)]
pub(super) struct Key(pub(super) &'static str);

macro_rules! key {
    ($name:literal) => {
        $crate::telemetry::access::json::Key(concat!(",\"", $name, "\":"))
    };
}
pub(super) use key;

/// Writes the fields of one object.
pub(super) struct Object<'b> {
    out: &'b mut Vec<u8>,
    first: bool,
}

impl<'b> Object<'b> {
    pub(super) fn begin(out: &'b mut Vec<u8>) -> Object<'b> {
        out.push(b'{');
        Object { out, first: true }
    }

    pub(super) fn end(self) {
        self.out.push(b'}');
    }

    pub(super) fn name(&mut self, Key(key): Key) -> &mut Vec<u8> {
        let from = usize::from(self.first);
        self.first = false;
        self.out.extend_from_slice(key.as_bytes().get(from..).unwrap_or_default());
        self.out
    }

    pub(super) fn text(&mut self, name: Key, value: &str) {
        let out = self.name(name);
        out.push(b'"');
        escape(out, value);
        out.push(b'"');
    }

    /// Left out when there is none.
    pub(super) fn maybe_text(&mut self, name: Key, value: Option<&str>) {
        if let Some(value) = value {
            self.text(name, value);
        }
    }

    /// Left out when empty.
    pub(super) fn filled_text(&mut self, name: Key, value: &str) {
        if !value.is_empty() {
            self.text(name, value);
        }
    }

    pub(super) fn ip(&mut self, name: Key, value: IpAddr) {
        let out = self.name(name);
        out.push(b'"');
        ip(out, value);
        out.push(b'"');
    }

    pub(super) fn address(&mut self, name: Key, value: SocketAddr) {
        let out = self.name(name);
        out.push(b'"');
        let v6 = value.is_ipv6();
        out.extend_from_slice(if v6 { b"[" } else { b"" });
        ip(out, value.ip());
        out.extend_from_slice(if v6 { b"]:" } else { b":" });
        decimal(out, u64::from(value.port()));
        out.push(b'"');
    }

    pub(super) fn number(&mut self, name: Key, value: u64) {
        decimal(self.name(name), value);
    }

    pub(super) fn boolean(&mut self, name: Key, value: bool) {
        self.name(name).extend_from_slice(if value { b"true" } else { b"false" });
    }

    /// Milliseconds with three decimals.
    pub(super) fn milliseconds(&mut self, name: Key, value: Duration) {
        let out = self.name(name);
        decimal(out, u64::try_from(value.as_millis()).unwrap_or(u64::MAX));
        out.push(b'.');
        padded::<3>(out, value.subsec_micros() % 1_000);
    }

    pub(super) fn hex(&mut self, name: Key, bytes: &[u8]) {
        let out = self.name(name);
        out.push(b'"');
        for byte in bytes {
            let digit = |nibble: u8| HEX.get(usize::from(nibble)).copied().unwrap_or(b'0');
            out.extend_from_slice(&[digit(byte >> 4), digit(byte & 15)]);
        }
        out.push(b'"');
    }
}

const HEX: &[u8; 16] = b"0123456789abcdef";

/// IPv4 without the machinery of `fmt`, which costs more than the rest of a line's numbers together.
fn ip(out: &mut Vec<u8>, value: IpAddr) {
    match value {
        IpAddr::V4(v4) => {
            for (number, octet) in v4.octets().into_iter().enumerate() {
                if number > 0 {
                    out.push(b'.');
                }
                decimal(out, u64::from(octet));
            }
        }
        // Writing to a Vec cannot fail.
        IpAddr::V6(v6) => _ = write!(out, "{v6}"),
    }
}

/// The inside of a JSON string (RFC 8259 7). DEL is escaped too: terminals show logs.
pub(super) fn escape(out: &mut Vec<u8>, text: &str) {
    let bytes = text.as_bytes();
    let mut rest = bytes;
    while let Some(at) = rest.iter().position(|byte| matches!(byte, 0..=0x1f | b'"' | b'\\' | 0x7f)) {
        let (clean, tail) = rest.split_at(at);
        out.extend_from_slice(clean);
        let Some((byte, tail)) = tail.split_first() else { return };
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            byte => {
                let _ = write!(out, "\\u{byte:04x}");
            }
        }
        rest = tail;
    }
    out.extend_from_slice(rest);
}

/// A number in decimal, without the machinery of `fmt`.
pub(super) fn decimal(out: &mut Vec<u8>, mut value: u64) {
    let start = out.len();
    loop {
        out.push(b'0' + (value % 10) as u8);
        value /= 10;
        if value == 0 {
            break;
        }
    }
    if let Some(digits) = out.get_mut(start..) {
        digits.reverse();
    }
}

/// The last `N` decimal digits, zeros in front.
pub(super) fn padded<const N: usize>(out: &mut Vec<u8>, mut value: u32) {
    let mut digits = [b'0'; N];
    for digit in digits.iter_mut().rev() {
        *digit += (value % 10) as u8;
        value /= 10;
    }
    out.extend_from_slice(&digits);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_written_reads_the_same(text in "\\PC*|[\\x00-\\x7f\u{2028}\u{20ac}]*", number: u64, micros in 0u64..1 << 40) {
            let mut out = Vec::new();
            let mut object = Object::begin(&mut out);
            object.text(key!("text"), &text);
            object.number(key!("number"), number);
            object.milliseconds(key!("ms"), Duration::from_micros(micros));
            object.end();
            let read: serde_json::Value = serde_json::from_slice(&out).unwrap();
            prop_assert_eq!(read["text"].as_str(), Some(&*text));
            prop_assert_eq!(read["number"].as_u64(), Some(number));
            prop_assert!((read["ms"].as_f64().unwrap() * 1e3 - micros as f64).abs() < 0.5);
            prop_assert!(out.iter().all(|byte| !byte.is_ascii_control()), "one line, nothing a terminal obeys");
        }
    }

    #[test]
    fn addresses_are_written_as_they_read() {
        for text in ["127.0.0.1:80", "203.0.113.255:65535", "[::1]:8080", "[2001:db8::ffff]:1"] {
            let address: SocketAddr = text.parse().unwrap();
            let mut out = Vec::new();
            let mut object = Object::begin(&mut out);
            object.address(key!("a"), address);
            object.ip(key!("b"), address.ip());
            object.end();
            assert_eq!(String::from_utf8(out).unwrap(), format!(r#"{{"a":"{address}","b":"{}"}}"#, address.ip()));
        }
    }

    #[test]
    fn bytes_are_written_as_lower_case_hex() {
        let mut out = Vec::new();
        let mut object = Object::begin(&mut out);
        object.hex(key!("id"), &[0x00, 0xf0, 0x9a]);
        object.end();
        assert_eq!(out, br#"{"id":"00f09a"}"#);
    }
}
