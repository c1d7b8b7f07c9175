//! The W3C trace context of a request (https://www.w3.org/TR/trace-context/): `traceparent`, read strictly and written.

/// Where a request stands in a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceContext {
    /// Not all zero.
    pub trace_id: [u8; 16],
    /// Of the span itself. Not all zero.
    pub span_id: [u8; 8],
    pub sampled: bool,
}

impl TraceContext {
    /// Reads `traceparent`. `None` for whatever the standard calls invalid: the trace then begins here.
    pub fn parse(value: &str) -> Option<TraceContext> {
        let bytes = value.as_bytes();
        let (version, rest) = bytes.split_first_chunk::<2>()?;
        let (trace_id, rest) = dashed::<32>(rest)?;
        let (span_id, rest) = dashed::<16>(rest)?;
        let (flags, rest) = dashed::<2>(rest)?;
        let (trace_id, span_id) = (hex::<16>(trace_id)?, hex::<8>(span_id)?);
        let ([version], [flags]) = (hex::<1>(version)?, hex::<1>(flags)?);
        // Version ff is forbidden; 00 ends here; a later version may go on after another dash (2.2.1, 4.1).
        let ends_well = match version {
            0xff => false,
            0 => rest.is_empty(),
            _ => rest.first().is_none_or(|byte| *byte == b'-'),
        };
        if !ends_well || trace_id == [0; 16] || span_id == [0; 8] {
            return None;
        }
        Some(TraceContext { trace_id, span_id, sampled: flags & 1 == 1 })
    }

    /// A trace that begins here.
    pub fn begin(sampled: bool) -> TraceContext {
        let trace_id = loop {
            let id = fastrand::u128(..);
            if id != 0 {
                break id.to_be_bytes();
            }
        };
        TraceContext { trace_id, span_id: new_span_id(), sampled }
    }

    /// The next span of the same trace, with the same decision.
    pub fn child(&self) -> TraceContext {
        TraceContext { span_id: new_span_id(), ..*self }
    }

    /// `traceparent`, version 00.
    pub fn header_value(&self) -> String {
        let mut out = String::with_capacity(55);
        out.push_str("00-");
        push_hex(&mut out, &self.trace_id);
        out.push('-');
        push_hex(&mut out, &self.span_id);
        out.push_str(if self.sampled { "-01" } else { "-00" });
        out
    }
}

fn new_span_id() -> [u8; 8] {
    fastrand::u64(1..).to_be_bytes()
}

/// A dash and `N` lower-case hex digits at the front.
fn dashed<const N: usize>(bytes: &[u8]) -> Option<(&[u8; N], &[u8])> {
    bytes.strip_prefix(b"-")?.split_first_chunk::<N>()
}

/// Reads lower-case hex; upper case is invalid in version 00 (2.2.2).
fn hex<const N: usize>(digits: &[u8]) -> Option<[u8; N]> {
    let value = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    let mut out = [0; N];
    let (pairs, _) = digits.as_chunks::<2>();
    for (byte, [high, low]) in out.iter_mut().zip(pairs) {
        *byte = value(*high)? << 4 | value(*low)?;
    }
    Some(out)
}

fn push_hex(out: &mut String, bytes: &[u8]) {
    for byte in bytes {
        for nibble in [byte >> 4, byte & 15] {
            out.push(char::from_digit(u32::from(nibble), 16).unwrap_or('0'));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const VALID: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn reads_what_the_standard_shows() {
        let context = TraceContext::parse(VALID).unwrap();
        assert!(context.sampled);
        assert_eq!(context.span_id, 0x00f0_67aa_0ba9_02b7_u64.to_be_bytes());
        assert_eq!(context.header_value(), VALID);
        assert!(!TraceContext::parse(&VALID.replace("-01", "-00")).unwrap().sampled);
        assert!(TraceContext::parse(&VALID.replace("-01", "-ff")).unwrap().sampled, "unknown flags are ignored");
    }

    #[test]
    fn later_versions_may_go_on_after_a_dash() {
        for value in [
            "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-what",
        ] {
            assert_eq!(TraceContext::parse(value), TraceContext::parse(VALID));
        }
    }

    #[test]
    fn refuses_what_the_standard_calls_invalid() {
        for value in [
            "",
            "00",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-1",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01 ",
            " 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "0x-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01.what",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e47361-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902bg-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0g",
            "00_4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-\u{20ac}",
        ] {
            assert_eq!(TraceContext::parse(value), None, "{value:?}");
        }
    }

    #[test]
    fn a_child_keeps_trace_and_decision() {
        let parent = TraceContext::begin(true);
        let child = parent.child();
        assert_eq!((parent.trace_id, parent.sampled), (child.trace_id, child.sampled));
        assert_ne!(parent.span_id, child.span_id);
    }

    proptest! {
        #[test]
        fn what_is_written_reads_the_same(trace in 1u128.., span in 1u64.., sampled: bool) {
            let context = TraceContext { trace_id: trace.to_be_bytes(), span_id: span.to_be_bytes(), sampled };
            prop_assert_eq!(TraceContext::parse(&context.header_value()), Some(context));
        }

        #[test]
        fn whatever_is_read_is_valid(value in "[0-9a-f-]{0,60}|\\PC{0,60}") {
            if let Some(context) = TraceContext::parse(&value) {
                prop_assert_eq!(TraceContext::parse(&context.header_value()), Some(context));
            }
        }
    }
}
