//! The framing guard: what of a client's bytes may reach the proxy engine.
//!
//! Pingora repairs or tolerates ambiguous requests (two lengths, bare LF, a space in the target, no Host). A request that two
//! parsers can read in two ways is how one client speaks in another's name, so it is refused here, before any other parser
//! sees it. Pure functions of bytes: no socket, no clock of its own, no type of the proxy engine.
//!
//! `h1` releases one request at a time and knows where it ends; `h2` counts the frames of a client and the answers to them.

use memchr::memchr2;

use crate::rejection::Code;

mod chars;
mod chunked;
mod fields;
pub(crate) mod h1;
pub(crate) mod h2;
mod head;
mod host;
mod target;

#[cfg(any(fuzzing, test))]
pub mod fuzz;
#[cfg(test)]
mod tests;

pub(crate) use head::HeadLimits;
pub(crate) use host::Host;

/// Why a request is refused. The cause goes to the log, never to the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub code: Code,
    pub cause: &'static str,
}

impl Refusal {
    const fn bad(cause: &'static str) -> Refusal {
        Refusal { code: Code::BadRequest, cause }
    }

    const fn too_large(cause: &'static str) -> Refusal {
        Refusal { code: Code::HeadTooLarge, cause }
    }
}

/// What a connection without ALPN speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sniff {
    /// All bytes so far could be the HTTP/2 preface.
    NeedMore,
    H2Preface,
    H1,
}

/// The client preface of RFC 9113 3.4.
pub(crate) const H2_PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Tells HTTP/2 with prior knowledge from HTTP/1, as soon as one byte decides.
pub(crate) fn sniff(bytes: &[u8]) -> Sniff {
    if bytes.starts_with(H2_PREFACE) {
        Sniff::H2Preface
    } else if H2_PREFACE.starts_with(bytes) {
        Sniff::NeedMore
    } else {
        Sniff::H1
    }
}

/// Why there is no line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum BadLine {
    TooLong,
    BareCr,
    BareLf,
}

impl BadLine {
    /// `too_long` is what the one variant means here that depends on the place.
    fn refusal(self, too_long: Refusal) -> Refusal {
        match self {
            BadLine::TooLong => too_long,
            BadLine::BareCr => Refusal::bad("CR without LF"),
            BadLine::BareLf => Refusal::bad("LF without CR"),
        }
    }
}

/// The line at the front of `input`, without its CRLF, if it is whole.
///
/// `searched` remembers how far a line that was not whole has been looked through, so that dripped bytes are looked at once.
/// The first CR or LF decides, whatever pieces the bytes come in: RFC 9112 2.2 lets a recipient take a bare LF as a line
/// end; we do not.
fn line<'a>(input: &'a [u8], searched: &mut usize, most: usize) -> Result<Option<&'a [u8]>, BadLine> {
    let fresh = input.get(*searched..).unwrap_or_default();
    let Some(at) = memchr2(b'\r', b'\n', fresh) else {
        *searched = input.len();
        return if input.len() > most { Err(BadLine::TooLong) } else { Ok(None) };
    };
    let end = *searched + at;
    if end > most {
        return Err(BadLine::TooLong);
    }
    match (input.get(end), input.get(end + 1)) {
        (Some(b'\n'), _) => Err(BadLine::BareLf),
        (_, Some(b'\n')) => {
            *searched = 0;
            Ok(input.get(..end))
        }
        (_, Some(_)) => Err(BadLine::BareCr),
        (_, None) => {
            *searched = end;
            Ok(None)
        }
    }
}
