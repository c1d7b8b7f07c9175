//! Prometheus text, read as an operator would query it.

use std::collections::BTreeMap;

/// All series of one scrape.
pub(crate) struct Metrics(Vec<Series>);

struct Series {
    name: String,
    labels: BTreeMap<String, String>,
    value: f64,
}

impl Metrics {
    pub(crate) fn parse(text: &str) -> Metrics {
        Metrics(text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).map(series).collect())
    }

    /// The sum of all series of the name that carry these labels; `None` if there are none.
    /// `tollgate_requests_total{route="api",class="2xx"}`
    pub(crate) fn sum(&self, query: &str) -> Option<f64> {
        let wanted = series(&format!("{query} 0"));
        let fits = |one: &&Series| {
            one.name == wanted.name && wanted.labels.iter().all(|(name, value)| one.labels.get(name) == Some(value))
        };
        let mut found = self.0.iter().filter(fits).peekable();
        found.peek()?;
        Some(found.map(|one| one.value).sum())
    }

    /// Values of one label over all series.
    pub(crate) fn values(&self, label: &str) -> Vec<&str> {
        self.0.iter().filter_map(|one| one.labels.get(label)).map(String::as_str).collect()
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|one| one.name.as_str())
    }
}

fn series(line: &str) -> Series {
    let (key, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("not a series: {line}"));
    let (name, labels) = key.split_once('{').unwrap_or((key, "}"));
    let labels = labels.trim_end_matches('}').split("\",").filter(|label| !label.is_empty()).map(|label| {
        let (name, value) = label.split_once("=\"").unwrap_or_else(|| panic!("not a label: {line}"));
        (name.trim().to_owned(), value.trim_end_matches('"').to_owned())
    });
    Series { name: name.to_owned(), labels: labels.collect(), value: value.parse().unwrap() }
}
