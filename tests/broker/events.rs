//! What workers and clients tell monitors, and that nothing depends on it.

use std::collections::HashMap;
use std::time::Duration;

use celeriac::amqp::{Publish, Publisher};
use celeriac::client::Events;
use celeriac::protocol::control::Request;
use celeriac::protocol::event::{Event, EventKind, WorkerFacts};
use celeriac::protocol::{Expires, Map, Serializer};
use celeriac::{Client, Config, Context, Signature, TaskResult, Value, group, task};
use serde_json::json;
use xtask::TestVhost;

use crate::bundle::{Bundle, PATIENCE, stop, within};
use crate::control::ask;
use crate::retries::flaky;
use crate::tasks::{add, gives_back, hold, multiply, note, python_error, reject, sum};

/// Heartbeats that nobody has to wait for.
const OFTEN: Duration = Duration::from_millis(200);

/// Settings with which everything is told.
fn talkative(config: &mut Config) {
    config.worker_send_task_events = true;
    config.task_send_sent_event = true;
    config.worker_heartbeat_interval = Some(OFTEN);
}

/// Listens until the last wanted event has come.
async fn until(events: &mut Events, mut is_last: impl FnMut(&Event) -> bool) -> Vec<Event> {
    let mut seen = Vec::new();
    // All of it within the time: heartbeats never end.
    let listen = async {
        loop {
            let event = events.next().await.expect("the connection is there");
            let last = is_last(&event);
            seen.push(event);
            if last {
                return;
            }
        }
    };
    within(listen).await;
    seen
}

/// Listens until so many events of each of these tasks have come. Sender and worker tell apart from
/// each other, so that the last event of a task need not come last.
async fn until_all(events: &mut Events, wanted: &[(&str, usize)]) -> Vec<Event> {
    let mut left: HashMap<&str, usize> = wanted.iter().copied().collect();
    until(events, |event| {
        if let Some(left) = event.kind.uuid().and_then(|id| left.get_mut(id)) {
            *left = left.saturating_sub(1);
        }
        left.values().all(|left| *left == 0)
    })
    .await
}

/// Tells something by itself.
#[task(name = "tests.tells")]
async fn tells(cx: Context) -> TaskResult<()> {
    for wrong in ["task-succeeded", "worker-offline", ""] {
        assert!(cx.send_event(wrong, ()).is_err(), "{wrong}");
    }
    cx.send_event("task-progress", Map::from_iter([("done", 3)]))?;
    cx.send_event("order-paid", ())?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_task_tells_by_itself_is_told_whether_or_not_its_other_events_are() {
    let bundle = Bundle::new("events-own").await;
    let mut events = within(bundle.client.events()).await.unwrap();
    let worker = bundle.worker().await;
    let result = tells::delay(&bundle.client).await.unwrap();
    result.get(PATIENCE).await.unwrap();
    let seen = until(&mut events, |event| event.name() == "order-paid").await;
    assert_eq!(life(&seen, result.id()), ["task-progress", "order-paid"]);
    let told = told(&seen, result.id());
    let Some(EventKind::Custom { fields, .. }) = told.get("task-progress") else {
        panic!("{told:?}")
    };
    assert_eq!(fields.get("done"), Some(&Value::Int(3)));
    stop(worker).await;
}

/// So that monitors, which order by it, do not take a new worker's events for the oldest.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_begins_with_the_clock_of_those_that_are_there() {
    const FAR: i64 = 1_000_000;
    let bundle = Bundle::new("events-clock").await;
    let one = bundle.worker_with(|worker| worker.hostname("one@host")).await;
    // As after many commands and events.
    let ping = Request { method: "ping".to_owned(), ..Request::default() };
    let ping = ping.encode(Serializer::Json, FAR, 0.0).unwrap();
    let publisher = Publisher::new(bundle.client.connection());
    within(publisher.publish(Publish::new("celery.pidbox", "", ping))).await.unwrap();
    let knows = async |client: &Client, host: &str| -> bool {
        let control = client.control().to([host]).timeout(PATIENCE);
        let reply = within(control.clock()).await.unwrap().remove(0);
        let clock = reply.value.as_map().unwrap().get("clock").and_then(Value::as_i64);
        clock.unwrap() > FAR
    };
    within(async { while !knows(&bundle.client, "one@host").await {} }).await;
    let two = bundle.worker_with(|worker| worker.hostname("two@host")).await;
    // The question of this one does not tell it.
    let other = within(Client::connect(bundle.client.config().clone())).await.unwrap();
    assert!(knows(&other, "two@host").await);
    other.close().await;
    stop(one).await;
    stop(two).await;
}

