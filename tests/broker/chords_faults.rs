//! Chords where something is wrong with a queue or a record: nothing else suffers from it.

use std::time::Duration;

use celeriac::amqp::{Publish, Publisher, topology};
use celeriac::protocol::canvas::Canvas;
use celeriac::protocol::join::{ChordState, Open, Parent, Record, Reference, body_id};
use celeriac::protocol::{Exception, Map, Message, Properties, Serializer, TaskState, Value};
use serde_json::json;
use xtask::FetchedMessage;

use crate::bundle::{Bundle, PATIENCE, stop, within};
use crate::workflow::{Begun, CALLER, brisk, doubles, sums, total};

/// A bundle with one shard, which keeps what is finished for so long that a session which ended
/// before its time would publish it again.
async fn one_shard(hint: &str) -> Bundle {
    let change = |config: &mut celeriac::Config| {
        brisk(config);
        config.join_shards = 1;
        config.join_done_batch = Duration::from_secs(3);
    };
    Bundle::joining_with(hint, change).await
}

/// A body for another queue.
fn total_in(queue: &str) -> Canvas {
    let Canvas::Task(mut body) = total() else { panic!("it is a task") };
    body.options.insert("queue", Value::from(queue));
    Canvas::Task(body)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_waits_for_room_in_its_queue_and_no_other_one_is_called_again() {
    let bundle = one_shard("chord-full").await;
    let full = json!({"durable": true, "arguments":
        {"x-max-length": 1, "x-overflow": "reject-publish"}});
    bundle.vhost.management().put(&["queues", bundle.vhost.name(), "full"], &full).unwrap();
    assert!(bundle.vhost.publish("", "full", &json!({}), b"filler").unwrap());
    let worker = bundle.worker().await;
    let (mut waits, mut expected) = (String::new(), Vec::new());
    for (waiting, size) in [(false, 2), (true, 3), (false, 4)] {
        let body = if waiting { total_in("full") } else { total() };
        let begun = bundle.begin(sums(size, body)).await;
        if waiting {
            waits = begun.id;
            continue;
        }
        expected.push(format!("{} {}", begun.id, doubles(size)));
        bundle.probe.seen(expected.len()).await;
    }
    bundle.vhost.purge("full").unwrap();
    let there = || {
        let all = bundle.vhost.messages("full").ok()?;
        all.first()?.header("id").and_then(|id| id.as_str()).map(str::to_owned)
    };
    let id = xtask::wait_until("the body is in its queue", PATIENCE, there).unwrap();
    bundle.nothing_is_left();
    assert_eq!(id, waits);
    assert_eq!(bundle.probe.drain(), expected);
    stop(worker).await;
}

/// A quorum queue that was full tells nobody when its limit is gone.
#[tokio::test(flavor = "multi_thread")]
async fn a_body_is_called_once_the_limit_of_its_queue_is_gone() {
    let bundle = one_shard("chord-unlimited").await;
    let management = bundle.vhost.management();
    let quorum = json!({"durable": true, "arguments": {"x-queue-type": "quorum"}});
    management.put(&["queues", bundle.vhost.name(), "full"], &quorum).unwrap();
    let policy = ["policies", bundle.vhost.name(), "full"];
    let definition = json!({"max-length": 1, "overflow": "reject-publish"});
    let limit = json!({"pattern": "^full$", "apply-to": "queues", "definition": definition});
    management.put(&policy, &limit).unwrap();
    let publisher = Publisher::new(bundle.client.connection());
    let filler = || Publish::new("", "full", Message::default());
    within(async { while publisher.publish(filler()).await.is_ok() {} }).await;
    let worker = bundle.worker().await;
    let waits = bundle.begin(sums(2, total_in("full"))).await;
    let is_decided = async || {
        let chord = &*waits.opens[0].chord;
        let inspection = bundle.client.inspect_chord(chord, PATIENCE).await.unwrap();
        inspection.state == ChordState::Decided
    };
    within(async { while !is_decided().await {} }).await;
    // Its body is called after that of the first, over the same channel.
    let other = bundle.begin(sums(3, total())).await;
    bundle.probe.seen(1).await;
    assert_eq!(bundle.probe.drain(), [format!("{} {}", other.id, doubles(3))]);
    management.delete(&policy).unwrap();
    let called = || {
        let all = bundle.vhost.messages("full").ok()?;
        let ids = all.iter().filter_map(|it| it.header("id")?.as_str().map(str::to_owned));
        Some(ids.collect::<Vec<_>>()).filter(|ids| !ids.is_empty())
    };
    let ids = xtask::wait_until("the body is in its queue", PATIENCE, called).unwrap();
    bundle.nothing_is_left();
    assert_eq!(ids, [waits.id]);
    stop(worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_shard_cannot_use_is_parked_whatever_its_headers() {
    let bundle = Bundle::joining("chord-wrong").await;
    let worker = bundle.worker().await;
    // So much that nothing can be added to it in one frame.
    let headers = json!({"large": "x".repeat(131_000)});
    let properties = json!({"content_type": "text/plain", "headers": headers});
    let routed = || {
        let exchange = topology::results_exchange();
        bundle.vhost.publish(exchange, "join.0", &properties, b"hello").ok()?.then_some(())
    };
    bundle.vhost.wait_until("the shard is there", routed).unwrap();
    let begun = bundle.begin(sums(2, total_in("elsewhere"))).await;
    bundle.parts(&begun.opens[0], [(99, 7)]).await;
    let dead = ["celeriac.join.0.dead", "celeriac.join.1.dead"];
    let found = || {
        let of = |queue| bundle.vhost.messages(queue).unwrap_or_default();
        Some(dead.map(of).concat()).filter(|all| all.len() == 2)
    };
    let found = xtask::wait_until("both are parked", PATIENCE, found).unwrap();
    assert!(found.iter().all(|it| it.header("dead_reason") == Some(&json!("join-record"))));
    assert!(found.iter().any(|it| it.payload == b"hello"));
    let part = found.iter().find(|it| it.header("i") == Some(&json!(99))).unwrap();
    assert_eq!((&*part.payload, part.header("x")), (&[7][..], Some(&json!("x"))));
    bundle.begin(sums(2, total())).await;
    bundle.probe.seen(1).await;
    bundle.nothing_is_left();
    stop(worker).await;
}

/// Spoils the record that opens a chord, and publishes it.
async fn log_spoiled(bundle: &Bundle, open: &Open, spoil: impl FnOnce(&mut Map)) {
    let Value::Map(mut map) = open.to_value() else { panic!("it is a map") };
    spoil(&mut map);
    let mut message = Record::Open(Box::new(open.clone())).encode().unwrap();
    message.body.clear();
    celeriac::protocol::msgpack::encode(&Value::Map(map), &mut message.body).unwrap();
    let publish = Publish::new(topology::results_exchange(), &*open.route, message);
    within(Publisher::new(bundle.client.connection()).publish(publish)).await.unwrap();
}

/// What is parked from a shard, once it is so much.
fn parked(bundle: &Bundle, count: usize) -> Vec<FetchedMessage> {
    let of = |shard| bundle.vhost.messages(&format!("celeriac.join.{shard}.dead"));
    let found = || {
        let all: Vec<_> = (0..2).flat_map(|shard| of(shard).unwrap_or_default()).collect();
        (all.len() >= count).then_some(all)
    };
    let found = xtask::wait_until("all of them are parked", PATIENCE, found).unwrap();
    assert_eq!(found.len(), count);
    assert!(found.iter().all(|it| it.header("dead_reason") == Some(&json!("join-record"))));
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chord_that_cannot_be_opened_fails_and_nothing_of_it_is_lost() {
    let bundle = Bundle::joining("chord-unopened").await;
    let worker = bundle.worker().await;
    let good = bundle.begin(sums(1, total())).await;
    bundle.probe.seen(1).await;
    let outer = Open { chord: "outer".to_owned(), size: 1, ..good.opens[0].clone() };
    let outer = Open { body: None, reply_to: Some(CALLER.to_owned()), ..outer };
    bundle.log([(Record::Open(Box::new(outer.clone())), &*outer.route)].into_iter()).await;
    let parent = Parent { route: outer.route, chord: outer.chord, index: 0.into() };
    let open = |chord: &str| Open { chord: chord.to_owned(), ..good.opens[0].clone() };
    let caller = Some(CALLER.to_owned());
    let (named, sized) = (open("named"), open("sized"));
    let (named, sized) = (
        Open { reply_to: caller, ..named },
        Open { body: None, reply_to: None, parent: Some(parent), ..sized },
    );
    log_spoiled(&bundle, &named, |map| map.insert("body", "proj.sum")).await;
    log_spoiled(&bundle, &sized, |map| map.insert("size", -1)).await;
    for open in [&named, &sized] {
        bundle.parts(open, [(0, 7)]).await;
    }
    let found = parked(&bundle, 4);
    let parts = found.iter().filter(|it| it.header("i").is_some());
    assert_eq!(parts.filter(|it| it.payload == [7]).count(), 2);
    let mut ids = [good.id, body_id("named"), "outer".to_owned()];
    ids.sort();
    let reports = bundle.reports(3);
    assert_eq!(reports.iter().map(|it| &it.task_id).collect::<Vec<_>>(), ids.each_ref());
    for report in reports.into_iter().filter(|it| it.status != TaskState::Success) {
        let text = Exception::from_value(&report.result).unwrap().to_string();
        assert!(text.contains("could not be opened"), "{text}");
    }
    bundle.nothing_is_left();
    stop(worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chord_whose_id_another_one_has_fails_and_says_so() {
    let bundle = Bundle::joining("chord-twice").await;
    let worker = bundle.worker().await;
    let elsewhere = ["queues", bundle.vhost.name(), "elsewhere"];
    bundle.vhost.management().put(&elsewhere, &json!({"durable": true})).unwrap();
    let waiting = Canvas::chord(vec![total_in("elsewhere"), total_in("elsewhere")], total());
    let Begun { opens, id } = bundle.begin(waiting.unwrap()).await;
    let other = Open { size: 3, ..opens[0].clone() };
    bundle.log([(Record::Open(Box::new(other.clone())), &*other.route)].into_iter()).await;
    let found = parked(&bundle, 1);
    let message = protocol_message(&found[0]);
    let record = Record::decode(&message, &celeriac::protocol::Limits::default()).unwrap();
    assert_eq!(record, Record::Open(Box::new(other)));
    // Told by the joiner, and for the second one by the reaper.
    for report in bundle.reports(2) {
        assert_eq!(report.task_id, id);
        let text = Exception::from_value(&report.result).unwrap().to_string();
        assert!(text.contains("has 2 parts, and this open says 3"), "{text}");
    }
    bundle.nothing_is_left();
    stop(worker).await;
}

fn protocol_message(fetched: &FetchedMessage) -> Message {
    let text = |name: &str| fetched.properties[name].as_str().map(str::to_owned);
    let chord = fetched.header("c").and_then(|it| it.as_str()).unwrap().to_owned();
    let properties = Properties {
        content_type: text("content_type"),
        kind: text("type"),
        headers: Some(Map::from_iter([("c", chord)])),
        ..Properties::default()
    };
    Message { properties, body: fetched.payload.clone() }
}

#[tokio::test(flavor = "multi_thread")]
async fn values_that_nobody_can_gather_are_deleted() {
    let bundle = Bundle::joining("chord-ungathered").await;
    let worker = bundle.worker().await;
    let queue = topology::park_queue("ungathered");
    let path = ["queues", bundle.vhost.name(), &*queue];
    bundle.vhost.management().put(&path, &json!({"durable": true})).unwrap();
    let Begun { opens, .. } = bundle.begin(sums(1, total())).await;
    bundle.reports(1);
    bundle.vhost.purge(CALLER).unwrap();
    let open = Open {
        chord: "ungathered".to_owned(),
        body: None,
        reply_to: Some(CALLER.to_owned()),
        park_ms: Some(60_000),
        ..opens[0].clone()
    };
    let reference = Record::Ref {
        chord: open.chord.clone(),
        index: 0.into(),
        adds: 0,
        task_id: "t".to_owned(),
        reference: Reference { execution: "x".to_owned(), bytes: 9 },
    };
    let records = [Record::Open(Box::new(open.clone())), reference];
    bundle.log(records.into_iter().map(|record| (record, &*open.route))).await;
    let report = bundle.reports(1).remove(0);
    assert_eq!((&*report.task_id, report.status), ("ungathered", TaskState::Failure));
    let gone = || bundle.vhost.queue_depth(&queue).is_err().then_some(());
    xtask::wait_until("the values are deleted", PATIENCE, gone).unwrap();
    bundle.nothing_is_left();
    stop(worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outcome_that_is_too_large_to_be_sent_fails_and_its_caller_is_told() {
    let change = |config: &mut celeriac::Config| {
        brisk(config);
        config.join_max_body = 10_000;
        config.join_max_message = Some(15_000);
        config.result_serializer = Some(Serializer::Json);
    };
    let bundle = Bundle::joining_with("chord-large", change).await;
    let worker = bundle.worker().await;
    let Canvas::Task(mut body) = total() else { panic!("it is a task") };
    body.kwargs.insert("large", "x".repeat(15_000));
    let begun = bundle.begin(sums(2, Canvas::Task(body))).await;
    // A list that grows when it is written as JSON.
    let listed = Open {
        chord: "listed".to_owned(),
        size: 1,
        body: None,
        reply_to: Some(CALLER.to_owned()),
        ..begun.opens[0].clone()
    };
    let text = Value::from("\u{1}".repeat(5_000));
    let part = Record::ok("listed", 0, "x", "t", &text).unwrap();
    let records = [Record::Open(Box::new(listed.clone())), part];
    bundle.log(records.into_iter().map(|record| (record, &*listed.route))).await;
    let mut ids = [begun.id, listed.chord];
    ids.sort();
    let reports = bundle.reports(2);
    assert_eq!(reports.iter().map(|it| &it.task_id).collect::<Vec<_>>(), ids.each_ref());
    for report in reports {
        let text = Exception::from_value(&report.result).unwrap().to_string();
        assert!(text.contains("bytes where 15000 are allowed"), "{text}");
    }
    bundle.nothing_is_left();
    stop(worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_the_broker_refuses_fails_and_others_go_on() {
    let bundle = one_shard("chord-refused").await;
    let internal = json!({"type": "direct", "durable": true, "internal": true});
    let path = ["exchanges", bundle.vhost.name(), "internal"];
    bundle.vhost.management().put(&path, &internal).unwrap();
    let worker = bundle.worker().await;
    let Canvas::Task(mut body) = total() else { panic!("it is a task") };
    body.options.insert("exchange", Value::from("internal"));
    let begun = bundle.begin(sums(2, Canvas::Task(body))).await;
    let report = bundle.reports(1).remove(0);
    assert_eq!(report.task_id, begun.id);
    let text = Exception::from_value(&report.result).unwrap().to_string();
    assert!(text.contains("403"), "{text}");
    bundle.begin(sums(2, total())).await;
    bundle.probe.seen(1).await;
    bundle.nothing_is_left();
    stop(worker).await;
}
