//! `tollgate push`: puts a document in force on the whole fleet, and waits for it.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::fleet::{Reach, Reached, asking, author, told};
use super::load::failed;
use super::{Exit, Format};
use crate::bus::BusError;
use crate::config::print;
use crate::control::proposal::{self, Proposal, unified};
use crate::fleet::{Node, Report, reports, unread};
use crate::ledger::{Draft, Head, Judged, LedgerError, Pointer, Signer, now_ms};
use crate::routes::Env;
use crate::scalar::{Secret, Span};
use crate::source;

/// How often it is looked how far a revision has come.
const LOOK: Duration = Duration::from_millis(100);
/// A controller that lives has written its lease again within this.
const ALIVE: Duration = Duration::from_millis(1_500);
const WORDS_MAX: usize = 5;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The document.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The revision it was made from: refused if another is in force. Default: whatever is in force when the command begins.
    #[arg(long, value_name = "N")]
    parent: Option<u64>,
    /// Run it on a share of the live gateways first, such as `10%`: the controller compares them with the others, then puts it
    /// in force everywhere or takes it back.
    #[arg(long, value_name = "SHARE", value_parser = share, conflicts_with = "wait")]
    canary: Option<u64>,
    /// With --canary: requests that either side must have answered before it is decided.
    #[arg(long, value_name = "N", default_value_t = Judged::default().sample, requires = "canary")]
    sample: u64,
    /// With --canary: taken back if it is not decided by then.
    #[arg(long, value_name = "TIME", default_value = "10m", requires = "canary")]
    deadline: Span,
    #[command(flatten)]
    saying: Saying,
    #[command(flatten)]
    reach: Reach,
}

/// What every command says that puts something in force.
#[derive(Debug, clap::Args)]
pub(super) struct Saying {
    /// Why, for the history.
    #[arg(short = 'm', long, default_value = "")]
    pub(super) reason: String,
    /// Who, for the history. Default: user and host.
    #[arg(long)]
    pub(super) author: Option<String>,
    /// Sign with this ed25519 key (PEM).
    #[arg(long, value_name = "KEY")]
    pub(super) sign: Option<PathBuf>,
    /// Wait until so many of the live gateways run it: `all`, or a share such as `90%`.
    #[arg(long, value_name = "SHARE", num_args = 0..=1, default_missing_value = "all", value_parser = share)]
    pub(super) wait: Option<u64>,
    /// How long to wait.
    #[arg(long, value_name = "TIME", default_value = "60s")]
    pub(super) timeout: Span,
    /// Push although a live gateway does not read some word of it: it keeps what it has until it is upgraded.
    #[arg(long)]
    pub(super) before_upgrade: bool,
    /// `human` or `json`.
    #[arg(long, value_enum, default_value_t)]
    pub(super) format: Format,
}

fn share(text: &str) -> Result<u64, String> {
    if text == "all" {
        return Ok(100);
    }
    let number =
        text.strip_suffix('%').and_then(|number| number.parse().ok()).filter(|number| (1..=100).contains(number));
    number.ok_or_else(|| "write `all`, or a share from 1% to 100%".to_owned())
}

impl Saying {
    pub(super) fn signer(&self) -> Result<Option<Signer>, Exit> {
        let Some(path) = &self.sign else { return Ok(None) };
        let text = std::fs::read_to_string(path).map(|text| Secret::new(&text));
        let text = text.map_err(|error| failed(&format!("cannot read {}: {error}", path.display())))?;
        Signer::new(&text).map(Some).map_err(|error| failed(&format!("{}: {error}", path.display())))
    }
}

pub(super) fn run(args: &Args) -> Exit {
    asking(async {
        let (name, text) = (args.file.display().to_string(), document(&args.file)?);
        let signer = args.saying.signer()?;
        let reached = args.reach.reach().await?;
        check(&name, &text, reached.settings.as_ref().map(Env::of))?;
        reached.fleet.make(&reached.bus, reached.ledger.bucket()).await.map_err(|error| told(&error.into()))?;
        let head = reached.ledger.head().await.map_err(|error| told(&error))?;
        let in_force = head.as_ref().map_or(0, |head| head.pointer.revision);
        if let Some(parent) = args.parent.filter(|parent| *parent != in_force) {
            let now = head.map(|head| Box::new(head.pointer));
            return Err(lost(&reached, LedgerError::Lost { now, expected: parent }).await);
        }
        let draft =
            proposal::draft(text, args.saying.author.clone().unwrap_or_else(author), args.saying.reason.clone());
        match args.canary {
            Some(share) => trial(&reached, draft, head.as_ref(), signer.as_ref(), share, args).await,
            None => publish(&reached, draft, head.as_ref(), signer.as_ref(), &args.saying).await,
        }
    })
}

