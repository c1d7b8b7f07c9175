//! `tollgate status`: what every gateway of the fleet runs now.

use super::fleet::{Reach, asking, told};
use super::push::short;
use super::{Exit, Format, print};
use crate::fleet::{Report, reports};
use crate::ledger::{LedgerError, now_ms};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// `human` or `json`.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    #[command(flatten)]
    reach: Reach,
}

pub(super) fn run(args: &Args) -> Exit {
    asking(async {
        let reached = args.reach.reach().await?;
        let head = reached.ledger.head().await.map_err(|error| told(&error))?.map(|head| head.pointer);
        let canary = match reached.ledger.canary().await {
            Ok(found) => found.map(|(canary, _)| canary),
            // What every gateway runs is worth knowing all the same.
            Err(error @ LedgerError::Unreadable { .. }) => {
                eprintln!("tollgate: {error}");
                eprintln!("help: the next `tollgate push` or `tollgate rollback` removes it");
                None
            }
            Err(error) => return Err(told(&error)),
        };
        let nodes = reports(&reached.bus, &reached.fleet).await.map_err(|error| told(&error.into()))?;
        let now = now_ms();
        if args.format == Format::Json {
            let told: Vec<_> = nodes.iter().map(|report| Told { report, silent: report.is_silent(now) }).collect();
            let all = serde_json::json!({ "head": head, "canary": canary, "nodes": told });
            return Ok(print(&format!("{}\n", serde_json::to_string_pretty(&all).unwrap_or_default())));
        }
        let mut out = match &head {
            Some(head) => {
                format!("in force: revision {} ({}) by {}\n", head.revision, short(&head.digest), head.author)
            }
            None => "in force: nothing was ever pushed\n".to_owned(),
        };
        if let Some(canary) = &canary {
            let nodes: Vec<&str> = canary.nodes.iter().map(String::as_str).collect();
            let pointer = &canary.pointer;
            let line = format!(
                "on trial: revision {} ({}) on {}\n",
                pointer.revision,
                short(&pointer.digest),
                nodes.join(", ")
            );
            out.push_str(&line);
        }
        if nodes.is_empty() {
            out.push_str("no gateway has reported\n");
        }
        for report in &nodes {
            out.push_str(&line(report, head.as_ref().map(|head| head.digest.as_str()), now));
        }
        Ok(print(&out))
    })
}

#[derive(serde::Serialize)]
struct Told<'a> {
    #[serde(flatten)]
    report: &'a Report,
    silent: bool,
}

fn line(report: &Report, head: Option<&str>, now: u64) -> String {
    let Report { who, revision, digest, problem, draining, serving, at_ms, .. } = report;
    let state = match () {
        () if report.is_silent(now) => format!("silent for {}s", now.saturating_sub(*at_ms) / 1000),
        () if *draining => "draining".to_owned(),
        () if head.is_some_and(|head| report.runs(head)) => "current".to_owned(),
        () => "behind".to_owned(),
    };
    let revision = revision.map_or_else(|| "-".to_owned(), |number| number.to_string());
    let serving =
        if serving == "source" { String::new() } else { format!("  serves its {}", serving.replace('_', " ")) };
    let region = who.region.as_deref().unwrap_or("-");
    let problem = problem.as_ref().map(|problem| format!("\n      {problem}")).unwrap_or_default();
    format!("{:<24} {region:<8} {:<8} {revision:>5}  {digest:<12}  {state}{serving}{problem}\n", who.node, who.version)
}
