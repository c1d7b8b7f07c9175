//! Classes of bytes, one look-up each.

use memchr::memchr_iter;

/// `tchar` of RFC 9110 5.6.2.
const TOKEN: u8 = 1;
/// What may stand in a path.
const PATH: u8 = 2;
/// What may stand in a query.
const QUERY: u8 = 4;
/// What may stand in a host name.
const NAME: u8 = 8;

static CLASSES: [u8; 256] = table();

const fn table() -> [u8; 256] {
    let mut table = [0; 256];
    let mut rest: &mut [u8] = &mut table;
    let mut byte = 0u8;
    while let Some((slot, tail)) = rest.split_first_mut() {
        *slot = classes(byte);
        rest = tail;
        byte = byte.wrapping_add(1);
    }
    table
}

const fn classes(byte: u8) -> u8 {
    match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' => TOKEN | PATH | QUERY | NAME,
        b'~' | b'!' | b'$' | b'&' | b'\'' | b'*' | b'+' | b'%' => TOKEN | PATH | QUERY,
        b'(' | b')' | b',' | b';' | b'=' | b':' | b'@' | b'/' => PATH | QUERY,
        b'?' => QUERY,
        b'#' => TOKEN,
        // Not in RFC 3986 at these places, but what browsers send: the URL Standard leaves them unencoded, and no two
        // parsers differ about them. The backslash is left out of paths, where some read it as a slash.
        b'|' | b'^' => TOKEN | PATH | QUERY,
        b'[' | b']' => PATH | QUERY,
        b'`' => TOKEN | QUERY,
        b'{' | b'}' | b'\\' => QUERY,
        _ => 0,
    }
}

fn is(byte: u8, class: u8) -> bool {
    CLASSES.get(usize::from(byte)).is_some_and(|classes| classes & class != 0)
}

pub(super) fn is_token_byte(byte: u8) -> bool {
    is(byte, TOKEN)
}

/// Whether all of it is one token, and not empty.
pub(super) fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|&byte| is(byte, TOKEN))
}

pub(super) fn is_name_byte(byte: u8) -> bool {
    is(byte, NAME)
}

/// How many bytes at the front may stand in a path.
pub(super) fn path_len(bytes: &[u8]) -> usize {
    bytes.iter().position(|&byte| !is(byte, PATH)).unwrap_or(bytes.len())
}

pub(super) fn is_query(bytes: &[u8]) -> bool {
    bytes.iter().all(|&byte| is(byte, QUERY))
}

/// Whether every `%` begins a percent-code.
pub(super) fn percent_codes_are_whole(bytes: &[u8]) -> bool {
    memchr_iter(b'%', bytes)
        .all(|at| bytes.get(at + 1..at + 3).is_some_and(|code| code.iter().all(u8::is_ascii_hexdigit)))
}

/// Whether a field value holds no control character but HTAB. Written without branches so that it is done many bytes at once.
pub(super) fn is_field_value(bytes: &[u8]) -> bool {
    !bytes.iter().fold(false, |bad, &byte| bad | ((byte < b' ') & (byte != b'\t')) | (byte == 0x7f))
}

/// Without spaces and tabs around it (OWS of RFC 9110 5.6.3).
pub(super) fn trim(mut bytes: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = bytes {
        bytes = rest;
    }
    while let [rest @ .., b' ' | b'\t'] = bytes {
        bytes = rest;
    }
    bytes
}

/// 1*DIGIT below 2^63: what every parser behind us can count.
pub(super) fn decimal(bytes: &[u8]) -> Option<u64> {
    if bytes.is_empty() {
        return None;
    }
    let value = bytes.iter().try_fold(0u64, |value, &byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        value.checked_mul(10)?.checked_add(digit)
    })?;
    (value <= i64::MAX as u64).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_those_of_rfc_9110() {
        for byte in 0..=255u8 {
            let expect = byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
            assert_eq!(is_token_byte(byte), expect, "{byte:#x}");
        }
        assert!(!is_token(b""));
    }

    #[test]
    fn paths_hold_pchar_and_what_browsers_send() {
        for byte in 0..=255u8 {
            let expect = byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/%|^[]".contains(&byte);
            assert_eq!(path_len(&[byte]) == 1, expect, "{byte:#x}");
            assert_eq!(is_query(&[byte]), expect || b"?`{}\\".contains(&byte), "{byte:#x}");
        }
    }

    #[test]
    fn counts_decimal_digits_only() {
        assert_eq!(decimal(b"0"), Some(0));
        assert_eq!(decimal(b"007"), Some(7));
        assert_eq!(decimal(b"9223372036854775807"), Some(i64::MAX as u64));
        for bad in ["", "+5", "-1", " 5", "5 ", "0x5", "5,5", "9223372036854775808", "18446744073709551616", "1e3"] {
            assert_eq!(decimal(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn sees_every_control_character_in_a_value() {
        for byte in 0..=255u8 {
            let mut value = *b"0123456789012345678901234567890123456789";
            value[37] = byte;
            assert_eq!(is_field_value(&value), byte == b'\t' || !byte.is_ascii_control(), "{byte:#x}");
        }
    }

    #[test]
    fn finds_broken_percent_codes() {
        assert!(percent_codes_are_whole(b"/%2f%AA%00"));
        for bad in ["%", "%2", "%zz", "/%2g/", "%%41"] {
            assert!(!percent_codes_are_whole(bad.as_bytes()), "{bad}");
        }
    }
}