/// Begins a trial on some gateways.
async fn trial(
    reached: &Reached,
    draft: Draft,
    head: Option<&Head>,
    signer: Option<&Signer>,
    share: u64,
    args: &Args,
) -> Result<Exit, Exit> {
    let Some(head) = head else {
        eprintln!("tollgate: nothing is in force that it could be compared with; push without --canary first");
        return Err(Exit::Refused);
    };
    if !args.saying.before_upgrade {
        readable(reached, &draft.requires).await?;
    }
    let mut nodes: Vec<String> = live(reached).await?.into_iter().map(|report| report.who.node).collect();
    let number = usize::try_from((nodes.len() as u64 * share).div_ceil(100)).unwrap_or(usize::MAX);
    if number == 0 || number >= nodes.len() {
        eprintln!(
            "tollgate: {share}% of {} live gateways is {number}: a trial needs one, and one to compare it with",
            nodes.len()
        );
        return Err(Exit::Refused);
    }
    let deciding = reached.bus.bucket(&reached.fleet.shared()).await.map_err(|error| told(&error.into()))?;
    let controller = deciding.entry("lease.controller").await.map_err(|error| told(&error.into()))?;
    // A lease that is written again and again is held; one that only stands was left by somebody who died.
    tokio::time::sleep(ALIVE).await;
    let again = deciding.entry("lease.controller").await.map_err(|error| told(&error.into()))?;
    if controller.is_none() || again.as_ref().map(|entry| entry.revision) == controller.map(|entry| entry.revision) {
        eprintln!("tollgate: no controller runs, and nobody else decides a trial");
        eprintln!("help: start `tollgate controller`, or push without --canary");
        return Err(Exit::Refused);
    }
    fastrand::shuffle(&mut nodes);
    let nodes: BTreeSet<String> = nodes.into_iter().take(number).collect();
    let judged = Judged { sample: args.sample, deadline_s: args.deadline.0.as_secs().max(1), ..Judged::default() };
    match reached.ledger.begin(draft, head, nodes, judged, signer).await {
        Ok(canary) => {
            let names: Vec<&str> = canary.nodes.iter().map(String::as_str).collect();
            eprintln!("revision {} is on trial on {}", canary.pointer.revision, names.join(", "));
            Ok(Exit::Ok)
        }
        Err(LedgerError::Bus(BusError::Lost { .. })) => {
            eprintln!("tollgate: another trial runs; `tollgate status` shows it");
            Err(Exit::Refused)
        }
        Err(error) => Err(told(&error)),
    }
}

fn document(file: &std::path::Path) -> Result<Arc<str>, Exit> {
    source::file::read(file).map_err(|error| failed(&error.to_string()))
}

/// Whether a gateway would take this from the bus; what is wrong goes to standard error.
fn check(name: &str, text: &str, env: Option<Env>) -> Result<(), Exit> {
    let proposal = Proposal::of(text, env).map_err(|error| failed(&error.to_string()))?;
    eprint!("{}", print::report(name, text, &proposal.problems));
    if proposal.is_good() {
        return Ok(());
    }
    if proposal.table.is_none() {
        return Err(Exit::Invalid);
    }
    eprint!("{}", print::report(name, text, &proposal.failing));
    eprintln!("tollgate: {name} fails its own tests; nothing was pushed");
    Err(Exit::TestsFailed)
}

