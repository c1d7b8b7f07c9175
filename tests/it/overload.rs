//! More than the gateway can do: what is least important is turned away, and nothing else.

use http::Request;

use crate::kit::{Gateway, Settings, empty};

const DOCUMENT: &str = r#"
[api_keys.a]
keys = [{ name = "one", sha256 = "6ab9f1eb8f7d3388f4f9d586f66e99fd54080df2c446f0e58668b09c08a16dd0" }]
[[route]]
name = "vital"
match = { path = "/vital" }
importance = "critical"
respond = { body = "vital" }
[[route]]
name = "normal"
match = { path = "/normal" }
importance = "normal"
respond = { body = "normal" }
[[route]]
name = "open"
match = { path = "/open" }
respond = { body = "open" }
[[route]]
name = "either"
match = { path = "/either" }
auth = { any = [{ api_key = "a" }, { anonymous = true }] }
respond = { body = "either" }
"#;

async fn statuses(gateway: &Gateway) -> [u16; 5] {
    let ask = async |path: &str, key: Option<&str>| {
        let mut request = Request::get(format!("http://app.test{path}"));
        if let Some(key) = key {
            request = request.header("x-api-key", key);
        }
        let reply = gateway.h1().await.fetch(request.body(empty()).unwrap()).await;
        if reply.status == 503 {
            reply.is_rejected(503, "overload");
            assert_eq!(reply.header("retry-after"), "1");
        }
        reply.status.as_u16()
    };
    [
        ask("/vital", None).await,
        ask("/normal", None).await,
        ask("/either", Some("k1")).await,
        ask("/either", None).await,
        ask("/open", None).await,
    ]
}

#[tokio::test]
async fn over_its_memory_only_what_is_critical_passes() {
    let full = |settings: &mut Settings| {
        settings.set("overload.memory", "1MiB");
    };
    let gateway = Gateway::with(DOCUMENT, full).await;
    eventually!(gateway.metric("tollgate_overload_level").await == 2.0);
    assert_eq!(statuses(&gateway).await, [200, 503, 503, 503, 503]);
    assert_eq!(gateway.health("/health").await.status, 200);
    assert!(gateway.log().contains("overload.begun"), "{}", gateway.log());
    assert_eq!(gateway.metric("tollgate_rejections_total{code=\"overload\"}").await, 4.0);
}

#[tokio::test]
async fn near_its_memory_who_is_proven_passes() {
    let bounded = async |bound: u64| {
        Gateway::with(DOCUMENT, |settings| {
            settings.set("overload.memory", format!("{bound}B"));
        })
        .await
    };
    let gateway = bounded(0).await;
    assert_eq!(statuses(&gateway).await, [200; 5]);
    let mut used = gateway.metric("tollgate_process_resident_memory_bytes").await;
    drop(gateway);
    // Between nine tenths of the bound and the bound; what a process uses differs a little from start to start.
    for _ in 0..20 {
        let gateway = bounded((used * 1.05) as u64).await;
        eventually!(gateway.metric("tollgate_overload_lag_seconds").await > 0.0);
        if (0.2..=0.95).contains(&gateway.metric("tollgate_overload_level").await) {
            let rounds = futures_util::future::join_all((0..30).map(|_| statuses(&gateway))).await;
            assert!(rounds.iter().all(|round| round[..3] == [200; 3]), "{rounds:?}");
            assert!(
                rounds.iter().any(|round| round[3] == 503) && rounds.iter().any(|round| round[4] == 503),
                "{rounds:?}"
            );
            return;
        }
        used = gateway.metric("tollgate_process_resident_memory_bytes").await;
    }
    panic!("memory was never near its bound: {used}");
}
