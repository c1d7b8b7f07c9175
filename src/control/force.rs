//! What is in force, and putting something else in its place.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::watch;

use super::compile::{Compiled, Parsed, Refused, Text};
use super::difference::Contents;
use super::last_good::LastGood;
use super::referred::Referred;
use super::status::{Difference, Serving, Status};
use super::{Applying, Fallback, Fault, Kept, Setup};
use crate::config::{OnRemove, References, print};
use crate::problem::{Path, Problem};
use crate::routes::{self, Live, Table};
use crate::source::{Source, Trigger, Update, Yield, file};
use crate::tasks::aside;
use crate::telemetry::Metrics;
use crate::telemetry::metrics::Change;
use crate::upstream::Pools;

/// How long a change waits for names that were never resolved. What is missing then starts empty (503 `no_endpoint`).
const WARM: Duration = Duration::from_secs(2);
/// Problems logged one by one.
const LOGGED_MAX: usize = 20;

/// The document in force and everything it is applied to. Its one owner is the loop: changes never overlap.
pub(super) struct Force {
    pools: Arc<Pools>,
    env: Arc<routes::Env>,
    metrics: Metrics,
    last_good: Option<LastGood>,
    references: Arc<dyn Fn() -> References + Send + Sync>,
    fallback: Option<Fallback>,
    applying: Applying,
    pub(super) live: Arc<Live>,
    text: Arc<str>,
    resolved: [u8; 32],
    pub(super) referred: Referred,
    contents: Arc<Contents>,
    warnings: Vec<print::Entry>,
    status: Status,
    /// Where the status is told. Whoever sees the effect of a change finds it there already.
    told: watch::Sender<Arc<Status>>,
}

/// What could be put in force now.
struct Ready {
    compiled: Compiled,
    text: Text,
    difference: Difference,
}

impl Force {
    /// Nothing is in force yet: a table without routes.
    pub(super) fn new(setup: Setup) -> Result<(Force, Source), Refused> {
        let Setup { source, pools, env, metrics, last_good, references, fallback, applying } = setup;
        let nothing = Text { text: "format = 1\n".into(), name: "no document".to_owned() };
        let empty = Parsed::of(nothing, References::symbolic()).compile(&env, &pools)?;
        let force = Force {
            pools,
            env: Arc::new(env),
            metrics,
            last_good,
            references,
            fallback,
            applying,
            live: Arc::new(Live::new(Arc::new(empty.table))),
            text: "".into(),
            resolved: [0; 32],
            referred: Referred::default(),
            contents: Arc::default(),
            warnings: Vec::new(),
            status: Status::default(),
            told: watch::Sender::default(),
        };
        Ok((force, source))
    }

    pub(super) fn told(&self) -> watch::Sender<Arc<Status>> {
        self.told.clone()
    }

    fn tell(&self) {
        self.told.send_replace(Arc::new(self.status.clone()));
    }

    /// Puts in force what a source yielded, if it is good and new.
    pub(super) async fn take(&mut self, next: Yield) -> Result<(), Fault> {
        let Update { text, name, trigger, revision } = match next {
            Ok(update) => update,
            Err(error) => {
                tracing::error!(%error, revision = %self.status.revision, "no document; what is in force stays");
                self.status.bus_refused = error.refuses();
                self.status.source_error = Some(error.to_string());
                self.tell();
                return Err(Fault::NoSource(error));
            }
        };
        self.status.source = name.clone();
        match self.compile(Text { text, name }, (self.references)()).await {
            Ok(Some(ready)) => self.enter(ready, Serving::Source, revision).await,
            Ok(None) => self.unchanged(trigger, revision),
            Err(refused) => {
                self.refuse(&refused, revision);
                return Err(Fault::Refused(refused));
            }
        }
        Ok(())
    }

