//! JSON written straight into bytes: one pass, no tree, no allocation beyond the buffer.

use std::fmt::Display;
use std::io::Write;
use std::time::Duration;

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

    /// `name` is ours: letters and underscores, nothing to escape.
    pub(super) fn name(&mut self, name: &'static str) -> &mut Vec<u8> {
        self.out.extend_from_slice(if self.first { b"\"" } else { b",\"" });
        self.first = false;
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b"\":");
        self.out
    }

    pub(super) fn text(&mut self, name: &'static str, value: &str) {
        let out = self.name(name);
        out.push(b'"');
        escape(out, value);
        out.push(b'"');
    }

    /// Left out when there is none.
    pub(super) fn maybe_text(&mut self, name: &'static str, value: Option<&str>) {
        if let Some(value) = value {
            self.text(name, value);
        }
    }

    /// Left out when empty.
    pub(super) fn filled_text(&mut self, name: &'static str, value: &str) {
        if !value.is_empty() {
            self.text(name, value);
        }
    }

    /// A value whose text needs no escaping: addresses, times.
    pub(super) fn plain(&mut self, name: &'static str, value: impl Display) {
        let out = self.name(name);
        out.push(b'"');
        // Writing to a Vec cannot fail.
        let _ = write!(out, "{value}");
        out.push(b'"');
    }

    pub(super) fn number(&mut self, name: &'static str, value: u64) {
        decimal(self.name(name), value);
    }

    pub(super) fn boolean(&mut self, name: &'static str, value: bool) {
        self.name(name).extend_from_slice(if value { b"true" } else { b"false" });
    }

    /// Milliseconds with three decimals.
    pub(super) fn milliseconds(&mut self, name: &'static str, value: Duration) {
        let out = self.name(name);
        decimal(out, u64::try_from(value.as_millis()).unwrap_or(u64::MAX));
        out.push(b'.');
        padded::<3>(out, value.subsec_micros() % 1_000);
    }

    pub(super) fn hex(&mut self, name: &'static str, bytes: &[u8]) {
        let out = self.name(name);
        out.push(b'"');
        for byte in bytes {
            out.extend(
                [byte >> 4, byte & 15].map(|nibble| if nibble < 10 { b'0' + nibble } else { b'a' + nibble - 10 }),
            );
        }
        out.push(b'"');
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
            object.text("text", &text);
            object.number("number", number);
            object.milliseconds("ms", Duration::from_micros(micros));
            object.end();
            let read: serde_json::Value = serde_json::from_slice(&out).unwrap();
            prop_assert_eq!(read["text"].as_str(), Some(&*text));
            prop_assert_eq!(read["number"].as_u64(), Some(number));
            prop_assert!((read["ms"].as_f64().unwrap() * 1e3 - micros as f64).abs() < 0.5);
            prop_assert!(out.iter().all(|byte| !byte.is_ascii_control()), "one line, nothing a terminal obeys");
        }
    }

    #[test]
    fn bytes_are_written_as_lower_case_hex() {
        let mut out = Vec::new();
        let mut object = Object::begin(&mut out);
        object.hex("id", &[0x00, 0xf0, 0x9a]);
        object.end();
        assert_eq!(out, br#"{"id":"00f09a"}"#);
    }
}
