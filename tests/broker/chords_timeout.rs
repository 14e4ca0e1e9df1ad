//! Brokers that close channels over late acks: joiners ack in time, or learn to.

use std::time::Duration;

use celeriac::Config;
use celeriac::amqp::topology;
use celeriac::protocol::Value;
use celeriac::protocol::canvas::Canvas;
use celeriac::protocol::join::ChordState;
use celeriac::worker::RunningWorker;
use serde_json::json;
use xtask::{NodeOptions, PrivateNode};

use crate::bundle::{Bundle, PATIENCE, stop, within};
use crate::workflow::{Begun, CALLER, brisk, call, total};

/// How late an ack may be.
const TIMEOUT: Duration = Duration::from_secs(15);

/// A chord that is open for as long as a test wants.
struct Held {
    // Before the node, which ends its connections.
    bundle: Bundle,
    node: PrivateNode,
    worker: RunningWorker,
    begun: Begun,
}

impl Held {
    /// Opens a chord on a broker that closes channels over late acks; one of its two parts is sent
    /// where nobody runs it.
    async fn new(hint: &str, refresh: Option<Duration>) -> Self {
        let config = vec![format!("consumer_timeout = {}", TIMEOUT.as_millis())];
        let options = NodeOptions { config, ..NodeOptions::default() };
        let node = PrivateNode::start_with(&options).unwrap();
        let tick = "application:set_env(rabbit, channel_tick_interval, 500).";
        node.rabbitmqctl(&["eval", tick]).unwrap();
        let change = |config: &mut Config| {
            brisk(config);
            config.join_shards = 1;
            config.join_t_refresh = refresh.unwrap_or(config.join_t_refresh);
        };
        let bundle = Bundle::joining_on(node.vhost(hint).unwrap(), change).await;
        let elsewhere = ["queues", bundle.vhost.name(), "elsewhere"];
        bundle.vhost.management().put(&elsewhere, &json!({"durable": true})).unwrap();
        let worker = bundle.worker().await;
        let Canvas::Task(mut held) = call("tests.add", [0, 0]) else { panic!("it is a task") };
        held.options.insert("queue", Value::from("elsewhere"));
        let header = vec![call("tests.add", [1, 1]), Canvas::Task(held)];
        let begun = bundle.begin(Canvas::chord(header, total()).unwrap()).await;
        Self { bundle, node, worker, begun }
    }

    /// The broker's process for the channel of the joiner, once there is one that is not `old`.
    fn channel(&self, old: Option<&str>) -> String {
        let (vhost, queue) = (self.bundle.vhost.name(), topology::join_queue(0));
        let code = format!(
            "{{ok, Q}} = rabbit_amqqueue:lookup(rabbit_misc:r(<<\"{vhost}\">>, queue, \
             <<\"{queue}\">>)), [pid_to_list(element(1, C)) || C <- rabbit_amqqueue:consumers(Q)]."
        );
        let channel = || {
            let all = self.node.rabbitmqctl(&["eval", &code]).ok()?;
            let found = all.trim().trim_matches(['[', ']']).to_owned();
            (!found.is_empty() && Some(&*found) != old).then_some(found)
        };
        xtask::wait_until("a joiner has a channel", PATIENCE, channel).unwrap()
    }

    /// Waits until the chord is so many timeouts older, as its joiner says.
    async fn ages(&self, timeouts: u32) {
        let mut pace = tokio::time::interval(Duration::from_secs(1));
        let id = &*self.begun.opens[0].chord;
        let mut age = async || {
            pace.tick().await;
            let inspection = self.bundle.client.inspect_chord(id, PATIENCE).await.unwrap();
            assert_eq!(inspection.state, ChordState::Collecting, "{inspection:?}");
            Duration::from_millis(inspection.age_ms)
        };
        let begin = within(age()).await;
        within(async { while age().await < begin + TIMEOUT * timeouts {} }).await;
    }

    /// The last part ends, and the body is called once.
    async fn ends(self) {
        // The first is the last to go.
        let Self { node: _node, bundle, worker, begun } = self;
        bundle.parts(&begun.opens[0], [(1, 7)]).await;
        bundle.probe.seen(1).await;
        bundle.nothing_is_left();
        assert_eq!(bundle.probe.drain(), [format!("{} [2,7]", begun.id)]);
        stop(worker).await;
        assert_eq!(bundle.vhost.messages(CALLER).unwrap().len(), 1);
        bundle.client.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chord_may_be_open_for_longer_than_the_broker_waits_for_acks() {
    let held = Held::new("timeout-known", Some(TIMEOUT / 5)).await;
    let channel = held.channel(None);
    held.ages(2).await;
    assert_eq!(held.channel(None), channel, "it was never closed");
    held.ends().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_joiner_learns_how_long_the_broker_waits_for_acks() {
    let held = Held::new("timeout-learnt", None).await;
    let first = held.channel(None);
    let channel = held.channel(Some(&first));
    held.ages(2).await;
    assert_eq!(held.channel(None), channel, "it is closed once");
    held.ends().await;
}
