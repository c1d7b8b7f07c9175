//! `tollgate schema`: JSON Schemas for editors, and the reference page.

use super::{Exit, print};
use crate::config::{page, schema};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Which file the schema is for.
    #[arg(value_enum, default_value_t, conflicts_with = "reference")]
    file: File,
    /// Print the reference page (docs/reference.md) instead: every word of all files.
    #[arg(long)]
    reference: bool,
}

#[derive(Clone, Copy, Debug, Default, clap::ValueEnum)]
enum File {
    /// `routes.toml`
    #[default]
    Routes,
    /// `edge.toml`
    Edge,
    /// `backend.toml`
    Backend,
    /// `controller.toml`
    Controller,
    /// `alerts.toml`
    Alerts,
}

pub(super) fn run(args: &Args) -> Exit {
    match (args.reference, args.file) {
        (true, _) => print(&page::text()),
        (false, File::Routes) => print(&schema::text(&schema::document())),
        (false, File::Edge) => print(&schema::text(&schema::settings())),
        (false, File::Backend) => print(&schema::text(&schema::backend())),
        (false, File::Controller) => print(&schema::text(&schema::controller())),
        (false, File::Alerts) => print(&schema::text(&schema::alerts())),
    }
}
