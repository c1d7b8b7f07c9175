//! A chunked body (RFC 9112 7.1), to its last byte, without leniency: hexadecimal size, extensions of tokens and quoted
//! strings, CRLF and nothing else.

use super::chars::{is_field_value, is_token_byte};
use super::fields::{self, Name};
use super::{HeadLimits, Refusal, line};

/// Longest size line with its extensions. Pingora takes 8 KiB.
const LINE_MAX: usize = 4 << 10;

/// How many bytes of size lines may come beyond what the chunks are worth, so that a body cannot be all extensions.
const OVERHEAD_MAX: usize = 16 << 10;

/// What a size line may cost for each chunk, beside twice its data.
const OVERHEAD_FREE: usize = 16;

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    Size,
    Data(u64),
    /// The CR behind the data.
    DataCr,
    DataLf,
    Trailers,
    End,
}

/// Progress through one chunked body.
#[derive(Clone, Debug)]
pub(super) struct Chunked {
    state: State,
    searched: usize,
    overhead: usize,
    /// Bytes and number of trailer fields.
    trailer_bytes: usize,
    trailers: usize,
}

impl Chunked {
    pub(super) fn new() -> Chunked {
        Chunked { state: State::Size, searched: 0, overhead: 0, trailer_bytes: 0, trailers: 0 }
    }

    pub(super) fn ended(&self) -> bool {
        self.state == State::End
    }

    /// How many bytes at the front of `input` are sound; it must begin behind those of the last call. Bytes before a mistake
    /// are passed first, so that what passes does not depend on the pieces the body comes in.
    pub(super) fn advance(&mut self, input: &[u8], limits: &HeadLimits) -> Result<usize, Refusal> {
        let mut done = 0;
        while self.state != State::End {
            match self.step(input.get(done..).unwrap_or_default(), limits) {
                Ok(0) => break,
                Ok(step) => done += step,
                Err(refusal) if done == 0 => return Err(refusal),
                Err(_) => break,
            }
        }
        Ok(done)
    }

    /// One element of the body; 0 if it is not whole. A mistake changes nothing: the next call finds it again.
    fn step(&mut self, input: &[u8], limits: &HeadLimits) -> Result<usize, Refusal> {
        match self.state {
            State::Size => {
                let Some(text) = self.line(input, LINE_MAX, Refusal::bad("chunk extensions are too long"))? else {
                    return Ok(0);
                };
                let size = size(text)?;
                let free = usize::try_from(size).unwrap_or(usize::MAX).saturating_mul(2).saturating_add(OVERHEAD_FREE);
                let overhead = (self.overhead + text.len() + 2).saturating_sub(free);
                if overhead > OVERHEAD_MAX {
                    return Err(Refusal::bad("more chunk extensions than data"));
                }
                self.overhead = overhead;
                self.state = if size == 0 { State::Trailers } else { State::Data(size) };
                Ok(text.len() + 2)
            }
            State::Data(left) => {
                let step = usize::try_from(left).unwrap_or(usize::MAX).min(input.len());
                let left = left - step as u64;
                self.state = if left == 0 { State::DataCr } else { State::Data(left) };
                Ok(step)
            }
            State::DataCr => self.expect(b'\r', input, State::DataLf),
            State::DataLf => self.expect(b'\n', input, State::Size),
            State::Trailers => {
                let too_large = Refusal::bad("the trailers are too large");
                let Some(most) = limits.head.checked_sub(self.trailer_bytes + 2) else { return Err(too_large) };
                let Some(text) = self.line(input, most, too_large)? else { return Ok(0) };
                if text.is_empty() {
                    self.state = State::End;
                } else if self.trailers >= limits.headers {
                    return Err(too_large);
                } else {
                    trailer(text)?;
                    self.trailers += 1;
                    self.trailer_bytes += text.len() + 2;
                }
                Ok(text.len() + 2)
            }
            State::End => Ok(0),
        }
    }

    fn line<'a>(&mut self, input: &'a [u8], most: usize, too_long: Refusal) -> Result<Option<&'a [u8]>, Refusal> {
        line(input, &mut self.searched, most).map_err(|bad| bad.refusal(too_long))
    }

    fn expect(&mut self, byte: u8, input: &[u8], then: State) -> Result<usize, Refusal> {
        match input.first() {
            None => Ok(0),
            Some(&first) if first == byte => {
                self.state = then;
                Ok(1)
            }
            Some(_) => Err(Refusal::bad("chunk is longer than its size")),
        }
    }
}

/// Trailers end at Pingora, which reads no more of them than where they end. What would change framing or routing if someone
/// merged it into the head is refused all the same (RFC 9110 6.5.1).
fn trailer(text: &[u8]) -> Result<(), Refusal> {
    match Name::of(fields::split(text)?.name) {
        Name::Other | Name::Expect | Name::Upgrade => Ok(()),
        Name::Host | Name::ContentLength | Name::TransferEncoding | Name::Connection | Name::Disguised => {
            Err(Refusal::bad("framing or routing field in the trailers"))
        }
    }
}

