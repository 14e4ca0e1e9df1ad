//! Messages that cannot be run: they are parked with the reason, and the worker goes on.

use celeriac::Value;
use celeriac::amqp::{Consumer, ConsumerOptions, Publish, PublishError, Publisher, QueueSpec};
use celeriac::protocol::{
    CallOptions, Limits, Map, Message, Signature as SignatureData, TaskHeaders, TaskMessage,
    msgpack,
};
use xtask::{FetchedMessage, QueueDepth};

use crate::bundle::{Bundle, PATIENCE, queue, stop, within};
use crate::tasks::{add, reject};

/// Where calls wait that are made only so that somebody waits for their id.
const LIMBO: &str = "limbo";

/// What becomes of one bad message.
struct Case {
    name: &'static str,
    task: &'static str,
    spoil: fn(&mut Message),
    reason: &'static str,
    /// The class of the failure that the caller gets.
    exception: &'static str,
}

/// Lists inside one another, far beyond what is read.
const LEVELS: usize = 10_000;

/// The body of a call of which a chain of this one step is to follow.
fn followed_by(step: &Value) -> Vec<u8> {
    let embed = Map::from_iter([("chain", Value::Array(vec![step.clone()]))]);
    let body = vec![Value::Array(vec![1.into(), 2.into()]), Map::new().into(), embed.into()];
    let mut encoded = Vec::new();
    msgpack::encode(&body.into(), &mut encoded).unwrap();
    encoded
}

/// A chain of chains.
fn nested(levels: usize) -> Value {
    let mut step = SignatureData::new("tests.add");
    for _ in 0..levels {
        let kwargs = Map::from_iter([("tasks", Value::Array(vec![step.into_value()]))]);
        let subtask_type = Some("chain".to_owned());
        step = SignatureData { kwargs, subtask_type, ..SignatureData::new("celery.chain") };
    }
    step.into_value()
}

const CASES: [Case; 13] = [
    Case {
        name: "ten-thousand-levels",
        task: "tests.add",
        spoil: |message| {
            let mut body = vec![0x93];
            body.extend([0x91; LEVELS]);
            body.extend([0x90, 0x80, 0x80]);
            message.body = body;
        },
        reason: "body",
        exception: "DecodeError",
    },
    Case {
        name: "ten-thousand-levels-of-json",
        task: "tests.add",
        spoil: |message| {
            message.properties.content_type = Some("application/json".to_owned());
            message.properties.content_encoding = Some("utf-8".to_owned());
            let (open, close) = ("[".repeat(LEVELS), "]".repeat(LEVELS));
            message.body = format!("[[{open}{close}], {{}}, {{}}]").into_bytes();
        },
        reason: "body",
        exception: "DecodeError",
    },
    Case {
        name: "ten-thousand-steps-inside-one-another",
        task: "tests.add",
        spoil: |message| {
            let mut body = b"\x93\x90\x80\x81\xa5chain".to_vec();
            body.extend(b"\x91\x82\xa4task\xa1c\xa4args".repeat(LEVELS));
            body.push(0x90);
            message.body = body;
        },
        reason: "body",
        exception: "DecodeError",
    },
    Case {
        name: "workflows-inside-one-another",
        task: "tests.add",
        spoil: |message| message.body = followed_by(&nested(70)),
        reason: "canvas",
        exception: "NotImplementedError",
    },
    Case {
        name: "unknown-task",
        task: "tests.unheard_of",
        spoil: |_| {},
        reason: "unknown-task",
        exception: "NotRegistered",
    },
    Case {
        name: "pickle",
        task: "tests.add",
        spoil: |message| {
            message.properties.content_type = Some("application/x-python-serialize".to_owned());
        },
        reason: "content-type",
        exception: "ContentDisallowed",
    },
    Case {
        name: "no-content-type",
        task: "tests.add",
        spoil: |message| message.properties.content_type = None,
        reason: "content-type",
        exception: "ContentDisallowed",
    },
    Case {
        name: "two-elements",
        task: "tests.add",
        spoil: |message| message.body = vec![0x92, 0x90, 0x80],
        reason: "body",
        exception: "DecodeError",
    },
    Case {
        name: "garbage",
        task: "tests.add",
        spoil: |message| message.body = vec![0xc1; 40],
        reason: "body",
        exception: "DecodeError",
    },
    Case {
        name: "empty",
        task: "tests.add",
        spoil: |message| message.body.clear(),
        reason: "body",
        exception: "DecodeError",
    },
    Case {
        name: "no-id",
        task: "tests.add",
        spoil: |message| {
            message.properties.headers.as_mut().unwrap().remove("id");
        },
        reason: "no-id",
        exception: "DecodeError",
    },
    Case {
        name: "compression",
        task: "tests.add",
        spoil: |message| {
            let headers = message.properties.headers.as_mut().unwrap();
            headers.insert("compression", "application/x-brotli");
        },
        reason: "compression",
        exception: "DecodeError",
    },
    Case {
        name: "no-task",
        task: "tests.add",
        spoil: |message| {
            message.properties.headers = None;
        },
        reason: "not-a-task",
        exception: "DecodeError",
    },
];

