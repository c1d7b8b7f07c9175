//! HTTP/1: releases what is sound, one request at a time.
//!
//! ```text
//! Head --whole--> Length(n) | Chunked --last byte--> End --next_request()--> Head
//!    \--no body--------------------------------------^     tunnel() leads anywhere to Tunnel, from which nothing leads
//! ```
//! Bytes behind the end of a request stay with the caller until the proxy wants another head: what the proxy never saw it
//! cannot mistake for a body, so pipelining is safe whatever the proxy thinks about lengths.

use super::chunked::Chunked;
use super::head::{Framing, Head, Scan};
use super::target::Absolute;
use super::{HeadLimits, Refusal};

/// What may be done with the bytes at hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Not enough of a head or of a piece of body framing to say: release nothing.
    Incomplete,
    /// The next n bytes (n >= 1) may go on: a whole head alone, or bytes of its body.
    Release(usize),
    /// The request is whole: release nothing more before `next_request`.
    RequestEnd,
    /// The connection is beyond repair: nothing that follows can be told apart.
    Refuse(Refusal),
}

#[derive(Clone, Debug)]
enum Phase {
    Head(Scan),
    Length(u64),
    Chunked(Chunked),
    End,
    Tunnel,
}

/// The guard of one client connection.
#[derive(Debug)]
pub(crate) struct Guard {
    limits: HeadLimits,
    phase: Phase,
    /// Of the head that was released last, if its target came in absolute form.
    absolute: Option<Absolute>,
    refused: Option<Refusal>,
}

impl Guard {
    pub(crate) fn new(limits: HeadLimits) -> Guard {
        Guard { limits, phase: Phase::Head(Scan::default()), absolute: None, refused: None }
    }

    /// Judges `input`: all bytes of the client that have not been released. After `Release(n)` the next call's input begins
    /// n bytes later; otherwise it begins where it did and may have grown.
    pub(crate) fn inspect(&mut self, input: &[u8]) -> Verdict {
        if let Some(refusal) = self.refused {
            return Verdict::Refuse(refusal);
        }
        let verdict = self.judge(input);
        if let Verdict::Refuse(refusal) = verdict {
            self.refused = Some(refusal);
        }
        verdict
    }

    fn judge(&mut self, input: &[u8]) -> Verdict {
        match &mut self.phase {
            Phase::Head(scan) => match scan.advance(input, &self.limits) {
                Err(refusal) => Verdict::Refuse(refusal),
                Ok(None) => Verdict::Incomplete,
                Ok(Some(Head { len, framing, absolute })) => {
                    self.absolute = absolute;
                    self.phase = match framing {
                        Framing::None | Framing::Length(0) => Phase::End,
                        Framing::Length(length) => Phase::Length(length),
                        Framing::Chunked => Phase::Chunked(Chunked::new()),
                    };
                    Verdict::Release(len)
                }
            },
            Phase::Length(left) => {
                let step = usize::try_from(*left).unwrap_or(usize::MAX).min(input.len());
                *left -= step as u64;
                if *left == 0 {
                    self.phase = Phase::End;
                }
                release(step)
            }
            Phase::Chunked(chunked) => match chunked.advance(input, &self.limits) {
                Err(refusal) => Verdict::Refuse(refusal),
                Ok(step) => {
                    if chunked.ended() {
                        self.phase = Phase::End;
                    }
                    release(step)
                }
            },
            Phase::End => Verdict::RequestEnd,
            Phase::Tunnel => release(input.len()),
        }
    }

    /// The answer is done and the proxy asks for another head. Has no effect before the request is whole.
    pub(crate) fn next_request(&mut self) {
        if matches!(self.phase, Phase::End) {
            self.phase = Phase::Head(Scan::default());
        }
    }

    /// The connection has been upgraded (101): from now on everything passes.
    pub(crate) fn tunnel(&mut self) {
        self.phase = Phase::Tunnel;
    }

    /// Whether a head is what comes next, or was when the connection was refused.
    pub(crate) fn in_head(&self) -> bool {
        matches!(self.phase, Phase::Head(_))
    }

    /// Turns the head that has just been released into origin form, in place. It then begins that many bytes later: drop
    /// them from the front.
    pub(crate) fn to_origin_form(&self, head: &mut [u8]) -> usize {
        self.absolute.as_ref().map_or(0, |absolute| absolute.remove_from(head))
    }
}

fn release(bytes: usize) -> Verdict {
    if bytes == 0 { Verdict::Incomplete } else { Verdict::Release(bytes) }
}
