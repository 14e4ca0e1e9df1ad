//! Failover: client and worker know two URLs, and the broker behind the first one is gone.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use celeriac::amqp::{BrokerUrl, ConnectionState};
use celeriac::{AsyncResult, Client};
use tokio::sync::watch;
use tokio::task::{JoinHandle, block_in_place};
use xtask::{PrivateNode, Proxy, TestVhost};

use crate::bundle::{Bundle, PATIENCE, stop, within};
use crate::tasks::{hold, note};

/// Calls that are sent together.
const BATCH: usize = 25;

/// A producer that sends [`note`]s until it is told to stop.
struct Producer {
    over: Arc<AtomicBool>,
    sent: watch::Receiver<usize>,
    sending: JoinHandle<Vec<Option<AsyncResult<String>>>>,
}

impl Producer {
    fn start(client: Client) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let (progress, sent) = watch::channel(0);
        let last = Arc::clone(&over);
        let sending = tokio::spawn(async move {
            // Paced, so that what is sent during a fault can be run within the deadline.
            let mut pace = tokio::time::interval(Duration::from_millis(50));
            pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            let mut results = Vec::new();
            // One more batch after it was told to stop.
            loop {
                pace.tick().await;
                let (at, is_last) = (results.len(), last.load(Ordering::Relaxed));
                let calls = (at..at + BATCH).map(|number| note::s(label(number)));
                results.extend(client.send_all(calls).await.into_iter().map(Result::ok));
                progress.send_replace(results.len());
                if is_last {
                    return results;
                }
            }
        });
        Self { over, sent, sending }
    }

    /// Waits until so many more were sent.
    async fn goes_on(&mut self, more: usize) {
        let before = *self.sent.borrow_and_update();
        within(self.sent.wait_for(|sent| *sent >= before + more)).await.unwrap();
    }

    /// What was sent, by its number; `None` is what was not confirmed.
    async fn stop(self) -> Vec<Option<AsyncResult<String>>> {
        self.over.store(true, Ordering::Relaxed);
        within(self.sending).await.unwrap()
    }
}

fn label(number: usize) -> String {
    format!("sent {number}")
}

/// Waits until the client publishes to the broker of `url`.
async fn connected(client: &Client, url: &str) {
    let (mut states, wanted) = (client.connection().state(), url.parse::<BrokerUrl>().unwrap());
    let there =
        |state: &ConnectionState| state.is_connected() && client.connection().broker() == wanted;
    within(states.wait_for(there)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn work_goes_on_through_the_next_url_when_the_first_is_gone() {
    const HELD: usize = 200;
    let vhost = TestVhost::create("next-url").unwrap();
    let (first, first_url) = Proxy::for_url(vhost.url()).unwrap();
    let (second, second_url) = Proxy::for_url(vhost.url()).unwrap();
    let bundle = Bundle::on(vhost, |config| {
        config.broker_url = vec![first_url.parse().unwrap(), second_url.parse().unwrap()];
    })
    .await;
    let worker = bundle.worker_with(|worker| worker.concurrency(20)).await;
    let held = bundle.client.send_all((0..HELD).map(|n| hold::s(format!("held {n}")))).await;
    let mut producer = Producer::start(bundle.client.clone());
    bundle.probe.seen(20).await;
    producer.goes_on(4 * BATCH).await;
    assert_eq!(second.connections(), 0, "the first URL is the first choice");

    // As when its node is killed: connections are cut, and nobody listens there any more.
    block_in_place(|| drop(first));
    connected(&bundle.client, &second_url).await;
    producer.goes_on(4 * BATCH).await;
    bundle.probe.open(10_000);
    let sent = producer.stop().await;
    let all: Vec<_> = held.into_iter().map(Result::ok).chain(sent).collect();
    assert!(all.iter().all(Option::is_some), "what is not confirmed is sent again");
    for result in all.iter().flatten() {
        result.get(PATIENCE).await.unwrap();
    }
    assert!(second.connections() >= 2, "client and worker are there");
    stop(worker).await;
    bundle.settled();
    assert_eq!(bundle.probe.counts().0, all.len());
    bundle.client.close().await;
}

/// Two nodes that know nothing of each other: what the first one has confirmed stays there until
/// it is back, and everything that follows goes through the second one.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_whose_node_is_killed_declares_and_consumes_on_the_next_one() {
    let nodes = || (PrivateNode::start().unwrap(), PrivateNode::start().unwrap());
    let (mut first, second) = block_in_place(nodes);
    let doomed = first.vhost("first").unwrap();
    let bundle = Bundle::on(second.vhost("second").unwrap(), |config| {
        config.broker_url.insert(0, doomed.url().parse().unwrap());
        config.broker_connection_retry_delay_max = Duration::from_secs(1);
    })
    .await;
    let worker = bundle.worker_with(|worker| worker.concurrency(20)).await;
    let held = bundle.client.send_all((0..100).map(|n| hold::s(format!("held {n}")))).await;
    assert!(held.iter().all(Result::is_ok));
    let mut producer = Producer::start(bundle.client.clone());
    bundle.probe.seen(20).await;
    producer.goes_on(4 * BATCH).await;
    let of_second = |queue| block_in_place(|| bundle.vhost.queue(queue)).unwrap();
    assert!(of_second("celeriac").is_none(), "nobody has needed it");

    block_in_place(|| first.kill_9()).unwrap();
    connected(&bundle.client, bundle.vhost.url()).await;
    producer.goes_on(4 * BATCH).await;
    bundle.probe.open(10_000);
    let call = note::delay(&bundle.client, "after".to_owned()).await.unwrap();
    assert_eq!(call.get(PATIENCE).await.unwrap(), "after");
    for queue in ["celeriac", "celeriac.dead", "celeriac.dead-letters"] {
        assert!(of_second(queue).is_some(), "{queue} is declared");
    }
    let sent = producer.stop().await;

    block_in_place(|| first.start_again()).unwrap();
    let mut config = bundle.client.config().clone();
    config.broker_url = vec![doomed.url().parse().unwrap()];
    let back =
        Bundle { probe: bundle.probe.clone(), ..Bundle::on(doomed, |it| *it = config).await };
    let other = back.worker_with(|worker| worker.hostname("other@host")).await;
    let confirmed = sent.iter().enumerate().filter(|(_, sent)| sent.is_some());
    let mut labels: Vec<String> = confirmed.map(|(number, _)| label(number)).collect();
    labels.extend((0..100).map(|number| format!("held {number}")));
    bundle.probe.seen_all(&labels).await;
    stop(worker).await;
    stop(other).await;
    bundle.settled();
    back.settled();
    back.client.close().await;
    bundle.client.close().await;
}