fn parked(bundle: &Bundle, count: usize) -> Vec<FetchedMessage> {
    let all = || Some(bundle.vhost.messages("celeriac.dead").ok()?).filter(|it| it.len() >= count);
    bundle.vhost.wait_until("messages are parked", all).unwrap()
}

/// A good message for `task`, with somebody who waits for its result.
async fn call(bundle: &Bundle, task: &str, id: &str) -> (celeriac::AsyncResult<i64>, Message) {
    let waiting = bundle.client.send(add::s(1, 2).task_id(id).queue(LIMBO)).await.unwrap();
    let mut call = TaskMessage {
        headers: TaskHeaders::new(task, id),
        reply_to: bundle.reply_queues().pop(),
        correlation_id: Some(id.to_owned()),
        persistent: true,
        ..TaskMessage::default()
    };
    call.body.args = vec![1.into(), 2.into()];
    (waiting, call.encode().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_messages_are_parked_as_they_are_and_their_callers_are_told() {
    let bundle = Bundle::with("parked", |config| config.task_queues = vec![queue(LIMBO)]).await;
    let worker = bundle.narrow_worker().await;
    let publisher = Publisher::new(bundle.client.connection());
    for (at, case) in CASES.iter().enumerate() {
        let (result, mut message) = call(&bundle, case.task, case.name).await;
        (case.spoil)(&mut message);
        let (body, headers) = (message.body.clone(), message.properties.headers.clone());
        publisher.publish(Publish::new("", "celeriac", message)).await.unwrap();
        let error = result.get(PATIENCE).await.unwrap_err();
        let failure = error.failure().unwrap_or_else(|| panic!("{}: {error:?}", case.name));
        assert!(failure.is(case.exception), "{}: {failure:?}", case.name);
        let parked = parked(&bundle, at + 1).pop().unwrap();
        assert_eq!(parked.payload, body, "{}", case.name);
        for (name, sent) in headers.iter().flat_map(|headers| headers.iter()) {
            let Some(sent) = sent.as_str() else { continue };
            assert_eq!(parked.header(name).unwrap(), sent, "{} {name}", case.name);
        }
        assert_eq!(parked.header("dead_reason").unwrap(), case.reason, "{}", case.name);
        assert_eq!(parked.header("dead_queue").unwrap(), "celeriac");
        assert_eq!(parked.header("dead_worker").unwrap(), "test@host");
        let error = parked.header("dead_error").unwrap().as_str().unwrap();
        assert!(!error.is_empty(), "{}", case.name);
        let good = add::delay(&bundle.client, 2, 2).await.unwrap();
        assert_eq!(good.get(PATIENCE).await.unwrap(), 4, "the worker goes on");
    }
    assert_eq!(parked(&bundle, CASES.len()).len(), CASES.len(), "each is parked once");
    stop(worker).await;
    bundle.settled();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_of_a_chord_that_is_counted_elsewhere_is_parked() {
    let bundle = Bundle::new("canvas").await;
    let worker = bundle.worker().await;
    let body = SignatureData { task: "tests.add".to_owned(), ..SignatureData::default() };
    let chord = CallOptions { chord: Some(Box::new(body)), ..CallOptions::default() };
    let result = bundle.client.send(add::s(1, 2).with_options(chord)).await.unwrap();
    let error = result.get(PATIENCE).await.unwrap_err();
    assert!(error.failure().unwrap().is("NotImplementedError"), "{error:?}");
    assert_eq!(parked(&bundle, 1)[0].header("dead_reason").unwrap(), "canvas");
    stop(worker).await;
    bundle.settled();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_a_workflow_of_an_unknown_type_follows_is_parked_and_all_callers_are_told() {
    let bundle =
        Bundle::with("unknown-type", |config| config.task_queues = vec![queue(LIMBO)]).await;
    let worker = bundle.worker().await;
    let publisher = Publisher::new(bundle.client.connection());
    let (first, message) = call(&bundle, "tests.both", "first").await;
    let last = bundle.client.send(add::s(1, 2).task_id("last").queue(LIMBO)).await.unwrap();
    let mut call = TaskMessage::decode(&message, &Limits::default()).unwrap();
    let options = [("task_id", "last"), ("reply_to", &*bundle.reply_queues().pop().unwrap())];
    let step = SignatureData {
        task: "celery.loop".to_owned(),
        subtask_type: Some("loop".to_owned()),
        options: options.into_iter().collect(),
        ..SignatureData::default()
    };
    call.body.embed.chain = Some(vec![step]);
    publisher.publish(Publish::new("", "celeriac", call.encode().unwrap())).await.unwrap();
    for result in [first, last] {
        let error = result.get(PATIENCE).await.unwrap_err();
        assert!(error.to_string().contains("unknown workflow type 'loop'"), "{error}");
    }
    let parked = parked(&bundle, 1).pop().unwrap();
    assert_eq!(parked.header("dead_reason").unwrap(), "canvas");
    stop(worker).await;
    assert!(bundle.probe.runs().is_empty(), "it is to run once it was mended");
    bundle.settled();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_a_group_beyond_the_limit_follows_is_parked_and_its_caller_is_told() {
    let bundle = Bundle::with("huge-group", |config| config.task_queues = vec![queue(LIMBO)]).await;
    let worker = bundle.worker().await;
    let publisher = Publisher::new(bundle.client.connection());
    let member = Map::from_iter([("task", "tests.add")]);
    let tasks = Value::Array(vec![member.into(); 1_000_001]);
    let group = SignatureData {
        kwargs: Map::from_iter([("tasks", tasks)]),
        subtask_type: Some("group".to_owned()),
        ..SignatureData::new("celery.group")
    };
    let (result, mut message) = call(&bundle, "tests.both", "huge").await;
    message.body = followed_by(&group.into_value());
    let body = message.body.clone();
    publisher.publish(Publish::new("", "celeriac", message)).await.unwrap();
    // A million members are read, and looked at.
    let error = result.get(PATIENCE * 4).await.unwrap_err();
    let limit = "a group of 1000001 is larger than the limit of 1000000: split it";
    assert!(error.to_string().contains(limit), "{error}");
    let dead = ConsumerOptions::new([QueueSpec::existing("celeriac.dead")]);
    let (mut deliveries, handle) = Consumer::start(bundle.client.connection(), dead).await.unwrap();
    let mut parked = Vec::new();
    assert!(within(deliveries.next_burst(&mut parked)).await);
    let parked = parked.pop().unwrap();
    let header = |name| parked.message.header(name).and_then(Value::as_str);
    assert_eq!(header("dead_reason"), Some("canvas"));
    assert!(header("dead_error").unwrap().contains(limit), "{:?}", header("dead_error"));
    assert!(parked.message.body == body, "the message is as it was");
    parked.token.ack();
    handle.close().await;
    stop(worker).await;
    assert!(bundle.probe.runs().is_empty(), "it is to run once it was mended");
    bundle.settled();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_message_that_nobody_waits_for_is_parked_too() {
    let bundle = Bundle::new("anonymous").await;
    let worker = bundle.worker().await;
    let publisher = Publisher::new(bundle.client.connection());
    let message = Message { body: b"hello".to_vec(), ..Message::default() };
    publisher.publish(Publish::new("", "celeriac", message)).await.unwrap();
    let parked = parked(&bundle, 1).pop().unwrap();
    assert_eq!(parked.payload, b"hello");
    stop(worker).await;
    bundle.settled();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_whose_headers_fill_a_frame_is_parked_too() {
    let bundle = Bundle::new("full").await;
    let publisher = Publisher::new(bundle.client.connection());
    let padded = |size: usize| {
        let headers = [("pad", Value::from("x".repeat(size)))].into_iter().collect();
        let mut message = Message { body: b"hello".to_vec(), ..Message::default() };
        message.properties.headers = Some(headers);
        message.properties.delivery_mode = Some(2);
        Publish::new("", "celeriac", message)
    };
    let refused = publisher.publish(padded(1 << 20)).await.unwrap_err();
    let PublishError::TooLarge { size, max } = refused else { panic!("{refused:?}") };
    let full = (1 << 20) - (size - max);
    let worker = bundle.worker().await;
    for room in [0, 40, 2000] {
        publisher.publish(padded(full - room)).await.unwrap();
    }
    assert!(publisher.publish(padded(full + 1)).await.is_err());
    let parked = parked(&bundle, 3);
    for message in &parked {
        assert_eq!(message.payload, b"hello");
        assert!(message.header("pad").is_some());
    }
    let counts = ["dead_reason", "dead_error"]
        .map(|key| parked.iter().filter(|message| message.header(key).is_some()).count());
    assert_eq!(counts, [2, 1], "as much of the reason as there is room for");
    stop(worker).await;
    bundle.settled();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parked_message_runs_when_it_is_put_back() {
    let bundle = Bundle::with("put-back", |config| config.task_queues = vec![queue(LIMBO)]).await;
    let publisher = Publisher::new(bundle.client.connection());
    let mut json_only = bundle.client.config().clone();
    json_only.accept_content = vec![celeriac::protocol::Serializer::Json];
    let app = celeriac::App::builder().config(json_only).state(bundle.probe.clone()).build();
    let picky = celeriac::Worker::new(app).start().await.unwrap();
    let (result, message) = call(&bundle, "tests.both", "put-back").await;
    publisher.publish(Publish::new("", "celeriac", message)).await.unwrap();
    // The first report, a failure, is the one that counts; the task runs all the same.
    assert!(result.get(PATIENCE).await.is_err());
    stop(picky).await;
    let dead = ConsumerOptions::new([QueueSpec::existing("celeriac.dead")]);
    let (mut deliveries, handle) = Consumer::start(bundle.client.connection(), dead).await.unwrap();
    let mut parked = Vec::new();
    assert!(within(deliveries.next_burst(&mut parked)).await);
    let parked = parked.pop().unwrap();
    let reason = parked.message.header("dead_reason").and_then(Value::as_str);
    assert_eq!(reason, Some("content-type"));
    publisher.publish(Publish::new("", "celeriac", parked.message)).await.unwrap();
    parked.token.ack();
    handle.close().await;
    let worker = bundle.worker().await;
    bundle.probe.seen(1).await;
    stop(worker).await;
    bundle.settled();
    assert!(bundle.vhost.messages("celeriac.dead").unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parking_queue_that_was_deleted_is_made_again() {
    let bundle =
        Bundle::with("no-parking", |config| config.task_default_queue = "jobs".into()).await;
    let worker = bundle.worker().await;
    bundle.vhost.delete_queue("jobs.dead").unwrap();
    let result = reject::delay(&bundle.client).await.unwrap();
    assert!(result.get(PATIENCE).await.is_err());
    let parked = || bundle.vhost.messages("jobs.dead").ok()?.pop();
    bundle.vhost.wait_until("the message is parked", parked).unwrap();
    stop(worker).await;
    let depth = QueueDepth { ready: 0, unacked: 0 };
    bundle.vhost.wait_for_depth("jobs", depth, PATIENCE).unwrap();
}
