//! Times as the database has them (milliseconds of the Unix epoch), as events tell them (RFC 3339), and ids that sort by them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A moment in milliseconds of the Unix epoch.
pub(super) type Ms = i64;

pub(super) fn now() -> Ms {
    ms(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}

pub(super) fn ms(span: Duration) -> Ms {
    Ms::try_from(span.as_millis()).unwrap_or(Ms::MAX)
}

/// `2026-03-01T12:00:00.250Z`. What no calendar holds is the beginning of time.
pub(super) fn rfc3339(at: Ms) -> String {
    let at = time::OffsetDateTime::from_unix_timestamp_nanos(i128::from(at) * 1_000_000);
    let at = at.unwrap_or(time::OffsetDateTime::UNIX_EPOCH);
    let (year, month, day) = (at.year(), u8::from(at.month()), at.day());
    let (hour, minute, second, milli) = at.to_hms_milli();
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milli:03}Z")
}

/// Crockford's alphabet: no letter looks like another.
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

/// A new id of 26 characters, made like a ULID: 48 bits of time, 80 of chance. Ids sort by time; they are no secret.
pub(super) fn new_id() -> String {
    let time = u128::from(now().unsigned_abs() & 0xffff_ffff_ffff);
    let bits = time << 80 | (fastrand::u128(..) >> 48);
    let character = |place: u32| {
        let index = (bits >> (5 * place) & 31) as usize;
        char::from(ALPHABET.get(index).copied().unwrap_or(b'0'))
    };
    (0..26).rev().map(character).collect()
}

/// Whether a text could be an id: what comes in a path becomes the name of a file.
pub(super) fn is_id(text: &str) -> bool {
    text.len() == 26 && text.bytes().all(|byte| ALPHABET.contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_rfc_3339() {
        for (at, expect) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400_250, "2000-02-29T00:00:00.250Z"),
            (Ms::MAX, "1970-01-01T00:00:00.000Z"),
        ] {
            assert_eq!(rfc3339(at), expect);
        }
    }

    #[test]
    fn ids_are_ids_and_sort_by_time() {
        let (one, two) = (new_id(), new_id());
        assert!(is_id(&one) && one != two, "{one} {two}");
        assert!(one[..10] <= two[..10]);
        for wrong in ["", "../../../etc/passwd.......", &one[1..], &one.to_uppercase(), &format!("{one}0")] {
            assert!(!is_id(wrong) || wrong.chars().all(|c| c.is_ascii_digit()), "{wrong}");
        }
    }
}
