//! `tollgate diff`: what a document changes, line by line.

use std::path::PathBuf;
use std::sync::Arc;

use super::fleet::{Reach, Reached, asking, told};
use super::load::failed;
use super::{Exit, print};
use crate::control::proposal::unified;
use crate::source;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// A file, or the number of a revision.
    #[arg(value_name = "OLD", default_value = "head")]
    old: String,
    /// A file, or the number of a revision. With one argument only, what is in force is compared with it.
    #[arg(value_name = "NEW")]
    new: Option<String>,
    #[command(flatten)]
    reach: Reach,
}

pub(super) fn run(args: &Args) -> Exit {
    asking(async {
        let reached = args.reach.reach().await?;
        let (old, new) = match &args.new {
            Some(new) => (args.old.as_str(), new.as_str()),
            None => ("head", args.old.as_str()),
        };
        let (old, new) = (side(&reached, old).await?, side(&reached, new).await?);
        Ok(print(&unified((&old.0, &old.1), (&new.0, &new.1))))
    })
}

/// What an argument names, and its text.
async fn side(reached: &Reached, named: &str) -> Result<(String, Arc<str>), Exit> {
    let ledger = &reached.ledger;
    let pointer = match named {
        "head" => match ledger.head().await.map_err(|error| told(&error))? {
            Some(head) => head.pointer,
            None => return Ok(("nothing".to_owned(), "".into())),
        },
        _ => match named.parse() {
            Ok(number) => ledger.revision(number).await.map_err(|error| told(&error))?,
            Err(_) => {
                let text = source::file::read(&PathBuf::from(named)).map_err(|error| failed(&error.to_string()))?;
                return Ok((named.to_owned(), text));
            }
        },
    };
    let text = ledger.text(&pointer.digest).await.map_err(|error| told(&error))?;
    Ok((format!("revision {}", pointer.revision), text))
}
