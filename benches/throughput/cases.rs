//! The cases, each of which runs in a process of its own and prints its figures as JSON.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use celeriac::{App, Client, Config, Signature, Worker, task};
use lapin::options::{BasicAckOptions, BasicGetOptions, QueueDeclareOptions, QueuePurgeOptions};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};
use tokio::sync::Notify;

use crate::bare;
use crate::measure::{Figures, Stopwatch};

/// The task queue: classic and durable, as the ceilings were measured.
pub(crate) const QUEUE: &str = "bench";
/// Where results go when nobody reads them.
pub(crate) const REPLIES: &str = "bench.replies";
/// The body of a plain message.
const PLAIN_BYTES: usize = 120;
/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(120);

/// How often each task ran.
static RUNS: OnceLock<Vec<AtomicU8>> = OnceLock::new();
static DONE: AtomicUsize = AtomicUsize::new(0);
static ALL_DONE: Notify = Notify::const_new();
/// Runs from the first task on: a worker's start is no part of its rate.
static WATCH: OnceLock<Stopwatch> = OnceLock::new();

#[task(name = "noop")]
async fn noop(index: usize) -> usize {
    if let Some(runs) = RUNS.get().and_then(|runs| runs.get(index)) {
        WATCH.get_or_init(Stopwatch::start);
        runs.fetch_add(1, Ordering::Relaxed);
    }
    let done = DONE.fetch_add(1, Ordering::Relaxed) + 1;
    if RUNS.get().is_some_and(|runs| runs.len() == done) {
        ALL_DONE.notify_one();
    }
    index
}

/// A message of celeriac's, for the bare loops.
#[derive(Clone)]
pub(crate) struct Sample {
    pub(crate) properties: BasicProperties,
    pub(crate) body: Vec<u8>,
}

impl Sample {
    /// A message without headers, as client libraries are measured with: what the machine takes
    /// for it tells its speed from that of others.
    fn plain() -> Self {
        let properties = BasicProperties::default().with_delivery_mode(2);
        Self { properties, body: vec![b'x'; PLAIN_BYTES] }
    }
}

/// Runs the case that the command line of this process names.
pub(crate) fn run_child(arguments: &[String]) -> Result<()> {
    let [who, case, url, count] = arguments else { bail!("--case WHO CASE URL COUNT") };
    let count = count.parse()?;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let figures = runtime.block_on(run(who, case, url, count))?;
    println!("{}", serde_json::to_string(&figures)?);
    Ok(())
}

async fn run(who: &str, case: &str, url: &str, count: usize) -> Result<Figures> {
    let channel = prepare(url).await?;
    let results = case == "drain-results";
    match (who, case) {
        ("bare", "enqueue") => {
            let sample = task_sample(url, &channel, false).await?;
            let figures = bare::enqueue(url, count, &sample).await?;
            expect_depth(&channel, QUEUE, count).await?;
            Ok(figures)
        }
        ("plain", "enqueue") => bare::enqueue(url, count, &Sample::plain()).await,
        ("plain", "drain" | "drain-results") => {
            let sample = Sample::plain();
            bare::enqueue(url, count, &sample).await?;
            let figures = bare::drain(url, count, results.then_some(&sample)).await?;
            expect_depth(&channel, QUEUE, 0).await?;
            Ok(figures)
        }
        ("celeriac", "enqueue") => enqueue(url, &channel, count).await,
        ("bare", "drain" | "drain-results") => {
            let sample = result_sample(url, &channel).await?;
            preload(url, count, results).await?;
            let figures = bare::drain(url, count, results.then_some(&sample)).await?;
            expect_depth(&channel, QUEUE, 0).await?;
            expect_depth(&channel, REPLIES, if results { count } else { 0 }).await?;
            Ok(figures)
        }
        ("celeriac" | "events", "drain" | "drain-results") => {
            let mut config = config(url)?;
            config.worker_send_task_events = who == "events";
            drain(config, url, &channel, count, results).await
        }
        ("bare", "latency") => {
            let sample = task_sample(url, &channel, true).await?;
            bare::latency(url, count, &sample).await
        }
        ("celeriac", "latency") => latency(url, count).await,
        _ => bail!("no case {who} {case}"),
    }
}

