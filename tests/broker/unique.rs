//! Unique calls: of the same ones only the first is sent, whoever sends the others.

use std::time::Duration;

use celeriac::{Client, SendError, Signature, task};
use serde_json::Value;

use crate::bundle::{Bundle, PATIENCE, config, stop, within};
use crate::tasks::{add, note};

const LONG: Duration = Duration::from_secs(600);

#[task(name = "tests.report", unique = "10m")]
pub(crate) async fn report(year: i64) -> i64 {
    year
}

fn first_id(error: &SendError) -> Option<&str> {
    match error {
        SendError::Duplicate { id, .. } => id.as_deref(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_call_is_not_sent_again_by_anybody() {
    let bundle = Bundle::new("unique").await;
    let other = within(Client::connect(config(&bundle.vhost))).await.unwrap();
    let call = || add::s(2, 2).unique(LONG);
    let first = bundle.client.send(call()).await.unwrap();
    for client in [&bundle.client, &other] {
        let refused = client.send(call()).await.unwrap_err();
        assert_eq!(first_id(&refused), Some(first.id()), "{refused}");
        assert!(refused.to_string().contains(first.id()), "{refused}");
        let joined = client.send(call().or_first()).await.unwrap();
        assert_eq!(joined.id(), first.id());
    }
    // Another time changes nothing about who was first.
    let refused = other.send(add::s(2, 2).unique(LONG * 2)).await.unwrap_err();
    assert_eq!(first_id(&refused), Some(first.id()));
    bundle.client.send(add::s(2, 3).unique(LONG)).await.unwrap();
    bundle.client.send(add::s(2, 2)).await.unwrap();
    bundle.wait_for_depth(3, 0);

    let joined = bundle.client.send(call().or_first()).await.unwrap();
    let worker = bundle.worker().await;
    assert_eq!(first.get(PATIENCE).await.unwrap(), 4);
    assert_eq!(joined.get(PATIENCE).await.unwrap(), 4);
    stop(worker).await;
    assert!(bundle.client.send(call()).await.is_err(), "its end does not matter");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_calls_at_once_one_is_sent() {
    let bundle = Bundle::new("unique-race").await;
    let mut clients = Vec::new();
    for _ in 0..6 {
        clients.push(within(Client::connect(config(&bundle.vhost))).await.unwrap());
    }
    for round in 0..5 {
        let key = format!("round {round}");
        let sends = clients
            .iter()
            .map(|client| client.send(note::s("x".to_owned()).unique(LONG).unique_key(&*key)));
        let sent = within(futures::future::join_all(sends)).await;
        let (won, lost): (Vec<_>, Vec<_>) = sent.into_iter().partition(Result::is_ok);
        assert_eq!(won.len(), 1);
        let winner = won[0].as_ref().unwrap().id();
        assert!(lost.iter().all(|it| first_id(it.as_ref().unwrap_err()) == Some(winner)));
    }
    bundle.wait_for_depth(5, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_broker_gives_the_lock_up_when_the_time_is_over() {
    let bundle = Bundle::new("unique-time").await;
    let call = || add::s(1, 1).unique(Duration::from_secs(2)).task_id("an id of one's own");
    bundle.client.send(call()).await.unwrap();
    // The same id is the same call, sent again.
    bundle.client.send(call()).await.unwrap();
    let other = || add::s(1, 1).unique(Duration::from_secs(2));
    let refused = bundle.client.send(other()).await.unwrap_err();
    assert_eq!(first_id(&refused), Some("an id of one's own"));
    // To ask does not extend it: the broker is asked again as soon as it has answered.
    let again = async { while bundle.client.send(other()).await.is_err() {} };
    within(again).await;
    bundle.wait_for_depth(3, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_is_durable_and_a_call_that_was_not_sent_leaves_none() {
    let bundle = Bundle::new("unique-left").await;
    report::delay(&bundle.client, 2030).await.unwrap();
    assert!(report::delay(&bundle.client, 2030).await.is_err(), "the task says so");
    let locks = || {
        let mut queues = bundle.vhost.queues().unwrap();
        queues.retain(|queue| queue.starts_with("celeriac.unique."));
        queues
    };
    let lock = bundle.vhost.queue(&locks()[0]).unwrap().unwrap();
    assert_eq!(
        (&lock["durable"], &lock["arguments"]["x-expires"]),
        (&Value::Bool(true), &Value::from(600_000))
    );

    let nowhere = || Signature::<()>::new("t").queue("nowhere").unique(LONG);
    for _ in 0..2 {
        assert!(bundle.client.send(nowhere()).await.unwrap_err().is_unroutable());
    }
    assert_eq!(locks().len(), 1);
    let wrong = bundle.client.send(add::s(1, 1).unique_key("k")).await.unwrap_err();
    assert!(wrong.to_string().contains("say unique as well"), "{wrong}");
    let step = bundle.client.apply(add::s(1, 1).unique(LONG)).await.unwrap_err();
    assert!(
        std::error::Error::source(&step).is_some_and(|it| it.to_string().contains("unique")),
        "{step:?}"
    );
    let results = bundle.client.send_all([report::s(2031), report::s(2031), report::s(2032)]).await;
    let sent: Vec<bool> = results.iter().map(Result::is_ok).collect();
    assert_eq!(sent, [true, false, true]);
}
