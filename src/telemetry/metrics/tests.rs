//! What a scrape shows.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::*;
use crate::rejection::Code;

fn lines(metrics: &Metrics) -> Vec<String> {
    metrics.render(&Readings::default()).lines().map(str::to_owned).collect()
}

#[track_caller]
fn check(metrics: &Metrics, line: &str) {
    let lines = lines(metrics);
    assert!(lines.iter().any(|have| have == line), "no `{line}` in\n{}", lines.join("\n"));
}

/// A gateway in which everything has happened once.
fn busy() -> (Metrics, Readings) {
    let metrics = Metrics::new();
    let api = metrics.route("api");
    api.finished(200, None, std::time::Duration::ZERO, 10, 20);
    api.finished(503, Some(Code::NoEndpoint), std::time::Duration::ZERO, 0, 7);
    api.mirrored(MirrorResult::StatusDiffers);
    metrics.unrouted().finished(400, Some(Code::BadRequest), std::time::Duration::ZERO, 0, 0);
    let upstream = metrics.upstream("pocketbase");
    upstream.attempted();
    upstream.attempted();
    upstream.retried();
    upstream.failed(Failure::Connect);
    upstream.answered(200, Duration::from_millis(7));
    metrics.front.accepted.inc();
    metrics.front.open.inc();
    metrics.front.refused(Refused::ConnectionsPerAddress);
    metrics.front.handshake(Handshake::Done);
    metrics.control.changed(Change::Applied, 1);
    metrics.control.applied("abc".into(), UNIX_EPOCH + Duration::from_millis(1_700_000_000_500));
    let pool = PoolReading {
        upstream: "pocketbase".into(),
        in_flight: 3,
        endpoints: vec![("healthy", 2)],
        resolutions: [5, 0, 6],
        ..PoolReading::default()
    };
    let limits = vec![LimitReading { name: "per_client".to_owned(), allowed: 3, ..LimitReading::default() }];
    let certificates = vec![CertificateReading {
        name: "main".to_owned(),
        source: "file".to_owned(),
        ends: 1_800_000_000,
        next_order: Some(1_790_000_000),
        failing: false,
    }];
    (
        metrics,
        Readings {
            pools: vec![pool],
            tasks: BTreeMap::from([("resolver", 2)]),
            certificates,
            limits,
            serving: "source",
            bus: Some(BusReading { up: true, ..BusReading::default() }),
            ..Readings::default()
        },
    )
}

