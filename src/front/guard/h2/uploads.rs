//! Request bodies that are awaited, and whose turn it is: a client whose window is shut waits for us and does not stall.

use std::time::Instant;

use crate::settings::Http2;

/// SETTINGS_INITIAL_WINDOW_SIZE where nothing is said, and the connection's window at first (RFC 9113 6.9.2).
const DEFAULT_WINDOW: i64 = 65_535;

#[derive(Clone, Copy, Debug)]
struct Upload {
    stream: u32,
    /// What the client may still send.
    window: i64,
    /// When it sent something, or could go on sending.
    last: Instant,
}

/// Bodies whose head has come, whose end has not, and which have not been answered. Once there is an answer the two
/// directions live by the route's `idle`: a gRPC client may say nothing for an hour.
#[derive(Debug)]
pub(super) struct Uploads {
    open: Vec<Upload>,
    most: usize,
    stream_window: i64,
    connection_window: i64,
    connection_opened: Option<Instant>,
}

impl Uploads {
    pub(super) fn new(limits: &Http2) -> Uploads {
        Uploads {
            open: Vec::new(),
            most: usize::try_from(limits.streams).unwrap_or(usize::MAX),
            stream_window: i64::try_from(limits.stream_window.0).unwrap_or(i64::MAX),
            connection_window: DEFAULT_WINDOW,
            connection_opened: None,
        }
    }

    /// HEADERS from the client: a request, or the trailers that end one.
    pub(super) fn head(&mut self, stream: u32, ends: bool, now: Instant) {
        if ends {
            self.answered(stream);
        } else if self.open.len() < self.most && !self.open.iter().any(|upload| upload.stream == stream) {
            self.open.push(Upload { stream, window: self.stream_window, last: now });
        }
    }

    /// DATA from the client; padding counts against windows (RFC 9113 6.9.1).
    pub(super) fn data(&mut self, stream: u32, length: u32, ends: bool, now: Instant) {
        self.connection_window = self.connection_window.saturating_sub(i64::from(length));
        if ends {
            self.answered(stream);
        } else if let Some(upload) = self.open.iter_mut().find(|upload| upload.stream == stream) {
            upload.window = upload.window.saturating_sub(i64::from(length));
            upload.last = now;
        }
    }

    /// WINDOW_UPDATE to the client.
    pub(super) fn opened(&mut self, stream: u32, increment: u32, now: Instant) {
        if stream == 0 {
            if self.connection_window <= 0 {
                self.connection_opened = Some(now);
            }
            self.connection_window = self.connection_window.saturating_add(i64::from(increment));
        } else if let Some(upload) = self.open.iter_mut().find(|upload| upload.stream == stream) {
            if upload.window <= 0 {
                upload.last = now;
            }
            upload.window = upload.window.saturating_add(i64::from(increment));
        }
    }

    /// The stream has been answered, ended or reset, by either side: no body is awaited.
    pub(super) fn answered(&mut self, stream: u32) {
        if let Some(at) = self.open.iter().position(|upload| upload.stream == stream) {
            self.open.swap_remove(at);
        }
    }

    pub(super) fn are_none(&self) -> bool {
        self.open.is_empty()
    }

    /// When the client last did something about the body that has waited longest for it. `None` if it waits for us.
    pub(super) fn oldest(&self) -> Option<Instant> {
        if self.connection_window <= 0 {
            return None;
        }
        let oldest = self.open.iter().filter(|upload| upload.window > 0).map(|upload| upload.last).min()?;
        Some(self.connection_opened.map_or(oldest, |opened| opened.max(oldest)))
    }
}
