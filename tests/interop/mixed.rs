//! Workflows that Rust builds and both kinds of workers run.

use celeriac::client::canvas::Workflow;
use celeriac::protocol::{CallOptions, Map, Serializer, TaskState};
use celeriac::{AnyResult, Client, GroupResult, Signature, Value, group};

use crate::canvas::Mixed;
use crate::{CELERYS, OURS, PATIENCE, joined};

fn task<T>(name: &'static str) -> Signature<T> {
    Signature::new(name)
}

/// A step that takes the result of the one before.
pub(crate) fn step(name: &str, args: &[i64]) -> Workflow {
    Workflow::task(name, args.iter().copied().map(Value::Int))
}

pub(crate) async fn apply(client: &Client, workflow: Workflow) -> AnyResult {
    client.apply(workflow).await.expect("sent")
}

async fn check(queue: &'static str, serializer: Serializer) {
    let mixed = Mixed::start(queue, serializer).await;
    let client = Client::connect(mixed.config()).await.expect("client connects");
    chains(&client).await;
    groups(&client).await;
    links(&client).await;
    failures(&client).await;
    parked_results(&client).await;
    if queue == OURS {
        joined::check(&client).await;
    }
    client.close().await;
    mixed.stop().await;
}

async fn chains(client: &Client) {
    let steps = [
        step("rs.add", &[1, 1]),
        step("py.mul", &[3]),
        step("rs.add", &[4]),
        step("py.add", &[5]),
        step("py.mul", &[2]),
        step("rs.add", &[100]),
    ];
    let last = apply(client, Workflow::chain(steps)).await;
    assert_eq!(last.get(PATIENCE).await.expect("a number"), Value::Int(130));
    let before = last.parent().expect("the step before");
    assert_eq!(before.get(PATIENCE).await.expect("a number"), Value::Int(30));
    let fixed = step("py.add", &[20, 20]).immutable(true);
    let steps = [step("rs.add", &[1, 1]), fixed, step("rs.double", &[])];
    let last = apply(client, Workflow::chain(steps)).await;
    assert_eq!(last.get(PATIENCE).await.expect("a number"), Value::Int(80));
}

async fn groups(client: &Client) {
    let pairs = |n: i64| step("rs.add", &[n, n]) | step("py.mul", &[10]) | step("rs.add", &[1]);
    let members = apply(client, Workflow::group((0..3).map(pairs))).await;
    let expected = [1, 21, 41].map(Value::Int).to_vec();
    assert_eq!(members.get(PATIENCE).await.expect("a list"), Value::Array(expected));
    // Every step of the chain before the group is Python's.
    let ends = Workflow::group([step("rs.add", &[1]), step("py.mul", &[2])]);
    let steps = [step("py.add", &[1, 1]), step("py.mul", &[5]), ends];
    let last = apply(client, Workflow::chain(steps)).await;
    let expected = [11, 20].map(Value::Int).to_vec();
    assert_eq!(last.get(PATIENCE).await.expect("a list"), Value::Array(expected));
    let typed: GroupResult<Vec<i64>> = client
        .apply(group([0, 1, 2, 3].map(|n| task("py.add").arg(n).arg(n))))
        .await
        .expect("sent");
    assert_eq!(typed.get(PATIENCE).await.expect("numbers"), [0, 2, 4, 6]);
}

async fn links(client: &Client) {
    // What is behind a link answers to nobody: a Rust task remembers that it ran.
    let label = uuid::Uuid::new_v4().to_string();
    let note = Workflow::task("rs.remember", [Value::from(&*label)]).immutable(true);
    let linked = task::<i64>("py.add").arg(2).arg(3).link(note.clone()).link(note.clone());
    let result = client.send(linked).await.expect("sent");
    assert_eq!(result.get(PATIENCE).await.expect("a number"), 5);
    let bad = task::<Value>("py.boom")
        .arg("kaboom")
        .link_error(task::<()>("rs.remember").arg(&label).immutable(true));
    assert!(client.send(bad).await.expect("sent").get(PATIENCE).await.is_err());
    let seen = task::<i64>("rs.remembered").arg(&label).arg(3);
    let seen = client.send(seen).await.expect("sent").get(PATIENCE).await;
    assert_eq!(seen.expect("a number"), 3);
}

async fn failures(client: &Client) {
    let steps = [step("rs.add", &[1, 1]), step("py.boom", &[]), step("rs.double", &[])];
    let last = apply(client, Workflow::chain(steps)).await;
    let error = last.get(PATIENCE).await.expect_err("a failure");
    let failure = error.failure().expect("of a worker");
    assert!(failure.is("ValueError") && failure.state == TaskState::Failure, "{failure}");
    let steps = [step("py.add", &[1, 1]), step("rs.fail", &[]), step("py.mul", &[2])];
    let last = apply(client, Workflow::chain(steps)).await;
    let error = last.get(PATIENCE).await.expect_err("a failure");
    assert!(error.failure().expect("of a worker").is("ValueError"), "{error}");
}

/// A worker of ours gathers them; one of Celery's refuses the body, and the caller is told.
async fn parked_results(client: &Client) {
    let chord = |body: Workflow| {
        let join = Map::from_iter([("park_above", 0)]);
        let extra = Map::from_iter([("join", join)]);
        let options = CallOptions { extra, ..CallOptions::default() };
        Workflow::chord([step("rs.add", &[1, 1]), step("rs.add", &[2, 2])], body).set(options)
    };
    let gathered = apply(client, chord(step("rs.sum", &[]))).await;
    assert_eq!(gathered.get(PATIENCE).await.expect("a number"), Value::Int(6));
    let refused = apply(client, chord(step("py.mul", &[3]))).await;
    let error = refused.get(PATIENCE).await.expect_err("a refusal");
    assert!(error.failure().expect("of a worker").is("NotRegistered"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn workflows_that_rust_builds_in_json_run_on_both() {
    check(OURS, Serializer::Json).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn workflows_that_rust_builds_in_msgpack_run_on_both() {
    check(OURS, Serializer::Msgpack).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn workflows_that_rust_builds_run_on_celery_s_queue() {
    check(CELERYS, Serializer::Json).await;
}
