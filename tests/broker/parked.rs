//! Chords whose large results are parked: the body gets all of them, and nothing stays behind.

use std::time::Duration;

use celeriac::amqp::{
    Consumer, ConsumerOptions, Publish, Publisher, QueueKind, QueueSpec, Topology, topology,
};
use celeriac::client::canvas::Workflow;
use celeriac::protocol::{Bytes, CallOptions, Map, Message, Value};
use celeriac::worker::RunningWorker;
use celeriac::{Config, Context, State, TaskError, chord, task};

use crate::bundle::{Bundle, PATIENCE, stop, within};
use crate::probe::Probe;
use crate::tasks::{add, note, sum};
use crate::workflow::brisk;

/// Its number, and as many bytes.
#[task(name = "tests.weight")]
async fn weight(number: u8, len: usize, probe: State<Probe>) -> Bytes {
    probe.record(format!("part {number}"));
    Bytes(vec![number; len])
}

/// So many bytes, when the gate is open.
#[task(name = "tests.late_weight")]
async fn late_weight(len: usize, probe: State<Probe>) -> Bytes {
    probe.pass().await;
    Bytes(vec![7; len])
}

/// Fails with nothing to weigh.
#[task(name = "tests.weightless")]
async fn weightless(_len: usize) -> Result<Bytes, TaskError> {
    Err(TaskError::permanent("nothing to weigh"))
}

/// The number and the length of each.
fn weighed(values: &[Bytes]) -> Vec<(u8, usize)> {
    values.iter().map(|it| (it.0.first().copied().unwrap_or_default(), it.0.len())).collect()
}

#[task(name = "tests.weigh")]
async fn weigh(values: Vec<Bytes>, probe: State<Probe>) -> Vec<(u8, usize)> {
    probe.record("body");
    weighed(&values)
}

/// Waits at the gate.
#[task(name = "tests.weigh_slowly")]
async fn weigh_slowly(values: Vec<Bytes>, probe: State<Probe>) -> Vec<(u8, usize)> {
    probe.record("body");
    probe.pass().await;
    weighed(&values)
}

/// Weighs at the second try only.
#[task(name = "tests.weigh_again")]
async fn weigh_again(cx: Context, values: Vec<Bytes>) -> Result<Vec<(u8, usize)>, TaskError> {
    match cx.retries() {
        0 => Err(cx.retry().countdown(Duration::ZERO).into()),
        _ => Ok(weighed(&values)),
    }
}

/// The entries of a collected list, as text.
#[task(name = "tests.entries")]
async fn entries(values: Value) -> Vec<String> {
    let shown = |value: &Value| {
        let map = value.as_map()?;
        Some(match map.get("ok")? {
            Value::Bytes(bytes) => format!("ok {}", bytes.len()),
            other => format!("ok {other:?}"),
        })
    };
    let values = values.as_array().unwrap_or_default();
    values.iter().map(|it| shown(it).unwrap_or_else(|| "err".to_owned())).collect()
}

/// Above this many bytes results are parked.
const ABOVE: u32 = 1000;

fn settings(config: &mut Config) {
    brisk(config);
    // Less than what is parked, and more than its references.
    config.join_max_body = 30_000;
}

async fn bundle(hint: &str) -> Bundle {
    let bundle = Bundle::with(hint, settings).await;
    let queues = vec![QueueSpec::quorum("later")];
    let topology = Topology { queues, ..Topology::default() };
    within(bundle.client.connection().declare(&topology)).await.unwrap();
    bundle
}

/// What a body gets of so many parts with so many bytes each.
fn expected(count: u8, len: usize) -> Vec<(u8, usize)> {
    (0..count).map(|number| (number, len)).collect()
}

impl Bundle {
    fn parks(&self) -> Vec<String> {
        let mut queues = self.vhost.queues().unwrap();
        queues.retain(|queue| queue.starts_with(&topology::park_queue("")));
        queues
    }

    fn wait_for_parks(&self, count: usize) -> Vec<String> {
        let probe = || Some(self.parks()).filter(|parks| parks.len() == count);
        self.vhost.wait_until("the parked results are as many", probe).unwrap()
    }

