//! `tollgate routes`: which route is tried after which.

use super::load::Files;
use super::{Exit, Format, print};
use crate::routes::Listed;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    files: Files,
    /// `human` or `json`.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

pub(super) fn run(args: &Args) -> Exit {
    let loaded = match args.files.load() {
        Ok(loaded) => loaded,
        Err(exit) => return exit,
    };
    let listing = loaded.table.listing();
    let text = match args.format {
        Format::Human => human(&listing),
        Format::Json => format!("{}\n", serde_json::to_string_pretty(&listing).unwrap_or_default()),
    };
    print(&loaded.references.conceal(&text))
}

/// One line for each host and path of a route, in columns.
fn human(listing: &[Listed]) -> String {
    let rows: Vec<[String; 6]> = listing
        .iter()
        .map(|Listed { host, path, route, methods, fit, destination }| {
            let methods = if methods.is_empty() { "any".to_owned() } else { methods.join(",") };
            [host.clone(), path.clone(), methods, route.clone(), destination.clone(), fit.clone()]
        })
        .collect();
    let mut widths = [0; 6];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let mut out = String::new();
    for row in &rows {
        let cells: Vec<String> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        out.push_str(cells.join("  ").trim_end());
        out.push('\n');
    }
    out
}
