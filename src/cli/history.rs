//! `tollgate log`, `pull` and `rollback`: what was in force, and going back to it.

use std::path::PathBuf;

use super::fleet::{Reach, asking, author, told};
use super::load::failed;
use super::push::{Saying, publish, short};
use super::{Exit, Format, print};
use crate::durable;
use crate::ledger::{Draft, Pointer};
use crate::telemetry::access::rfc3339;

#[derive(Debug, clap::Args)]
pub(super) struct LogArgs {
    /// How many.
    #[arg(short = 'n', long, default_value_t = 20)]
    number: usize,
    /// `human` or `json`.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    #[command(flatten)]
    reach: Reach,
}

#[derive(Debug, clap::Args)]
pub(super) struct PullArgs {
    /// Where it is written; `-` is standard output.
    #[arg(value_name = "FILE", default_value = "-")]
    file: PathBuf,
    /// Which one. Default: what is in force.
    #[arg(long, value_name = "N")]
    revision: Option<u64>,
    #[command(flatten)]
    reach: Reach,
}

#[derive(Debug, clap::Args)]
pub(super) struct RollbackArgs {
    /// The revision whose document is put in force again, as a new revision.
    #[arg(value_name = "N")]
    revision: u64,
    #[command(flatten)]
    saying: Saying,
    #[command(flatten)]
    reach: Reach,
}

pub(super) fn log(args: &LogArgs) -> Exit {
    asking(async {
        let reached = args.reach.reach().await?;
        let mut log = reached.ledger.log().await.map_err(|error| told(&error))?;
        log.truncate(args.number);
        Ok(print(&match args.format {
            Format::Human => log.iter().map(line).collect::<String>(),
            Format::Json => format!("{}\n", serde_json::to_string_pretty(&log).unwrap_or_default()),
        }))
    })
}

fn line(pointer: &Pointer) -> String {
    let Pointer { revision, digest, author, reason, at_ms, rollback_of, signature, .. } = pointer;
    let at = rfc3339(std::time::UNIX_EPOCH + std::time::Duration::from_millis(*at_ms));
    let back = rollback_of.map(|number| format!(" (back to {number})")).unwrap_or_default();
    let signed = if signature.is_some() { " signed" } else { "" };
    format!("{revision:>5}  {}  {at}  {author}{signed}{back}  {reason}\n", short(digest))
}

pub(super) fn pull(args: &PullArgs) -> Exit {
    asking(async {
        let reached = args.reach.reach().await?;
        let pointer = match args.revision {
            Some(number) => reached.ledger.revision(number).await.map_err(|error| told(&error))?,
            None => match reached.ledger.head().await.map_err(|error| told(&error))? {
                Some(head) => head.pointer,
                None => return Err(failed("nothing was ever pushed")),
            },
        };
        let text = reached.ledger.text(&pointer.digest).await.map_err(|error| told(&error))?;
        if args.file.as_os_str() == "-" {
            return Ok(print(&text));
        }
        durable::replace(&args.file, text.as_bytes())
            .map_err(|error| failed(&format!("cannot write {}: {error}", args.file.display())))?;
        eprintln!("revision {} is in {}", pointer.revision, args.file.display());
        Ok(Exit::Ok)
    })
}

pub(super) fn rollback(args: &RollbackArgs) -> Exit {
    asking(async {
        let signer = args.saying.signer()?;
        let reached = args.reach.reach().await?;
        let head = reached.ledger.head().await.map_err(|error| told(&error))?;
        let before = reached.ledger.before(args.revision, signer.as_ref()).await;
        let (old, text) = before.map_err(|error| told(&error))?;
        if head.as_ref().is_some_and(|head| head.pointer.digest == old.digest) {
            reached.ledger.clear_trial().await.map_err(|error| told(&error))?;
            eprintln!("what revision {} holds is in force already", args.revision);
            return Ok(Exit::Ok);
        }
        let reason = match args.saying.reason.as_str() {
            "" => format!("back to revision {}", args.revision),
            reason => reason.to_owned(),
        };
        let author = args.saying.author.clone().unwrap_or_else(author);
        let draft = Draft { text, author, reason, requires: old.requires, rollback_of: Some(args.revision) };
        publish(&reached, draft, head.as_ref(), signer.as_ref(), &args.saying).await
    })
}
