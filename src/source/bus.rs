//! A document on the bus, followed.
//!
//! What the head points to is fetched, and yielded if it may be followed here: signed by whom this gateway believes, not
//! older than what was followed before, in words this gateway reads. While a trial (canary) names this gateway, it follows
//! that one instead. When the bus is lost, what was yielded last stays true.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::floor::Floor;
use super::{Publisher, Source, SourceError, Trigger, Update, channel};
use crate::bus::{Entry, Seen};
use crate::config::vocabulary::Vocabulary;
use crate::ledger::{CANARY, Canary, HEAD, HEADS, Ledger, Pointer, Verifier};
use crate::tasks::{Tasks, jittered};

/// Pauses between tries to fetch what a pointer names.
const AGAIN_MIN: Duration = Duration::from_millis(100);
const AGAIN_MAX: Duration = Duration::from_secs(10);
/// Words named in a message.
const WORDS_MAX: usize = 5;

/// What is followed, by whom.
pub struct Follow {
    pub ledger: Ledger,
    pub verifier: Verifier,
    /// The name of this gateway in the fleet, for trials.
    pub node: String,
    /// How long the first document may take before there counts as none.
    pub wait: Duration,
    /// The highest revision that was followed: with signatures, no older one is.
    pub floor: Floor,
}

/// Follows the documents of a ledger. The first thing yielded is what is in force there, or why nothing is known.
pub fn follow(follow: Follow, tasks: &Tasks) -> Source {
    let (publisher, source) = channel();
    tasks.spawn_forever("source.bus", Follower::new(follow, publisher).run());
    source
}

struct Follower {
    ledger: Ledger,
    verifier: Verifier,
    node: String,
    wait: Duration,
    publisher: Publisher,
    head: Option<Pointer>,
    canary: Option<Canary>,
    floor: Floor,
    /// What is to be fetched, why, and when it is tried.
    wanted: Option<(Trigger, Instant)>,
    pause: Duration,
    /// What was yielded last was trouble: it is not told again and again.
    troubled: Option<SourceError>,
    yielded: bool,
}

impl Follower {
    fn new(follow: Follow, publisher: Publisher) -> Follower {
        let Follow { ledger, verifier, node, wait, floor } = follow;
        Follower {
            ledger,
            verifier,
            node,
            wait,
            publisher,
            head: None,
            canary: None,
            floor,
            wanted: None,
            pause: AGAIN_MIN,
            troubled: None,
            yielded: false,
        }
    }

    async fn run(mut self) {
        let mut heads = self.ledger.bus().follow(self.ledger.bucket(), HEADS);
        let patience = Instant::now() + self.wait;
        let mut lost = "no answer from the bus".to_owned();
        // What this reading has told so far.
        let mut told = BTreeSet::new();
        loop {
            let due = self.wanted.map(|(_, at)| at);
            tokio::select! {
                () = sleep_until(patience), if !self.yielded => self.trouble(SourceError::Bus(lost.clone())),
                () = sleep_until(due.unwrap_or(patience)), if due.is_some() => self.fetch().await,
                () = self.publisher.asked() => self.wanted = Some((Trigger::Asked, Instant::now())),
                seen = heads.next() => match seen {
                    Seen::Anew => told.clear(),
                    Seen::Put(entry) => {
                        self.note(&entry);
                        told.insert(entry.key);
                    }
                    Seen::Removed(key) => self.forget(&key),
                    Seen::Current => {
                        for key in [HEAD, CANARY].into_iter().filter(|key| !told.contains(*key)) {
                            self.forget(key);
                        }
                        if self.head.is_none() {
                            self.trouble(SourceError::NothingPushed(self.ledger.bucket().to_owned()));
                        } else if self.wanted.is_none() {
                            // It is as it was, and reachable again.
                            self.wanted = Some((Trigger::Noticed, Instant::now()));
                        }
                    }
                    Seen::Lost(why) => {
                        lost = why;
                        if self.yielded {
                            self.trouble(SourceError::Bus(lost.clone()));
                        }
                    }
                },
            }
        }
    }

    fn note(&mut self, entry: &Entry) {
        let wrong = match entry.key.as_str() {
            HEAD => Pointer::parse(entry).map(|pointer| self.head = Some(pointer)),
            CANARY => Canary::parse(entry).map(|canary| self.canary = Some(canary)),
            _ => return,
        };
        match wrong {
            Ok(()) => self.want(),
            Err(error) => self.trouble(SourceError::Bus(error.to_string())),
        }
    }

    /// A head that is gone changes nothing: what is in force stays. A trial that is gone is over, and no trouble any more.
    fn forget(&mut self, key: &str) {
        if key == CANARY && (self.canary.take().is_some() || self.troubled.is_some()) {
            self.want();
        }
    }

    fn want(&mut self) {
        self.pause = AGAIN_MIN;
        self.wanted = Some((Trigger::Noticed, Instant::now()));
    }

    /// Fetches and yields what is to be followed now.
    async fn fetch(&mut self) {
        let Some((trigger, _)) = self.wanted.take() else { return };
        // A trial of what is not in force any more is over, whoever has to end it.
        let head = self.head.as_ref().map_or(0, |head| head.revision);
        let here = |canary: &&Canary| canary.nodes.contains(&self.node) && canary.pointer.parent == head;
        let trial = self.canary.as_ref().filter(here).map(|canary| &canary.pointer);
        let Some(pointer) = trial.or(self.head.as_ref()).cloned() else { return };
        if let Err(error) = self.may_follow(&pointer) {
            return self.trouble(error);
        }
        match self.ledger.text(&pointer.digest).await {
            Ok(text) => {
                if self.verifier.is_strict() {
                    self.floor.raise(pointer.revision).await;
                }
                self.pause = AGAIN_MIN;
                self.publish(text, &pointer, trigger);
            }
            Err(error) => {
                self.wanted = Some((trigger, Instant::now() + jittered(self.pause)));
                self.pause = (self.pause * 2).min(AGAIN_MAX);
                self.trouble(SourceError::Bus(format!("revision {}: {error}", pointer.revision)));
            }
        }
    }

    fn may_follow(&self, pointer: &Pointer) -> Result<(), SourceError> {
        let revision = pointer.revision;
        if !self.verifier.accepts(self.ledger.bucket(), pointer) {
            return Err(SourceError::Unsigned { revision });
        }
        // The head of a trial that was taken back is one below it.
        let highest = self.floor.highest();
        if self.verifier.is_strict() && revision + 1 < highest {
            return Err(SourceError::Older { revision, highest });
        }
        let known: BTreeSet<String> = Vocabulary::document().all().into_iter().collect();
        let unknown: Vec<&str> = pointer.requires.difference(&known).map(String::as_str).take(WORDS_MAX).collect();
        if !unknown.is_empty() {
            return Err(SourceError::Newer { revision, words: unknown.join(", ") });
        }
        Ok(())
    }

    fn publish(&mut self, text: Arc<str>, pointer: &Pointer, trigger: Trigger) {
        self.yielded = true;
        self.troubled = None;
        let name = format!("revision {} of the bus", pointer.revision);
        self.publisher.publish(Ok(Update { text, name, trigger, revision: Some(pointer.revision) }));
    }

    fn trouble(&mut self, error: SourceError) {
        self.yielded = true;
        if self.troubled.as_ref() != Some(&error) {
            self.publisher.publish(Err(error.clone()));
            self.troubled = Some(error);
        }
    }
}