    /// Puts what is kept in force, at start, when the source has nothing: the last good document, or else the fallback.
    pub(super) async fn fall_back(&mut self) -> Result<(), Kept> {
        let Err(kept) = self.last_good().await else { return Ok(()) };
        let Some(Fallback { path, references }) = self.fallback.take() else { return Err(kept) };
        if !matches!(kept, Kept::NoState | Kept::None) {
            tracing::error!(reason = %kept, "the last good document is of no use");
        }
        let text = file::read(&path).map_err(|error| Kept::Fallback(error.to_string()))?;
        let text = Text { text, name: path.display().to_string() };
        match self.compile(text, references()).await {
            Ok(Some(ready)) => self.enter(ready, Serving::Fallback, None).await,
            Ok(None) => {}
            Err(refused) => return Err(Kept::Fallback(refused.report())),
        }
        tracing::error!(revision = %self.status.revision, "SERVING THE FALLBACK DOCUMENT: the source has no good one");
        Ok(())
    }

    async fn last_good(&mut self) -> Result<(), Kept> {
        let last_good = self.last_good.clone().ok_or(Kept::NoState)?;
        let name = last_good.path().display().to_string();
        let text = last_good.load()?.ok_or(Kept::None)?;
        match self.compile(Text { text: text.into(), name }, (self.references)()).await {
            Ok(Some(ready)) => self.enter(ready, Serving::LastGood, None).await,
            Ok(None) => {}
            Err(refused) => return Err(Kept::Refused(refused.report())),
        }
        tracing::error!(revision = %self.status.revision, "SERVING THE LAST GOOD DOCUMENT: the source has no good one");
        Ok(())
    }

    /// Off the threads that carry requests. `None`: it is in force already.
    async fn compile(&self, text: Text, references: References) -> Result<Option<Ready>, Refused> {
        let (env, pools, metrics) = (self.env.clone(), self.pools.clone(), self.metrics.clone());
        let (in_force, resolved) = (self.text.clone(), self.resolved);
        let (previous, contents) = (self.live.load_full(), self.contents.clone());
        let given = text.clone();
        let work = aside(move || {
            let parsed = Parsed::of(text.clone(), references);
            if parsed.says(&in_force, &resolved) {
                return Ok(None);
            }
            let mut compiled = parsed.compile(&env, &pools)?;
            compiled.table.inherit(&previous);
            for route in &compiled.table.routes {
                route.metrics.get_or_init(|| metrics.route(&route.name));
            }
            let difference = compiled.contents.since(&contents);
            Ok(Some(Ready { compiled, text, difference }))
        });
        work.await.unwrap_or_else(|error| {
            let problem = Problem::error(Path::default(), format!("the gateway failed to compile this: {error}"))
                .help("this is a mistake of the gateway; what is in force stays");
            Err(Refused { text: given, problems: vec![problem] })
        })
    }

    async fn enter(&mut self, ready: Ready, serving: Serving, revision: Option<u64>) {
        let Ready { compiled, text, difference } = ready;
        let Compiled { table, warnings, timings, references, files, contents } = compiled;
        let table = Arc::new(table);
        let started = Instant::now();
        self.pools.warm(&table.pools, WARM).await;
        let warm = started.elapsed();
        let started = Instant::now();
        self.pools.adopt(&table.pools);
        let (applying, applied) = (self.applying.clone(), table.clone());
        // Certificates are read from files.
        if let Err(error) = tokio::task::spawn_blocking(move || applying(&applied)).await {
            tracing::error!(%error, "names show what they showed before");
        }
        // Keys of issuers that are new are waited for, as names are.
        let warmed = futures_util::future::join_all(table.issuers.iter().map(|issuer| issuer.ring().warmed()));
        let _ = tokio::time::timeout(WARM, warmed).await;
        let old = self.live.swap(table.clone());
        let swap = started.elapsed();
        let applied_at = SystemTime::now();

        self.text = text.text.clone();
        self.resolved = references;
        self.referred = Referred::new(files);
        let old_contents = std::mem::replace(&mut self.contents, Arc::new(contents));
        self.warnings = warnings;
        self.status.entered(&table, applied_at, serving, difference, &self.warnings);
        self.status.bus_revision = revision;
        self.tell();
        self.metrics.control.changed(Change::Applied, self.warnings.len());
        self.metrics.control.applied(table.revision.clone(), applied_at);
        log_all(&self.warnings);
        tracing::info!(
            event = "config.applied",
            revision = %table.revision,
            document = text.name,
            routes = table.routes.len(),
            added = %self.status.last_change.added,
            changed = %self.status.last_change.changed,
            removed = %self.status.last_change.removed,
            parse_ms = ms(timings.parse),
            compile_ms = ms(timings.compile),
            tests_ms = ms(timings.tests),
            warm_ms = ms(warm),
            swap_ms = ms(swap),
            "config applied"
        );
        self.retire(old, old_contents, table).await;
        if serving == Serving::Source {
            self.keep(text.text).await;
        }
    }

