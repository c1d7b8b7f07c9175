//! Whoever is told of alerts has a line of their own: one message after the other, so that what is over is not told before it
//! began, and one who does not answer holds up nobody else. Pure, in moments that somebody else measures.
//!
//! What could not be told goes behind the others with all that is to be said of the same alert: a message that only it is
//! refused for does not hold up the line.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

use super::{ALERTS_MAX, Standing};
use crate::tasks::jittered;

/// Messages of a line: both stages of every alert.
const LINE_MAX: usize = 2 * ALERTS_MAX;
/// Pauses after a failure, doubled up to the longer one, with jitter, until something could be told.
const PAUSE_MIN: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// What could not be told for so long is not told.
const GIVEN_UP: Duration = Duration::from_secs(3600);

/// One stage of an alert that is to be told.
#[derive(Clone, Debug)]
pub(super) struct Message {
    /// The alert's key on the bus.
    pub(super) key: String,
    pub(super) standing: Standing,
    since: Instant,
}

/// What became of a message.
#[derive(Debug)]
pub(super) enum Ended {
    Told(Message),
    GivenUp(Message),
    Again,
}

#[derive(Debug, Default)]
pub(super) struct Line {
    messages: VecDeque<Message>,
    /// Stages in the line.
    ids: BTreeSet<String>,
    /// The first one is being told.
    busy: bool,
    pause: Duration,
    not_before: Option<Instant>,
}

impl Line {
    /// Puts a stage at the end, once. One that finds no room is offered again as long as its alert is in that stage.
    pub(super) fn add(&mut self, key: &str, standing: &Standing, now: Instant) {
        if self.messages.len() < LINE_MAX && self.ids.insert(standing.id.clone()) {
            self.messages.push_back(Message { key: key.to_owned(), standing: standing.clone(), since: now });
        }
    }

    /// Whether a stage is still to be told.
    pub(super) fn holds(&self, id: &str) -> bool {
        self.ids.contains(id)
    }

    /// Whether a stage is being told.
    pub(super) fn tells(&self, id: &str) -> bool {
        self.busy && self.messages.front().is_some_and(|first| first.standing.id == id)
    }

    /// What is to be told now. `ended` must follow.
    pub(super) fn begin(&mut self, now: Instant) -> Option<Message> {
        if self.busy || self.not_before.is_some_and(|moment| now < moment) {
            return None;
        }
        let first = self.messages.front()?.clone();
        self.busy = true;
        Some(first)
    }

    /// What was begun has been told, or could not be told.
    pub(super) fn ended(&mut self, told: bool, now: Instant) -> Option<Ended> {
        if !std::mem::take(&mut self.busy) {
            return None;
        }
        let message = self.messages.pop_front()?;
        if told {
            (self.pause, self.not_before) = (Duration::ZERO, None);
            self.ids.remove(&message.standing.id);
            return Some(Ended::Told(message));
        }
        self.pause = (self.pause * 2).clamp(PAUSE_MIN, PAUSE_MAX);
        self.not_before = Some(now + jittered(self.pause));
        if now.duration_since(message.since) >= GIVEN_UP {
            self.ids.remove(&message.standing.id);
            return Some(Ended::GivenUp(message));
        }
        let key = message.key.clone();
        self.messages.push_front(message);
        let (same, others): (Vec<_>, Vec<_>) = self.messages.drain(..).partition(|message| message.key == key);
        self.messages.extend(others.into_iter().chain(same));
        Some(Ended::Again)
    }
}

#[cfg(test)]
mod tests {
    use super::super::Spans;
    use super::*;

    fn standing(alert: &str, at_ms: u64) -> Standing {
        Standing::begun(alert, "s", "x", Spans { lasting_ms: 0, clear_ms: 0 }, at_ms)
    }

    /// What a line tells at a moment, and how that goes.
    fn tells(line: &mut Line, told: bool, now: Instant) -> Option<(String, Ended)> {
        let message = line.begin(now)?;
        assert!(line.begin(now).is_none(), "one at a time");
        Some((message.standing.id, line.ended(told, now)?))
    }

    #[test]
    fn stages_of_an_alert_keep_their_order_and_others_go_past_a_failure() {
        let (mut line, mut now) = (Line::default(), Instant::now());
        for (key, at) in [("a", 1), ("a", 2), ("b", 3), ("b", 3)] {
            line.add(key, &standing(key, at), now);
        }
        let mut told = Vec::new();
        for refused in [true, false, false, false] {
            let (id, ended) = tells(&mut line, !refused, now).unwrap();
            assert_eq!(matches!(ended, Ended::Told(_)), !refused);
            told.push(id);
            now += PAUSE_MAX;
        }
        assert_eq!(told, ["a/s/firing/1", "b/s/firing/3", "a/s/firing/1", "a/s/firing/2"]);
        assert!(tells(&mut line, true, now).is_none() && !line.holds("a/s/firing/1"));
    }

    #[test]
    fn pauses_grow_until_something_is_told_and_an_hour_is_the_end() {
        let (mut line, began) = (Line::default(), Instant::now());
        line.add("a", &standing("a", 1), began);
        let (mut now, mut tries) = (began, 0);
        let given_up = loop {
            match tells(&mut line, false, now) {
                Some((_, Ended::GivenUp(message))) => break message,
                Some(_) => tries += 1,
                None => now += Duration::from_millis(100),
            }
        };
        assert_eq!(given_up.standing.alert, "a");
        assert!(now - began >= GIVEN_UP && now - began < GIVEN_UP + 2 * PAUSE_MAX);
        assert!((45..100).contains(&tries), "{tries} tries, a minute apart in the end");
        assert!(!line.holds("a/s/firing/1"));
    }

    #[test]
    fn a_full_line_takes_no_more() {
        let (mut line, now) = (Line::default(), Instant::now());
        for number in 0..LINE_MAX as u64 + 5 {
            line.add("a", &standing("a", number), now);
        }
        assert_eq!((line.messages.len(), line.ids.len()), (LINE_MAX, LINE_MAX));
    }
}