/// Puts a draft in force and waits if that was asked for.
pub(super) async fn publish(
    reached: &Reached,
    draft: Draft,
    head: Option<&Head>,
    signer: Option<&Signer>,
    saying: &Saying,
) -> Result<Exit, Exit> {
    if !saying.before_upgrade {
        readable(reached, &draft.requires).await?;
    }
    let pointer = match reached.ledger.push(draft, head, signer).await {
        Ok(pointer) => pointer,
        Err(error) => return Err(lost(reached, error).await),
    };
    if saying.format == Format::Human {
        eprintln!("revision {} is in force ({})", pointer.revision, short(&pointer.digest));
    }
    let exit = match saying.wait {
        Some(share) => converged(reached, &pointer, share, saying).await?,
        None => Exit::Ok,
    };
    if saying.format == Format::Json {
        super::print(&format!("{}\n", serde_json::to_string(&pointer).unwrap_or_default()));
    }
    Ok(exit)
}

pub(super) fn short(digest: &str) -> &str {
    digest.get(..12).unwrap_or(digest)
}

/// Says what is in force instead, and how it differs from what this was made from.
async fn lost(reached: &Reached, error: LedgerError) -> Exit {
    let exit = told(&error);
    let LedgerError::Lost { now: Some(now), expected } = &error else { return exit };
    eprintln!("nothing was changed; what is in force now differs from revision {expected} by:");
    let before = async {
        match expected {
            0 => Ok("".into()),
            _ => reached.ledger.text(&reached.ledger.revision(*expected).await?.digest).await,
        }
    };
    match (before.await, reached.ledger.text(&now.digest).await) {
        (Ok(before), Ok(after)) => {
            let names = (format!("revision {expected}"), format!("revision {}", now.revision));
            eprint!("{}", unified((&names.0, &before), (&names.1, &after)));
        }
        (Err(error), _) | (_, Err(error)) => eprintln!("(it cannot be shown: {error})"),
    }
    eprintln!("help: `tollgate pull FILE` fetches what is in force; merge, and push with --parent {}", now.revision);
    exit
}

/// Refuses what a live gateway does not read: it would keep what it has, and nobody would see why.
async fn readable(reached: &Reached, requires: &BTreeSet<String>) -> Result<(), Exit> {
    let Reached { bus, fleet, .. } = reached;
    let unread = unread(bus, fleet, requires, now_ms()).await.map_err(|error| told(&error.into()))?;
    let refused = !unread.is_empty();
    for (Node { node, version, .. }, words) in unread {
        let words: Vec<String> = words.into_iter().take(WORDS_MAX).collect();
        eprintln!("tollgate: gateway {node} (version {version}) does not read: {}", words.join(", "));
    }
    match refused {
        true => {
            eprintln!("help: upgrade it first, or push with --before-upgrade: it keeps what it has until then");
            Err(Exit::Refused)
        }
        false => Ok(()),
    }
}

async fn live(reached: &Reached) -> Result<Vec<Report>, Exit> {
    let mut all = reports(&reached.bus, &reached.fleet).await.map_err(|error| told(&error.into()))?;
    let now = now_ms();
    all.retain(|report| !report.is_silent(now));
    Ok(all)
}

/// Waits until a share of the live gateways runs a revision. A gateway that refuses it ends the wait if it is needed.
async fn converged(reached: &Reached, pointer: &Pointer, share: u64, saying: &Saying) -> Result<Exit, Exit> {
    let deadline = tokio::time::Instant::now() + saying.timeout.0;
    loop {
        let live = live(reached).await?;
        let total = live.len() as u64;
        let running = live.iter().filter(|report| report.runs(&pointer.digest)).count() as u64;
        let refusing: Vec<&Report> = live.iter().filter(|report| report.refuses == Some(pointer.revision)).collect();
        let needed = (total * share).div_ceil(100);
        if total == 0 {
            eprintln!("no gateway is live: there is nothing to wait for");
            return Ok(Exit::NotConverged);
        }
        if running >= needed {
            eprintln!("{running} of {total} gateways run it");
            return Ok(Exit::Ok);
        }
        let hopeless = total - refusing.len() as u64;
        if hopeless < needed || tokio::time::Instant::now() >= deadline {
            eprintln!("tollgate: {running} of {total} gateways run revision {}", pointer.revision);
            for report in &live {
                let state = match (&report.problem, report.runs(&pointer.digest)) {
                    (_, true) => continue,
                    (Some(problem), false) => problem.clone(),
                    (None, false) => format!("still runs {}", report.digest),
                };
                eprintln!("  {}: {state}", report.who.node);
            }
            return Ok(Exit::NotConverged);
        }
        tokio::time::sleep(LOOK).await;
    }
}
