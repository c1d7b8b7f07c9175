//! What an operator does to a running gateway: edits routes, asks the admin listener, reads metrics and logs.

use http::Request;
use serde_json::Value;

use super::gateway::document;
use super::metrics::Metrics;
use super::{Client, Gateway, PATIENCE, Reply, full, pause};

impl Gateway {
    /// As an editor that writes a new file and renames it over the old one.
    pub(crate) fn write_routes(&self, routes: &str) {
        let draft = self.directory().join(format!("routes.toml.{:x}", fastrand::u64(..)));
        std::fs::write(&draft, document(routes)).unwrap();
        std::fs::rename(draft, self.directory().join("routes.toml")).unwrap();
    }

    /// Writes other routes than the present ones and waits until they are in force.
    pub(crate) async fn change(&self, routes: &str) {
        let before = self.revision().await;
        self.write_routes(routes);
        let began = std::time::Instant::now();
        while self.revision().await == before {
            assert!(began.elapsed() < PATIENCE, "the change was not applied: {}", self.config().await);
            pause().await;
        }
    }

    /// The revision in force.
    pub(crate) async fn revision(&self) -> String {
        self.config().await["revision"].as_str().unwrap_or_default().to_owned()
    }

    /// `/config` of the admin listener.
    pub(crate) async fn config(&self) -> Value {
        self.admin("/config").await.json()
    }

    pub(crate) async fn admin(&self, path: &str) -> Reply {
        super::get(self.address("admin"), &format!("http://127.0.0.1{path}")).await
    }

    pub(crate) async fn health(&self, path: &str) -> Reply {
        super::get(self.address("health"), &format!("http://127.0.0.1{path}")).await
    }

    /// `POST /explain`, the same question as `tollgate explain --live` asks.
    pub(crate) async fn explain(&self, question: Value) -> Reply {
        let request = Request::post("http://127.0.0.1/explain")
            .header("content-type", "application/json")
            .body(full(question.to_string()))
            .unwrap();
        Client::h1(self.address("admin")).await.fetch(request).await
    }

    pub(crate) async fn metrics(&self) -> Metrics {
        Metrics::parse(self.health("/metrics").await.text())
    }

    /// The sum of the series, 0 if there are none.
    pub(crate) async fn metric(&self, query: &str) -> f64 {
        self.metrics().await.sum(query).unwrap_or(0.0)
    }

    /// One upstream of `/upstreams`.
    pub(crate) async fn upstream(&self, name: &str) -> Value {
        let all = self.admin("/upstreams").await.json();
        let list = all.as_array().or_else(|| all["upstreams"].as_array()).unwrap_or_else(|| panic!("{all}"));
        list.iter().find(|one| one["name"] == name).cloned().unwrap_or(Value::Null)
    }

    /// The access log so far.
    pub(crate) fn access(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.directory().join("access.log")).unwrap_or_default();
        // The last line may still be on its way.
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        whole.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("not JSON: {line}"))).collect()
    }

    /// The first access line that fits, once it is written.
    pub(crate) async fn access_line(&self, fits: impl Fn(&Value) -> bool) -> Value {
        eventually!(self.access().into_iter().find(|line| fits(line)))
    }
}
