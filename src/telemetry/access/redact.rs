//! Values of query parameters that do not belong in a log.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

/// Names of parameters whose values are written as `***`, whatever their case.
#[derive(Clone, Debug, Default)]
pub struct Redact(Vec<Box<str>>);

impl Redact {
    pub fn new<'a>(names: impl IntoIterator<Item = &'a str>) -> Redact {
        Redact(names.into_iter().map(Into::into).collect())
    }

    /// Hands out the query piece by piece, values of the names replaced.
    pub(super) fn pieces(&self, query: &str, mut piece: impl FnMut(&str)) {
        for (i, pair) in query.split('&').enumerate() {
            if i > 0 {
                piece("&");
            }
            match pair.split_once('=') {
                Some((name, _)) if self.names(name) => {
                    piece(name);
                    piece("=***");
                }
                _ => piece(pair),
            }
        }
    }

    /// The query with the values of the names replaced.
    pub fn query<'q>(&self, query: &'q str) -> Cow<'q, str> {
        if !query.split('&').any(|pair| pair.split_once('=').is_some_and(|(name, _)| self.names(name))) {
            return Cow::Borrowed(query);
        }
        let mut out = String::with_capacity(query.len());
        self.pieces(query, |piece| out.push_str(piece));
        Cow::Owned(out)
    }

    fn names(&self, name: &str) -> bool {
        let decoded = percent_decode_str(name).decode_utf8_lossy();
        self.0.iter().any(|secret| secret.eq_ignore_ascii_case(&decoded))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replaces_values_of_the_names_and_nothing_else() {
        let redact = Redact::new(["token", "api key"]);
        for (query, expect) in [
            ("", ""),
            ("a=1&b", "a=1&b"),
            ("token=secret", "token=***"),
            ("a=1&token=x=y&b=2", "a=1&token=***&b=2"),
            ("TOKEN=secret&token=", "TOKEN=***&token=***"),
            ("t%6Fken=secret", "t%6Fken=***"),
            ("api%20key=secret", "api%20key=***"),
            ("token", "token"),
            ("tokens=1&&=", "tokens=1&&="),
        ] {
            assert_eq!(redact.query(query), expect, "{query}");
        }
        assert_eq!(Redact::default().query("token=1"), "token=1");
    }
}