    /// What only the table before needed is ended and dropped, elsewhere: that of many routes takes a while.
    async fn retire(&self, old: Arc<Table>, old_contents: Arc<Contents>, new: Arc<Table>) {
        let metrics = self.metrics.clone();
        let work = move || {
            drop(old_contents);
            new.missing(&old)
                .filter(|route| route.stream.on_remove == OnRemove::Drain)
                .for_each(|route| route.removed.cancel());
            metrics
                .retain(new.routes.iter().map(|route| &*route.name), new.pools.iter().map(|(pool, _)| &**pool.name()));
        };
        if let Err(error) = aside(work).await {
            tracing::error!(%error, "retiring the table before failed");
        }
    }

    async fn keep(&mut self, text: Arc<str>) {
        let Some(last_good) = self.last_good.clone() else { return };
        let saved = tokio::task::spawn_blocking(move || last_good.save(&text)).await;
        let error = match saved {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(error) => Some(error.to_string()),
        };
        if let Some(error) = &error {
            tracing::error!(error, "the document in force could not be kept as the last good one");
        }
        if self.status.last_good_error != error {
            self.status.last_good_error = error;
            self.tell();
        }
    }

    fn unchanged(&mut self, trigger: Trigger, revision: Option<u64>) {
        let back = !self.status.is_current();
        self.status.bus_revision = revision;
        self.status.unchanged(&self.warnings);
        self.tell();
        self.metrics.control.changed(Change::Unchanged, self.warnings.len());
        if back || trigger == Trigger::Asked {
            tracing::info!(revision = %self.status.revision, "the source holds what is in force; nothing to change");
        }
    }

    fn refuse(&mut self, refused: &Refused, revision: Option<u64>) {
        let entries = refused.entries();
        self.status.refused(&entries, revision);
        self.tell();
        self.metrics.control.changed(Change::Refused, entries.len());
        log_all(&entries);
        tracing::error!(
            event = "config.refused",
            document = refused.text.name,
            problems = entries.len(),
            first = entries.iter().find(|entry| entry.severity == "error").map(|entry| &*entry.message),
            revision = %self.status.revision,
            "config refused; what is in force stays"
        );
    }
}

fn log_all(entries: &[print::Entry]) {
    for print::Entry { file, line, column, path, severity, message, help } in entries.iter().take(LOGGED_MAX) {
        let help = help.as_deref().unwrap_or_default();
        if *severity == "error" {
            tracing::error!(path, help, "{file}:{line}:{column}: {message}");
        } else {
            tracing::warn!(path, help, "{file}:{line}:{column}: {message}");
        }
    }
    if let Some(more @ 1..) = entries.len().checked_sub(LOGGED_MAX) {
        tracing::error!(more, "and more problems; `tollgate check` tells all");
    }
}

fn ms(took: Duration) -> f64 {
    (took.as_secs_f64() * 1e6).round() / 1e3
}