/// Declares both queues anew.
async fn prepare(url: &str) -> Result<Channel> {
    let connection = Connection::connect(url, ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    for queue in [QUEUE, REPLIES] {
        channel
            .queue_declare(queue.into(), QueueDeclareOptions::durable(), FieldTable::default())
            .await?;
        channel.queue_purge(queue.into(), QueuePurgeOptions::default()).await?;
    }
    Ok(channel)
}

fn config(url: &str) -> Result<Config> {
    let config = Config::builder().broker_url([url.parse()?]).task_default_queue(QUEUE);
    Ok(config.worker_concurrency(250).worker_prefetch_multiplier(4).build())
}

fn call(index: usize, results: bool) -> Signature<usize> {
    let call = noop::s(index).ignore_result(!results);
    if results { call.reply_to(REPLIES) } else { call }
}

async fn preload(url: &str, count: usize, results: bool) -> Result<()> {
    let client = Client::connect(config(url)?).await?;
    for start in (0..count).step_by(5_000) {
        let calls = (start..count.min(start + 5_000)).map(|index| call(index, results));
        for sent in client.send_all(calls).await {
            sent?;
        }
    }
    client.close().await;
    Ok(())
}

/// What celeriac sends for one call.
async fn task_sample(url: &str, channel: &Channel, results: bool) -> Result<Sample> {
    preload(url, 1, results).await?;
    take(channel, QUEUE).await
}

/// What celeriac answers to one call.
async fn result_sample(url: &str, channel: &Channel) -> Result<Sample> {
    preload(url, 1, true).await?;
    run_worker(config(url)?, 1).await?;
    take(channel, REPLIES).await
}

async fn take(channel: &Channel, queue: &str) -> Result<Sample> {
    let started = Instant::now();
    while started.elapsed() < PATIENCE {
        if let Some(got) = channel.basic_get(queue.into(), BasicGetOptions::default()).await? {
            got.delivery.ack(BasicAckOptions::default()).await?;
            return Ok(Sample {
                properties: got.delivery.properties.clone(),
                body: got.delivery.data.clone(),
            });
        }
    }
    bail!("no message in {queue}")
}

async fn enqueue(url: &str, channel: &Channel, count: usize) -> Result<Figures> {
    let client = Client::connect(config(url)?).await?;
    let watch = Stopwatch::start();
    for start in (0..count).step_by(5_000) {
        let calls = (start..count.min(start + 5_000)).map(|index| call(index, false));
        for sent in client.send_all(calls).await {
            sent?;
        }
    }
    let figures = watch.stop(count)?;
    expect_depth(channel, QUEUE, count).await?;
    Ok(figures)
}

async fn drain(
    config: Config,
    url: &str,
    channel: &Channel,
    count: usize,
    results: bool,
) -> Result<Figures> {
    preload(url, count, results).await?;
    let runs = RUNS.get_or_init(|| (0..count).map(|_| AtomicU8::new(0)).collect());
    run_worker(config, count).await?;
    let figures = WATCH.get().context("no task has run")?.stop(count)?;
    let odd = runs.iter().filter(|runs| runs.load(Ordering::Relaxed) != 1).count();
    ensure!(odd == 0, "{odd} of {count} tasks did not run exactly once");
    expect_depth(channel, QUEUE, 0).await?;
    expect_depth(channel, REPLIES, if results { count } else { 0 }).await?;
    Ok(figures)
}

/// Runs a worker until `count` tasks were run and settled.
async fn run_worker(config: Config, count: usize) -> Result<()> {
    let worker = Worker::new(App::new(config)).start().await?;
    let counted = RUNS.get().is_some();
    if counted {
        tokio::time::timeout(PATIENCE, ALL_DONE.notified()).await.context("tasks are missing")?;
    } else {
        let before = count;
        while DONE.load(Ordering::Relaxed) < before {
            tokio::task::yield_now().await;
        }
        DONE.store(0, Ordering::Relaxed);
    }
    worker.handle().shutdown();
    worker.wait().await?;
    Ok(())
}

async fn latency(url: &str, calls: usize) -> Result<Figures> {
    let worker = Worker::new(App::new(config(url)?)).start().await?;
    let client = Client::connect(config(url)?).await?;
    client.send(noop::s(0)).await?.get(PATIENCE).await?;
    let watch = Stopwatch::start();
    let mut latencies_us = Vec::with_capacity(calls);
    for index in 0..calls {
        let started = Instant::now();
        let value = client.send(noop::s(index)).await?.get(PATIENCE).await?;
        latencies_us.push(started.elapsed().as_secs_f64() * 1e6);
        ensure!(value == index, "the result of another task");
    }
    let mut figures = watch.stop(calls)?;
    latencies_us.sort_by(f64::total_cmp);
    figures.latencies_us = latencies_us;
    client.close().await;
    worker.handle().shutdown();
    worker.wait().await?;
    Ok(figures)
}

/// Waits until a queue holds so many messages; the count lags behind acks.
async fn expect_depth(channel: &Channel, queue: &str, expected: usize) -> Result<()> {
    let started = Instant::now();
    let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::durable() };
    loop {
        let state = channel.queue_declare(queue.into(), options, FieldTable::default()).await?;
        if state.message_count() as usize == expected {
            return Ok(());
        }
        ensure!(
            started.elapsed() < Duration::from_secs(10),
            "{queue} holds {} messages instead of {expected}",
            state.message_count()
        );
    }
}
