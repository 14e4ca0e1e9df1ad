//! Workflows that Rust builds and runs: what follows a task, and what follows its failure.

use celeriac::client::Route;
use celeriac::client::canvas::Workflow;
use celeriac::protocol::{TaskState, Value};
use celeriac::{AnyResult, ResultError, Signature, chain, group};

use crate::bundle::{Bundle, PATIENCE, stop, within};
use crate::tasks::{
    add, calls_and_comes_back, double, facts, gives, multiply, note, on_failure_id, power,
    python_error, replaces, replaces_by_group, second_time, square, sum, sums,
};

fn kind(error: &ResultError) -> String {
    error.failure().expect("a failure").exception.exc_type.clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chain_hands_each_result_to_the_next_step() {
    let bundle = Bundle::new("chain").await;
    let worker = bundle.worker().await;
    let steps = add::s(2, 2) | multiply::partial(3) | power::partial(2);
    let result = bundle.client.apply(steps).await.unwrap();
    assert_eq!(result.get(PATIENCE).await.unwrap(), 144);
    let steps = chain((add::s(2, 2), multiply::partial(3), power::partial(2)));
    let result = bundle.client.apply(steps).await.unwrap();
    assert_eq!(result.get(PATIENCE).await.unwrap(), 144);
    stop(worker).await;
    bundle.settled();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_gives_its_results_in_order() {
    let bundle = Bundle::new("group").await;
    let worker = bundle.worker().await;
    let members = group([square::s(2), square::s(3), square::s(4), double::s(5)]);
    let result = bundle.client.apply(members).await.unwrap();
    assert_eq!(result.get(PATIENCE).await.unwrap(), [4, 9, 16, 10]);
    stop(worker).await;
    bundle.settled();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_immutable_step_keeps_its_arguments() {
    let bundle = Bundle::new("immutable").await;
    let worker = bundle.worker().await;
    let steps = add::s(2, 2) | add::si(10, 10) | double::partial();
    let result = bundle.client.apply(steps).await.unwrap();
    assert_eq!(result.get(PATIENCE).await.unwrap(), 40);
    stop(worker).await;
    bundle.settled();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_names_what_the_task_has_called_as_its_children() {
    let bundle = Bundle::new("children").await;
    let worker = bundle.worker().await;
    let result = bundle.client.apply(add::s(1, 1) | double::partial()).await.unwrap();
    assert_eq!(result.get(PATIENCE).await.unwrap(), 4);
    let first = result.parent().expect("the step before");
    let AnyResult::Task(first) = first else { panic!("a task") };
    first.get(PATIENCE).await.unwrap();
    let children = first.latest().unwrap().children.unwrap();
    let reference =
        Value::Array(vec![Value::Array(vec![result.id().into(), Value::Null]), Value::Null]);
    assert_eq!(children, [reference]);
    stop(worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn callbacks_get_the_result_and_errbacks_the_id() {
    let bundle = Bundle::new("links").await;
    let worker = bundle.worker().await;
    let good = gives::s("good".to_owned()).link(note::partial()).link(note::partial());
    let good = good.link_error(note::si("never".to_owned()));
    assert!(bundle.client.send(good).await.unwrap().get(PATIENCE).await.is_ok());
    bundle.probe.seen(2).await;
    assert_eq!(bundle.probe.runs(), ["good", "good"]);
    let bad = python_error::s().link(note::si("never".to_owned()));
    let bad = bad
        .link_error(on_failure_id::partial())
        .link_error(Signature::<()>::new("tests.on_failure"));
    let failed = bundle.client.send(bad).await.unwrap();
    assert!(failed.get(PATIENCE).await.is_err());
    bundle.probe.seen(4).await;
    let mut runs = bundle.probe.runs().split_off(2);
    runs.sort();
    let called = format!("called for {} with ValueError: kaboom", failed.id());
    assert_eq!(runs, [called, format!("told of {}", failed.id())]);
    stop(worker).await;
    bundle.settled();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_ends_all_steps_behind_it() {
    let bundle = Bundle::new("chain-fails").await;
    let worker = bundle.worker().await;
    let steps = Workflow::chain([
        Workflow::task("tests.add", [1.into(), 1.into()]),
        Workflow::task("tests.python_error", []).immutable(true),
        Workflow::task("tests.double", []),
        Workflow::task("tests.double", []),
    ]);
    let last = bundle.client.apply(steps).await.unwrap();
    let error = last.get(PATIENCE).await.unwrap_err();
    assert_eq!(kind(&error), "ValueError");
    stop(worker).await;
    bundle.settled();
}

#[tokio::test(flavor = "multi_thread")]
async fn steps_behind_an_expired_one_are_revoked_with_it() {
    let bundle = Bundle::new("chain-expires").await;
    let expired = add::s(1, 1).expires(celeriac::protocol::Expires::At(
        jiff::Timestamp::now() - jiff::SignedDuration::from_secs(60),
    ));
    let mut message = expired.options().clone();
    message.expires = None;
    // In a header, so that the broker does not drop the message before a worker sees it.
    message.headers.insert("expires", "2020-01-02T03:04:05+00:00");
    let result = bundle.client.apply(expired.with_options(message) | double::partial()).await;
    let result = result.unwrap();
    let worker = bundle.worker().await;
    let error = result.get(PATIENCE).await.unwrap_err();
    assert_eq!(error.failure().unwrap().state, TaskState::Revoked);
    assert_eq!(kind(&error), "TaskRevokedError");
    stop(worker).await;
    bundle.settled();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replacement_answers_the_caller_of_the_task_that_it_replaces() {
    let bundle = Bundle::new("replace").await;
    let worker = bundle.worker().await;
    let result = bundle.client.apply(replaces::s(20) | add::partial(2)).await.unwrap();
    assert_eq!(result.get(PATIENCE).await.unwrap(), 42);
    let replaced = bundle.client.send(replaces::s(4)).await.unwrap();
    assert_eq!(replaced.get(PATIENCE).await.unwrap(), 8);
    stop(worker).await;
    bundle.settled();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_in_a_chain_hands_on_its_list() {
    let bundle = Bundle::new("chain-group").await;
    let worker = bundle.worker().await;
    let steps =
        chain((add::s(1, 1), group([double::partial(), square::partial()]), sum::partial()));
    let result = bundle.client.apply(steps).await.unwrap();
    assert_eq!(result.get(PATIENCE).await.unwrap(), 8);
    let squares = group([square::s(0), square::s(1), square::s(2)]);
    let result = bundle.client.apply(squares | sum::partial()).await.unwrap();
    assert_eq!(result.get(PATIENCE).await.unwrap(), 5);
    stop(worker).await;
    bundle.settled();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_replaced_by_a_group_gives_a_list_wherever_it_stands() {
    let bundle = Bundle::new("replace-group").await;
    let worker = bundle.worker().await;
    let result = bundle.client.send(replaces_by_group::s(3)).await.unwrap();
    assert_eq!(result.get(PATIENCE).await.unwrap(), [0, 1, 4]);
    let result = bundle.client.apply(replaces_by_group::s(4) | sum::partial()).await.unwrap();
    assert_eq!(result.get(PATIENCE).await.unwrap(), 14);
    let header = group([replaces_by_group::s(2), replaces_by_group::s(3)]);
    let result = bundle.client.apply(header | sums::partial()).await.unwrap();
    assert_eq!(result.get(PATIENCE).await.unwrap(), [1, 5]);
    stop(worker).await;
    bundle.settled();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_runs_again_makes_the_same_calls_again() {
    let bundle = Bundle::new("same-calls").await;
    let worker = bundle.worker().await;
    let result = bundle.client.send(calls_and_comes_back::s()).await.unwrap();
    within(result.get(PATIENCE)).await.unwrap();
    let runs = bundle.probe.runs();
    let (first, second) = runs.split_at(3);
    assert_eq!(first, second, "three calls in each of two runs");
    assert_eq!(first.iter().collect::<std::collections::HashSet<_>>().len(), 3);
    let children = result.latest().unwrap().children.unwrap();
    assert_eq!(children.len(), 3);
    stop(worker).await;
    bundle.settled();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_a_step_needs_and_nobody_has_declared_is_made() {
    let bundle = Bundle::new("new-queue").await;
    let worker = bundle.worker().await;
    let steps = add::s(1, 1) | double::partial().queue("made-up");
    let result = bundle.client.apply(steps).await.unwrap();
    bundle.settled();
    let waiting = || bundle.vhost.messages("made-up").ok()?.pop();
    bundle.vhost.wait_until("the step waits", waiting).unwrap();
    let other = bundle.worker_with(|worker| worker.queues(["made-up"])).await;
    assert_eq!(result.get(PATIENCE).await.unwrap(), 4);
    stop(worker).await;
    stop(other).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_that_can_never_be_delivered_fails_and_the_task_before_it_does_not() {
    let bundle = Bundle::new("no-exchange").await;
    let worker = bundle.worker().await;
    let nowhere = double::partial().exchange("nowhere").routing_key("x");
    let nowhere = nowhere
        .link_error(on_failure_id::partial())
        .link_error(Signature::<()>::new("tests.on_failure"));
    let result = bundle.client.apply(add::s(1, 1) | nowhere | double::partial()).await.unwrap();
    let error = result.get(PATIENCE).await.unwrap_err();
    assert_eq!(kind(&error), "EncodeError");
    bundle.probe.seen(2).await;
    let step = result.parent().unwrap().id();
    let mut runs = bundle.probe.runs();
    runs.sort();
    let [all, id] = &runs[..] else { panic!("{runs:?}") };
    assert!(all.starts_with(&format!("called for {step} with EncodeError: ")), "{all}");
    assert_eq!(*id, format!("told of {step}"));
    let after = bundle.client.send(add::s(2, 2)).await.unwrap();
    assert_eq!(after.get(PATIENCE).await.unwrap(), 4, "the worker goes on");
    stop(worker).await;
    bundle.settled();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_goes_back_is_followed_by_nothing_until_it_ends() {
    let bundle = Bundle::new("goes-back").await;
    let worker = bundle.worker().await;
    let call = second_time::s().link(note::si("called".to_owned()));
    let result = bundle.client.send(call).await.unwrap();
    assert!(result.get(PATIENCE).await.unwrap());
    bundle.probe.seen(3).await;
    assert_eq!(bundle.probe.runs(), ["second_time", "second_time", "called"]);
    stop(worker).await;
    bundle.settled();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_goes_where_its_own_route_leads() {
    let route = |config: &mut celeriac::Config| {
        let routes = std::mem::take(&mut config.task_routes);
        config.task_routes = routes.route("tests.facts", Route::queue("elsewhere")).unwrap();
    };
    let bundle = Bundle::with("step-route", route).await;
    let worker = bundle.worker_with(|worker| worker.queues(["celeriac", "elsewhere"])).await;
    let steps = Workflow::chain([
        Workflow::task("tests.add", [1.into(), 1.into()]),
        Workflow::from_signature(facts::s().into_data().unwrap()).immutable(true),
    ]);
    let result = bundle.client.apply(steps).await.unwrap();
    let Value::Map(facts) = result.get(PATIENCE).await.unwrap() else { panic!("a dict") };
    assert_eq!(facts.get("queue"), Some(&Value::from("elsewhere")));
    stop(worker).await;
}
