//! A request head, read line by line as its bytes come; each line is judged once, when it is whole.

use std::ops::Range;

use super::chars::{decimal, is_token_byte};
use super::fields::{self, Connection, Field, Name};
use super::host::Host;
use super::target::{Absolute, RequestLine};
use super::{BadLine, Refusal, line};
use crate::rejection::Code;

/// Bounds on a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HeadLimits {
    request_line: usize,
    pub(super) head: usize,
    pub(super) headers: usize,
}

impl HeadLimits {
    /// Bytes of the request line, bytes of the whole head, number of fields. A request line is part of its head, so its bound
    /// is never above that of the head.
    pub(crate) fn new(request_line: usize, head: usize, headers: usize) -> HeadLimits {
        HeadLimits { request_line: request_line.min(head.saturating_sub(2)), head, headers }
    }
}

impl From<&crate::settings::Limits> for HeadLimits {
    fn from(limits: &crate::settings::Limits) -> HeadLimits {
        let bytes = |size: u64| usize::try_from(size).unwrap_or(usize::MAX);
        HeadLimits::new(bytes(limits.request_line.0), bytes(limits.head.0), limits.headers)
    }
}

/// How the end of a body is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Framing {
    /// There is no body.
    #[default]
    None,
    Length(u64),
    Chunked,
}

/// A head that has been accepted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Head {
    /// Bytes, with the empty line at its end and the one that may stand before it.
    pub len: usize,
    pub framing: Framing,
    /// The target came in absolute form.
    pub absolute: Option<Absolute>,
}

/// Progress through one head.
#[derive(Clone, Debug, Default)]
pub(super) struct Scan {
    /// Where the request line starts: behind the empty line that RFC 9112 2.2 lets stand before it.
    start: usize,
    /// Where the line now read starts.
    at: usize,
    /// How far that line has been searched for its end.
    searched: usize,
    begun: bool,
    /// HTTP/1.`minor`.
    minor: u8,
    fields: usize,
    framing: Framing,
    absolute: Option<Absolute>,
    host: Option<Range<usize>>,
    connection: Connection,
    websocket: bool,
    expect: bool,
}

impl Scan {
    /// The head at the front of `input`, when it is whole. `input` must begin with the same bytes on every call.
    pub(super) fn advance(&mut self, input: &[u8], limits: &HeadLimits) -> Result<Option<Head>, Refusal> {
        if !self.begun && !self.request_line(input, limits)? {
            return Ok(None);
        }
        loop {
            let left = limits.head.saturating_sub(self.at - self.start);
            let Some(most) = left.checked_sub(2) else { return Err(TOO_LARGE) };
            let Some(text) = self.line(input, most, TOO_LARGE)? else { return Ok(None) };
            if text.is_empty() {
                self.at += 2;
                return self.finish(input).map(Some);
            }
            self.fields += 1;
            if self.fields > limits.headers {
                return Err(Refusal::too_large("too many fields"));
            }
            self.field(text)?;
            self.at += text.len() + 2;
        }
    }

