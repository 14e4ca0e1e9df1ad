//! What is revoked does not run, whoever starts when.

use std::time::Duration;

use celeriac::amqp::{Connection, ConnectionOptions};
use celeriac::protocol::TaskState;
use celeriac::protocol::control::{Mark, Revocation};
use celeriac::{AnyResult, Signature, Value, Workflow, chord, group};

use crate::bundle::{Bundle, PATIENCE, stop, within};
use crate::tasks::{add, hold, note, sum};
use crate::workflow::brisk;

/// The task was revoked, and its caller knows.
async fn is_revoked<T: serde::de::DeserializeOwned>(result: &celeriac::AsyncResult<T>) {
    let error = result.get(PATIENCE).await.err().expect("a failure");
    let failure = error.failure().expect("reported by a worker");
    assert_eq!(failure.state, TaskState::Revoked);
    assert!(failure.is("TaskRevokedError"), "{failure}");
}

fn say(label: &str) -> Signature<String> {
    note::s(label.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_is_revoked_before_any_worker_starts_never_runs() {
    let bundle = Bundle::new("revoke-before").await;
    let revoked = bundle.client.send(say("revoked")).await.unwrap();
    let kept = bundle.client.send(say("kept")).await.unwrap();
    within(revoked.revoke(false)).await.unwrap();
    // Of what nobody knows, nothing comes.
    within(bundle.client.control().revoke(["unknown"], true)).await.unwrap();
    let worker = bundle.worker().await;
    assert_eq!(kept.get(PATIENCE).await.unwrap(), "kept");
    is_revoked(&revoked).await;
    stop(worker).await;
    assert_eq!(bundle.probe.runs(), ["kept"]);
    bundle.settled();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_survives_a_restart_of_the_whole_fleet() {
    let bundle = Bundle::new("revoke-fleet").await;
    let fleet = [bundle.worker().await, bundle.worker_with(|it| it.hostname("two@host")).await];
    let control = bundle.client.control().limit(2).timeout(PATIENCE);
    let replies = within(control.revoke(["later"], false)).await.unwrap();
    assert_eq!(replies.len(), 2, "{replies:?}");
    for worker in fleet {
        stop(worker).await;
    }
    let revoked = bundle.client.send(say("later").task_id("later")).await.unwrap();
    let worker = bundle.worker_with(|it| it.hostname("three@host")).await;
    is_revoked(&revoked).await;
    let control = bundle.client.control().timeout(PATIENCE).limit(1);
    let known = within(control.revoked()).await.unwrap().remove(0).value;
    assert_eq!(known, Value::Array(vec!["later".into()]));
    stop(worker).await;
    assert!(bundle.probe.runs().is_empty());
}

/// As Python's clients do it: a broadcast to those that run, and nothing else.
#[tokio::test(flavor = "multi_thread")]
async fn what_workers_are_told_by_broadcast_they_write_down_once() {
    let bundle = Bundle::new("revoke-broadcast").await;
    let fleet = [bundle.worker().await, bundle.worker_with(|it| it.hostname("two@host")).await];
    let arguments = celeriac::protocol::Map::from_iter([("task_id", Value::from("told"))]);
    let control = bundle.client.control().limit(2).timeout(PATIENCE);
    let replies = within(control.command("revoke", arguments)).await.unwrap();
    for reply in &replies {
        let text = reply.ok().and_then(Value::as_str);
        assert_eq!(text, Some("tasks {'told'} flagged as revoked"));
    }
    for worker in fleet {
        stop(worker).await;
    }
    let revoked = bundle.client.send(say("told").task_id("told")).await.unwrap();
    let worker = bundle.worker_with(|it| it.hostname("three@host")).await;
    is_revoked(&revoked).await;
    stop(worker).await;
    assert!(bundle.probe.runs().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_in_a_worker_is_revoked_there_and_what_runs_is_ended_on_demand() {
    let bundle = Bundle::new("revoke-here").await;
    let worker = bundle.narrow_worker().await;
    let running = hold::delay(&bundle.client, "runs".to_owned()).await.unwrap();
    let waiting = hold::delay(&bundle.client, "waits".to_owned()).await.unwrap();
    bundle.probe.seen(1).await;
    let one = || bundle.client.control().limit(1).timeout(PATIENCE);
    let flagged = within(one().revoke([waiting.id(), running.id()], false)).await.unwrap();
    assert!(flagged[0].ok().unwrap().as_str().unwrap().ends_with("flagged as revoked"));
    is_revoked(&waiting).await;
    assert!(!running.ready(), "it goes on");
    let ended = within(one().revoke([running.id()], true)).await.unwrap();
    let expected = format!("terminate: {}", running.id());
    assert_eq!(ended[0].ok().and_then(Value::as_str), Some(&*expected));
    is_revoked(&running).await;
    let unknown = within(one().revoke(["nobody"], true)).await.unwrap();
    assert_eq!(unknown[0].ok().and_then(Value::as_str), Some("terminate: tasks unknown"));
    stop(worker).await;
    assert_eq!(bundle.probe.runs(), ["runs"]);
    bundle.settled();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workflow_is_revoked_by_its_root() {
    let bundle = Bundle::new("revoke-root").await;
    let worker = bundle.worker().await;
    let steps = hold::s("first".to_owned()) | note::partial() | note::partial();
    let last = bundle.client.apply(steps).await.unwrap();
    bundle.probe.seen(1).await;
    let root = last.parent().unwrap().parent().unwrap().id().to_owned();
    within(bundle.client.revoke_root(root, false)).await.unwrap();
    let other = bundle.client.send(add::s(1, 1)).await.unwrap();
    assert_eq!(other.get(PATIENCE).await.unwrap(), 2);
    bundle.probe.open(1);
    is_revoked(&last).await;
    stop(worker).await;
    assert_eq!(bundle.probe.runs(), ["first"], "the next step did not run");
    bundle.settled();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_parts_of_a_cancelled_chord_do_not_run() {
    let bundle = Bundle::new("revoke-chord").await;
    let part = |n: i64| Workflow::task("tests.hold", [Value::from(n.to_string())]);
    let body = Workflow::task("tests.total", []);
    let result = bundle.client.apply(Workflow::chord((0..5).map(part), body)).await.unwrap();
    let id = result.parent().expect("the header").id().to_owned();
    within(bundle.client.cancel_chord(&id, "no longer wanted", false)).await.unwrap();
    let worker = bundle.worker().await;
    let error = result.get(PATIENCE).await.expect_err("it is cancelled");
    let failure = error.failure().expect("reported");
    assert_eq!(failure.state, TaskState::Revoked);
    bundle.wait_for_depth(0, 0);
    stop(worker).await;
    assert!(bundle.probe.runs().is_empty(), "{:?}", bundle.probe.runs());
}

/// A chord whose first part fails, and whose others wait at the gate.
pub(crate) fn doomed(others: &[&str]) -> celeriac::Chord<i64> {
    let fails = Signature::<i64>::new("tests.python_error");
    let hold = |label: &&str| Signature::<i64>::new("tests.hold").arg((*label).to_owned());
    let header: Vec<_> = [fails].into_iter().chain(others.iter().map(hold)).collect();
    chord(header, sum::partial()).revoke_rest(true).header_results(true)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rest_of_a_chord_that_has_failed_does_not_run_if_it_asks_for_that() {
    let bundle = Bundle::new("revoke-rest").await;
    let result = bundle.client.apply(doomed(&["1", "2", "3"])).await.unwrap();
    let worker = bundle.narrow_worker().await;
    let error = result.get(PATIENCE).await.expect_err("a part fails");
    assert!(error.failure().is_some_and(|failure| failure.is("ChordError")), "{error}");
    let Some(AnyResult::Group(header)) = result.parent() else { panic!("the header") };
    let parts = header.results().iter().map(|part| match part {
        AnyResult::Task(part) => part,
        AnyResult::Group(_) => panic!("not a task"),
    });
    let parts: Vec<_> = parts.collect();
    // The second part may have begun before anybody knew. The gate is shut, so the others wait.
    for part in &parts[2..] {
        is_revoked(part).await;
    }
    bundle.probe.open(1);
    stop(worker).await;
    assert!(bundle.probe.runs().iter().all(|label| label == "1"), "{:?}", bundle.probe.runs());
    bundle.settled();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chord_whose_rest_cannot_be_revoked_fails_all_the_same() {
    let vhost = xtask::TestVhost::create("revoke-rest-nowhere").unwrap();
    let bundle = Bundle::on(full_stream(vhost).await, brisk).await;
    let worker = bundle.worker().await;
    let result = bundle.client.apply(doomed(&["runs"])).await.unwrap();
    let error = result.get(PATIENCE).await.expect_err("a part fails");
    assert!(error.failure().is_some_and(|failure| failure.is("ChordError")), "{error}");
    bundle.probe.open(1);
    bundle.probe.seen(1).await;
    bundle.nothing_is_left();
    stop(worker).await;
    assert_eq!(bundle.probe.runs(), ["runs"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_are_revoked_by_their_stamps() {
    let bundle = Bundle::new("revoke-stamps").await;
    let worker = bundle.worker().await;
    let mark = |value: &str| Mark::Stamp { name: "tenant".to_owned(), value: value.into() };
    let control = bundle.client.control().limit(1).timeout(PATIENCE);
    let revocation = Revocation::now([mark("a"), mark("b")]);
    let replies = within(control.revoke_marked(revocation)).await.unwrap();
    let expected = "headers {'tenant': ['a', 'b']} flagged as revoked, but not terminated";
    assert_eq!(replies[0].ok().and_then(Value::as_str), Some(expected));
    let stamped = |value: &'static str| {
        group([say(value)]).stamp("tenant", vec![Value::from("x"), Value::from(value)])
    };
    let revoked = bundle.client.apply(stamped("a")).await.unwrap();
    let kept = bundle.client.apply(stamped("c")).await.unwrap();
    is_revoked(part(&revoked, 0)).await;
    assert_eq!(kept.get(PATIENCE).await.unwrap(), ["c"]);
    stop(worker).await;
    assert_eq!(bundle.probe.runs(), ["c"]);
}

/// The task of one part of a group.
fn part<T>(result: &celeriac::GroupResult<T>, at: usize) -> &celeriac::AsyncResult<Value> {
    let AnyResult::Task(part) = &result.results()[at] else { panic!("a task") };
    part
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_is_revoked_by_its_id_and_its_neighbour_is_not() {
    let bundle = Bundle::new("revoke-group").await;
    let revoked = bundle.client.apply(group([say("one"), say("two")])).await.unwrap();
    let kept = bundle.client.apply(group([say("three"), say("four")])).await.unwrap();
    within(bundle.client.revoke_group(revoked.id(), false)).await.unwrap();
    let worker = bundle.worker().await;
    assert_eq!(kept.get(PATIENCE).await.unwrap(), ["three", "four"]);
    is_revoked(part(&revoked, 0)).await;
    is_revoked(part(&revoked, 1)).await;
    stop(worker).await;
    let mut runs = bundle.probe.runs();
    runs.sort();
    assert_eq!(runs, ["four", "three"]);
    bundle.settled();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_runs_is_ended_by_its_root_by_its_group_and_by_its_stamp() {
    let bundle = Bundle::new("revoke-running").await;
    let worker = bundle.worker().await;
    let held = |label: &str| hold::s(label.to_owned());
    let kept = bundle.client.send(held("kept")).await.unwrap();
    let chain = bundle.client.apply(held("chain") | note::partial()).await.unwrap();
    let grouped = bundle.client.apply(group([held("one"), held("two")])).await.unwrap();
    let stamped = group([held("stamped")]).stamp("tenant", "a");
    let stamped = bundle.client.apply(stamped).await.unwrap();
    bundle.probe.seen(5).await;
    let Some(AnyResult::Task(first)) = chain.parent() else { panic!("a task") };
    within(bundle.client.revoke_root(first.id(), true)).await.unwrap();
    is_revoked(first).await;
    within(bundle.client.revoke_group(grouped.id(), true)).await.unwrap();
    is_revoked(part(&grouped, 0)).await;
    is_revoked(part(&grouped, 1)).await;
    let marks = [Mark::Stamp { name: "tenant".to_owned(), value: "a".into() }];
    let revocation = Revocation { terminate: true, ..Revocation::now(marks) };
    let control = bundle.client.control().limit(1).timeout(PATIENCE);
    within(control.revoke_marked(revocation)).await.unwrap();
    is_revoked(part(&stamped, 0)).await;
    assert!(!kept.ready(), "it goes on");
    bundle.probe.open(1);
    assert_eq!(kept.get(PATIENCE).await.unwrap(), "kept");
    stop(worker).await;
    assert_eq!(bundle.probe.counts(), (5, 0), "no next step: {:?}", bundle.probe.runs());
    bundle.settled();
}

/// Workers of Celery say so when they start, and have no stream.
#[tokio::test(flavor = "multi_thread")]
async fn what_other_workers_know_is_taken_over_when_they_start_and_when_we_do() {
    let bundle = Bundle::new("revoke-hello").await;
    let one = bundle.worker().await;
    let arguments = celeriac::protocol::Map::from_iter([
        ("from_node", Value::from("python@host")),
        ("revoked", Value::Array(vec!["theirs".into()])),
    ]);
    let control = bundle.client.control().to(["test@host"]).timeout(PATIENCE);
    let hello = within(control.command("hello", arguments)).await.unwrap().remove(0).value;
    let known = hello.as_map().and_then(|it| it.get("revoked")).cloned();
    assert_eq!(known, Some(Value::Array(vec!["theirs".into()])));
    let revoked = bundle.client.send(say("theirs").task_id("theirs")).await.unwrap();
    is_revoked(&revoked).await;
    // Nothing of this one is in the stream, as of what a worker of Celery was told.
    within(control.revoke(["of one"], false)).await.unwrap();
    let two = bundle.worker_with(|it| it.hostname("two@host")).await;
    let control = bundle.client.control().to(["two@host"]).timeout(PATIENCE);
    let known = within(control.revoked()).await.unwrap().remove(0).value;
    assert!(known.as_array().unwrap().contains(&"of one".into()), "{known:?}");
    stop(one).await;
    stop(two).await;
    assert!(bundle.probe.runs().is_empty());
}

/// A virtual host that keeps no revocation: in the place of the stream is a queue that is full.
async fn full_stream(vhost: xtask::TestVhost) -> xtask::TestVhost {
    let options = ConnectionOptions {
        urls: vec![vhost.url().parse().unwrap()],
        ..ConnectionOptions::default()
    };
    let connection = within(Connection::open(options)).await.unwrap();
    let mut full = celeriac::amqp::QueueSpec::classic("celeriac.revoked");
    full.arguments.insert("x-max-length", 0_i64);
    full.arguments.insert("x-overflow", "reject-publish");
    let topology = celeriac::amqp::Topology { queues: vec![full], ..Default::default() };
    within(connection.declare(&topology)).await.unwrap();
    vhost
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_that_nobody_has_is_an_error() {
    let vhost = xtask::TestVhost::create("revoke-nowhere").unwrap();
    let bundle = Bundle::on(full_stream(vhost).await, |_| {}).await;
    let sent = bundle.client.send(say("x")).await.unwrap();
    let error = within(sent.revoke(false)).await.expect_err("nobody has it");
    assert!(format!("{error:?}").contains("NotKept"), "{error:?}");
    let control = bundle.client.control().timeout(PATIENCE).limit(1);
    assert!(within(control.revoke(["x"], false)).await.is_err());
    let worker = bundle.worker().await;
    let told = within(control.revoke(["x"], false)).await.unwrap();
    assert_eq!(told.len(), 1, "who runs knows");
    stop(worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_ids_are_revoked_and_the_next_worker_knows_them() {
    let bundle = Bundle::new("revoke-many").await;
    let ids: Vec<String> = (0..10_000).map(|n| format!("id-{n}")).collect();
    within(bundle.client.control().revoke(&ids, false)).await.unwrap();
    let worker = bundle.worker().await;
    let control = bundle.client.control().timeout(PATIENCE).limit(1);
    let known = within(control.revoked()).await.unwrap().remove(0).value;
    assert_eq!(known.as_array().map(<[Value]>::len), Some(10_000));
    stop(worker).await;
}

/// A queue of that name that is no stream: nothing can be read from its beginning.
#[tokio::test(flavor = "multi_thread")]
async fn without_a_stream_workers_that_run_still_hear_of_it() {
    let vhost = xtask::TestVhost::create("revoke-memory").unwrap();
    let options = ConnectionOptions {
        urls: vec![vhost.url().parse().unwrap()],
        ..ConnectionOptions::default()
    };
    let connection = within(Connection::open(options)).await.unwrap();
    let other = celeriac::amqp::QueueSpec::classic("celeriac.revoked");
    let topology = celeriac::amqp::Topology { queues: vec![other], ..Default::default() };
    within(connection.declare(&topology)).await.unwrap();
    let bundle = Bundle::on(vhost, |_| {}).await;
    let worker = bundle.worker().await;
    let control = bundle.client.control().timeout(Duration::from_secs(30)).limit(1);
    let told = within(control.revoke(["x"], false)).await.unwrap();
    assert_eq!(told.len(), 1);
    let revoked = bundle.client.send(say("x").task_id("x")).await.unwrap();
    is_revoked(&revoked).await;
    stop(worker).await;
    assert!(bundle.probe.runs().is_empty());
}
