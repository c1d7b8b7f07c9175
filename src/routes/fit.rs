//! Fit: how closely a route describes the requests it matches, beyond host and path. Greater is tried first.
//!
//! Kind by kind in the order of the fields: method, header, query, cookie, client certificate, client network, listener. Within a kind
//! exact before prefix before present, longer before shorter, more before fewer. Priority only decides what is equal.

use std::fmt;

use super::conditions::Condition;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fit {
    pub method: bool,
    pub header: Strength,
    pub query: Strength,
    pub cookie: Strength,
    pub client_certificate: Strength,
    /// Length of the client network plus one; 0 without one.
    pub network: u8,
    pub listen: bool,
    pub priority: i32,
}

/// How strong the conditions of one kind are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Strength {
    pub exact: u32,
    pub prefix: u32,
    /// Bytes of all prefixes.
    pub prefix_len: u32,
    pub present: u32,
}

impl Strength {
    pub(super) fn of<'c>(conditions: impl IntoIterator<Item = &'c Condition>) -> Strength {
        let mut strength = Strength::default();
        for condition in conditions {
            match condition {
                Condition::Exact(_) => strength.exact += 1,
                Condition::Prefix(prefix) => {
                    strength.prefix += 1;
                    strength.prefix_len += u32::try_from(prefix.len()).unwrap_or(u32::MAX >> 16);
                }
                Condition::Present | Condition::Absent => strength.present += 1,
            }
        }
        strength
    }
}

impl fmt::Display for Strength {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [(self.exact, "exact"), (self.prefix, "prefix"), (self.present, "present")];
        let mut first = true;
        for (count, word) in parts.into_iter().filter(|(count, _)| *count > 0) {
            if !first {
                f.write_str(" + ")?;
            }
            first = false;
            write!(f, "{count} {word}")?;
        }
        Ok(())
    }
}

/// `method, header (1 exact), network /24`; `no conditions` when there are none.
impl fmt::Display for Fit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        if self.method {
            parts.push("method".to_owned());
        }
        for (kind, strength) in [
            ("header", self.header),
            ("query", self.query),
            ("cookie", self.cookie),
            ("client certificate", self.client_certificate),
        ] {
            if strength != Strength::default() {
                parts.push(format!("{kind} ({strength})"));
            }
        }
        if let Some(len) = self.network.checked_sub(1) {
            parts.push(format!("network /{len}"));
        }
        if self.listen {
            parts.push("listen".to_owned());
        }
        if self.priority != 0 {
            parts.push(format!("priority {}", self.priority));
        }
        if parts.is_empty() { f.write_str("no conditions") } else { f.write_str(&parts.join(", ")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exact(text: &str) -> Condition {
        Condition::Exact(text.into())
    }

    fn prefix(text: &str) -> Condition {
        Condition::Prefix(text.into())
    }

    #[test]
    fn exact_before_prefix_before_present_then_number() {
        let ranked = [
            vec![exact("a"), exact("b")],
            vec![exact("a"), prefix("b")],
            vec![exact("a")],
            vec![prefix("ab"), prefix("c")],
            vec![prefix("a"), prefix("b")],
            vec![prefix("abcdef")],
            vec![Condition::Present, Condition::Absent],
            vec![Condition::Present],
            vec![],
        ];
        assert!(ranked.map(|conditions| Strength::of(&conditions)).is_sorted_by(|a, b| a > b));
    }

    #[test]
    fn kinds_in_order_and_priority_last() {
        let one = Strength { present: 1, ..Strength::default() };
        let ranked = [
            Fit { method: true, ..Fit::default() },
            Fit { header: one, ..Fit::default() },
            Fit { query: one, ..Fit::default() },
            Fit { cookie: one, ..Fit::default() },
            Fit { client_certificate: one, ..Fit::default() },
            Fit { network: 25, ..Fit::default() },
            Fit { network: 9, ..Fit::default() },
            Fit { listen: true, ..Fit::default() },
            Fit { priority: 1, ..Fit::default() },
            Fit::default(),
            Fit { priority: -1, ..Fit::default() },
        ];
        assert!(ranked.is_sorted_by(|a, b| a > b));
    }

    #[test]
    fn says_what_it_is() {
        let fit = Fit { method: true, header: Strength::of(&[exact("a"), prefix("b")]), network: 25, ..Fit::default() };
        assert_eq!(fit.to_string(), "method, header (1 exact + 1 prefix), network /24");
        assert_eq!(Fit::default().to_string(), "no conditions");
    }
}
