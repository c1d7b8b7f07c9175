//! What happened: records of the log that carry a field `event`, handed on to whoever listens, whatever `log.level` says.
//!
//! One way for both: what an operator reads in the log of a gateway is what its fleet is told, in the same words.

use std::fmt::Debug;
use std::sync::OnceLock;

use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::filter::FilterFn;
use tracing_subscriber::layer::{Context, Layer};

/// The field that makes a record one of these.
const EVENT: &str = "event";
/// The longest text of a field that is handed on, in bytes.
const TEXT_MAX: usize = 4 << 10;

/// A record, as it is handed on: `event`, `level`, `message` and its other fields.
pub type Happened = Map<String, Value>;

static LISTENER: OnceLock<Box<dyn Fn(Happened) + Send + Sync>> = OnceLock::new();

/// Hands on what happens in this process from now on. The first one who asks is told. Must neither block nor log.
pub fn listen(listener: impl Fn(Happened) + Send + Sync + 'static) {
    let _ = LISTENER.set(Box::new(listener));
}

/// The part of the subscriber.
pub(super) struct Happenings;

impl Happenings {
    /// Lets nothing else through, so that records that nobody wants stay as cheap as they are.
    pub(super) fn filter() -> FilterFn {
        FilterFn::new(is_one as fn(&Metadata<'_>) -> bool).with_max_level_hint(LevelFilter::INFO)
    }
}

fn is_one(metadata: &Metadata<'_>) -> bool {
    *metadata.level() <= Level::INFO && metadata.fields().field(EVENT).is_some()
}

impl<S: Subscriber> Layer<S> for Happenings {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let Some(listener) = LISTENER.get() else { return };
        let mut fields = Fields(Map::new());
        event.record(&mut fields);
        fields.0.insert("level".to_owned(), event.metadata().level().as_str().to_lowercase().into());
        listener(fields.0);
    }
}

struct Fields(Map<String, Value>);

impl Fields {
    fn add(&mut self, field: &Field, value: Value) {
        self.0.insert(field.name().to_owned(), value);
    }
}

impl Visit for Fields {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.add(field, value.into());
    }
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field, value.into());
    }
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add(field, value.into());
    }
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field, value.into());
    }
    fn record_str(&mut self, field: &Field, value: &str) {
        let mut most = TEXT_MAX.min(value.len());
        while !value.is_char_boundary(most) {
            most -= 1;
        }
        self.add(field, value.get(..most).unwrap_or_default().into());
    }
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.record_str(field, &format!("{value:?}"));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tracing_subscriber::Registry;
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    #[test]
    fn records_with_an_event_are_handed_on_whole_and_no_others() {
        let heard = Arc::new(Mutex::new(Vec::new()));
        let hearing = heard.clone();
        listen(move |happened| {
            if happened.get("of").is_some_and(|of| of == "this test") {
                hearing.lock().unwrap().push(happened);
            }
        });
        tracing::subscriber::with_default(
            Registry::default().with(Happenings.with_filter(Happenings::filter())),
            || {
                tracing::info!(of = "this test", "nothing happened");
                tracing::debug!(event = "too.fine", of = "this test", "not told");
                let long = "ä".repeat(TEXT_MAX);
                tracing::warn!(event = "a.b", of = "this test", number = 7, flag = true, long, shown = ?Some(1), "it {}", 1);
            },
        );
        let heard = heard.lock().unwrap();
        assert_eq!(heard.len(), 1);
        let told = |name: &str| heard[0][name].clone();
        assert_eq!((told("event"), told("level"), told("message")), ("a.b".into(), "warn".into(), "it 1".into()));
        assert_eq!((told("number"), told("flag"), told("shown")), (7.into(), true.into(), "Some(1)".into()));
        assert_eq!(told("long").as_str().map(str::len), Some(TEXT_MAX));
    }
}
