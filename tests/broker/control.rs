//! Commands to workers, and what they answer.

use std::time::Duration;

use celeriac::amqp::Publish;
use celeriac::amqp::Publisher;
use celeriac::client::NodeReply;
use celeriac::protocol::control::{Matcher, ReplyTo, Request};
use celeriac::protocol::{Map, Message, Properties, Serializer};
use celeriac::worker::Stopped;
use celeriac::{Client, Value};

use crate::bundle::{Bundle, PATIENCE, stop, within};
use crate::tasks::{add, hold};

/// The text behind `ok` or `error` of the only reply.
fn text(replies: &[NodeReply]) -> String {
    assert_eq!(replies.len(), 1, "{replies:?}");
    let reply = &replies[0];
    let text = reply.error().or_else(|| reply.ok()?.as_str());
    text.unwrap_or_else(|| panic!("{reply:?}")).to_owned()
}

/// The value of the only reply.
fn value(mut replies: Vec<NodeReply>) -> Value {
    assert_eq!(replies.len(), 1, "{replies:?}");
    replies.remove(0).value
}

pub(crate) async fn ask(client: &Client, method: &str, arguments: Map) -> String {
    text(&within(client.control().limit(1).command(method, arguments)).await.unwrap())
}

pub(crate) fn arguments<const N: usize>(entries: [(&'static str, Value); N]) -> Map {
    Map::from_iter(entries)
}

#[tokio::test(flavor = "multi_thread")]
async fn those_answer_whom_a_command_is_for() {
    let bundle = Bundle::new("ping").await;
    let nobody = within(bundle.client.control().ping()).await.unwrap();
    assert!(nobody.is_empty(), "no worker, no reply, and no wait");
    let one = bundle.worker_with(|worker| worker.hostname("one@host")).await;
    let two = bundle.worker_with(|worker| worker.hostname("two@host")).await;
    let control = bundle.client.control().timeout(PATIENCE);
    let names = |replies: Vec<NodeReply>| {
        let pong = |it: &NodeReply| it.ok().and_then(Value::as_str) == Some("pong");
        assert!(replies.iter().all(pong), "{replies:?}");
        let mut names: Vec<String> = replies.into_iter().map(|it| it.hostname).collect();
        names.sort();
        names
    };
    let all = within(control.clone().limit(2).ping()).await.unwrap();
    assert_eq!(names(all), ["one@host", "two@host"]);
    let some = within(control.clone().to(["two@host"]).ping()).await.unwrap();
    assert_eq!(names(some), ["two@host"]);
    let globbed = control.clone().limit(1).matching(Matcher::Glob, "o*@host");
    assert_eq!(names(within(globbed.ping()).await.unwrap()), ["one@host"]);
    let expressed = control.clone().limit(1).matching(Matcher::Pcre, "t.o");
    assert_eq!(names(within(expressed.ping()).await.unwrap()), ["two@host"]);
    let second = Duration::from_secs(1);
    let hostile = control.timeout(second).matching(Matcher::Pcre, "((a{99}){99}){99}");
    assert!(within(hostile.ping()).await.unwrap().is_empty());
    stop(one).await;
    stop(two).await;
    let left = |it: &String| it.contains("pidbox");
    assert!(!bundle.vhost.queues().unwrap().iter().any(left), "mailboxes go with their workers");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_worker_holds_can_be_looked_at() {
    let bundle = Bundle::new("inspect").await;
    let worker = bundle.narrow_worker().await;
    let control = bundle.client.control().limit(1);
    let sent = ["a", "b"].map(|label| hold::s(label.to_owned()));
    let sent = bundle.client.send_all(sent).await;
    let ids: Vec<String> = sent.iter().map(|it| it.as_ref().unwrap().id().to_owned()).collect();
    bundle.probe.seen(1).await;
    let active = value(within(control.active()).await.unwrap());
    let active = active.as_array().unwrap()[0].as_map().unwrap().clone();
    assert_eq!(active.get("id").and_then(Value::as_str), Some(&*ids[0]));
    assert_eq!(active.get("args").and_then(Value::as_str), Some("('a',)"));
    assert_eq!(active.get("acknowledged"), Some(&Value::Bool(false)));
    assert!(active.get("time_start").and_then(Value::as_f64).unwrap() > 1e9);
    let reserved = value(within(control.reserved()).await.unwrap());
    let reserved = reserved.as_array().unwrap()[0].as_map().unwrap().clone();
    assert_eq!(reserved.get("id").and_then(Value::as_str), Some(&*ids[1]));
    assert_eq!(reserved.get("time_start"), Some(&Value::Null));
    let known = value(within(control.query_task([&*ids[0], "unknown", &*ids[1]])).await.unwrap());
    let known = known.as_map().unwrap().clone();
    let state = |id: &str| known.get(id)?.as_array()?.first()?.as_str().map(str::to_owned);
    assert_eq!(known.len(), 2);
    assert_eq!(state(&ids[0]).as_deref(), Some("active"));
    assert_eq!(state(&ids[1]).as_deref(), Some("reserved"));
    let stats = value(within(control.stats()).await.unwrap());
    let total = stats.as_map().unwrap().get("total").unwrap().as_map().unwrap().clone();
    assert_eq!(total.get("tests.hold"), Some(&Value::Int(1)), "{total:?}");
    let health = stats.as_map().unwrap().get("health").unwrap().as_map().unwrap();
    assert_eq!(health.get("healthy"), Some(&Value::Bool(true)), "{health:?}");
    let registered = value(within(control.registered(["ignore_result"])).await.unwrap());
    let shown = Value::from("tests.add [ignore_result=False]");
    assert!(registered.as_array().unwrap().contains(&shown), "{registered:?}");
    let conf = value(within(control.conf()).await.unwrap());
    let url = conf.as_map().unwrap().get("broker_url").unwrap().as_str().unwrap().to_owned();
    let secret = bundle.vhost.url().split_once("://").unwrap().1;
    let secret = secret.split_once('@').unwrap().0.split_once(':').unwrap().1;
    assert!(!url.contains(&format!(":{secret}@")), "{url}");
    let report = ask(&bundle.client, "report", Map::new()).await;
    assert!(!report.contains(&format!(":{secret}@")), "{report}");
    bundle.probe.open(2);
    for result in sent {
        result.unwrap().get(PATIENCE).await.unwrap();
    }
    stop(worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_grows_and_shrinks_and_its_prefetch_follows() {
    let bundle = Bundle::new("pool").await;
    let worker = bundle
        .worker_with(|worker| worker.concurrency(1).blocking_slots(1).prefetch_multiplier(1))
        .await;
    let calls = (0..6).map(|n: i32| hold::s(n.to_string()));
    let sent = bundle.client.send_all(calls).await;
    bundle.probe.seen(1).await;
    let by = |n: i64| arguments([("n", n.into())]);
    assert_eq!(ask(&bundle.client, "pool_grow", by(3)).await, "pool will grow");
    bundle.probe.seen(4).await;
    assert_eq!(ask(&bundle.client, "pool_shrink", by(2)).await, "pool will shrink");
    for wrong in [by(0), by(-1), arguments([("n", "many".into())]), by(2), by(i64::MAX)] {
        let error = ask(&bundle.client, "pool_shrink", wrong).await;
        assert!(error.starts_with("ValueError("), "{error}");
    }
    bundle.probe.open(6);
    for result in sent {
        result.unwrap().get(PATIENCE).await.unwrap();
    }
    stop(worker).await;
    bundle.settled();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_time_limit_that_is_set_ends_the_next_call() {
    let bundle = Bundle::new("set-limit").await;
    let worker = bundle.worker().await;
    let limits = |hard: Value| {
        arguments([("task_name", "tests.hold".into()), ("soft", Value::Null), ("hard", hard)])
    };
    let set = "time limits set successfully";
    assert_eq!(ask(&bundle.client, "time_limit", limits(0.2.into())).await, set);
    let ended = hold::delay(&bundle.client, "ends".to_owned()).await.unwrap();
    let error = ended.get(PATIENCE).await.expect_err("nothing lets it go on");
    let failure = error.failure().expect("reported by the worker");
    assert!(failure.is("TimeLimitExceeded"), "{failure}");
    assert_eq!(ask(&bundle.client, "time_limit", limits(Value::Null)).await, set);
    let held = hold::delay(&bundle.client, "goes on".to_owned()).await.unwrap();
    bundle.probe.open(1);
    assert_eq!(held.get(PATIENCE).await.unwrap(), "goes on");
    stop(worker).await;
    bundle.settled();
}

#[tokio::test(flavor = "multi_thread")]
async fn autoscale_keeps_to_the_bounds_that_are_set() {
    let bundle = Bundle::new("set-bounds").await;
    let worker = bundle.worker_with(|worker| worker.autoscale(1, 1)).await;
    let calls = (0..4).map(|n: i32| hold::s(n.to_string()));
    let sent = bundle.client.send_all(calls).await;
    bundle.probe.seen(1).await;
    let by = || arguments([("n", 1.into())]);
    for method in ["pool_grow", "pool_shrink"] {
        let answer = ask(&bundle.client, method, by()).await;
        assert!(answer.contains("is not supported with autoscale"), "{answer}");
    }
    let bounds = arguments([("max", 4.into()), ("min", 3.into())]);
    assert_eq!(ask(&bundle.client, "autoscale", bounds).await, "autoscale now max=4 min=3");
    // More than one at once: the slots are there.
    bundle.probe.seen(4).await;
    let control = bundle.client.control().timeout(PATIENCE).limit(1);
    let stats = value(within(control.stats()).await.unwrap());
    let scaler = stats.as_map().unwrap().get("autoscaler").unwrap().as_map().unwrap().clone();
    let bound = |name: &str| scaler.get(name).and_then(Value::as_i64);
    assert_eq!((bound("max"), bound("min")), (Some(4), Some(3)), "{scaler:?}");
    bundle.probe.open(4);
    for result in sent {
        result.unwrap().get(PATIENCE).await.unwrap();
    }
    stop(worker).await;
    bundle.settled();
}

/// As Celery publishes to it: with the exchange that was given and the name of the queue.
#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_is_added_is_bound_by_its_name() {
    let bundle = Bundle::new("added").await;
    let worker = bundle.worker().await;
    let added = arguments([("queue", "more".into()), ("exchange", "subjects".into())]);
    assert_eq!(ask(&bundle.client, "add_consumer", added).await, "add consumer more");
    let call = add::s(2, 2).exchange("subjects").routing_key("more");
    assert_eq!(bundle.client.send(call).await.unwrap().get(PATIENCE).await.unwrap(), 4);
    stop(worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn queues_are_added_and_cancelled_while_a_worker_runs() {
    let bundle = Bundle::new("consumers").await;
    let worker = bundle.worker().await;
    let queue = || arguments([("queue", "more".into())]);
    assert_eq!(ask(&bundle.client, "add_consumer", queue()).await, "add consumer more");
    assert_eq!(ask(&bundle.client, "add_consumer", queue()).await, "already consuming from more");
    let call = |x| add::s(x, 1).queue("more");
    let sent = bundle.client.send(call(1)).await.unwrap();
    assert_eq!(sent.get(PATIENCE).await.unwrap(), 2);
    bundle.cut_and_wait("consume");
    let sent = bundle.client.send(call(2)).await.unwrap();
    assert_eq!(sent.get(PATIENCE).await.unwrap(), 3);
    let control = bundle.client.control().timeout(PATIENCE).limit(1);
    let queues = value(within(control.active_queues()).await.unwrap());
    let name = |it: &Value| it.as_map().unwrap().get("name").unwrap().as_str().unwrap().to_owned();
    let names: Vec<String> = queues.as_array().unwrap().iter().map(name).collect();
    assert_eq!(names, ["celeriac", "more"]);
    let cancelled = ask(&bundle.client, "cancel_consumer", queue()).await;
    assert_eq!(cancelled, "no longer consuming from more");
    bundle.cut_and_wait("consume");
    let sent = bundle.client.send(add::s(1, 1)).await.unwrap();
    assert_eq!(sent.get(PATIENCE).await.unwrap(), 2, "the others are consumed as before");
    let none = || (bundle.vhost.consumers("more").ok()? == 0).then_some(());
    bundle.vhost.wait_until("the broker counts no consumer", none).unwrap();
    let topic = arguments([
        ("queue", "topical".into()),
        ("exchange", "subjects".into()),
        ("exchange_type", "topic".into()),
        ("routing_key", "a.#".into()),
    ]);
    assert_eq!(ask(&bundle.client, "add_consumer", topic).await, "add consumer topical");
    let call = add::s(2, 2).exchange("subjects").routing_key("a.b");
    assert_eq!(bundle.client.send(call).await.unwrap().get(PATIENCE).await.unwrap(), 4);
    for wrong in [Map::new(), arguments([("queue", "".into())]), arguments([("queue", 3.into())])] {
        let error = ask(&bundle.client, "add_consumer", wrong).await;
        assert!(error.contains("Error("), "{error}");
    }
    stop(worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_command_is_answered_with_what_is_wrong() {
    let bundle = Bundle::new("wrong").await;
    let worker = bundle.worker().await;
    let limit =
        |limit: Value| arguments([("task_name", "tests.add".into()), ("rate_limit", limit)]);
    let of = |task: &str| arguments([("task_name", task.into()), ("rate_limit", "1/s".into())]);
    let range = arguments([("max", 1.into()), ("min", 4.into())]);
    let limits = |soft: f64, hard: f64| {
        let (soft, hard) = (Value::from(soft), Value::from(hard));
        arguments([("task_name", "tests.add".into()), ("soft", soft), ("hard", hard)])
    };
    for (method, arguments, expected) in [
        ("frobnicate", Map::new(), "KeyError('frobnicate')"),
        ("enable_events", arguments([("x", 1.into())]), "unexpected keyword argument 'x'"),
        ("rate_limit", limit("10/s".into()), "new rate limit set successfully"),
        ("rate_limit", limit(Value::Null), "rate limit disabled successfully"),
        ("rate_limit", limit("fast".into()), "Invalid rate limit string: "),
        ("rate_limit", limit((-1).into()), "Invalid rate limit string: "),
        ("rate_limit", of("nope"), "unknown task"),
        ("rate_limit", Map::new(), "missing 1 required positional argument: 'task_name'"),
        ("time_limit", limits(9.0, 3.0), "the soft limit must be shorter"),
        ("time_limit", limits(-1.0, 3.0), "soft must be a number of seconds above 0"),
        ("autoscale", range, "min must not be above max"),
        ("revoke", Map::new(), "missing 1 required positional argument: 'task_id'"),
        ("revoke", arguments([("task_id", 3.into())]), "task_id must be text"),
        (
            "revoke",
            arguments([("task_id", "x".into()), ("signal", "SIGPONY".into())]),
            "unknown signal 'SIGPONY'",
        ),
        ("revoke_by_stamped_headers", arguments([("headers", 3.into())]), "must be a dict"),
        ("pool_restart", Map::new(), "ValueError('Pool restarts not enabled')"),
    ] {
        let answer = ask(&bundle.client, method, arguments).await;
        assert!(answer.contains(expected), "{method}: {answer}");
    }
    stop(worker).await;
}

/// Garbage of many kinds, and so much of it that the mailbox overflows.
#[tokio::test(flavor = "multi_thread")]
async fn garbage_and_floods_harm_neither_the_tasks_nor_the_next_command() {
    let bundle = Bundle::new("garbage").await;
    let worker = bundle.worker().await;
    let publisher = Publisher::new(bundle.client.connection());
    let message = |content_type: &str, body: Vec<u8>| {
        let content_type = Some(content_type.to_owned());
        let properties = Properties { content_type, ..Properties::default() };
        Message { properties, body }
    };
    let nowhere = Request {
        method: "ping".to_owned(),
        ticket: Some("t".to_owned()),
        reply_to: Some(ReplyTo { exchange: "nowhere".to_owned(), routing_key: "x".to_owned() }),
        ..Request::default()
    };
    let nowhere = nowhere.encode(Serializer::Json, 0, 0.0).unwrap();
    let mut bad = vec![
        message("application/json", b"{\"method\": \"pi".to_vec()),
        message("application/json", b"[[[[[]]]]]".to_vec()),
        message("application/x-msgpack", vec![0xc1; 100]),
        message("application/x-python-serialize", b"cos\nsystem\n".to_vec()),
        message("", Vec::new()),
        message("application/json", vec![b' '; 5 << 20]),
        message("application/json", "[".repeat(100_000).into_bytes()),
    ];
    bad.extend(std::iter::repeat_n(nowhere, 20));
    let flood = b"{\"method\": \"frobnicate\", \"arguments\": {}}".to_vec();
    bad.extend(std::iter::repeat_n(message("application/json", flood), 5000));
    let publishes = bad.into_iter().map(|message| Publish::new("celery.pidbox", "", message));
    let sent = within(publisher.publish_all(publishes.collect())).await;
    assert!(sent.iter().all(Result::is_ok));
    let added = bundle.client.send(add::s(2, 2)).await.unwrap();
    assert_eq!(added.get(PATIENCE).await.unwrap(), 4);
    let control = bundle.client.control().timeout(PATIENCE).limit(1);
    assert_eq!(text(&within(control.ping()).await.unwrap()), "pong");
    stop(worker).await;
    bundle.settled();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_for_replies_that_is_given_up_leaves_no_queue_behind() {
    let bundle = Bundle::new("ask-dropped").await;
    let worker = bundle.worker().await;
    let control = bundle.client.control().timeout(Duration::MAX);
    let asking = tokio::spawn(async move { control.ping().await });
    let is_there = || {
        let queues = bundle.vhost.queues().ok()?;
        Some(queues.iter().any(|queue| queue.contains("reply.celery.pidbox")))
    };
    bundle.vhost.wait_until("it waits", || is_there()?.then_some(())).unwrap();
    asking.abort();
    assert!(within(asking).await.unwrap_err().is_cancelled());
    bundle.vhost.wait_until("the queue is gone", || (!is_there()?).then_some(())).unwrap();
    bundle.cut_and_wait("publish");
    // By then all that is remembered was declared again.
    bundle.client.send(add::s(1, 1)).await.unwrap();
    assert_eq!(is_there(), Some(false));
    stop(worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_node_of_one_name_works_without_a_mailbox_until_the_first_is_gone() {
    let bundle = Bundle::new("namesakes").await;
    let first = bundle.worker().await;
    let second = bundle.worker().await;
    let control = bundle.client.control();
    assert_eq!(within(control.ping()).await.unwrap().len(), 1);
    stop(first).await;
    let control = control.timeout(Duration::from_secs(1)).limit(1);
    let alone = async {
        while within(control.ping()).await.unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
    };
    within(alone).await;
    stop(second).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mailbox_comes_back_after_a_lost_connection() {
    let bundle = Bundle::new("mailbox-cut").await;
    let worker = bundle.worker().await;
    bundle.cut_and_wait("consume");
    let control = bundle.client.control().timeout(Duration::from_secs(1)).limit(1);
    let back = async {
        while within(control.ping()).await.unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
    };
    within(back).await;
    stop(worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_is_told_to_shut_down_finishes_what_runs() {
    let bundle = Bundle::new("told").await;
    let worker = bundle.worker().await;
    let result = hold::delay(&bundle.client, "x".to_owned()).await.unwrap();
    bundle.probe.seen(1).await;
    within(bundle.client.control().to(["test@host"]).shutdown()).await.unwrap();
    bundle
        .vhost
        .wait_until("nobody consumes", || {
            (bundle.vhost.consumers("celeriac").ok()? == 0).then_some(())
        })
        .unwrap();
    let control = bundle.client.control().timeout(PATIENCE).limit(1);
    assert_eq!(text(&within(control.ping()).await.unwrap()), "pong", "it answers to the end");
    bundle.probe.open(1);
    assert_eq!(within(worker.wait()).await.unwrap(), Stopped::Warm);
    assert_eq!(result.get(PATIENCE).await.unwrap(), "x");
}
