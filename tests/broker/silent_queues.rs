//! Queues that neither take nor refuse what is published to them, as one without its majority does.

use std::time::Duration;

use celeriac::protocol::join::ChordState;
use celeriac::protocol::{TaskState, Value};
use celeriac::worker::Stopped;
use celeriac::{Config, Signature};
use serde_json::json;
use xtask::{PrivateNode, QueueDepth};

use crate::bundle::{Bundle, PATIENCE, stop, within};
use crate::revoke::doomed;
use crate::tasks::add;

/// More than there are bursts whose confirms may be under way.
const BURSTS: usize = 10;

/// A virtual host on a node of its own, one queue of which can be made silent.
struct Silencer {
    // Before the node, which ends its connections.
    bundle: Bundle,
    node: PrivateNode,
}

impl Silencer {
    async fn new(hint: &str) -> Self {
        Self::with(hint, |_| {}).await
    }

    async fn with(hint: &str, change: impl FnOnce(&mut Config)) -> Self {
        let node = PrivateNode::start().unwrap();
        let bundle = Bundle::on(node.vhost(hint).unwrap(), change).await;
        Self { bundle, node }
    }

    /// The queue confirms nothing from now on.
    fn silence(&self, queue: &str) {
        self.tell(queue, "suspend");
    }

    /// The queue confirms what it got meanwhile.
    fn end_silence(&self, queue: &str) {
        self.tell(queue, "resume");
    }

    fn tell(&self, queue: &str, what: &str) {
        let vhost = self.bundle.vhost.name();
        let code = format!(
            "{{ok, Q}} = rabbit_amqqueue:lookup(rabbit_misc:r(<<\"{vhost}\">>, queue, \
             <<\"{queue}\">>)), ok = sys:{what}(amqqueue:get_pid(Q))."
        );
        self.node.rabbitmqctl(&["eval", &code]).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_confirms_nothing_holds_up_only_who_needs_it() {
    let silencer = Silencer::new("silent").await;
    let bundle = &silencer.bundle;
    let path = ["queues", bundle.vhost.name(), "silent"];
    let queue = json!({"durable": true, "arguments": {"x-queue-type": "quorum"}});
    bundle.vhost.management().put(&path, &queue).unwrap();
    let worker = bundle.worker().await;
    for at in 0..=BURSTS {
        if at == 1 {
            // Only now: a broker's channel waits for the first answer of a queue.
            silencer.silence("silent");
        }
        let steps = add::s(1, 1) | add::partial(1).queue("silent");
        let last = bundle.client.apply(steps).await.unwrap();
        let first = last.parent().unwrap();
        // Its report was published together with the next step.
        first.get(PATIENCE).await.unwrap();
    }
    let other = add::delay(&bundle.client, 2, 2).await.unwrap();
    assert_eq!(other.get(PATIENCE).await.unwrap(), 4);
    bundle.wait_for_depth(0, BURSTS as u64);
    silencer.end_silence("silent");
    bundle.settled();
    let all = QueueDepth { ready: BURSTS as u64 + 1, unacked: 0 };
    bundle.vhost.wait_for_depth("silent", all, PATIENCE).unwrap();
    stop(worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_comes_again_while_it_is_handed_on_is_not_handed_on_twice() {
    // An hour waits there first.
    const LEVEL: &str = "celery_delayed_11";
    let silencer = Silencer::new("silent-delay").await;
    let bundle = &silencer.bundle;
    let worker = bundle.worker().await;
    let there = || bundle.vhost.queue(LEVEL).ok()?;
    bundle.vhost.wait_until("the delay queues are there", there).unwrap();
    let eta = (jiff::Timestamp::now() + Duration::from_secs(3700)).to_string();
    let publish = |id: &str| {
        let headers = json!({"lang": "py", "task": "tests.now", "id": id, "eta": eta});
        let properties = json!({
            "content_type": "application/json", "headers": headers, "delivery_mode": 2,
        });
        assert!(bundle.vhost.publish("", "celeriac", &properties, b"[[], {}, {}]").unwrap());
    };
    let wait_for = |ready| {
        bundle.vhost.wait_for_depth(LEVEL, QueueDepth { ready, unacked: 0 }, PATIENCE).unwrap();
    };
    publish("first");
    wait_for(1);
    silencer.silence(LEVEL);
    publish("second");
    // What comes after it was settled, so that it is on its way.
    let pass = async || {
        let other = add::delay(&bundle.client, 2, 2).await.unwrap();
        assert_eq!(other.get(PATIENCE).await.unwrap(), 4);
    };
    pass().await;
    bundle.cut_and_wait("consume");
    pass().await;
    silencer.end_silence(LEVEL);
    bundle.settled();
    wait_for(2);
    assert_eq!(bundle.vhost.messages(LEVEL).unwrap().len(), 2);
    stop(worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_is_acked_when_its_retry_is_confirmed_and_not_before() {
    // An hour waits there first.
    const LEVEL: &str = "celery_delayed_11";
    let silencer = Silencer::new("silent-retry").await;
    let bundle = &silencer.bundle;
    let worker = bundle.worker().await;
    let asks = async || {
        let call = Signature::<Value>::new("tests.asks_again").arg(3_700_000).arg("far");
        let called = bundle.client.send(call).await.unwrap();
        // Its report is published together with the retry.
        let mut updates = called.updates();
        assert_eq!(within(updates.next()).await.unwrap().status, TaskState::Retry);
    };
    let wait_for = |ready| {
        bundle.vhost.wait_for_depth(LEVEL, QueueDepth { ready, unacked: 0 }, PATIENCE).unwrap();
    };
    // A broker's channel waits for the first answer of a queue.
    asks().await;
    wait_for(1);
    silencer.silence(LEVEL);
    asks().await;
    // What comes after it is settled meanwhile.
    let other = add::delay(&bundle.client, 2, 2).await.unwrap();
    assert_eq!(other.get(PATIENCE).await.unwrap(), 4);
    bundle.wait_for_depth(0, 1);
    worker.handle().terminate();
    assert_eq!(within(worker.wait()).await.unwrap(), Stopped::Cold);
    bundle.wait_for_depth(1, 0);
    silencer.end_silence(LEVEL);
    // It is asked for again by whoever runs the call again.
    let next = bundle.worker_with(|worker| worker.hostname("next@host")).await;
    bundle.settled();
    // What was not confirmed may be there or not.
    let retries = || bundle.vhost.messages(LEVEL).ok().filter(|all| all.len() >= 2);
    bundle.vhost.wait_until("no retry is lost", retries).unwrap();
    stop(next).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_confirms_nothing_keeps_no_chord_open() {
    const STREAM: &str = "celeriac.revoked.rest";
    // One channel for all chords, which has had its first answer.
    let silencer = Silencer::with("silent-stream", |config| config.join_shards = 1).await;
    let bundle = &silencer.bundle;
    let worker = bundle.worker().await;
    let fails = async || {
        let result = bundle.client.apply(doomed(&["runs"])).await.unwrap();
        result.get(PATIENCE).await.unwrap_err();
        bundle.probe.open(1);
        let id = result.parent().unwrap().id().to_owned();
        let finished = async {
            let inspect = async || bundle.client.inspect_chord(&id, PATIENCE).await.unwrap();
            let is_over = |state| matches!(state, ChordState::Finished | ChordState::Unknown);
            while !is_over(inspect().await.state) {}
        };
        within(finished).await;
    };
    fails().await;
    silencer.silence(STREAM);
    fails().await;
    silencer.end_silence(STREAM);
    stop(worker).await;
}