fn size(text: &[u8]) -> Result<u64, Refusal> {
    let digits = text.iter().position(|byte| !byte.is_ascii_hexdigit()).unwrap_or(text.len());
    let (digits, extensions) = text.split_at_checked(digits).unwrap_or((text, b""));
    if digits.is_empty() || digits.len() > 16 {
        return Err(Refusal::bad("chunk size is not of 1 to 16 hexadecimal digits"));
    }
    let size = digits.iter().fold(0u64, |size, byte| size << 4 | u64::from(hex(*byte)));
    if size > i64::MAX as u64 {
        return Err(Refusal::bad("chunk size overflows"));
    }
    if !are_extensions(extensions) {
        return Err(Refusal::bad("malformed chunk extension"));
    }
    Ok(size)
}

fn hex(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        _ => (digit | 0x20) - b'a' + 10,
    }
}

/// `*( ";" token [ "=" ( token / quoted-string ) ] )`, without the "bad" white space that only recipients may know.
fn are_extensions(mut text: &[u8]) -> bool {
    while let [b';', rest @ ..] = text {
        let Some(rest) = after_token(rest) else { return false };
        text = match rest {
            [b'=', b'"', rest @ ..] => match after_quoted(rest) {
                Some(rest) => rest,
                None => return false,
            },
            [b'=', rest @ ..] => match after_token(rest) {
                Some(rest) => rest,
                None => return false,
            },
            _ => rest,
        };
    }
    text.is_empty()
}

fn after_token(text: &[u8]) -> Option<&[u8]> {
    let end = text.iter().position(|&byte| !is_token_byte(byte)).unwrap_or(text.len());
    if end == 0 { None } else { text.get(end..) }
}

/// Behind the closing quote.
fn after_quoted(text: &[u8]) -> Option<&[u8]> {
    if !is_field_value(text) {
        return None;
    }
    let mut rest = text;
    loop {
        match rest {
            [b'"', rest @ ..] => return Some(rest),
            [b'\\', _, tail @ ..] | [_, tail @ ..] => rest = tail,
            [] => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_sizes_and_extensions() {
        for (text, expect) in [
            ("0", 0),
            ("5", 5),
            ("fF", 255),
            ("0000000000000005", 5),
            ("7fffffffffffffff", i64::MAX as u64),
            ("5;a", 5),
            ("5;a=b;c", 5),
            ("5;a=\"x;y\\\"\"", 5),
            ("5;a=\"\"", 5),
        ] {
            assert_eq!(size(text.as_bytes()), Ok(expect), "{text}");
        }
    }

    #[test]
    fn refuses_other_size_lines() {
        for text in [
            "",
            "+5",
            "-5",
            " 5",
            "5 ",
            "\t5",
            "0x5",
            "5,",
            "g",
            "5g",
            "00000000000000005",
            "8000000000000000",
            "ffffffffffffffff",
            "10000000000000000",
            "5;",
            "5;;a",
            "5 ;a",
            "5; a",
            "5;a =b",
            "5;a= b",
            "5;a=",
            "5;a=\"x",
            "5;a=\"x\"y",
            "5;a=\"\0\"",
            "5;a\0",
            "5;=b",
            "5_0",
            "5.0",
            "5;a=\"x\\",
        ] {
            assert!(size(text.as_bytes()).is_err(), "{text:?}");
        }
    }

    fn run(body: &[u8], limits: &HeadLimits) -> Result<usize, Refusal> {
        let mut chunked = Chunked::new();
        let mut at = 0;
        loop {
            match chunked.advance(&body[at..], limits)? {
                0 => return Ok(at),
                _ if chunked.ended() => return Ok(usize::MAX),
                n => at += n,
            }
        }
    }

    #[test]
    fn bounds_extensions_and_trailers() {
        let limits = HeadLimits::new(100, 100, 3);
        let line = |extension: usize| format!("1;{}\r\nx\r\n", "a".repeat(extension));
        assert!(run(line(LINE_MAX - 2).as_bytes(), &limits).is_ok());
        assert!(run(line(LINE_MAX - 1).as_bytes(), &limits).is_err());
        assert!(run(line(1000).repeat(15).as_bytes(), &limits).is_ok());
        assert!(run(line(1000).repeat(40).as_bytes(), &limits).is_err());
        assert!(run(line(5).repeat(40_000).as_bytes(), &limits).is_ok(), "small chunks with small extensions are fine");
        assert_eq!(run(b"0\r\na: b\r\nc: d\r\ne: f\r\n\r\n", &limits), Ok(usize::MAX));
        assert!(run(b"0\r\na: b\r\nc: d\r\ne: f\r\ng: h\r\n\r\n", &limits).is_err());
        assert!(run(format!("0\r\na: {}\r\n\r\n", "b".repeat(97)).as_bytes(), &limits).is_err());
        assert!(run(b"0\r\ncontent-length: 5\r\n\r\n", &limits).is_err());
        assert!(run(b"0\r\n x: 5\r\n\r\n", &limits).is_err());
    }
}
