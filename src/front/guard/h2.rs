//! HTTP/2: counts what costs us more than the client.
//!
//! The h2 library parses and bounds most things. What it leaves open is watched from outside, on the bytes: resets of streams
//! it had accepted, control frames, CONTINUATION. Nothing is decoded beyond the nine bytes of a frame's
//! head; what is malformed beyond that is the library's to refuse.

use std::time::{Duration, Instant};

use super::H2_PREFACE;
use crate::settings::Http2;

mod frames;

use frames::{Event, Frames, Kind};

/// SETTINGS_MAX_FRAME_SIZE, which we never raise.
const FRAME_MAX: u32 = 16 << 10;

/// One WINDOW_UPDATE is due for so many bytes sent: a client may answer the smallest DATA frame (10 bytes) with two, one for
/// the stream and one for the connection.
const BYTES_PER_UPDATE: u64 = 5;

/// What answering a PING adds to the bytes sent: it must not pay for the next one.
const PING_ACK: u64 = 17;

/// Updates a client may save up.
const UPDATES_MAX: u64 = 200_000;

const MINUTE: Duration = Duration::from_secs(60);

/// Why the connection must end (GOAWAY ENHANCE_YOUR_CALM).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Breach {
    Preface,
    FrameSize,
    HeaderBlock,
    Continuations,
    Resets,
    Control,
}

impl Breach {
    /// For the log.
    pub(crate) const fn cause(self) -> &'static str {
        match self {
            Breach::Preface => "no HTTP/2 preface",
            Breach::FrameSize => "frame larger than announced",
            Breach::HeaderBlock => "header block interrupted",
            Breach::Continuations => "too many CONTINUATION frames",
            Breach::Resets => "too many streams reset",
            Breach::Control => "too many control frames",
        }
    }
}

/// Events of the minute that began with the first of them.
#[derive(Clone, Copy, Debug)]
struct PerMinute {
    most: u32,
    count: u32,
    since: Option<Instant>,
}

impl PerMinute {
    fn new(most: u32) -> PerMinute {
        PerMinute { most, count: 0, since: None }
    }

    /// False when it is one too many.
    fn count(&mut self, now: Instant) -> bool {
        match self.since {
            Some(since) if now.saturating_duration_since(since) < MINUTE => self.count = self.count.saturating_add(1),
            _ => {
                self.since = Some(now);
                self.count = 1;
            }
        }
        self.count <= self.most
    }
}

/// The watch over one client connection. `feed` sees every byte from the client, `sent` how many went to it.
#[derive(Debug)]
pub(crate) struct Watch {
    preface: usize,
    frames: Frames,
    continuations_max: u32,
    resets: PerMinute,
    control: PerMinute,
    /// The stream whose header block is open, and its CONTINUATION frames so far.
    block: Option<(u32, u32)>,
    /// Since when a head is on its way, from its HEADERS frame to the last byte of its block.
    head_since: Option<Instant>,
    /// Streams whose head has come whole, and the highest of them.
    heads: u32,
    highest: u32,
    /// Requests that no PRIORITY or PRIORITY_UPDATE has been set against.
    priorities: u32,
    /// Bytes sent that no WINDOW_UPDATE has been set against.
    update_credit: u64,
}

impl Watch {
    pub(crate) fn new(limits: &Http2) -> Watch {
        Watch {
            preface: 0,
            frames: Frames::default(),
            continuations_max: limits.continuations,
            resets: PerMinute::new(limits.resets_per_minute),
            control: PerMinute::new(limits.control_per_minute),
            block: None,
            head_since: None,
            heads: 0,
            highest: 0,
            priorities: 0,
            update_credit: 0,
        }
    }

    /// Whether the client's preface has come whole.
    pub(crate) fn preface_seen(&self) -> bool {
        self.preface == H2_PREFACE.len()
    }

