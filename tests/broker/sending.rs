//! Workflows as they are sent: in which order, and what is left of those that cannot be.

use std::time::Duration;

use celeriac::client::canvas::Takes;
use celeriac::protocol::CallOptions;
use celeriac::{AnyResult, SendError, Signature, Value, Workflow, chord, group};
use serde_json::json;

use crate::bundle::{Bundle, PATIENCE, stop, within};
use crate::tasks::{add, echo, total};
use crate::workflow::brisk;

/// A task that takes any value, as the body of what yields numbers.
fn body(any: Signature<Value, Takes<Value>>) -> Signature<Value, Takes<Vec<i64>>> {
    any.taking()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chord_that_cannot_be_sent_as_a_whole_is_cancelled() {
    let bundle = Bundle::with("cancelled", brisk).await;
    let worker = bundle.worker().await;
    let nowhere = add::s(1, 1).queue("nowhere");
    let workflow = chord([add::s(1, 1), nowhere], body(total::partial()));
    let error = within(bundle.client.apply(workflow)).await.unwrap_err();
    assert!(error.is_unroutable(), "{error}");
    // The chord has ended, long before it would have expired.
    bundle.nothing_is_left();
    stop(worker).await;
    assert!(bundle.probe.runs().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_over_the_limit_stops_the_workflow_before_anything_is_sent() {
    let change = |config: &mut celeriac::Config| config.broker_max_message_size = 100_000;
    let bundle = Bundle::with("too-large", change).await;
    let huge = "x".repeat(100_000);
    let members = Workflow::group([
        Workflow::task("tests.echo", [1.into()]),
        Workflow::task("tests.echo", [huge.into()]),
    ]);
    let error = within(bundle.client.apply(members)).await.unwrap_err();
    let SendError::Publish { source, .. } = &error else { panic!("{error}") };
    assert!(source.to_string().contains("where 100000 are allowed"), "{source}");
    // What a chord calls at its end is in the record that opens it.
    let body = Workflow::task("tests.echo", ["x".repeat(100_000).into()]);
    let header = [Workflow::task("tests.echo", [1.into()])];
    let error = within(bundle.client.apply(Workflow::chord(header, body))).await.unwrap_err();
    let SendError::LargeBody { size: 100_000.., max: 100_000, .. } = error else {
        panic!("{error}")
    };
    bundle.wait_for_depth(0, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_others_have_sent_is_answered_and_parked_whatever_a_worker_may_send() {
    let change = |config: &mut celeriac::Config| config.broker_max_message_size = 100_000;
    let bundle = Bundle::with("large-of-others", change).await;
    let management = bundle.vhost.management();
    let queue = ["queues", bundle.vhost.name(), "answers"];
    management.put(&queue, &json!({ "durable": true })).unwrap();
    let worker = bundle.worker().await;
    let body = json!([["x".repeat(150_000)], {}, {}]).to_string();
    for task in ["tests.echo", "tests.unheard_of"] {
        let headers = json!({ "lang": "py", "task": task, "id": task });
        let properties = json!({
            "content_type": "application/json", "content_encoding": "utf-8", "headers": headers,
            "correlation_id": task, "reply_to": "answers", "delivery_mode": 2,
        });
        assert!(bundle.vhost.publish("", "celeriac", &properties, body.as_bytes()).unwrap());
    }
    let holds = |queue: &str, ready| {
        let depth = || bundle.vhost.queue_depth(queue).ok().filter(|it| it.ready == ready);
        xtask::wait_until("messages are there", PATIENCE, depth).unwrap();
    };
    holds("celeriac.dead", 1);
    holds("answers", 2);
    stop(worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn results_tell_what_they_follow_from() {
    let bundle = Bundle::with("parents", brisk).await;
    let worker = bundle.worker().await;
    let steps = add::s(1, 1) | add::partial(1);
    let header = group([steps.clone(), steps]).freeze().unwrap().0;
    let result = bundle.client.apply(header).await.unwrap();
    let mut progress = result.progress();
    assert_eq!(within(progress.next()).await, Some(1));
    assert_eq!(within(progress.next()).await, Some(2));
    assert_eq!(within(progress.next()).await, None);
    assert_eq!(result.get(PATIENCE).await.unwrap(), [3, 3]);
    assert_eq!((result.completed_count(), result.len()), (2, 2));
    assert!(result.ready() && result.successful() && !result.failed());
    let AnyResult::Task(member) = &result.results()[0] else { panic!("a task") };
    let parent = member.parent().unwrap();
    assert_eq!(parent.get(Duration::ZERO).await.unwrap(), 2.into());
    stop(worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_results_of_a_header_are_sent_only_if_they_are_asked_for() {
    let bundle = Bundle::with("header", brisk).await;
    let worker = bundle.worker().await;
    for asked in [false, true] {
        let header = [add::s(1, 1), add::s(2, 2)];
        let workflow = chord(header, body(echo::partial())).header_results(asked);
        let result = bundle.client.apply(workflow).await.unwrap();
        let Some(AnyResult::Group(header)) = result.parent() else { panic!("a header") };
        assert_eq!(header.ignored(), !asked);
        let mut progress = header.progress();
        for ended in 1..=2 {
            assert_eq!(within(progress.next()).await, asked.then_some(ended));
        }
        assert_eq!(within(progress.next()).await, None);
        let value = result.get(PATIENCE).await.unwrap();
        assert_eq!(value, Value::Array(vec![2.into(), 4.into()]));
        assert_eq!(header.completed_count(), if asked { 2 } else { 0 });
        let header = header.get(PATIENCE).await;
        assert_eq!(header.is_ok(), asked, "{header:?}");
    }
    stop(worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn options_of_a_workflow_reach_its_first_tasks() {
    let bundle = Bundle::with("options", brisk).await;
    let options = CallOptions { priority: Some(3), ..CallOptions::default() };
    let workflow = (add::s(1, 1) | add::partial(1)).set(options);
    let sent = bundle.client.apply(workflow).await.unwrap();
    let message = &bundle.vhost.messages("celeriac").unwrap()[0];
    assert_eq!(message.properties["priority"], 3);
    drop(sent);
}
