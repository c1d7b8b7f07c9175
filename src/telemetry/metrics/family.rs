//! Every family of metrics: name, labels, meaning. `docs/metrics.md` documents each one; a test keeps it complete.

#[derive(Debug)]
pub(crate) struct Family {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    pub(crate) labels: &'static [&'static str],
    pub(crate) help: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Counter,
    Gauge,
    Histogram,
}

macro_rules! families {
    ($($constant:ident = $kind:ident $name:literal [$($label:literal),*] $help:literal;)+) => {
        $(pub(crate) static $constant: Family =
            Family { name: $name, kind: Kind::$kind, labels: &[$($label),*], help: $help };)+

        #[cfg(test)]
        pub(crate) const ALL: &[&Family] = &[$(&$constant),+];
    };
}

families! {
    REQUESTS = Counter "tollgate_requests_total" ["route", "class"] "Requests ended, by class of status.";
    REJECTIONS = Counter "tollgate_rejections_total" ["route", "code"] "Requests the gateway answered by itself, by code.";
    REQUEST_BYTES = Counter "tollgate_request_bytes_total" ["route"] "Bytes of request bodies.";
    RESPONSE_BYTES = Counter "tollgate_response_bytes_total" ["route"] "Bytes of response bodies.";
    MIRRORS = Counter "tollgate_mirrors_total" ["route", "result"] "Mirrored requests, by result.";

    UPSTREAM_SECONDS = Histogram "tollgate_upstream_seconds" ["upstream"]
        "Time from choosing an endpoint to the head of its answer.";
    UPSTREAM_ATTEMPTS = Counter "tollgate_upstream_attempts_total" ["upstream"] "Requests sent, retries among them.";
    UPSTREAM_RETRIES = Counter "tollgate_upstream_retries_total" ["upstream"] "Requests sent again.";
    UPSTREAM_ANSWERS = Counter "tollgate_upstream_answers_total" ["upstream", "class"] "Answers, by class of status.";
    UPSTREAM_FAILURES = Counter "tollgate_upstream_failures_total" ["upstream", "kind"] "Attempts without an answer.";
    UPSTREAM_IN_FLIGHT = Gauge "tollgate_upstream_in_flight_requests" ["upstream"] "Requests in flight.";
    UPSTREAM_ENDPOINTS = Gauge "tollgate_upstream_endpoints" ["upstream", "state"] "Endpoints, by state.";
    UPSTREAM_EJECTIONS = Counter "tollgate_upstream_ejections_total" ["upstream"] "Endpoints ejected.";
    UPSTREAM_RESOLUTIONS = Counter "tollgate_upstream_resolutions_total" ["upstream", "result"] "Resolutions of names.";
    UPSTREAM_RETRIES_REFUSED = Counter "tollgate_upstream_refused_retries_total" ["upstream"]
        "Retries the budget refused.";
    UPSTREAM_PANICS = Counter "tollgate_upstream_panic_picks_total" ["upstream"]
        "Endpoints chosen while health was ignored.";

    CONNECTIONS_OPEN = Gauge "tollgate_open_connections" [] "Connections of clients open now.";
    CONNECTIONS_ACCEPTED = Counter "tollgate_accepted_connections_total" [] "Connections of clients accepted.";
    CONNECTIONS_REFUSED = Counter "tollgate_refused_connections_total" ["reason"]
        "Connections of clients closed for breaking a bound.";
    HANDSHAKES = Counter "tollgate_handshakes_total" ["result"] "TLS handshakes with clients.";

    CERTIFICATE_EXPIRY = Gauge "tollgate_certificate_expiry_timestamp_seconds" ["certificate", "source"]
        "When a certificate ends; 0 while there is none.";
    CERTIFICATE_NEXT_ORDER = Gauge "tollgate_certificate_next_order_timestamp_seconds" ["certificate", "source"]
        "When a certificate is ordered next.";
    CERTIFICATE_FAILING = Gauge "tollgate_certificate_failing" ["certificate", "source"]
        "1 if reading or ordering a certificate failed when it was last tried.";

    OVERLOAD_LEVEL = Gauge "tollgate_overload_level" [] "What is turned away: 1 all that is sheddable, 2 also all that is normal.";
    OVERLOAD_LAG = Gauge "tollgate_overload_lag_seconds" [] "How late the event loop was, at least, in the last 100 ms.";
    COMPRESSING = Gauge "tollgate_compressing_answers" [] "Answers that are compressed now.";
    COMPRESSION_SKIPPED = Counter "tollgate_compression_skipped_total" [] "Answers sent as they are because too many were compressed.";
    LIMIT_REQUESTS = Counter "tollgate_limit_requests_total" ["limit", "result"] "Requests that a limit has counted.";
    LIMIT_KEYS = Gauge "tollgate_limit_keys" ["limit"] "Keys that a limit remembers.";
    LIMIT_EVICTIONS = Counter "tollgate_limit_evictions_total" ["limit"] "Keys that were forgotten for others.";

    CONFIG_INFO = Gauge "tollgate_config_info" ["revision"] "1, for the revision of the document applied.";
    CONFIG_APPLIED = Gauge "tollgate_config_applied_timestamp_seconds" [] "When that revision was applied.";
    CONFIG_CHANGES = Counter "tollgate_config_changes_total" ["result"] "Documents seen, by result.";
    CONFIG_OK = Gauge "tollgate_config_last_change_success" [] "1 if the last document seen could be applied.";
    CONFIG_PROBLEMS = Gauge "tollgate_config_problems" [] "Problems of the last document seen, warnings among them.";

    CONFIG_SERVING = Gauge "tollgate_config_serving" ["from"] "1 for where the document applied comes from.";

    BUS_UP = Gauge "tollgate_bus_up" [] "1 while the bus can be reached.";
    BUS_MESSAGES = Counter "tollgate_bus_messages_total" ["result"] "Events and telemetry for the bus, by result.";
    BUS_WAITING = Gauge "tollgate_bus_waiting_messages" [] "Events and telemetry that wait for the bus.";

    LOG_LINES_DROPPED = Counter "tollgate_dropped_log_lines_total" [] "Lines of the access log lost.";
    LOG_RECORDS_SUPPRESSED = Counter "tollgate_suppressed_log_records_total" []
        "Records of libraries beyond the rate allowed in the gateway's own log.";
    SPANS_DROPPED = Counter "tollgate_dropped_spans_total" [] "Spans lost.";
    TASKS = Gauge "tollgate_tasks" ["task"] "Background tasks running.";

    PROCESS_MEMORY = Gauge "tollgate_process_resident_memory_bytes" [] "Resident memory.";
    PROCESS_CPU = Counter "tollgate_process_cpu_seconds_total" [] "CPU time of all threads.";
    PROCESS_FDS = Gauge "tollgate_process_open_fds" [] "Open file descriptors.";
}
