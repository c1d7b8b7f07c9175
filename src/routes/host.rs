//! Host patterns: how a route names hosts.

use std::fmt;
use std::str::FromStr;

use crate::facts::host::split_port;
pub use crate::facts::host::{HostError, normalise};

/// What a route says about hosts. The order of the variants is the order they are tried in.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HostPattern {
    /// `a.example.com`
    Exact(Box<str>),
    /// `*.example.com`: one label more, as in a certificate. Holds `example.com`.
    OneLabel(Box<str>),
    /// `**.example.com`: one or more labels more. Holds `example.com`.
    Labels(Box<str>),
    Any,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a host: {cause}")]
pub struct HostPatternError {
    pub text: String,
    pub cause: HostPatternCause,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HostPatternCause {
    #[error(transparent)]
    Host(#[from] HostError),
    #[error("a port does not take part in matching")]
    Port,
    #[error("`*` stands for whole labels, at the front: `*.example.com` or `**.example.com`")]
    Star,
}

impl HostPattern {
    /// Whether a normalised host is one of these.
    pub fn matches(&self, host: &str) -> bool {
        match self {
            HostPattern::Exact(name) => host == &**name,
            HostPattern::OneLabel(suffix) => host.split_once('.').is_some_and(|(_, rest)| rest == &**suffix),
            HostPattern::Labels(suffix) => {
                host.strip_suffix(&**suffix).and_then(|front| front.strip_suffix('.')).is_some_and(|f| !f.is_empty())
            }
            HostPattern::Any => true,
        }
    }
}

impl FromStr for HostPattern {
    type Err = HostPatternError;
    fn from_str(text: &str) -> Result<HostPattern, HostPatternError> {
        let wrong = |cause| HostPatternError { text: text.to_owned(), cause };
        let name = |name: &str| match split_port(name) {
            _ if name.contains('*') => Err(wrong(HostPatternCause::Star)),
            Ok((_, Some(_))) => Err(wrong(HostPatternCause::Port)),
            _ => normalise(name).map(|name| Box::from(&*name)).map_err(|error| wrong(error.into())),
        };
        if let Some(suffix) = text.strip_prefix("**.") {
            Ok(HostPattern::Labels(name(suffix)?))
        } else if let Some(suffix) = text.strip_prefix("*.") {
            Ok(HostPattern::OneLabel(name(suffix)?))
        } else {
            Ok(HostPattern::Exact(name(text)?))
        }
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HostPattern::Exact(name) => f.write_str(name),
            HostPattern::OneLabel(suffix) => write!(f, "*.{suffix}"),
            HostPattern::Labels(suffix) => write!(f, "**.{suffix}"),
            HostPattern::Any => f.write_str("any host"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_whole_labels() {
        for (pattern, host, expect) in [
            ("Example.com.", "example.com", true),
            ("*.example.com", "a.example.com", true),
            ("*.example.com", "a.b.example.com", false),
            ("*.example.com", "example.com", false),
            ("**.example.com", "a.b.example.com", true),
            ("**.example.com", "example.com", false),
            ("**.example.com", "xexample.com", false),
        ] {
            let pattern: HostPattern = pattern.parse().expect(pattern);
            assert_eq!(pattern.matches(host), expect, "{pattern} {host}");
        }
    }

    #[test]
    fn refuses_patterns_that_are_none() {
        for text in ["", "*", "a.*.com", "*a.com", "***.com", "*.", "a.com:80", "a b", "http://a"] {
            assert!(text.parse::<HostPattern>().is_err(), "{text}");
        }
    }
}