/// A check whether an event is this one of this task.
fn is(name: &'static str, id: &str) -> impl FnMut(&Event) -> bool + use<> {
    let id = id.to_owned();
    move |event| event.name() == name && event.kind.uuid() == Some(&id)
}

/// The names of a task's events, in the order of their clocks.
fn life<'a>(seen: &'a [Event], id: &str) -> Vec<&'a str> {
    let mut own: Vec<_> = seen.iter().filter(|event| event.kind.uuid() == Some(id)).collect();
    // The clock of a client means nothing.
    own.sort_by_key(|event| (event.name() != "task-sent", event.clock));
    own.iter().map(|event| event.name()).collect()
}

/// The events of the task with their names.
fn told(seen: &[Event], id: &str) -> HashMap<String, EventKind> {
    let own = seen.iter().filter(|event| event.kind.uuid() == Some(id));
    own.map(|event| (event.name().to_owned(), event.kind.clone())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_life_of_a_task_is_told_from_its_sending_to_its_result() {
    let bundle = Bundle::with("events-life", talkative).await;
    let mut events = within(bundle.client.events()).await.unwrap();
    let worker = bundle.worker().await;
    let call = add::s(2, 3).shadow("shown").countdown(Duration::from_millis(10));
    let result = bundle.client.send(call).await.unwrap();
    let id = result.id().to_owned();
    let seen = until_all(&mut events, &[(&id, 4)]).await;
    let names = ["task-sent", "task-received", "task-started", "task-succeeded"];
    assert_eq!(life(&seen, &id), names);
    let mut told = told(&seen, &id);
    let Some(EventKind::TaskSent(sent)) = told.remove("task-sent") else { panic!("{told:?}") };
    assert_eq!(sent.queue.as_deref(), Some("celeriac"));
    assert_eq!(
        (sent.exchange.as_deref(), sent.routing_key.as_deref()),
        (Some(""), Some("celeriac"))
    );
    assert_eq!(sent.task.name.as_deref(), Some("tests.add"));
    let Some(EventKind::TaskReceived(task)) = told.remove("task-received") else {
        panic!("{told:?}")
    };
    assert_eq!(task.name.as_deref(), Some("shown"));
    for it in [&sent.task, &task] {
        assert_eq!((it.args.as_deref(), it.kwargs.as_deref()), (Some("(2, 3)"), Some("{}")));
        assert_eq!((it.root_id.as_deref(), it.parent_id.as_deref()), (Some(&*id), None));
        assert!(it.eta.is_some() && it.expires.is_none() && it.retries == 0, "{it:?}");
    }
    let Some(EventKind::TaskSucceeded { result, runtime, .. }) = told.remove("task-succeeded")
    else {
        panic!("{told:?}")
    };
    assert_eq!(result.as_deref(), Some("5"));
    assert!(runtime.is_some_and(|runtime| (0.0..120.0).contains(&runtime)));
    let of_worker = seen.iter().filter(|event| event.hostname == "test@host");
    let pid = i64::from(std::process::id());
    assert!(of_worker.clone().all(|event| event.pid == Some(pid) && event.utcoffset.is_some()));
    assert!(of_worker.map(|event| event.clock).is_sorted(), "{seen:?}");
    let sender = seen.iter().find(|event| event.name() == "task-sent").unwrap();
    assert!(sender.hostname.starts_with(&format!("gen{pid}@")), "{}", sender.hostname);
    stop(worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_end_of_a_task_has_its_own_event() {
    let bundle = Bundle::with("events-ends", talkative).await;
    let mut events = within(bundle.client.events()).await.unwrap();
    let worker = bundle.worker_with(|worker| worker.concurrency(1)).await;
    let client = &bundle.client;
    let send = async |call: Signature<()>| client.send(call).await.unwrap().id().to_owned();
    let failed = send(python_error::s()).await;
    let retried = client.send(flaky::s(7)).await.unwrap().id().to_owned();
    let rejected = send(reject::s()).await;
    let unknown = send(Signature::new("tests.nobody_has_it")).await;
    let expired = client.send(add::s(1, 1).expires(Expires::In(Duration::ZERO))).await.unwrap();
    let wanted = [(&*failed, 4), (&retried, 12), (&rejected, 4), (&unknown, 2), (expired.id(), 3)];
    let seen = until_all(&mut events, &wanted).await;
    let once = ["task-sent", "task-received", "task-started", "task-failed"];
    assert_eq!(life(&seen, &failed), once);
    let Some(EventKind::TaskFailed { exception, .. }) = told(&seen, &failed).remove("task-failed")
    else {
        panic!("{seen:?}")
    };
    assert_eq!(exception.as_deref(), Some("ValueError('kaboom')"));
    let again = ["task-sent", "task-received", "task-started", "task-retried"];
    let last = ["task-sent", "task-received", "task-started", "task-succeeded"];
    let mut expected: Vec<_> = [again, again, last].concat();
    // The clocks of the sender are another matter.
    expected.sort_by_key(|name| *name != "task-sent");
    assert_eq!(life(&seen, &retried), expected, "each retry is sent and received");
    let Some(EventKind::TaskRetried { exception, traceback, .. }) =
        told(&seen, &retried).remove("task-retried")
    else {
        panic!("{seen:?}")
    };
    assert_eq!(exception.as_deref(), Some("Exception('try 1')"));
    assert!(traceback.is_some_and(|it| it.contains("Retry in 0.1s")));
    assert_eq!(life(&seen, &rejected).last(), Some(&"task-rejected"));
    assert_eq!(life(&seen, &unknown), ["task-sent", "task-failed"]);
    let Some(EventKind::TaskFailed { exception, traceback, .. }) =
        told(&seen, &unknown).remove("task-failed")
    else {
        panic!("{seen:?}")
    };
    assert_eq!(exception.as_deref(), Some("NotRegistered('tests.nobody_has_it')"));
    assert_eq!(traceback, None);
    let revoked = told(&seen, expired.id()).remove("task-revoked");
    let expected = EventKind::TaskRevoked {
        uuid: expired.id().to_owned(),
        terminated: false,
        signum: None,
        expired: true,
    };
    assert_eq!(revoked, Some(expected));
    stop(worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_revoked_or_goes_back_is_told() {
    let bundle = Bundle::with("events-revoked", talkative).await;
    let mut events = within(bundle.client.events()).await.unwrap();
    let worker = bundle.worker().await;
    let held = bundle.client.send(hold::s("held".to_owned())).await.unwrap();
    bundle.probe.seen(1).await;
    within(held.revoke(true)).await.unwrap();
    let seen = until(&mut events, is("task-revoked", held.id())).await;
    let expected = EventKind::TaskRevoked {
        uuid: held.id().to_owned(),
        terminated: true,
        signum: Some(15),
        expired: false,
    };
    assert_eq!(told(&seen, held.id()).remove("task-revoked"), Some(expected));
    let back = bundle.client.send(gives_back::s()).await.unwrap();
    let seen = until(&mut events, is("task-rejected", back.id())).await;
    let rejected = told(&seen, back.id()).remove("task-rejected");
    assert!(matches!(rejected, Some(EventKind::TaskRejected { requeue: true, .. })));
    within(back.revoke(false)).await.unwrap();
    until(&mut events, is("task-revoked", back.id())).await;
    stop(worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_revoked_before_it_starts_was_not_terminated() {
    let bundle = Bundle::with("events-withheld", talkative).await;
    let mut events = within(bundle.client.events()).await.unwrap();
    let worker = bundle.worker_with(|worker| worker.concurrency(1).prefetch_multiplier(2)).await;
    let held = bundle.client.send(hold::s("held".to_owned())).await.unwrap();
    bundle.probe.seen(1).await;
    let waits = bundle.client.send(hold::s("waits".to_owned())).await.unwrap();
    until(&mut events, is("task-received", waits.id())).await;
    within(waits.revoke(true)).await.unwrap();
    let seen = until(&mut events, is("task-revoked", waits.id())).await;
    let expected = EventKind::TaskRevoked {
        uuid: waits.id().to_owned(),
        terminated: false,
        signum: None,
        expired: false,
    };
    assert_eq!(told(&seen, waits.id()).remove("task-revoked"), Some(expected));
    bundle.probe.open(1);
    held.get(PATIENCE).await.unwrap();
    stop(worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_finishes_what_runs_takes_part_in_elections() {
    let bundle = Bundle::new("events-drain").await;
    let mut events = within(bundle.client.events()).await.unwrap();
    let worker = bundle.worker().await;
    let held = bundle.client.send(hold::s("held".to_owned())).await.unwrap();
    bundle.probe.seen(1).await;
    worker.handle().shutdown();
    let vote = Map::from_iter([("id", "vote")]);
    within(bundle.client.control().cast("election", vote)).await.unwrap();
    let seen = until(&mut events, |event| event.name() == "worker-elect-ack").await;
    let Some(EventKind::Custom { fields, .. }) = seen.last().map(|event| &event.kind) else {
        panic!("{seen:?}")
    };
    assert_eq!(fields.get("id").and_then(Value::as_str), Some("vote"));
    bundle.probe.open(1);
    held.get(PATIENCE).await.unwrap();
    stop(worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_steps_of_a_workflow_are_told_by_the_worker_that_sends_them() {
    let bundle = Bundle::with("events-steps", talkative).await;
    let mut events = within(bundle.client.events()).await.unwrap();
    let worker = bundle.worker().await;
    let result = bundle.client.apply(add::s(1, 2) | multiply::partial(5)).await.unwrap();
    let seen = until_all(&mut events, &[(result.id(), 4)]).await;
    let names = ["task-sent", "task-received", "task-started", "task-succeeded"];
    assert_eq!(life(&seen, result.id()), names);
    let Some(EventKind::TaskSent(sent)) = told(&seen, result.id()).remove("task-sent") else {
        panic!("{seen:?}")
    };
    assert_eq!(sent.task.args.as_deref(), Some("(3, 5)"));
    // The body of a chord is sent by its joiner.
    let header = group([add::s(1, 2), add::s(3, 4)]);
    let sum = bundle.client.apply(header | sum::partial()).await.unwrap();
    let seen = until_all(&mut events, &[(sum.id(), 4)]).await;
    assert_eq!(life(&seen, sum.id()), names);
    stop(worker).await;
}

fn facts(event: &Event) -> &WorkerFacts {
    match &event.kind {
        EventKind::WorkerOnline(facts)
        | EventKind::WorkerHeartbeat(facts)
        | EventKind::WorkerOffline(facts) => facts,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_tells_that_it_is_there_and_what_it_does() {
    let bundle = Bundle::with("events-heart", |config| {
        config.worker_heartbeat_interval = Some(OFTEN);
    });
    let bundle = bundle.await;
    let mut events = within(bundle.client.events()).await.unwrap();
    let worker = bundle.worker().await;
    let online = within(events.next()).await.unwrap();
    assert_eq!((online.name(), &*online.hostname), ("worker-online", "test@host"));
    let software = |facts: &WorkerFacts| facts.sw_ident.as_deref() == Some("celeriac");
    assert!(software(facts(&online)) && facts(&online).loadavg.is_some());
    assert_eq!((facts(&online).active, facts(&online).processed), (Some(0), Some(0)));
    bundle.client.send(add::s(1, 1)).await.unwrap().get(PATIENCE).await.unwrap();
    let held = bundle.client.send(hold::s("held".to_owned())).await.unwrap();
    bundle.probe.seen(1).await;
    // One may also tell of the first task.
    let busy = |event: &Event| facts(event).active == Some(1) && facts(event).processed == Some(2);
    let seen = until(&mut events, busy).await;
    let last = seen.last().unwrap();
    assert_eq!(last.name(), "worker-heartbeat");
    assert_eq!(facts(last).freq, Some(OFTEN.as_secs_f64()));
    bundle.probe.open(1);
    held.get(PATIENCE).await.unwrap();
    stop(worker).await;
    let seen = until(&mut events, |event| event.name() == "worker-offline").await;
    assert_eq!(facts(seen.last().unwrap()).active, Some(0));
    let of_task = |event: &Event| event.kind.is_of_task();
    assert!(!seen.iter().any(of_task), "nobody has asked for them");
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_turn_the_events_of_tasks_on_and_off() {
    let bundle = Bundle::new("events-commands").await;
    let mut events = within(bundle.client.events()).await.unwrap();
    let worker = bundle.worker().await;
    let client = &bundle.client;
    let say = async |method: &str| ask(client, method, Map::new()).await;
    assert_eq!(say("disable_events").await, "task events already disabled");
    assert_eq!(say("enable_events").await, "task events enabled");
    assert_eq!(say("enable_events").await, "task events already enabled");
    let told_of = client.send(add::s(1, 1)).await.unwrap();
    until(&mut events, is("task-succeeded", told_of.id())).await;
    assert_eq!(say("disable_events").await, "task events disabled");
    let secret = client.send(add::s(2, 2)).await.unwrap();
    assert_eq!(secret.get(PATIENCE).await.unwrap(), 4);
    assert_eq!(say("enable_events").await, "task events enabled");
    let again = client.send(add::s(3, 3)).await.unwrap();
    let seen = until(&mut events, is("task-succeeded", again.id())).await;
    assert!(told(&seen, secret.id()).is_empty(), "{seen:?}");
    let wrong = Map::from_iter([("what", "all")]);
    assert!(ask(client, "enable_events", wrong).await.starts_with("TypeError("));
    stop(worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_is_to_send_events_cannot_be_told_not_to() {
    let bundle = Bundle::with("events-always", talkative).await;
    let worker = bundle.worker().await;
    let say = async |method: &str| ask(&bundle.client, method, Map::new()).await;
    assert_eq!(say("enable_events").await, "task events already enabled");
    assert_eq!(say("disable_events").await, "task events already disabled");
    let mut events = within(bundle.client.events()).await.unwrap();
    let result = bundle.client.send(add::s(1, 1)).await.unwrap();
    until(&mut events, is("task-succeeded", result.id())).await;
    stop(worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_without_a_heart_answers_who_asks_for_it() {
    let quiet = |config: &mut Config| config.worker_heartbeat_interval = None;
    let bundle = Bundle::with("events-no-heart", quiet).await;
    let worker = bundle.worker().await;
    // Who begins to listen asks.
    let mut events = within(bundle.client.events()).await.unwrap();
    let answer = within(events.next()).await.unwrap();
    assert_eq!((answer.name(), facts(&answer).freq), ("worker-heartbeat", Some(5.0)));
    assert_eq!((facts(&answer).active, facts(&answer).loadavg), (None, None));
    assert!(facts(&answer).sw_ver.is_some());
    stop(worker).await;
    let other = Client::connect(bundle.client.config().clone()).await.unwrap();
    let mut later = within(other.events()).await.unwrap();
    other.close().await;
    assert_eq!(within(later.next()).await, None, "it ends with its client");
    bundle.client.close().await;
    assert_eq!(within(events.next()).await, None, "neither online nor offline were told");
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_go_on_without_their_events() {
    let bundle = Bundle::with("events-lost", talkative).await;
    let worker = bundle.worker().await;
    let mut events = within(bundle.client.events()).await.unwrap();
    until(&mut events, |event| event.name() == "worker-heartbeat").await;
    drop(events);
    let vhost = bundle.vhost.name().to_owned();
    bundle.vhost.management().delete(&["exchanges", &vhost, "celeryev"]).unwrap();
    let calls = (0..50).map(|n: i64| note::s(n.to_string()));
    for result in bundle.client.send_all(calls).await {
        result.unwrap().get(PATIENCE).await.unwrap();
    }
    bundle.settled();
    // Whoever listens next brings the exchange back, and so do those who tell.
    let mut events = within(bundle.client.events()).await.unwrap();
    until(&mut events, |event| event.name() == "worker-heartbeat").await;
    bundle.cut_and_wait("publish");
    let result = bundle.client.send(add::s(1, 1)).await.unwrap();
    assert_eq!(result.get(PATIENCE).await.unwrap(), 2);
    until(&mut events, is("task-succeeded", result.id())).await;
    stop(worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_may_not_tell_anything_works_all_the_same() {
    let vhost = TestVhost::create("events-denied").unwrap();
    let (name, url) = (vhost.name().to_owned(), vhost.url().to_owned());
    let (_, address) = url.rsplit_once('@').unwrap();
    let denied = "^(?!celeryev).*";
    let permissions = json!({ "configure": denied, "write": denied, "read": ".*" });
    let management = vhost.management();
    management.put(&["users", &name], &json!({ "password": "secret", "tags": "" })).unwrap();
    management.put(&["permissions", &name, &name], &permissions).unwrap();
    let mine = format!("amqp://{name}:secret@{address}").parse().unwrap();
    let bundle = Bundle::on(vhost, |config| {
        talkative(config);
        config.broker_url = vec![mine];
    });
    let bundle = bundle.await;
    let worker = bundle.worker().await;
    let calls = (0..50).map(|n: i64| note::s(n.to_string()));
    for result in bundle.client.send_all(calls).await {
        result.unwrap().get(PATIENCE).await.unwrap();
    }
    let stats = within(bundle.client.control().limit(1).stats()).await.unwrap().remove(0).value;
    let told = stats.as_map().unwrap().get("events").unwrap().as_map().unwrap().clone();
    assert_eq!(told.get("sent"), Some(&Value::Int(0)), "{told:?}");
    assert!(within(bundle.client.events()).await.is_err(), "who listens is told");
    stop(worker).await;
    bundle.settled();
    bundle.vhost.management().delete(&["users", &name]).unwrap();
}
