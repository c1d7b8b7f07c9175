//! The services of the pet builder, as small as they can be: each says who it is and what reached it.

use axum::Json;
use axum::Router;
use axum::extract::{Request, State};
use axum::routing::get;
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// Serves until the task is dropped. The name is that of the instance: `builder-1`, `monolith`.
pub(crate) async fn serve(listener: TcpListener, name: &'static str) -> std::io::Result<()> {
    let app = Router::new().route("/health", get(|| async { "ok" })).fallback(tell).with_state(name);
    axum::serve(listener, app).await
}

async fn tell(State(name): State<&'static str>, request: Request) -> Json<Value> {
    let header = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    Json(json!({
        "service": name,
        "method": request.method().as_str(),
        "path": request.uri().path(),
        "user": header("x-user-id"),
        "client": header("x-forwarded-for"),
    }))
}