#[test]
fn counts_requests_by_route_class_and_code() {
    let (metrics, _) = busy();
    check(&metrics, r#"tollgate_requests_total{route="api",class="2xx"} 1"#);
    check(&metrics, r#"tollgate_requests_total{route="api",class="5xx"} 1"#);
    check(&metrics, r#"tollgate_rejections_total{route="api",code="no_endpoint"} 1"#);
    check(&metrics, r#"tollgate_rejections_total{route="",code="bad_request"} 1"#);
    check(&metrics, r#"tollgate_request_bytes_total{route="api"} 10"#);
    check(&metrics, r#"tollgate_response_bytes_total{route="api"} 27"#);
    check(&metrics, r#"tollgate_mirrors_total{route="api",result="status_differs"} 1"#);
    check(&metrics, r#"tollgate_refused_connections_total{reason="connections_per_address"} 1"#);
    check(&metrics, r#"tollgate_handshakes_total{result="timeout"} 0"#);
    check(&metrics, r#"tollgate_config_info{revision="abc"} 1"#);
    check(&metrics, r#"tollgate_config_applied_timestamp_seconds 1700000000.5"#);
}

#[test]
fn what_only_a_pool_knows_is_read_when_somebody_scrapes() {
    let (metrics, readings) = busy();
    let text = metrics.render(&readings);
    for line in [
        r#"tollgate_upstream_in_flight_requests{upstream="pocketbase"} 3"#,
        r#"tollgate_upstream_endpoints{upstream="pocketbase",state="healthy"} 2"#,
        r#"tollgate_upstream_resolutions_total{upstream="pocketbase",result="failed"} 6"#,
        r#"tollgate_tasks{task="resolver"} 2"#,
    ] {
        assert!(text.lines().any(|have| have == line), "no `{line}` in\n{text}");
    }
}

#[test]
fn leaves_out_codes_that_never_counted() {
    let (metrics, _) = busy();
    assert!(!lines(&metrics).iter().any(|line| line.contains("\"loop\"")));
    assert_eq!(lines(&metrics).iter().filter(|line| line.starts_with("tollgate_rejections_total")).count(), 2);
}

#[test]
fn every_code_and_class_has_a_number_of_its_own() {
    let metrics = Metrics::new();
    let route = metrics.route("api");
    for (i, code) in Code::ALL.into_iter().enumerate() {
        for _ in 0..=i {
            route.finished(code.status().as_u16(), Some(code), std::time::Duration::ZERO, 0, 0);
        }
    }
    for (i, code) in Code::ALL.into_iter().enumerate() {
        assert_eq!(route.rejections(code), i as u64 + 1, "{code:?}");
    }
    for status in [0, 100, 204, 301, 404, 599] {
        metrics.route("other").finished(status, None, std::time::Duration::ZERO, 0, 0);
    }
    for class in ["none", "1xx", "2xx", "3xx", "4xx", "5xx"] {
        assert_eq!(metrics.route("other").requests(class), 1, "{class}");
    }
}

#[test]
fn a_histogram_is_cumulative_and_its_bounds_are_inclusive() {
    let metrics = Metrics::new();
    let upstream = metrics.upstream("u");
    for ms in [1, 7, 120_000] {
        upstream.answered(200, Duration::from_millis(ms));
    }
    check(&metrics, r#"tollgate_upstream_seconds_bucket{upstream="u",le="0.0005"} 0"#);
    check(&metrics, r#"tollgate_upstream_seconds_bucket{upstream="u",le="0.001"} 1"#);
    check(&metrics, r#"tollgate_upstream_seconds_bucket{upstream="u",le="0.01"} 2"#);
    check(&metrics, r#"tollgate_upstream_seconds_bucket{upstream="u",le="60"} 2"#);
    check(&metrics, r#"tollgate_upstream_seconds_bucket{upstream="u",le="+Inf"} 3"#);
    check(&metrics, r#"tollgate_upstream_seconds_count{upstream="u"} 3"#);
    check(&metrics, r#"tollgate_upstream_seconds_sum{upstream="u"} 120.008"#);
}

#[test]
fn series_leave_with_their_route_and_kept_ones_go_on() {
    let metrics = Metrics::new();
    let (kept, gone) = (metrics.route("kept"), metrics.route("gone"));
    kept.finished(200, None, std::time::Duration::ZERO, 0, 0);
    gone.finished(200, None, std::time::Duration::ZERO, 0, 0);
    metrics.upstream("old").attempted();
    metrics.retain(["kept"], []);
    gone.finished(500, Some(Code::Internal), std::time::Duration::ZERO, 0, 0);
    kept.finished(200, None, std::time::Duration::ZERO, 0, 0);
    assert!(Arc::ptr_eq(&kept, &metrics.route("kept")));
    check(&metrics, r#"tollgate_requests_total{route="kept",class="2xx"} 2"#);
    let text = lines(&metrics).join("\n");
    assert!(!text.contains("\"gone\"") && !text.contains("\"old\""), "{text}");
}

#[test]
fn a_name_that_comes_back_finds_the_handle_that_is_still_held() {
    let metrics = Metrics::new();
    let held = metrics.upstream("u");
    held.attempted();
    metrics.retain([], []);
    held.attempted();
    assert!(Arc::ptr_eq(&held, &metrics.upstream("u")));
    check(&metrics, r#"tollgate_upstream_attempts_total{upstream="u"} 2"#);
    metrics.retain([], []);
    drop(held);
    metrics.upstream("u");
    check(&metrics, r#"tollgate_upstream_attempts_total{upstream="u"} 0"#);
}

#[test]
fn label_values_are_escaped() {
    let metrics = Metrics::new();
    metrics.route("a\"b\\c\nd").finished(200, None, std::time::Duration::ZERO, 0, 0);
    check(&metrics, r#"tollgate_requests_total{route="a\"b\\c\nd",class="2xx"} 1"#);
}

#[test]
fn a_refused_change_shows_until_one_succeeds() {
    let metrics = Metrics::new();
    metrics.control.changed(Change::Refused, 3);
    check(&metrics, "tollgate_config_last_change_success 0");
    check(&metrics, "tollgate_config_problems 3");
    metrics.control.changed(Change::Applied, 0);
    metrics.control.applied("r2".into(), SystemTime::now());
    check(&metrics, "tollgate_config_last_change_success 1");
    check(&metrics, "tollgate_config_problems 0");
}

#[test]
fn every_metric_is_shown_and_documented_and_no_other() {
    let (metrics, readings) = busy();
    let text = metrics.render(&readings);
    let shown: BTreeSet<&str> =
        text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    let known: BTreeSet<&str> = family::ALL.iter().map(|family| family.name).collect();
    assert_eq!(shown, known);

    let docs = include_str!("../../../docs/metrics.md");
    let rows: BTreeMap<&str, &str> = docs
        .lines()
        .filter_map(|line| line.strip_prefix("| `tollgate_").map(|_| line))
        .filter_map(|line| Some((line.split('`').nth(1)?, line)))
        .collect();
    assert_eq!(rows.keys().copied().collect::<BTreeSet<_>>(), known, "docs/metrics.md");
    for family in family::ALL {
        let row = rows[family.name];
        assert!(row.contains(&format!("| {:?} |", family.kind).to_lowercase()), "{row}");
        for label in family.labels {
            assert!(row.contains(&format!("`{label}`")), "docs/metrics.md does not name the label {label}: {row}");
        }
    }
}
