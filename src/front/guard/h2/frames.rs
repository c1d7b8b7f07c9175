//! Frame heads out of a byte stream that comes in any pieces (RFC 9113 4.1). Payloads are skipped, except for the two
//! that say something in their first bytes: the increment of WINDOW_UPDATE and the length of padding.

/// The kinds that are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Data,
    Headers,
    ResetStream,
    WindowUpdate,
    Continuation,
    /// PRIORITY and PRIORITY_UPDATE (RFC 9218 7.1).
    Priority,
    /// SETTINGS, PING, GOAWAY, PUSH_PROMISE and what nobody knows.
    Ping,
    Other,
}

/// The head of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FrameHead {
    pub kind: Kind,
    pub length: u32,
    pub flags: u8,
    pub stream: u32,
}

impl FrameHead {
    fn parse([a, b, c, kind, flags, stream @ ..]: [u8; 9]) -> FrameHead {
        let kind = match kind {
            0x0 => Kind::Data,
            0x1 => Kind::Headers,
            0x2 | 0x10 => Kind::Priority,
            0x3 => Kind::ResetStream,
            0x6 => Kind::Ping,
            0x8 => Kind::WindowUpdate,
            0x9 => Kind::Continuation,
            _ => Kind::Other,
        };
        let length = u32::from_be_bytes([0, a, b, c]);
        FrameHead { kind, length, flags, stream: u32::from_be_bytes(stream) & 0x7fff_ffff }
    }

    /// END_STREAM of DATA and HEADERS.
    pub(super) fn ends_stream(&self) -> bool {
        self.flags & 0x1 != 0
    }

    /// END_HEADERS.
    pub(super) fn ends_headers(&self) -> bool {
        self.flags & 0x4 != 0
    }

    /// How many bytes of the payload are read.
    fn wanted(&self) -> usize {
        let padded = self.flags & 0x8 != 0 && !self.ends_stream();
        match self.kind {
            Kind::WindowUpdate if self.length == 4 => 4,
            Kind::Data if padded && self.length > 0 => 1,
            _ => 0,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    Head(FrameHead),
    WindowUpdate {
        stream: u32,
        increment: u32,
    },
    /// DATA that carries nothing and does not end its stream.
    OnlyPadding,
}

/// Progress through the frames of one direction.
#[derive(Debug, Default)]
pub(super) struct Frames {
    /// The part of a head, or of a payload that is read, that has come.
    held: [u8; 9],
    held_len: usize,
    /// The frame whose payload is being read.
    reading: Option<FrameHead>,
    /// Bytes of payload to pass over.
    skip: usize,
}

impl Frames {
    /// The next event in `bytes`, which are taken from the front as they are understood.
    pub(super) fn next(&mut self, bytes: &mut &[u8]) -> Option<Event> {
        loop {
            let skip = self.skip.min(bytes.len());
            self.skip -= skip;
            *bytes = bytes.get(skip..).unwrap_or_default();
            if bytes.is_empty() {
                return None;
            }
            match self.reading {
                None => {
                    self.hold(bytes, 9)?;
                    let head = FrameHead::parse(self.held);
                    let wanted = head.wanted();
                    self.skip = usize::try_from(head.length).unwrap_or(usize::MAX);
                    if wanted > 0 {
                        self.reading = Some(head);
                        self.skip = 0;
                    }
                    return Some(Event::Head(head));
                }
                Some(head) => {
                    let wanted = head.wanted();
                    self.hold(bytes, wanted)?;
                    self.reading = None;
                    self.skip = usize::try_from(head.length).unwrap_or(usize::MAX).saturating_sub(wanted);
                    let [a, b, c, d, ..] = self.held;
                    match head.kind {
                        Kind::WindowUpdate => {
                            let increment = u32::from_be_bytes([a, b, c, d]) & 0x7fff_ffff;
                            return Some(Event::WindowUpdate { stream: head.stream, increment });
                        }
                        _ if u32::from(a) + 1 >= head.length => return Some(Event::OnlyPadding),
                        _ => {}
                    }
                }
            }
        }
    }

    /// Whether a frame has come in part.
    pub(super) fn is_within(&self) -> bool {
        self.held_len > 0 || self.skip > 0 || self.reading.is_some()
    }

    /// Takes bytes until `wanted` of them are held; then the next ones start over.
    fn hold(&mut self, bytes: &mut &[u8], wanted: usize) -> Option<()> {
        let n = wanted.saturating_sub(self.held_len).min(bytes.len());
        let (taken, rest) = bytes.split_at_checked(n)?;
        self.held.get_mut(self.held_len..self.held_len + n)?.copy_from_slice(taken);
        *bytes = rest;
        self.held_len += n;
        if self.held_len < wanted {
            return None;
        }
        self.held_len = 0;
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &[u8] = b"\x00\x00\x04\x08\x00\x00\x00\x00\x01\x00\x00\x00\x07\
        \x00\x00\x03\x00\x01\x80\x00\x00\x03abc\
        \x00\x00\x04\x00\x08\x00\x00\x00\x05\x03\x00\x00\x00\
        \x00\x00\x04\x00\x08\x00\x00\x00\x05\x02x\x00\x00\
        \x00\x00\x00\x04\x01\x00\x00\x00\x00";

    fn events(pieces: &[&[u8]]) -> Vec<Event> {
        let mut frames = Frames::default();
        let mut events = Vec::new();
        for piece in pieces {
            let mut bytes = *piece;
            while let Some(event) = frames.next(&mut bytes) {
                events.push(event);
            }
            assert!(bytes.is_empty());
        }
        events
    }

    #[test]
    fn reads_heads_in_any_pieces() {
        let whole = events(&[STREAM]);
        let head = |kind, length, flags, stream| Event::Head(FrameHead { kind, length, flags, stream });
        assert_eq!(
            whole,
            [
                head(Kind::WindowUpdate, 4, 0, 1),
                Event::WindowUpdate { stream: 1, increment: 7 },
                head(Kind::Data, 3, 1, 3),
                head(Kind::Data, 4, 8, 5),
                Event::OnlyPadding,
                head(Kind::Data, 4, 8, 5),
                head(Kind::Other, 0, 1, 0),
            ]
        );
        for at in 0..STREAM.len() {
            let (a, b) = STREAM.split_at(at);
            assert_eq!(events(&[a, b]), whole, "cut at {at}");
        }
        assert_eq!(events(&STREAM.chunks(1).collect::<Vec<_>>()), whole);
    }
}