    /// A worker that takes what was sent for later.
    async fn later_worker(&self) -> RunningWorker {
        self.worker_with(|worker| worker.queues(["celeriac", "later"])).await
    }

    /// Takes one message out of a queue.
    async fn take(&self, queue: &str) -> Message {
        let options = ConsumerOptions::new([QueueSpec::existing(queue)]);
        let started = Consumer::start(self.client.connection(), options).await;
        let (mut deliveries, handle) = started.unwrap();
        let mut taken = Vec::new();
        assert!(within(deliveries.next_burst(&mut taken)).await);
        let delivery = taken.pop().unwrap();
        delivery.token.ack();
        handle.close().await;
        delivery.message
    }

    async fn put(&self, queue: &str, message: Message) {
        let publisher = Publisher::new(self.client.connection());
        publisher.publish(Publish::new("", queue, message)).await.unwrap();
    }

    /// Waits until a body is there for later.
    fn wait_for_body(&self) {
        let depth = xtask::QueueDepth { ready: 1, unacked: 0 };
        self.vhost.wait_for_depth("later", depth, PATIENCE).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn more_results_than_a_message_can_hold_reach_the_body_in_their_order() {
    let bundle = bundle("parked-large").await;
    let worker = bundle.worker().await;
    let parts = (0..200).map(|number| weight::s(number, 200 << 10)).collect::<Vec<_>>();
    let workflow = chord(parts, weigh::partial()).park_above(ABOVE);
    let result = bundle.client.apply(workflow).await.unwrap();
    assert_eq!(result.get(PATIENCE).await.unwrap(), expected(200, 200 << 10));
    bundle.wait_for_parks(0);
    bundle.nothing_is_left();
    stop(worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn parked_results_may_wait_in_a_classic_queue() {
    let change = |config: &mut Config| {
        settings(config);
        config.join_queue_type = QueueKind::Classic;
    };
    let bundle = Bundle::with("parked-classic", change).await;
    let worker = bundle.worker().await;
    let parts = (0..20).map(|number| weight::s(number, 50_000)).collect::<Vec<_>>();
    // The list is read twice.
    let workflow = chord(parts, weigh_again::partial()).park_above(ABOVE);
    let result = bundle.client.apply(workflow).await.unwrap();
    assert_eq!(result.get(PATIENCE).await.unwrap(), expected(20, 50_000));
    bundle.wait_for_parks(0);
    bundle.nothing_is_left();
    stop(worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn small_results_large_ones_and_errors_stand_side_by_side() {
    let bundle = bundle("parked-mixed").await;
    let worker = bundle.worker().await;
    let parts = vec![weight::s(1, 5), weight::s(2, 5000), weight::s(3, 6)];
    let workflow = chord(parts, weigh::partial()).park_above(ABOVE);
    let result = bundle.client.apply(workflow).await.unwrap();
    assert_eq!(result.get(PATIENCE).await.unwrap(), [(1, 5), (2, 5000), (3, 6)]);
    let parts = [
        Workflow::task("tests.weight", [1.into(), 5000.into()]),
        Workflow::task("tests.weightless", [1.into()]),
    ];
    let wide = Workflow::chord(parts, Workflow::task("tests.entries", []));
    let join = Map::from_iter([("mode", Value::from("collect")), ("park_above", ABOVE.into())]);
    let extra = Map::from_iter([("join", join)]);
    let wide = wide.set(CallOptions { extra, ..CallOptions::default() });
    let result = bundle.client.apply(wide).await.unwrap();
    let entries = Value::Array(vec!["ok 5000".into(), "err".into()]);
    assert_eq!(result.get(PATIENCE).await.unwrap(), entries);
    bundle.wait_for_parks(0);
    bundle.nothing_is_left();
    stop(worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chord_that_parks_nothing_or_fails_leaves_no_queue() {
    let bundle = bundle("parked-none").await;
    let worker = bundle.worker().await;
    let small = chord([add::s(1, 2), add::s(3, 4)], sum::partial()).park_above(ABOVE);
    let result = bundle.client.apply(small).await.unwrap();
    assert_eq!(result.get(PATIENCE).await.unwrap(), 10);
    let failing = chord([weight::s(1, 5000), weightless::s(1)], weigh::partial());
    let result = bundle.client.apply(failing.park_above(ABOVE)).await.unwrap();
    let failed = result.get(PATIENCE).await.unwrap_err().to_string();
    assert!(failed.contains("nothing to weigh"), "{failed}");
    bundle.wait_for_parks(0);
    bundle.nothing_is_left();
    stop(worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn chords_that_workers_and_joiners_begin_park_their_results_too() {
    let bundle = bundle("parked-inside").await;
    let worker = bundle.worker().await;
    let parking = || {
        let part = |number: i64| {
            Workflow::task("tests.weight", [number.into(), 5000.into()]).immutable(true)
        };
        let join = Map::from_iter([("park_above", ABOVE)]);
        let extra = Map::from_iter([("join", join)]);
        let options = CallOptions { extra, ..CallOptions::default() };
        Workflow::chord([part(1), part(2)], Workflow::task("tests.weigh", [])).set(options)
    };
    let add = || Workflow::task("tests.add", [1.into(), 2.into()]);
    let behind_a_task = add() | parking();
    let behind_a_chord = Workflow::chord([add(), add()], parking());
    let of_chords = Workflow::chord([parking(), parking()], Workflow::task("tests.echo", []));
    let weighed = |number: i64| Value::Array(vec![number.into(), 5000.into()]);
    let both = Value::Array(vec![weighed(1), weighed(2)]);
    let rows = [
        (behind_a_task, both.clone()),
        (behind_a_chord, both.clone()),
        (of_chords, Value::Array(vec![both.clone(), both])),
    ];
    for (workflow, expected) in rows {
        let result = bundle.client.apply(workflow).await.unwrap();
        assert_eq!(result.get(PATIENCE).await.unwrap(), expected);
    }
    bundle.wait_for_parks(0);
    bundle.nothing_is_left();
    stop(worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_that_ends_after_its_chord_leaves_nothing() {
    let bundle = bundle("parked-late").await;
    let worker = bundle.worker().await;
    let failing = chord([late_weight::s(5000), weightless::s(1)], weigh::partial());
    let result = bundle.client.apply(failing.park_above(ABOVE)).await.unwrap();
    assert!(result.get(PATIENCE).await.is_err());
    bundle.wait_for_parks(0);
    bundle.probe.open(1);
    bundle.settled();
    assert_eq!(bundle.parks(), [""; 0]);
    bundle.nothing_is_left();
    stop(worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_was_revoked_lets_its_results_go() {
    let bundle = bundle("parked-revoked").await;
    let worker = bundle.worker().await;
    let body = weigh::partial().queue("later");
    let workflow = chord([weight::s(1, 5000), weight::s(2, 5000)], body).park_above(ABOVE);
    let result = bundle.client.apply(workflow).await.unwrap();
    bundle.wait_for_body();
    within(result.revoke(false)).await.unwrap();
    let later = bundle.later_worker().await;
    let revoked = result.get(PATIENCE).await.unwrap_err().to_string();
    assert!(revoked.contains("revoked"), "{revoked}");
    bundle.wait_for_parks(0);
    stop(later).await;
    stop(worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_runs_again_gets_the_same_list() {
    let bundle = bundle("parked-again").await;
    let first = bundle.worker().await;
    let parts = (0..9).map(|number| weight::s(number, 5000)).collect::<Vec<_>>();
    let retried = chord(parts.clone(), weigh_again::partial()).park_above(ABOVE);
    let result = bundle.client.apply(retried).await.unwrap();
    assert_eq!(result.get(PATIENCE).await.unwrap(), expected(9, 5000));
    // The worker dies while the body runs.
    let slow = chord(parts, weigh_slowly::partial()).park_above(ABOVE);
    let result = bundle.client.apply(slow).await.unwrap();
    bundle.probe.seen_all(&["body".to_owned()]).await;
    bundle.probe.drain();
    first.handle().terminate();
    within(first.wait()).await.unwrap();
    let second = bundle.worker().await;
    bundle.probe.seen_all(&["body".to_owned()]).await;
    bundle.probe.open(9);
    assert_eq!(result.get(PATIENCE).await.unwrap(), expected(9, 5000));
    bundle.wait_for_parks(0);
    bundle.nothing_is_left();
    stop(second).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_that_die_on_the_way_lose_and_repeat_nothing_that_the_body_sees() {
    let bundle = bundle("parked-kills").await;
    let parts = (0..60).map(|number| weight::s(number, 50_000)).collect::<Vec<_>>();
    let workflow = chord(parts, weigh::partial()).park_above(ABOVE);
    let result = bundle.client.apply(workflow).await.unwrap();
    for round in 1..4 {
        let doomed = bundle.narrow_worker().await;
        bundle.probe.seen(15 * round).await;
        doomed.handle().terminate();
        within(doomed.wait()).await.unwrap();
    }
    let worker = bundle.worker().await;
    assert_eq!(result.get(PATIENCE).await.unwrap(), expected(60, 50_000));
    bundle.wait_for_parks(0);
    bundle.nothing_is_left();
    stop(worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_whose_parked_results_are_gone_fails_for_its_caller() {
    let bundle = bundle("parked-lost").await;
    let worker = bundle.worker().await;
    let body = weigh::partial().queue("later").link_error(note::si("told".to_owned()));
    let workflow = chord([weight::s(1, 5000), weight::s(2, 5000)], body).park_above(ABOVE);
    let result = bundle.client.apply(workflow).await.unwrap();
    bundle.wait_for_body();
    let parks = bundle.wait_for_parks(1);
    let (management, vhost) = (bundle.vhost.management(), bundle.vhost.name());
    management.delete(&["queues", vhost, &parks[0]]).unwrap();
    let later = bundle.later_worker().await;
    let failed = result.get(PATIENCE).await.unwrap_err().to_string();
    assert!(failed.contains("ResultsLost"), "{failed}");
    bundle.probe.seen_all(&["told".to_owned()]).await;
    stop(later).await;
    stop(worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_was_sent_twice_runs_once() {
    let bundle = bundle("parked-twice").await;
    let worker = bundle.worker().await;
    let body = weigh::partial().queue("later");
    let workflow = chord([weight::s(1, 5000), weight::s(2, 5000)], body).park_above(ABOVE);
    let result = bundle.client.apply(workflow).await.unwrap();
    bundle.wait_for_body();
    let message = bundle.take("later").await;
    assert!(message.body.len() < 1000, "it has references");
    assert_eq!(message.header("task").and_then(Value::as_str), Some("celeriac:gather"));
    bundle.put("later", message.clone()).await;
    let later = bundle.later_worker().await;
    assert_eq!(result.get(PATIENCE).await.unwrap(), [(1, 5000), (2, 5000)]);
    bundle.wait_for_parks(0);
    bundle.probe.drain();
    bundle.put("later", message).await;
    bundle
        .vhost
        .wait_for_depth("later", xtask::QueueDepth { ready: 0, unacked: 0 }, PATIENCE)
        .unwrap();
    // The depth above may be that of a second ago.
    let third = bundle.client.send(add::s(1, 2).queue("later")).await.unwrap();
    assert_eq!(third.get(PATIENCE).await.unwrap(), 3);
    assert!(bundle.probe.runs().is_empty(), "{:?}", bundle.probe.runs());
    assert!(bundle.vhost.messages("later.dead").unwrap().is_empty());
    stop(later).await;
    stop(worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn results_that_are_too_large_for_a_worker_wait_for_one_with_more_room() {
    let bundle = bundle("parked-room").await;
    let worker = bundle.worker().await;
    let body = weigh::partial().queue("later");
    let workflow = chord([weight::s(1, 5000), weight::s(2, 5000)], body).park_above(ABOVE);
    let result = bundle.client.apply(workflow).await.unwrap();
    bundle.wait_for_body();
    let mut narrow = bundle.client.config().clone();
    narrow.join_max_parked = 9_000;
    let app = celeriac::App::builder().config(narrow).state(bundle.probe.clone()).build();
    let narrow = celeriac::Worker::new(app).queues(["later"]).hostname("narrow@host");
    let narrow = within(narrow.start()).await.unwrap();
    let failed = result.get(PATIENCE).await.unwrap_err().to_string();
    assert!(failed.contains("join_max_parked is 9000"), "{failed}");
    stop(narrow).await;
    bundle.probe.drain();
    // Its message is parked, and its results are kept.
    let dead = bundle.take("later.dead").await;
    assert_eq!(dead.header("dead_reason").and_then(Value::as_str), Some("results"));
    bundle.put("later", dead).await;
    let later = bundle.later_worker().await;
    bundle.probe.seen_all(&["body".to_owned()]).await;
    bundle.wait_for_parks(0);
    stop(later).await;
    stop(worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_has_opened_a_chord_does_not_declare_its_queue_again() {
    let bundle = bundle("parked-reconnect").await;
    let worker = bundle.worker().await;
    let part = Workflow::task("tests.weight", [1.into(), 5000.into()]).immutable(true);
    let failing = Workflow::task("tests.weightless", [1.into()]).immutable(true);
    let join = Map::from_iter([("park_above", ABOVE)]);
    let options = CallOptions { extra: Map::from_iter([("join", join)]), ..CallOptions::default() };
    let opened_by_a_worker =
        Workflow::chord([part, failing], Workflow::task("tests.weigh", [])).set(options);
    let first = Workflow::task("tests.add", [1.into(), 2.into()]);
    let result = bundle.client.apply(first | opened_by_a_worker).await.unwrap();
    assert!(result.get(PATIENCE).await.is_err());
    bundle.wait_for_parks(0);
    bundle.cut_and_wait("publish");
    // What goes over a connection that is back comes after what is declared there.
    let third = bundle.client.send(add::s(1, 2)).await.unwrap();
    assert_eq!(third.get(PATIENCE).await.unwrap(), 3);
    assert_eq!(bundle.parks(), [""; 0]);
    bundle.nothing_is_left();
    stop(worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_body_does_not_need_does_not_stay_before_what_it_needs() {
    let bundle = bundle("parked-junk").await;
    let worker = bundle.worker().await;
    let body = weigh_slowly::partial().queue("later");
    let parts = [late_weight::s(5000), late_weight::s(5000)];
    let result = bundle.client.apply(chord(parts, body).park_above(ABOVE)).await.unwrap();
    let parks = bundle.wait_for_parks(1);
    for _ in 0..3 {
        bundle.put(&parks[0], Message::default()).await;
    }
    bundle.probe.open(2);
    bundle.wait_for_body();
    let all = xtask::QueueDepth { ready: 5, unacked: 0 };
    bundle.vhost.wait_for_depth(&parks[0], all, PATIENCE).unwrap();
    let later = bundle.later_worker().await;
    bundle.probe.seen_all(&["body".to_owned()]).await;
    let values = xtask::QueueDepth { ready: 2, unacked: 0 };
    bundle.vhost.wait_for_depth(&parks[0], values, PATIENCE).unwrap();
    bundle.probe.open(1);
    assert_eq!(result.get(PATIENCE).await.unwrap(), [(7, 5000), (7, 5000)]);
    bundle.wait_for_parks(0);
    stop(later).await;
    stop(worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_has_ended_does_not_wait_for_what_is_deleted() {
    let bundle = bundle("parked-ended").await;
    let worker = bundle.worker().await;
    let body = weigh::partial().queue("later");
    let workflow = chord([weight::s(1, 5000), weight::s(2, 5000)], body).park_above(ABOVE);
    let result = bundle.client.apply(workflow).await.unwrap();
    bundle.wait_for_body();
    let parks = bundle.wait_for_parks(1);
    let message = bundle.take("later").await;
    bundle.put("later", message.clone()).await;
    let later = bundle.later_worker().await;
    assert_eq!(result.get(PATIENCE).await.unwrap(), [(1, 5000), (2, 5000)]);
    bundle.wait_for_parks(0);
    bundle.probe.drain();
    // Somebody makes the queue again.
    let queues = vec![QueueSpec::quorum(&*parks[0])];
    let again = Topology { queues, ..Topology::default() };
    within(bundle.client.connection().declare(&again)).await.unwrap();
    bundle.put("later", message).await;
    let third = bundle.client.send(add::s(1, 2).queue("later")).await.unwrap();
    assert_eq!(third.get(PATIENCE).await.unwrap(), 3);
    let none = xtask::QueueDepth { ready: 0, unacked: 0 };
    bundle.vhost.wait_for_depth("later", none, PATIENCE).unwrap();
    stop(later).await;
    assert!(bundle.vhost.messages("later").unwrap().is_empty());
    assert!(bundle.vhost.messages("later.dead").unwrap().is_empty());
    assert!(bundle.probe.runs().is_empty(), "{:?}", bundle.probe.runs());
    stop(worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_waits_for_room_keeps_no_other_task_from_running() {
    let bundle = bundle("parked-waits").await;
    // Nothing can wait for a queue of that name elsewhere.
    let queue = "later.*";
    let queues = vec![QueueSpec::quorum(queue)];
    let topology = Topology { queues, ..Topology::default() };
    within(bundle.client.connection().declare(&topology)).await.unwrap();
    let worker = bundle.worker().await;
    let workflow = || {
        let body = weigh_slowly::partial().queue(queue);
        chord([weight::s(1, 5000), weight::s(2, 5000)], body).park_above(ABOVE)
    };
    let first = bundle.client.apply(workflow()).await.unwrap();
    let mut narrow = bundle.client.config().clone();
    // Enough for one of them.
    narrow.join_max_parked = 15_000;
    let app = celeriac::App::builder().config(narrow).state(bundle.probe.clone()).build();
    let narrow = celeriac::Worker::new(app).queues([queue]).hostname("narrow@host");
    let narrow = within(narrow.concurrency(2).start()).await.unwrap();
    bundle.probe.seen_all(&["body".to_owned()]).await;
    let second = bundle.client.apply(workflow()).await.unwrap();
    let two = xtask::QueueDepth { ready: 0, unacked: 2 };
    bundle.vhost.wait_for_depth(queue, two, PATIENCE).unwrap();
    let task = bundle.client.send(add::s(1, 2).queue(queue)).await.unwrap();
    assert_eq!(task.get(PATIENCE).await.unwrap(), 3);
    bundle.probe.open(2);
    for result in [first, second] {
        assert_eq!(result.get(PATIENCE).await.unwrap(), [(1, 5000), (2, 5000)]);
    }
    stop(narrow).await;
    stop(worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chord_that_cannot_have_its_queue_fails_before_its_parts_run() {
    let bundle = bundle("parked-refused").await;
    let worker = bundle.worker().await;
    let (management, vhost) = (bundle.vhost.management(), bundle.vhost.name());
    let user = bundle.vhost.url().split("://").nth(1).unwrap().split(':').next().unwrap();
    let rights = serde_json::json!({
        "configure": "^(?!celeriac\\.park).*", "write": ".*", "read": ".*",
    });
    management.put(&["permissions", vhost, user], &rights).unwrap();
    let part = Workflow::task("tests.weight", [1.into(), 5000.into()]).immutable(true);
    let join = Map::from_iter([("park_above", ABOVE)]);
    let options = CallOptions { extra: Map::from_iter([("join", join)]), ..CallOptions::default() };
    let parking = Workflow::chord([part.clone(), part], Workflow::task("tests.weigh", []));
    let first = Workflow::task("tests.add", [1.into(), 2.into()]);
    let result = bundle.client.apply(first | parking.set(options)).await.unwrap();
    let failed = result.get(PATIENCE).await.unwrap_err().to_string();
    assert!(failed.contains("ACCESS_REFUSED"), "{failed}");
    bundle.settled();
    assert!(bundle.probe.runs().is_empty(), "{:?}", bundle.probe.runs());
    stop(worker).await;
}
