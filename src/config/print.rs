//! Problems for people and for programs.

use std::ops::Range;

use miette::{GraphicalReportHandler, GraphicalTheme, LabeledSpan, MietteDiagnostic, NamedSource, Report};
use serde::Serialize;

use super::overrides::PREFIX;
use super::place::{Places, line_column};
use crate::problem::{Problem, Severity};

/// How a report looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// For a terminal.
    Colour,
    /// For files, logs and terminals that want none.
    Plain,
}

/// A problem with its place, as `check --format json` and the admin listener give it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Entry {
    pub file: String,
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    /// Keys and indices, such as `route.0.match.host`. Empty for syntax errors.
    pub path: String,
    pub severity: &'static str,
    pub message: String,
    pub help: Option<String>,
}

/// Every problem with file, line and column.
pub fn entries(file: &str, text: &str, problems: &[Problem]) -> Vec<Entry> {
    if problems.is_empty() {
        return Vec::new();
    }
    let places = Places::of(text);
    problems
        .iter()
        .map(|problem| {
            let (line, column) = line_column(text, span(problem, &places).start);
            let path = if problem.path.0.is_empty() { String::new() } else { problem.path.to_string() };
            Entry {
                file: file_of(file, problem).to_owned(),
                line,
                column,
                path,
                severity: match problem.severity {
                    Severity::Error => "error",
                    Severity::Warning => "warning",
                },
                message: problem.message.clone(),
                help: problem.help.clone(),
            }
        })
        .collect()
}

/// One line for each problem: `file:line:column: error: message (help)`.
pub fn lines(file: &str, text: &str, problems: &[Problem]) -> Vec<String> {
    entries(file, text, problems)
        .into_iter()
        .map(|Entry { file, line, column, severity, message, help, .. }| match help {
            Some(help) => format!("{file}:{line}:{column}: {severity}: {message} ({help})"),
            None => format!("{file}:{line}:{column}: {severity}: {message}"),
        })
        .collect()
}

/// Every problem with the text around it. Ends with a newline unless empty.
pub fn report(file: &str, text: &str, problems: &[Problem]) -> String {
    report_as(Look::Plain, file, text, problems)
}

pub fn report_as(look: Look, file: &str, text: &str, problems: &[Problem]) -> String {
    let theme = match look {
        Look::Colour => GraphicalTheme::unicode(),
        Look::Plain => GraphicalTheme::unicode_nocolor(),
    };
    let handler = GraphicalReportHandler::new_themed(theme)
        .with_width(120)
        .with_links(false)
        .with_context_lines(1)
        .without_syntax_highlighting();
    let mut out = String::new();
    if problems.is_empty() {
        return out;
    }
    let places = Places::of(text);
    for (problem, entry) in problems.iter().zip(entries(file, text, problems)) {
        let Entry { file: name, line, column, severity, message, help, .. } = entry;
        let mut diagnostic =
            MietteDiagnostic::new(format!("{severity}: {message}")).with_severity(match problem.severity {
                Severity::Error => miette::Severity::Error,
                Severity::Warning => miette::Severity::Warning,
            });
        diagnostic.help = help;
        out.push_str(&format!("{name}:{line}:{column}\n"));
        let elsewhere = name != file;
        if !elsewhere && !text.is_empty() {
            let label = (!problem.path.0.is_empty()).then(|| problem.path.to_string());
            diagnostic.labels = Some(vec![LabeledSpan::new_with_span(label, span(problem, &places))]);
        }
        let report = Report::new(diagnostic).with_source_code(NamedSource::new(file, text.to_owned()));
        if handler.render_report(&mut out, report.as_ref()).is_err() {
            out.push_str(&message);
        }
        out.push('\n');
    }
    out
}

/// What overrides settings has no place in the file.
fn file_of<'a>(file: &'a str, problem: &Problem) -> &'a str {
    match problem.path.0.first() {
        Some(step) if step.starts_with(PREFIX) => "environment",
        _ => file,
    }
}

fn span(problem: &Problem, places: &Places<'_>) -> Range<usize> {
    problem.span.clone().or_else(|| places.locate(&problem.path)).unwrap_or(0..0)
}
