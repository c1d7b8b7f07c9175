//! Times as RFC 3339 writes them, in UTC with milliseconds: `2026-03-01T12:00:00.250Z`.

use std::time::{SystemTime, UNIX_EPOCH};

use super::json::padded;

const DAY: u64 = 86_400;

/// Appends a time. One before 1970 is written as 1970.
pub(super) fn push(out: &mut Vec<u8>, at: SystemTime) {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (days, second) = (since.as_secs() / DAY, (since.as_secs() % DAY) as u32);
    let (year, month, day) = civil(days);
    padded::<4>(out, year);
    out.push(b'-');
    padded::<2>(out, month);
    out.push(b'-');
    padded::<2>(out, day);
    out.push(b'T');
    padded::<2>(out, second / 3_600);
    out.push(b':');
    padded::<2>(out, second / 60 % 60);
    out.push(b':');
    padded::<2>(out, second % 60);
    out.push(b'.');
    padded::<3>(out, since.subsec_millis());
    out.push(b'Z');
}

/// Year, month and day of a day since 1970. Years are counted from March, so that the leap day is the last of a year, and
/// from 0000-03-01, so that every 400 of them (146,097 days) are alike.
fn civil(days: u64) -> (u32, u32, u32) {
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    // Months from March have 31 and 30 days in turn such that 153 days are five of them.
    let from_march = (5 * day + 2) / 153;
    let day = day - (153 * from_march + 2) / 5 + 1;
    let (year, month) = match from_march {
        0..=9 => (year, from_march + 3),
        _ => (year + 1, from_march - 9),
    };
    ((era * 400 + year) as u32, month as u32, day as u32)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn text(ms: u64) -> String {
        let mut out = Vec::new();
        push(&mut out, UNIX_EPOCH + Duration::from_millis(ms));
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn writes_utc_with_milliseconds() {
        assert_eq!(text(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(text(951_827_696_007), "2000-02-29T12:34:56.007Z");
        assert_eq!(text(1_772_366_400_250), "2026-03-01T12:00:00.250Z");
        assert_eq!(text(4_107_542_399_999), "2100-02-28T23:59:59.999Z");
        assert_eq!(text(4_107_542_400_000), "2100-03-01T00:00:00.000Z");
    }

    #[test]
    fn counts_every_day_of_six_centuries() {
        let leap = |year: u32| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
        let (mut year, mut month, mut day) = (1970, 1, 1);
        for days in 0..600 * 365 {
            assert_eq!(civil(days), (year, month, day));
            let length = match month {
                2 => 28 + u32::from(leap(year)),
                4 | 6 | 9 | 11 => 30,
                _ => 31,
            };
            day += 1;
            if day > length {
                (day, month) = (1, month + 1);
            }
            if month > 12 {
                (month, year) = (1, year + 1);
            }
        }
    }
}
