//! What joining costs: a group against the same group with a body, many small chords, and how
//! long after its last part a body runs.
//!
//! Client, worker and joiner share this process and the machine with the broker, so read the
//! figures as ratios. Started by `cargo bench --bench chords`; the largest header is an argument
//! after `--`, with `--memory` for that of a joiner, and `--redis` for Celery's chords.

#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

mod celery;
mod memory;

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use celeriac::{App, Client, Config, Worker, chord, group, task};
use futures::{StreamExt, TryStreamExt, stream};
use xtask::TestVhost;

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
    let largest = arguments.iter().find_map(|it| it.parse().ok()).unwrap_or(10_000);
    let vhost = TestVhost::create("bench-chords")?;
    let config = Config::builder().broker_url([vhost.url().parse()?]).build();
    let worker = Worker::new(App::new(config.clone())).concurrency(200).start().await?;
    let client = Client::connect(config).await?;
    println!("{:<34} {:>10} {:>12}", "case", "seconds", "us per part");
    with_body(&client, 100).await?;
    let mut chords = Vec::new();
    for size in [100, 1000, 10_000, 100_000].into_iter().filter(|size| *size <= largest) {
        row("group", size, without_body(&client, size).await?);
        let took = with_body(&client, size).await?;
        row("chord", size, took);
        chords.push((size, took));
    }
    let started = Instant::now();
    let begun = stream::iter((0..SMALL).map(|_| client.apply(small())));
    let results: Vec<_> = begun.buffered(ABREAST).try_collect().await?;
    for result in results {
        ensure!(result.get(PATIENCE).await? == 10, "a list is not complete");
    }
    row("1,000 chords of 10", SMALL as i64 * 10, started.elapsed());
    latency(&client).await?;
    client.close().await;
    worker.handle().shutdown();
    worker.wait().await?;
    if asked("--memory") {
        memory::print(100_000).await?;
    }
    if asked("--redis") {
        compare(&chords)?;
    }
    Ok(())
}

/// Prints what Celery with Redis takes for the same chords.
fn compare(chords: &[(i64, Duration)]) -> Result<(), anyhow::Error> {
    let sizes: Vec<i64> = chords.iter().map(|(size, _)| *size).collect();
    for ((size, ours), theirs) in chords.iter().zip(celery::measure(&sizes)?) {
        if theirs.is_none() {
            println!("celery with redis, chord {size}: not done in {:?}", celery::LONGEST);
        }
        let at_least = theirs.unwrap_or(celery::LONGEST);
        row("celery with redis, chord", *size, at_least);
        println!("{:>34.1} times its parts/s", at_least.as_secs_f64() / ours.as_secs_f64());
    }
    Ok(())
}

fn small() -> celeriac::client::canvas::Chord<usize> {
    chord((0..10).map(part::s).collect::<Vec<_>>(), count::partial())
}

fn row(case: &str, size: i64, took: Duration) {
    let case = format!("{case} {size}");
    let (seconds, each) = (took.as_secs_f64(), took.as_secs_f64() * 1e6 / size as f64);
    println!("{case:<34} {seconds:>10.3} {each:>12.1}");
}

async fn without_body(client: &Client, size: i64) -> Result<Duration, anyhow::Error> {
    let started = Instant::now();
    let result = client.apply(group((0..size).map(part::s).collect::<Vec<_>>())).await?;
    let values = result.get(PATIENCE).await?;
    ensure!(values.len() == usize::try_from(size)?, "a result is missing");
    Ok(started.elapsed())
}

async fn with_body(client: &Client, size: i64) -> Result<Duration, anyhow::Error> {
    let started = Instant::now();
    let header = (0..size).map(part::s).collect::<Vec<_>>();
    let result = client.apply(chord(header, count::partial())).await?;
    let counted = result.get(PATIENCE).await.context("the body has no result")?;
    ensure!(counted == usize::try_from(size)?, "a list is not complete");
    Ok(started.elapsed())
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
    println!("last part to body, idle: p50 {p50} us, p99 {p99} us");
    Ok(())
}
