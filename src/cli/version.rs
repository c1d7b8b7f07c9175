//! `tollgate version`: what this binary is and which formats it reads.

use super::{Exit, print};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// `human` or `json`.
    #[arg(long, value_enum, default_value_t)]
    format: super::Format,
}

pub(super) fn run(args: &Args) -> Exit {
    let (version, format) = (env!("CARGO_PKG_VERSION"), 1);
    let target = format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS);
    match args.format {
        super::Format::Human => print(&format!("tollgate {version} ({target}), configuration format {format}\n")),
        super::Format::Json => {
            let words = serde_json::json!({ "version": version, "target": target, "formats": [format] });
            print(&format!("{words}\n"))
        }
    }
}
