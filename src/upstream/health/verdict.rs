//! From results of checks to a verdict: `rise` good ones in a row bring back, `fall` bad ones take out.

use super::Known;
use crate::config::Health;

#[derive(Clone, Copy, Debug)]
pub(super) struct Verdict {
    known: Known,
    /// Results in a row that speak against the verdict.
    against: u32,
}

impl Verdict {
    pub(super) fn new(known: Known) -> Verdict {
        Verdict { known, against: 0 }
    }

    /// Whether the endpoint is healthy after this result.
    pub(super) fn after(&mut self, passed: bool, words: &Health) -> bool {
        let healthy = match self.known {
            Known::Nothing => passed,
            Known::Healthy(healthy) if healthy == passed => {
                self.against = 0;
                healthy
            }
            Known::Healthy(healthy) => {
                self.against += 1;
                if self.against >= if passed { words.rise } else { words.fall } { passed } else { healthy }
            }
        };
        if self.known != Known::Healthy(healthy) {
            self.against = 0;
            self.known = Known::Healthy(healthy);
        }
        healthy
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(rise: u32, fall: u32) -> Health {
        Health { rise, fall, ..toml::from_str("").unwrap() }
    }

    fn run(known: Known, results: &str) -> String {
        let (mut verdict, words) = (Verdict::new(known), words(2, 3));
        results.chars().map(|result| if verdict.after(result == '+', &words) { 'H' } else { 'U' }).collect()
    }

    #[test]
    fn the_first_result_decides_at_once_later_ones_in_a_row() {
        assert_eq!(run(Known::Nothing, "-++"), "UUH");
        assert_eq!(run(Known::Nothing, "+--+---+-++"), "HHHHHHUUUUH");
    }

    #[test]
    fn what_is_known_takes_a_row_to_change() {
        assert_eq!(run(Known::Healthy(true), "---"), "HHU");
        assert_eq!(run(Known::Healthy(false), "+-++"), "UUUH");
    }
}
