//! The bare lapin loops that celeriac is held against: nothing but the client library, tuned.
//!
//! They move the very messages that celeriac sends (properties, headers and body are copied from
//! one of them), so that the difference is celeriac's own work and not the size of a message.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use futures::StreamExt;
use futures::future::join_all;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionProperties};
use tokio::sync::mpsc;

use crate::cases::{QUEUE, REPLIES, Sample};
use crate::measure::{Figures, Stopwatch};

/// Messages that are handed to lapin together.
const BURST: usize = 256;
/// Unacked messages.
const PREFETCH: u16 = 1_000;

async fn connect(url: &str) -> Result<Connection> {
    Ok(Connection::connect(url, ConnectionProperties::default()).await?)
}

async fn confirming(connection: &Connection) -> Result<Channel> {
    let channel = connection.create_channel().await?;
    channel.confirm_select(Default::default()).await?;
    Ok(channel)
}

/// Publishes a burst and returns its confirms.
async fn publish(
    channel: &Channel,
    queue: &str,
    count: usize,
    properties: &BasicProperties,
    body: &[u8],
) -> Result<Vec<lapin::PublisherConfirm>> {
    let options = BasicPublishOptions { mandatory: true, ..Default::default() };
    let publishes = (0..count)
        .map(|_| channel.basic_publish("".into(), queue.into(), options, body, properties.clone()));
    Ok(join_all(publishes).await.into_iter().collect::<Result<_, _>>()?)
}

async fn confirmed(confirms: Vec<lapin::PublisherConfirm>) -> Result<()> {
    for confirm in confirms {
        ensure!(matches!(confirm.await?, Confirmation::Ack(None)), "a message was not taken");
    }
    Ok(())
}

/// Publishes in bursts, with the confirms awaited by a task of their own.
pub(crate) async fn enqueue(url: &str, count: usize, sample: &Sample) -> Result<Figures> {
    let connection = connect(url).await?;
    let channel = confirming(&connection).await?;
    let watch = Stopwatch::start();
    let (sender, mut receiver) = mpsc::channel::<Vec<lapin::PublisherConfirm>>(16);
    let awaiting = tokio::spawn(async move {
        while let Some(burst) = receiver.recv().await {
            confirmed(burst).await?;
        }
        Ok::<_, anyhow::Error>(())
    });
    let mut left = count;
    while left > 0 {
        let burst = left.min(BURST);
        let confirms = publish(&channel, QUEUE, burst, &sample.properties, &sample.body).await?;
        sender.send(confirms).await.context("confirms ended early")?;
        left -= burst;
    }
    drop(sender);
    awaiting.await??;
    watch.stop(count)
}

/// Consumes and acks in bursts; with `results`, publishes one for each message first.
pub(crate) async fn drain(url: &str, count: usize, results: Option<&Sample>) -> Result<Figures> {
    let connection = connect(url).await?;
    let channel = connection.create_channel().await?;
    let publishing = confirming(&connection).await?;
    channel.basic_qos(PREFETCH, BasicQosOptions::default()).await?;
    let consumer = channel
        .basic_consume(
            QUEUE.into(),
            "bare".into(),
            BasicConsumeOptions::default(),
            FieldTable::default(),
        )
        .await?;
    let mut bursts = consumer.ready_chunks(BURST);
    let (sender, mut receiver) =
        mpsc::channel::<(Vec<lapin::PublisherConfirm>, lapin::message::Delivery)>(16);
    let acking = tokio::spawn(async move {
        while let Some((confirms, last)) = receiver.recv().await {
            confirmed(confirms).await?;
            last.ack(BasicAckOptions { multiple: true }).await?;
        }
        Ok::<_, anyhow::Error>(())
    });
    let mut seen = 0;
    let watch = Stopwatch::start();
    while seen < count {
        let burst = bursts.next().await.context("the consumer ended")?;
        let burst = burst.into_iter().collect::<Result<Vec<_>, _>>()?;
        seen += burst.len();
        let confirms = match results {
            Some(sample) => {
                publish(&publishing, REPLIES, burst.len(), &sample.properties, &sample.body).await?
            }
            None => Vec::new(),
        };
        let last = burst.into_iter().last().context("an empty burst")?;
        sender.send((confirms, last)).await.context("acks ended early")?;
    }
    drop(sender);
    acking.await??;
    connection.close(200, "done".into()).await?;
    watch.stop(count)
}

/// Sends a message, answers it from another connection, one at a time.
pub(crate) async fn latency(url: &str, calls: usize, sample: &Sample) -> Result<Figures> {
    let (caller, worker) = (connect(url).await?, connect(url).await?);
    let answering = tokio::spawn(answer(worker, calls, sample.clone()));
    let channel = confirming(&caller).await?;
    let mut replies = channel
        .basic_consume(
            REPLIES.into(),
            "bare".into(),
            BasicConsumeOptions::default(),
            FieldTable::default(),
        )
        .await?;
    let watch = Stopwatch::start();
    let mut latencies_us = Vec::with_capacity(calls);
    for _ in 0..calls {
        let started = Instant::now();
        confirmed(publish(&channel, QUEUE, 1, &sample.properties, &sample.body).await?).await?;
        let reply = replies.next().await.context("no reply")??;
        latencies_us.push(started.elapsed().as_secs_f64() * 1e6);
        reply.ack(BasicAckOptions::default()).await?;
    }
    let mut figures = watch.stop(calls)?;
    answering.await??;
    latencies_us.sort_by(f64::total_cmp);
    figures.latencies_us = latencies_us;
    Ok(figures)
}

async fn answer(connection: Connection, calls: usize, sample: Sample) -> Result<()> {
    let channel = confirming(&connection).await?;
    let mut deliveries = channel
        .basic_consume(
            QUEUE.into(),
            "bare".into(),
            BasicConsumeOptions::default(),
            FieldTable::default(),
        )
        .await?;
    for _ in 0..calls {
        let delivery = deliveries.next().await.context("the consumer ended")??;
        confirmed(publish(&channel, REPLIES, 1, &sample.properties, &sample.body).await?).await?;
        delivery.ack(BasicAckOptions::default()).await?;
    }
    Ok(())
}
