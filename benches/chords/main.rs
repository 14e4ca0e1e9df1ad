//! What joining costs: a group against the same group with a body, many small chords, and how
//! long after its last part a body runs.
//!
//! Client, worker and joiner share this process and the machine with the broker, so read the
//! figures as ratios. Started by `cargo bench --bench chords`; the largest header is an argument
//! after `--`, with `--memory` for that of a joiner, and `--redis` for Celery's chords.

#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

mod celery;
mod memory;
mod sizes;

use std::time::{Duration, Instant};

use anyhow::ensure;
use celeriac::{App, Client, Config, Worker, chord, task};
use futures::{StreamExt, TryStreamExt, stream};
use xtask::TestVhost;

use sizes::Size;

/// The allocator of the binaries.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Longest wait for one workflow.
const PATIENCE: Duration = Duration::from_secs(600);
/// Chords of ten parts in one go.
const SMALL: usize = 1000;
/// Of them, how many are being sent at the same time.
const ABREAST: usize = 64;
/// Chords whose latency is measured, one after the other.
const CALLS: usize = 300;

/// Nothing.
#[task(name = "bench.part")]
async fn part(index: i64) -> i64 {
    index
}

#[task(name = "bench.count")]
async fn count(values: Vec<i64>) -> usize {
    values.len()
}

/// When it ran, in microseconds.
#[task(name = "bench.when")]
async fn when(index: i64) -> i64 {
    let _ = index;
    jiff::Timestamp::now().as_microsecond()
}

/// Microseconds since the last of these.
#[task(name = "bench.since")]
async fn since(values: Vec<i64>) -> i64 {
    jiff::Timestamp::now().as_microsecond() - values.into_iter().max().unwrap_or(0)
}

#[tokio::main]
async fn main() -> Result<(), anyhow::Error> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let asked = |option: &str| arguments.iter().any(|it| it == option);
    let largest = arguments.iter().find_map(|it| it.parse().ok()).unwrap_or(100_000);
    let vhost = TestVhost::create("bench-chords")?;
    let config = Config::builder().broker_url([vhost.url().parse()?]).build();
    let worker = Worker::new(App::new(config.clone())).concurrency(200).start().await?;
    let client = Client::connect(config).await?;
    sizes::with_body(&client, 100).await?;
    let mut sizes = Vec::new();
    for parts in [100, 1000, 10_000, 100_000].into_iter().filter(|parts| *parts <= largest) {
        sizes.push(sizes::measure(&client, parts).await?);
    }
    sizes::print(&sizes);
    let started = Instant::now();
    let begun = stream::iter((0..SMALL).map(|_| client.apply(small())));
    let results: Vec<_> = begun.buffered(ABREAST).try_collect().await?;
    for result in results {
        ensure!(result.get(PATIENCE).await? == 10, "a list is not complete");
    }
    let took = started.elapsed().as_secs_f64();
    println!("{SMALL} chords of 10 at once: {took:.1} s, {:.0} µs per part", took * 1e6 / 1e4);
    latency(&client).await?;
    client.close().await;
    worker.handle().shutdown();
    worker.wait().await?;
    if asked("--memory") {
        memory::print(100_000).await?;
    }
    if asked("--redis") {
        compare(&sizes)?;
    }
    Ok(())
}

/// Prints what Celery with Redis takes for the same chords.
fn compare(sizes: &[Size]) -> Result<(), anyhow::Error> {
    println!("\n### the same chords by Celery with Redis\n");
    println!("| parts | celeriac, s | celery, s | celeriac's parts/s to Celery's |");
    println!("|---:|---:|---:|---:|");
    let parts: Vec<i64> = sizes.iter().map(|size| size.parts).collect();
    for (size, theirs) in sizes.iter().zip(celery::measure(&parts)?) {
        let ours = size.chord.as_secs_f64();
        let at_least = theirs.unwrap_or(celery::LONGEST).as_secs_f64();
        let sign = if theirs.is_none() { "> " } else { "" };
        let ratio = at_least / ours;
        println!("| {} | {ours:.2} | {sign}{at_least:.1} | {sign}{ratio:.1} |", size.parts);
    }
    Ok(())
}

fn small() -> celeriac::client::canvas::Chord<usize> {
    chord((0..10).map(part::s).collect::<Vec<_>>(), count::partial())
}

/// From the last part to the body, in a fleet that is idle.
async fn latency(client: &Client) -> Result<(), anyhow::Error> {
    let mut took_us = Vec::with_capacity(CALLS);
    for _ in 0..CALLS {
        let header = (0..10).map(when::s).collect::<Vec<_>>();
        let result = client.apply(chord(header, since::partial())).await?;
        took_us.push(result.get(PATIENCE).await?);
    }
    took_us.sort_unstable();
    let (p50, p99) = (took_us[CALLS / 2], took_us[CALLS * 99 / 100]);
    println!("beginning of the last part to that of the body, idle: p50 {p50} µs, p99 {p99} µs");
    Ok(())
}
