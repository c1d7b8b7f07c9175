//! Four times what the gateway can do, by nobody, beside a tenth of it by somebody: `cargo bench --bench overload`.
//!
//! What costs the gateway is compression: a client of the same machine can ask for four times of that, which it could not of
//! requests that cost the gateway as little as the client.

// A failure here is a failure of the run.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

#[path = "rig/mod.rs"]
#[allow(dead_code)] // each bench uses its part
mod rig;

use rig::driver::{self, Came};
use rig::gateway::Gateway;
use rig::process::leave_the_core;

/// Answers everything with so many bytes of text.
const LENGTH: usize = 96 << 10;

async fn origin() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
    let address = listener.local_addr().expect("an address");
    // Words that a compressor has to work for.
    let mut random = fastrand::Rng::with_seed(7);
    let text: Vec<u8> = (0..LENGTH).map(|_| if random.u8(..6) == 0 { b' ' } else { random.u8(b'a'..=b'p') }).collect();
    let head = format!("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {LENGTH}\r\n\r\n");
    let answer: std::sync::Arc<[u8]> = [head.as_bytes(), &text].concat().into();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream, answer.clone()));
        }
    });
    address
}

async fn serve(mut stream: TcpStream, answer: std::sync::Arc<[u8]>) -> std::io::Result<()> {
    let mut buffer = Vec::with_capacity(16 << 10);
    loop {
        if stream.read_buf(&mut buffer).await? == 0 {
            return Ok(());
        }
        while let Some(end) = memchr::memmem::find(&buffer, b"\r\n\r\n") {
            buffer.drain(..end + 4);
            stream.write_all(&answer).await?;
        }
    }
}

fn request(more: &str) -> std::sync::Arc<[u8]> {
    format!("GET /bench HTTP/1.1\r\nHost: bench.test\r\nAccept-Encoding: gzip\r\n{more}\r\n").into_bytes().into()
}

/// Share that was answered, and the time within which 99 of 100 of these were.
fn told(title: &str, all: &[(Came, Duration)]) {
    let of = |what: Came| all.iter().filter(|(came, _)| *came == what).count();
    let mut spans: Vec<Duration> =
        all.iter().filter(|(came, _)| *came == Came::Answered).map(|(_, span)| *span).collect();
    spans.sort();
    let p99 = spans.get(spans.len() * 99 / 100).copied().unwrap_or_default();
    println!(
        "{title:<24} {} asked, {:.2} % answered, {:.2} % turned away, {:.2} % failed, p99 {} ms",
        all.len(),
        of(Came::Answered) as f64 * 100.0 / all.len() as f64,
        of(Came::TurnedAway) as f64 * 100.0 / all.len() as f64,
        of(Came::Failed) as f64 * 100.0 / all.len() as f64,
        p99.as_millis()
    );
}

fn main() {
    let time = Duration::from_secs(rig::number("--seconds", 10));
    let binary = rig::build(&["--bin", "tollgate"]).join("tollgate");
    leave_the_core();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let directory = tempfile::tempdir().expect("a directory");
        rig::tls::write(directory.path());
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, b"somebody");
        let digest: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        let routes = format!(
            "format = 1\n[upstream.origin]\naddress = \"{}\"\n\
             [api_keys.a]\nkeys = [{{ name = \"one\", sha256 = \"{digest}\" }}]\n\
             [[route]]\nname = \"bench\"\nupstream = \"origin\"\ncompression = {{}}\n\
             auth = {{ any = [{{ api_key = \"a\" }}, {{ anonymous = true }}] }}\n",
            origin().await
        );
        for (guard, more) in [("on", "[overload]\nlag = \"20ms\"\n"), ("off", "[overload]\nlag = \"0s\"\n")] {
            let gateway = Gateway::start(&binary, directory.path(), &routes, more);
            let (http, health) = (gateway.address("http"), gateway.address("health"));
            let seen = closed(http, time / 2).await;
            let capacity = (seen as f64 / (time / 2).as_secs_f64()) as u32;
            println!("overload guard {guard}: {capacity} requests/s at most");
            let nobody = tokio::spawn(driver::offer(http, request(""), capacity * 4, time));
            let key = request("X-Api-Key: somebody\r\n");
            let somebody = tokio::spawn(driver::offer(http, key, (capacity / 10).max(10), time));
            let probe: std::sync::Arc<[u8]> = (*b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n").into();
            let probes = tokio::spawn(driver::offer(health, probe, 10, time));
            told("  four times, by nobody", &nobody.await.expect("a task"));
            told("  a tenth, by somebody", &somebody.await.expect("a task"));
            told("  /health", &probes.await.expect("a task"));
        }
    });
}

/// How many requests are answered when eight clients ask as fast as they are answered.
async fn closed(address: SocketAddr, time: Duration) -> usize {
    let until = Instant::now() + time;
    let mut set = tokio::task::JoinSet::new();
    for _ in 0..8 {
        set.spawn(async move {
            let mut count = 0;
            let mut stream = TcpStream::connect(address).await.expect("a connection");
            while Instant::now() < until {
                let came = driver::ask_any(&mut stream, &request("X-Api-Key: somebody\r\n")).await;
                count += usize::from(came.is_ok_and(|came| came == Came::Answered));
            }
            count
        });
    }
    set.join_all().await.into_iter().sum()
}
