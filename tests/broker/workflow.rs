//! Chords by hand: from a tree to what is published, without the client's own way to it.

use std::time::Duration;

use celeriac::amqp::{Publish, Publisher, QueueSpec, Topology, topology};
use celeriac::protocol::canvas::{Call, Canvas, lower};
use celeriac::protocol::join::{Open, Record};
use celeriac::protocol::{self, CallOptions, Limits, Map, ResultMeta, Value, json};
use celeriac::{Config, Signature};
use serde_json::json as js;
use xtask::TestVhost;

use crate::bundle::{Bundle, PATIENCE, within};

/// The queue that a test's outcomes are reported to.
pub(crate) const CALLER: &str = "caller";

/// A call of a task.
pub(crate) fn call<V: Into<Value>>(task: &str, args: impl IntoIterator<Item = V>) -> Canvas {
    let args = args.into_iter().map(Into::into).collect();
    Canvas::Task(protocol::Signature { args, ..protocol::Signature::new(task) })
}

/// The body that tells the probe what it got.
pub(crate) fn total() -> Canvas {
    call::<Value>("tests.total", [])
}

/// `body` after calls that add `0 + 0`, `1 + 1`, …
pub(crate) fn sums(size: i64, body: Canvas) -> Canvas {
    Canvas::chord((0..size).map(|n| call("tests.add", [n, n])).collect(), body).unwrap()
}

/// What the body of [`sums`] gets.
pub(crate) fn doubles(size: i64) -> String {
    js!((0..size).map(|n| 2 * n).collect::<Vec<_>>()).to_string()
}

/// A workflow that was begun.
pub(crate) struct Begun {
    pub(crate) opens: Vec<Open>,
    /// Id of the last body.
    pub(crate) id: String,
}

/// One that joins quickly and remembers little, so that its tests need not wait.
pub(crate) fn brisk(config: &mut Config) {
    config.join_shards = 2;
    config.join_t_tomb = Duration::from_millis(300);
    config.join_orphan_grace = Duration::from_millis(300);
}

impl Bundle {
    /// A bundle whose settings are [`brisk`], and which listens for the caller.
    pub(crate) async fn joining(hint: &str) -> Self {
        Self::joining_with(hint, brisk).await
    }

    /// The same with other settings.
    pub(crate) async fn joining_with(hint: &str, change: impl FnOnce(&mut Config)) -> Self {
        Self::joining_on(TestVhost::create(hint).unwrap(), change).await
    }

    /// The same on a virtual host that is there.
    pub(crate) async fn joining_on(vhost: TestVhost, change: impl FnOnce(&mut Config)) -> Self {
        let bundle = Self::on(vhost, change).await;
        let queues = vec![QueueSpec::classic(CALLER)];
        let topology = Topology { queues, ..Topology::default() };
        within(bundle.client.connection().declare(&topology)).await.unwrap();
        bundle
    }

    /// Logs the joins of a workflow and sends its first calls.
    pub(crate) async fn begin(&self, canvas: Canvas) -> Begun {
        self.begin_as(canvas, |_| {}).await
    }

    /// The same as another call.
    pub(crate) async fn begin_as(&self, canvas: Canvas, change: impl FnOnce(&mut Call)) -> Begun {
        let mut call = Call::default();
        call.join.shards = self.client.config().join_shards;
        call.options.reply_to = Some(CALLER.to_owned());
        change(&mut call);
        let lowered = lower(canvas, call).unwrap();
        let opens = lowered.opens.iter().map(|open| Record::Open(Box::new(open.clone())));
        self.log(opens.zip(lowered.opens.iter().map(|open| &*open.route))).await;
        let calls = lowered.calls.into_iter().map(|call| {
            let options = CallOptions::from_map(call.options).unwrap();
            let signature = Signature::<Value>::new(call.task).args(call.args).kwargs(call.kwargs);
            signature.with_options(options)
        });
        for sent in within(self.client.send_all(calls)).await {
            sent.unwrap();
        }
        let id = lowered.result.id().to_owned();
        Begun { opens: lowered.opens, id }
    }

    /// Publishes records to their shards.
    pub(crate) async fn log<'a>(&self, records: impl Iterator<Item = (Record, &'a str)>) {
        let publisher = Publisher::new(self.client.connection());
        let publish = |(record, route): (Record, &str)| {
            Publish::new(topology::results_exchange(), route, record.encode().unwrap())
        };
        for logged in within(publisher.publish_all(records.map(publish).collect())).await {
            logged.unwrap();
        }
    }

    /// Records that parts of `open` have returned these values, as a worker would.
    pub(crate) async fn parts(&self, open: &Open, parts: impl IntoIterator<Item = (u32, i64)>) {
        let record = |(index, value): (u32, i64)| {
            Record::ok(&open.chord, index, "x", "t", &Value::Int(value)).unwrap()
        };
        self.log(parts.into_iter().map(|part| (record(part), &*open.route))).await;
    }

    /// Waits until the shards hold nothing but marks, and checks that nothing else is left.
    pub(crate) fn nothing_is_left(&self) {
        for shard in 0..self.client.config().join_shards {
            let queue = topology::join_queue(shard);
            let empty = || {
                let depth = self.vhost.queue_depth(&queue).ok()?;
                (depth.ready == 0 && depth.unacked <= 1).then_some(())
            };
            let what = format!("{queue} holds nothing but a mark");
            xtask::wait_until(&what, PATIENCE, empty).unwrap();
        }
        for queue in [topology::dead_queue(), "celeriac.dead", "celeriac.dead-letters.dead"] {
            let dead = self.vhost.queue_depth(queue).map_or(0, |depth| depth.ready);
            assert_eq!(dead, 0, "{queue}");
        }
    }

    /// Waits for so many reports and returns them in the order of their ids.
    pub(crate) fn reports(&self, count: usize) -> Vec<ResultMeta> {
        let all = || self.vhost.messages(CALLER).ok().filter(|all| all.len() >= count);
        let what = format!("{count} reports have come");
        let all = xtask::wait_until(&what, PATIENCE, all).unwrap();
        let read = |message: &xtask::FetchedMessage| {
            let properties = protocol::Properties {
                content_type: message.properties["content_type"].as_str().map(str::to_owned),
                headers: Some(Map::new()),
                ..protocol::Properties::default()
            };
            let message = protocol::Message { properties, body: message.payload.clone() };
            ResultMeta::decode(&message, &Limits::default()).unwrap()
        };
        let mut reports: Vec<_> = all.iter().map(read).collect();
        reports.sort_by(|one, other| one.task_id.cmp(&other.task_id));
        assert_eq!(reports.len(), count);
        reports
    }
}

/// A value as JSON, for comparing.
pub(crate) fn shown(value: &Value) -> String {
    let mut text = Vec::new();
    json::encode(value, &mut text).unwrap();
    let parsed: serde_json::Value = serde_json::from_slice(&text).unwrap();
    parsed.to_string()
}
