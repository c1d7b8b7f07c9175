//! A change of 10,000 routes, step by step: parse, compile, swap.

// A failure here is a failure of the run.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::hint::black_box;
use std::sync::Arc;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use tollgate::config::{References, read};
use tollgate::routes::{self as table, Live};

#[path = "routes/mod.rs"]
mod routes;

const SIZE: usize = 10_000;

fn change(criterion: &mut Criterion) {
    let text = routes::text(SIZE);
    let document = routes::document(&text);
    let (pools, env) = (routes::pools(), routes::env());
    let mut group = criterion.benchmark_group("change_of_10000_routes");
    group.sample_size(20);
    group.bench_function("parse", |bencher| {
        bencher.iter_with_large_drop(|| read::document(black_box(&text), &References::symbolic()));
    });
    group.bench_function("compile", |bencher| {
        bencher.iter_with_large_drop(|| table::compile(black_box(&document), &env, &pools));
    });
    let live = Live::new(Arc::new(routes::table(SIZE)));
    group.bench_function("inherit_and_swap", |bencher| {
        bencher.iter_batched_ref(
            || Some(routes::table(SIZE)),
            |next| {
                let mut next = next.take()?;
                next.inherit(&live.load());
                Some(live.swap(Arc::new(next)))
            },
            BatchSize::PerIteration,
        );
    });
    group.bench_function("revision", |bencher| bencher.iter(|| table::revision(black_box(&text))));
    group.finish();
}

criterion_group!(benches, change);
criterion_main!(benches);