    /// Bytes from the client, in any pieces. After a breach nothing more may be passed on.
    pub(crate) fn feed(&mut self, bytes: &[u8], now: Instant) -> Result<(), Breach> {
        let rest = H2_PREFACE.get(self.preface..).unwrap_or_default();
        let n = rest.len().min(bytes.len());
        if rest.get(..n) != bytes.get(..n) {
            return Err(Breach::Preface);
        }
        self.preface += n;
        let mut bytes = bytes.get(n..).unwrap_or_default();
        while let Some(event) = self.frames.next(&mut bytes) {
            self.judge(event, now)?;
        }
        if self.block.is_none() && !self.frames.is_within() {
            self.head_since = None;
        }
        Ok(())
    }

    /// Since when a head is on its way.
    pub(crate) fn head_since(&self) -> Option<Instant> {
        self.head_since
    }

    /// So many bytes went to the client: they earn it WINDOW_UPDATEs.
    pub(crate) fn sent(&mut self, bytes: usize) {
        self.update_credit =
            self.update_credit.saturating_add(bytes as u64).min(BYTES_PER_UPDATE.saturating_mul(UPDATES_MAX));
    }

    fn judge(&mut self, event: Event, now: Instant) -> Result<(), Breach> {
        let head = match event {
            Event::Head(head) => head,
            Event::OnlyPadding => return self.control(now),
            Event::WindowUpdate { .. } => return Ok(()),
        };
        if head.length > FRAME_MAX {
            return Err(Breach::FrameSize);
        }
        if self.block.is_none() {
            self.head_since = (head.kind == Kind::Headers).then_some(now);
        }
        match (self.block, head.kind) {
            (Some((stream, count)), Kind::Continuation) if stream == head.stream => {
                if count >= self.continuations_max {
                    return Err(Breach::Continuations);
                }
                if head.ends_headers() {
                    self.block = None;
                    self.head_ended(stream);
                } else {
                    self.block = Some((stream, count + 1));
                }
                return Ok(());
            }
            (Some(_), _) | (None, Kind::Continuation) => return Err(Breach::HeaderBlock),
            (None, _) => {}
        }
        match head.kind {
            Kind::Headers => {
                if head.ends_headers() {
                    self.head_ended(head.stream);
                } else {
                    self.block = Some((head.stream, 0));
                }
                self.priorities = self.priorities.saturating_add(1);
                Ok(())
            }
            Kind::Data => {
                if head.length == 0 && !head.ends_stream() {
                    self.control(now)
                } else {
                    Ok(())
                }
            }
            Kind::ResetStream => {
                if self.resets.count(now) {
                    Ok(())
                } else {
                    Err(Breach::Resets)
                }
            }
            // Browsers send one or two for each request.
            Kind::Priority if self.priorities > 0 => {
                self.priorities -= 1;
                Ok(())
            }
            Kind::WindowUpdate if self.update_credit >= BYTES_PER_UPDATE => {
                self.update_credit -= BYTES_PER_UPDATE;
                Ok(())
            }
            // A client that measures its bandwidth pings while bytes flow.
            Kind::Ping if self.update_credit >= BYTES_PER_UPDATE + PING_ACK => {
                self.update_credit -= BYTES_PER_UPDATE + PING_ACK;
                Ok(())
            }
            Kind::Priority | Kind::WindowUpdate | Kind::Ping | Kind::Other => self.control(now),
            Kind::Continuation => Err(Breach::HeaderBlock),
        }
    }

    /// Trailers end no second head.
    fn head_ended(&mut self, stream: u32) {
        if stream > self.highest {
            self.highest = stream;
            self.heads = self.heads.saturating_add(1);
        }
    }

    /// Streams whose head has come whole.
    pub(crate) fn heads(&self) -> u32 {
        self.heads
    }

    fn control(&mut self, now: Instant) -> Result<(), Breach> {
        if self.control.count(now) { Ok(()) } else { Err(Breach::Control) }
    }
}

#[cfg(test)]
mod tests;