    fn line<'a>(&mut self, input: &'a [u8], most: usize, too_long: Refusal) -> Result<Option<&'a [u8]>, Refusal> {
        let rest = input.get(self.at..).unwrap_or_default();
        line(rest, &mut self.searched, most).map_err(|bad: BadLine| bad.refusal(too_long))
    }

    /// Whether the request line is whole.
    fn request_line(&mut self, input: &[u8], limits: &HeadLimits) -> Result<bool, Refusal> {
        loop {
            // What cannot begin a request (a TLS hello, an answer, a space) is known by its first byte.
            match input.get(self.at) {
                None => return Ok(false),
                Some(b'\r') if self.at == 0 => {}
                Some(&byte) if is_token_byte(byte) => {}
                Some(_) => return Err(Refusal::bad("this is not a request line")),
            }
            let Some(text) = self.line(input, limits.request_line, URI_TOO_LONG)? else { return Ok(false) };
            let start = self.at;
            self.at += text.len() + 2;
            if text.is_empty() {
                self.start = self.at;
                continue;
            }
            let RequestLine { minor, absolute } = RequestLine::parse(text)?;
            self.minor = minor;
            self.absolute = absolute.map(|absolute| absolute.moved_by(start));
            self.begun = true;
            return Ok(true);
        }
    }

    fn field(&mut self, text: &[u8]) -> Result<(), Refusal> {
        let Field { name, value, value_at } = fields::split(text)?;
        match Name::of(name) {
            Name::Other => {}
            Name::Host => {
                if self.host.is_some() {
                    return Err(Refusal::bad("more than one Host"));
                }
                if Host::parse(value).is_none() {
                    return Err(Refusal::bad("malformed Host"));
                }
                let start = self.at + value_at;
                self.host = Some(start..start + value.len());
            }
            Name::ContentLength => {
                let Some(length) = decimal(value) else { return Err(Refusal::bad("malformed Content-Length")) };
                self.framing = match self.framing {
                    Framing::None => Framing::Length(length),
                    Framing::Length(_) => return Err(Refusal::bad("more than one Content-Length")),
                    Framing::Chunked => return Err(TWO_LENGTHS),
                };
            }
            Name::TransferEncoding => {
                if !value.eq_ignore_ascii_case(b"chunked") {
                    return Err(Refusal::bad("Transfer-Encoding is not chunked alone"));
                }
                if self.minor == 0 {
                    return Err(Refusal::bad("Transfer-Encoding in HTTP/1.0"));
                }
                self.framing = match self.framing {
                    Framing::None => Framing::Chunked,
                    Framing::Length(_) => return Err(TWO_LENGTHS),
                    Framing::Chunked => return Err(Refusal::bad("more than one Transfer-Encoding")),
                };
            }
            Name::Connection => self.connection.read(value)?,
            Name::Upgrade => {
                if self.minor == 0 {
                    return Err(Refusal::bad("Upgrade in HTTP/1.0"));
                }
                self.websocket |= value.eq_ignore_ascii_case(b"websocket");
            }
            Name::Expect => {
                if self.expect || !value.eq_ignore_ascii_case(b"100-continue") {
                    return Err(Refusal::bad("Expect is not 100-continue"));
                }
                self.expect = true;
            }
            Name::Disguised => return Err(Refusal::bad("framing field written with an underscore")),
        }
        Ok(())
    }

    /// What can only be judged when every field is known.
    fn finish(&mut self, input: &[u8]) -> Result<Head, Refusal> {
        let host = self.host.clone().and_then(|range| input.get(range)).and_then(Host::parse);
        let Some(host) = host else { return Err(Refusal::bad("no Host")) };
        if let Some(absolute) = &self.absolute {
            let authority = input.get(absolute.authority()).and_then(Host::parse);
            if !authority.is_some_and(|authority| authority.same_as(&host, absolute.default_port())) {
                return Err(Refusal::bad("Host is not the authority of the target"));
            }
        }
        if self.websocket {
            // Pingora takes the field alone for a handshake.
            if !self.connection.upgrade {
                return Err(Refusal::bad("Upgrade: websocket without Connection: upgrade"));
            }
            // Where the body ends and the tunnel begins would be for the upstream to guess.
            if !matches!(self.framing, Framing::None | Framing::Length(0)) {
                return Err(Refusal::bad("WebSocket handshake with a body"));
            }
        }
        Ok(Head { len: self.at, framing: self.framing, absolute: self.absolute.take() })
    }
}

const TOO_LARGE: Refusal = Refusal::too_large("the head is too large");
const URI_TOO_LONG: Refusal = Refusal { code: Code::UriTooLong, cause: "the request line is too long" };
const TWO_LENGTHS: Refusal = Refusal::bad("Content-Length with Transfer-Encoding");
