//! What can be cut in core-ha: lines, each a port of its own whose connections are carried on to somewhere else, or dropped.
//! And the nodes at the end of some of them, as small as they can be: each says who it is.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Whether a line carries.
type Whole = watch::Sender<bool>;

/// A line on loopback.
pub(crate) struct Line {
    listener: TcpListener,
    to: SocketAddr,
    whole: Whole,
}

impl Line {
    pub(crate) async fn to(to: SocketAddr) -> io::Result<Line> {
        Ok(Line { listener: TcpListener::bind(("127.0.0.1", 0)).await?, to, whole: Whole::new(true) })
    }

    pub(crate) fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// What cuts and heals it.
    pub(crate) fn whole(&self) -> Whole {
        self.whole.clone()
    }

    /// Carries until the task is dropped.
    pub(crate) async fn carry(self) -> io::Result<()> {
        let mut carried = JoinSet::new();
        loop {
            tokio::select! {
                accepted = self.listener.accept() => {
                    let (near, _) = accepted?;
                    carried.spawn(connection(near, self.to, self.whole.subscribe()));
                }
                Some(_) = carried.join_next() => {}
            }
        }
    }
}

/// Carries one connection; both its ends are closed when the line is cut.
async fn connection(mut near: TcpStream, to: SocketAddr, mut whole: watch::Receiver<bool>) {
    let carrying = async {
        let mut far = TcpStream::connect(to).await?;
        tokio::io::copy_bidirectional(&mut near, &mut far).await
    };
    tokio::select! {
        biased;
        _ = whole.wait_for(|whole| !whole) => {}
        _ = carrying => {}
    }
}

/// A page that cuts and heals lines by their names: `POST /NAME/cut`, `POST /NAME/heal`.
pub(crate) async fn switch(listener: TcpListener, lines: BTreeMap<&'static str, Whole>) -> io::Result<()> {
    let app = Router::new().route("/", get(show)).route("/{name}/{act}", post(turn)).with_state(lines);
    axum::serve(listener, app).await
}

type Lines = State<BTreeMap<&'static str, Whole>>;

async fn show(State(lines): Lines) -> Json<Value> {
    let state = |whole: &Whole| Value::from(if *whole.borrow() { "whole" } else { "cut" });
    Json(lines.iter().map(|(name, whole)| ((*name).to_owned(), state(whole))).collect())
}

async fn turn(lines: Lines, Path((name, act)): Path<(String, String)>) -> Result<Json<Value>, StatusCode> {
    let line = lines.get(name.as_str()).ok_or(StatusCode::NOT_FOUND)?;
    match act.as_str() {
        "cut" => line.send_replace(false),
        "heal" => line.send_replace(true),
        _ => return Err(StatusCode::NOT_FOUND),
    };
    Ok(show(lines).await)
}

/// A node, until the task is dropped. The name is that of the instance: `eu-1`.
pub(crate) async fn node(listener: TcpListener, name: &'static str) -> io::Result<()> {
    let told = move || async move { Json(json!({ "node": name })) };
    let app = Router::new().route("/health", get(|| async { "ok" })).fallback(told);
    axum::serve(listener, app).await
}
