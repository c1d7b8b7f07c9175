//! The gateway's own log, on stderr.
//!
//! Pingora reports every malformed request of a client as an error: a client could fill a disk with them. Its records are
//! shown from `warn` on and bounded in rate; what is left out is counted.

use std::io::{self, IsTerminal};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use tracing::{Event, Level, Metadata, Subscriber};
use tracing_log::NormalizeEvent;
use tracing_subscriber::filter::{EnvFilter, FilterExt, ParseError};
use tracing_subscriber::layer::{Context, Filter, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, fmt};

use super::happened::Happenings;
use crate::settings::{self, LogFormat};

/// Records of the engine shown in a second.
const ENGINE_RECORDS_PER_SECOND: u32 = 10;

static SUPPRESSED: AtomicU64 = AtomicU64::new(0);

/// Records of the engine left out since the process began.
pub(super) fn suppressed() -> u64 {
    SUPPRESSED.load(Ordering::Relaxed)
}

/// Sends `tracing` events and `log` records to stderr. Does nothing if the process has a subscriber already.
pub fn init_log(settings: &settings::Log) -> Result<(), ParseError> {
    let filter = EnvFilter::try_new(&settings.level)?;
    let engine_level = match filter.max_level_hint() {
        Some(level) => level.to_string().parse().unwrap_or(log::LevelFilter::Trace),
        None => log::LevelFilter::Trace,
    };
    let layer = layer(settings.format, io::stderr, io::stderr().is_terminal());
    let filter = filter.and(Engine::new(settings.level.contains("pingora"), &SUPPRESSED));
    let happenings = Happenings.with_filter(Happenings::filter());
    let _ = Registry::default().with(layer.with_filter(filter)).with(happenings).try_init();
    // The engine tells several things of every request at `debug`: it must see at a glance that nobody listens.
    log::set_max_level(engine_level);
    Ok(())
}

fn layer<W>(format: LogFormat, writer: W, colour: bool) -> Box<dyn Layer<Registry> + Send + Sync>
where
    W: for<'a> fmt::MakeWriter<'a> + Send + Sync + 'static,
{
    let layer = fmt::layer().with_writer(writer);
    match format {
        LogFormat::Json => layer.json().flatten_event(true).with_current_span(false).with_span_list(false).boxed(),
        LogFormat::Text => layer.with_ansi(colour).boxed(),
    }
}

/// Bounds what Pingora writes.
struct Engine {
    /// The operator asked for its records by name: all levels then, the rate stays bounded.
    asked_for: bool,
    began: Instant,
    /// The second since `began` (upper half) and the records shown in it (lower half).
    window: AtomicU64,
    suppressed: &'static AtomicU64,
}

impl Engine {
    fn new(asked_for: bool, suppressed: &'static AtomicU64) -> Engine {
        Engine { asked_for, began: Instant::now(), window: AtomicU64::new(0), suppressed }
    }

    fn admits(&self, second: u64) -> bool {
        let admit = |window: u64| match (window >> 32, window as u32) {
            (at, shown) if at == second & 0xffff_ffff => (shown < ENGINE_RECORDS_PER_SECOND).then(|| window + 1),
            _ => Some(second << 32 | 1),
        };
        self.window.fetch_update(Ordering::Relaxed, Ordering::Relaxed, admit).is_ok()
    }
}

fn of_engine(metadata: &Metadata<'_>) -> bool {
    metadata.target().starts_with("pingora")
}

impl<S: Subscriber> Filter<S> for Engine {
    fn enabled(&self, metadata: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        self.asked_for || !of_engine(metadata) || *metadata.level() <= Level::WARN
    }

    fn event_enabled(&self, event: &Event<'_>, _: &Context<'_, S>) -> bool {
        // Records bridged from `log` carry their target in fields.
        let bridged = event.normalized_metadata();
        if !of_engine(bridged.as_ref().unwrap_or_else(|| event.metadata())) {
            return true;
        }
        let admitted = self.admits(self.began.elapsed().as_secs());
        if !admitted {
            self.suppressed.fetch_add(1, Ordering::Relaxed);
        }
        admitted
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What a log at `level` writes of what `act` says.
    fn written(level: &str, asked_for: bool, act: impl FnOnce()) -> (String, u64) {
        let out = Written::default();
        let suppressed: &'static AtomicU64 = Box::leak(Box::default());
        let writer = out.clone();
        let filter = EnvFilter::try_new(level).unwrap().and(Engine::new(asked_for, suppressed));
        let layer = layer(LogFormat::Json, move || writer.clone(), false);
        tracing::subscriber::with_default(Registry::default().with(layer.with_filter(filter)), act);
        let text = String::from_utf8(out.0.lock().unwrap().clone()).unwrap();
        (text, suppressed.load(Ordering::Relaxed))
    }

    #[test]
    fn records_are_json_lines_with_their_own_target() {
        let (text, _) = written("info", false, || {
            tracing::warn!(target: "tollgate::test", upstream = "pocketbase", "no endpoint");
            tracing::debug!(target: "tollgate::test", "not shown");
        });
        let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 1);
        assert_eq!(lines[0]["message"], "no endpoint");
        assert_eq!(lines[0]["upstream"], "pocketbase");
        assert_eq!(lines[0]["target"], "tollgate::test");
    }

    #[test]
    fn the_engine_is_shown_from_warn_on_and_bounded_in_rate() {
        let (text, suppressed) = written("debug", false, || {
            tracing::info!(target: "pingora_core::listeners", "chatty");
            for _ in 0..100 {
                tracing::error!(target: "pingora_proxy", "malformed");
            }
            tracing::error!(target: "tollgate", "ours");
        });
        let shown = text.lines().filter(|line| line.contains("malformed")).count();
        assert!((10..=20).contains(&shown), "{shown}: ten a second, and a second may end meanwhile");
        assert_eq!(suppressed, 100 - shown as u64);
        assert!(text.contains("ours") && !text.contains("chatty"));
    }

    #[test]
    fn records_bridged_from_log_count_under_their_own_target() {
        let say = |target: &str, message: &str| {
            let arguments = format_args!("{message}");
            let record = log::Record::builder().level(log::Level::Error).target(target).args(arguments).build();
            tracing_log::format_trace(&record).unwrap();
        };
        let (text, suppressed) = written("info", false, || {
            (0..50).for_each(|_| say("pingora_proxy", "malformed"));
            say("rustls::conn", "ours");
        });
        assert!((30..=40).contains(&suppressed), "{suppressed}");
        assert!(text.contains("\"target\":\"pingora_proxy\"") && text.contains("ours"), "{text}");
    }

    #[test]
    fn a_second_admits_ten() {
        let engine = Engine::new(false, &SUPPRESSED);
        for second in [0, 1, 5, u64::from(u32::MAX) + 7] {
            assert_eq!((0..100).filter(|_| engine.admits(second)).count(), 10, "{second}");
        }
    }

    #[test]
    fn an_operator_who_names_the_engine_sees_all_levels() {
        let (text, _) = written("info", true, || tracing::info!(target: "pingora_core", "chatty"));
        assert!(text.contains("chatty"));
    }

    #[test]
    fn starting_twice_is_harmless_and_a_wrong_filter_is_an_error() {
        let settings = settings::Log { level: "error".to_owned(), ..settings::Log::default() };
        init_log(&settings).unwrap();
        init_log(&settings).unwrap();
        assert!(init_log(&settings::Log { level: "info,=".to_owned(), ..settings }).is_err());
    }
}
