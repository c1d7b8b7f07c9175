//! Route lookup with 10, 1,000 and 100,000 routes, host and path both varied.
//!
//! Every size is asked the same number of different requests, spread over the whole table, so that the figures compare
//! the lookup and not the caches of the machine; `every_route_once` shows those: it walks all routes in an order that
//! no cache foresees.

// A failure here is a failure of the run.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use http::{HeaderMap, Method};
use tollgate::facts::{Head, Scheme};
use tollgate::routes::{Found, Table, host, path};

#[path = "routes/mod.rs"]
mod routes;

const SIZES: [usize; 3] = [10, 1_000, 100_000];
const REQUESTS: usize = 32;

/// A host and path that the route of this number takes.
fn request(number: usize) -> (String, String) {
    let (host, pattern) = routes::pattern(number);
    (host, pattern.replace("{id}", "12345").replace('*', "some/thing"))
}

fn find<'t>(table: &'t Table, host: &str, path: &str, headers: &HeaderMap) -> Found<'t> {
    table.find(&Head {
        method: &Method::GET,
        scheme: Scheme::Https,
        host,
        path,
        query: None,
        headers,
        client: IpAddr::V4(Ipv4Addr::LOCALHOST),
        listener: "public",
        sni: None,
        client_certificate: None,
        request_id: "",
    })
}

fn lookup(criterion: &mut Criterion) {
    let headers = HeaderMap::new();
    let mut group = criterion.benchmark_group("lookup");
    for size in SIZES {
        let table = routes::table(size);
        // The same kinds of pattern in every size.
        let hosts = size / routes::PER_HOST;
        let spread = |n: usize| n * hosts / REQUESTS * routes::PER_HOST + n % routes::PER_HOST;
        let requests: Vec<(String, String)> = (0..REQUESTS).map(|n| request(spread(n))).collect();
        for (host, path) in &requests {
            assert!(matches!(find(&table, host, path, &headers), Found::Route { .. }), "{host}{path}");
        }
        let mut at = 0;
        group.throughput(Throughput::Elements(1));
        group.bench_function(BenchmarkId::new("found", size), |bencher| {
            bencher.iter(|| {
                at = (at + 1) % REQUESTS;
                let (host, path) = &requests[at];
                black_box(find(black_box(&table), host, path, &headers));
            });
        });
        group.bench_function(BenchmarkId::new("no_route", size), |bencher| {
            bencher.iter(|| {
                at = (at + 1) % REQUESTS;
                black_box(find(black_box(&table), &requests[at].0, "/nothing/here", &headers));
            });
        });
        let mut order: Vec<(String, String)> = (0..size).map(request).collect();
        fastrand::Rng::with_seed(7).shuffle(&mut order);
        group.throughput(Throughput::Elements(order.len() as u64));
        group.bench_function(BenchmarkId::new("every_route_once", size), |bencher| {
            bencher.iter(|| {
                for (host, path) in &order {
                    black_box(find(black_box(&table), host, path, &headers));
                }
            });
        });
    }
    group.finish();
}

fn normalise(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("normalise");
    for (name, raw) in [("normal", "/api/v1/users/12345/orders"), ("percent", "/api/v1/users/%7Euser/a%20b")] {
        group.bench_function(BenchmarkId::new("path", name), |bencher| {
            bencher.iter(|| black_box(path::normalise(black_box(raw))));
        });
    }
    for (name, raw) in [("normal", "core-v2.example.com:8443"), ("upper", "Core-V2.Example.com")] {
        group.bench_function(BenchmarkId::new("host", name), |bencher| {
            bencher.iter_batched(
                || raw,
                |raw| black_box(host::normalise(black_box(raw)).is_ok()),
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, lookup, normalise);
criterion_main!(benches);
