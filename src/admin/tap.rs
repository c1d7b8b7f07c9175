//! `GET /tap`: access lines as they are written, as server-sent events.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State as Extract};
use axum::http::StatusCode;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde::Deserialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use super::serve::Leaving;
use super::{State, problem};
use crate::telemetry::access::{Tap, TapLine, Tapped};

/// A connection that died without a word is noticed by these.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Places for those who listen.
#[derive(Clone)]
pub(super) struct Places(pub(super) Arc<Semaphore>);

/// `?route=NAME&status=5xx`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    route: Option<String>,
    /// `404` or `4xx`.
    status: Option<String>,
}

/// Which lines are wanted.
#[derive(Clone, Debug, Default)]
struct Filter {
    route: Option<String>,
    status: Option<std::ops::RangeInclusive<u16>>,
}

impl TryFrom<Wanted> for Filter {
    type Error = &'static str;
    fn try_from(wanted: Wanted) -> Result<Filter, &'static str> {
        let status = |text: String| {
            let class = text.strip_suffix("xx").and_then(|class| class.parse::<u16>().ok());
            match (class, text.parse::<u16>()) {
                (Some(class @ 1..=5), _) => Ok(class * 100..=class * 100 + 99),
                (None, Ok(status)) => Ok(status..=status),
                _ => Err("`status` is a status such as 404 or a class such as 5xx"),
            }
        };
        Ok(Filter { route: wanted.route, status: wanted.status.map(status).transpose()? })
    }
}

impl Filter {
    fn wants(&self, line: &TapLine) -> bool {
        self.route.as_ref().is_none_or(|route| *route == line.route)
            && self.status.as_ref().is_none_or(|status| status.contains(&line.status))
    }
}

pub(super) async fn tap(
    Extract(state): Extract<State>,
    Extension(places): Extension<Places>,
    leaving: Option<Extension<Leaving>>,
    wanted: Result<Query<Wanted>, QueryRejection>,
) -> Response {
    let wanted = match wanted {
        Ok(Query(wanted)) => wanted,
        Err(rejection) => return problem::answer(rejection.status(), "bad_filter", &rejection.body_text()),
    };
    let filter = match Filter::try_from(wanted) {
        Ok(filter) => filter,
        Err(error) => return problem::answer(StatusCode::BAD_REQUEST, "bad_filter", error),
    };
    let Ok(place) = places.0.try_acquire_owned() else {
        return problem::answer(StatusCode::SERVICE_UNAVAILABLE, "too_many_taps", "all places for taps are taken");
    };
    let leaving = leaving.map_or_else(CancellationToken::new, |Extension(Leaving(leaving))| leaving);
    let listener = Listener { tap: state.access.subscribe(), filter, leaving, _place: place };
    let events = stream::unfold(listener, |mut listener| async move {
        let event = listener.next().await?;
        Some((Ok::<_, Infallible>(event), listener))
    });
    Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response()
}

struct Listener {
    tap: Tap,
    filter: Filter,
    leaving: CancellationToken,
    _place: OwnedSemaphorePermit,
}

impl Listener {
    async fn next(&mut self) -> Option<Event> {
        loop {
            let tapped = tokio::select! {
                tapped = self.tap.next() => tapped?,
                () = self.leaving.cancelled() => return None,
            };
            match tapped {
                Tapped::Line(line) if self.filter.wants(&line) => return Some(Event::default().data(&line.json)),
                Tapped::Line(_) => {}
                Tapped::Missed(lines) => {
                    return Some(Event::default().event("missed").data(format!("{{\"lines\":{lines}}}")));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_a_number_or_a_class() {
        let filter = |status: &str| Filter::try_from(Wanted { route: None, status: Some(status.to_owned()) });
        let line = |status| TapLine { route: "api".to_owned(), status, json: String::new() };
        assert!(filter("5xx").unwrap().wants(&line(503)) && !filter("5xx").unwrap().wants(&line(404)));
        assert!(filter("404").unwrap().wants(&line(404)) && !filter("404").unwrap().wants(&line(405)));
        assert!(filter("0").unwrap().wants(&line(0)));
        for wrong in ["", "xx", "6xx", "abc", "-1", "70000"] {
            assert!(filter(wrong).is_err(), "{wrong}");
        }
    }
}
