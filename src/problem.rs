//! A mistake in configuration: where it is, what is wrong, what to do about it.
//!
//! A problem names its place by a path of keys, not by bytes: the code that finds it does not know the text. The span
//! is looked up when the problem is printed (`config::place`). All problems of a document are reported at once.

use std::fmt;

/// A mistake (or a warning) at one place of a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where: keys and list indices from the top of the document.
    pub path: Path,
    /// What is wrong, in one sentence without a full stop.
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
    pub severity: Severity,
    /// Bytes in the text, when the finder knew them (syntax and shape errors).
    pub span: Option<std::ops::Range<usize>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// The document is not applied.
    Error,
    /// The document is applied; the author probably meant something else.
    Warning,
}

/// Keys and list indices from the top of a document: `route`, `1`, `match`, `host`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Path(pub Vec<String>);

impl Path {
    pub fn of<S: Into<String>>(steps: impl IntoIterator<Item = S>) -> Path {
        Path(steps.into_iter().map(Into::into).collect())
    }

    /// The place one step further in: `path.at("match").at(1)`.
    pub fn at(&self, step: impl fmt::Display) -> Path {
        let mut steps = self.0.clone();
        steps.push(step.to_string());
        Path(steps)
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, step) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str(".")?;
            }
            if step.contains(['.', ' ', '"']) { write!(f, "{step:?}")? } else { f.write_str(step)? }
        }
        Ok(())
    }
}

impl Problem {
    pub fn error(path: Path, message: impl Into<String>) -> Problem {
        Problem { path, message: message.into(), help: None, severity: Severity::Error, span: None }
    }

    pub fn warning(path: Path, message: impl Into<String>) -> Problem {
        Problem { severity: Severity::Warning, ..Problem::error(path, message) }
    }

    pub fn help(mut self, help: impl Into<String>) -> Problem {
        self.help = Some(help.into());
        self
    }

    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.message)?;
        if let Some(help) = &self.help {
            write!(f, " ({help})")?;
        }
        Ok(())
    }
}

/// "did you mean": the candidate nearest to what was written, if it is near enough to be a slip of the pen.
pub fn nearest<'a>(written: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    candidates
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(written, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= 1 + candidate.len().max(written.len()) / 5)
        .min()
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suggests_slips_and_nothing_far() {
        assert_eq!(nearest("upstrem", ["upstream", "redirect"]), Some("upstream"));
        assert_eq!(nearest("pocketbse", ["pocketbase", "builder"]), Some("pocketbase"));
        assert_eq!(nearest("xyz", ["upstream", "redirect"]), None);
    }

    #[test]
    fn quotes_keys_with_dots() {
        assert_eq!(Path::of(["host", "a.example.com", "tls"]).to_string(), r#"host."a.example.com".tls"#);
    }
}
