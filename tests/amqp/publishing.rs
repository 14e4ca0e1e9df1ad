//! Publishing: every publish ends as what happened to it.

use celeriac::amqp::{
    ConsumerOptions, ExchangeKind, ExchangeSpec, Publish, PublishError, Publisher,
    PublisherOptions, QueueSpec, Topology,
};
use celeriac::protocol::{Map, Message, Properties, Tag, Value};

use crate::setup::{Setup, message, number, numbered, take, within};

#[tokio::test(flavor = "multi_thread")]
async fn a_publish_that_no_queue_takes_is_returned_with_its_address() {
    let setup = Setup::new("returned").await;
    let publisher = Publisher::new(&setup.connection);
    let error = within(publisher.publish(Publish::new("amq.direct", "no such key", message("x"))))
        .await
        .unwrap_err();
    assert!(error.is_returned());
    let text = error.to_string();
    assert!(text.contains("amq.direct") && text.contains("no such key"), "{text}");
    let error = within(publisher.publish(Publish::new("", "nowhere", message("")))).await;
    assert_eq!(error.unwrap_err().to_string(), "there is no queue 'nowhere'");
}

#[tokio::test(flavor = "multi_thread")]
async fn returns_within_a_burst_are_laid_to_the_messages_that_were_returned() {
    let setup = Setup::new("returns").await;
    setup.declare([QueueSpec::classic("q")]).await;
    let publisher = Publisher::new(&setup.connection);
    // Transient, so that many confirms come at once; with equal bodies, so that nothing but the
    // address tells them apart.
    for round in 0..20 {
        let burst: Vec<_> = (0..500)
            .map(|n| {
                Publish::new("", if n % 7 == round % 7 { "nowhere" } else { "q" }, transient())
            })
            .collect();
        let results = within(publisher.publish_all(burst)).await;
        for (n, result) in results.iter().enumerate() {
            let returned = result.as_ref().is_err_and(PublishError::is_returned);
            assert_eq!(returned, n % 7 == round % 7, "message {n}: {result:?}");
        }
    }
}

fn transient() -> Message {
    Message {
        properties: Properties { delivery_mode: Some(1), ..Properties::default() },
        body: b"x".to_vec(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_exchange_is_refused_and_the_rest_of_the_burst_succeeds() {
    let setup = Setup::new("refused").await;
    setup.declare([QueueSpec::classic("q")]).await;
    let publisher = Publisher::new(&setup.connection);
    let mut burst = numbered("q", 0..300);
    burst[150].exchange = "missing".into();
    burst[200].exchange = "absent".into();
    let results = within(publisher.publish_all(burst)).await;
    for (n, result) in results.iter().enumerate() {
        match result {
            Err(PublishError::Refused { code: 404, text }) => {
                assert!(n == 150 || n == 200, "message {n}: {text}");
                assert!(text.contains(if n == 150 { "missing" } else { "absent" }), "{text}");
            }
            result => assert!(result.is_ok() && n != 150 && n != 200, "message {n}: {result:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_the_broker_cannot_bear_is_found_among_others() {
    let setup = Setup::new("culprit").await;
    setup.declare([QueueSpec::classic("q")]).await;
    let publisher = Publisher::new(&setup.connection);
    let mut burst = numbered("q", 0..100);
    burst[50].message.properties.expiration = Some("not a number".to_owned());
    let results = within(publisher.publish_all(burst)).await;
    for (n, result) in results.iter().enumerate() {
        match result {
            Err(PublishError::Refused { code: 406, .. }) => assert_eq!(n, 50),
            result => assert!(result.is_ok() && n != 50, "message {n}: {result:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_sent_is_refused_before_it_harms_the_connection() {
    let setup = Setup::new("toolarge").await;
    setup.declare([QueueSpec::classic("q")]).await;
    let limits = PublisherOptions { message_max: 1000, ..PublisherOptions::default() };
    let publisher = Publisher::with_options(&setup.connection, limits);
    let mut headers = Map::new();
    headers.push("huge", "x".repeat(200_000));
    let large_headers = Properties { headers: Some(headers), ..Properties::default() };
    let long_name = Properties { reply_to: Some("x".repeat(256)), ..Properties::default() };
    let mut burst = numbered("q", 0..5);
    burst[0].message.body = vec![0; 1001];
    burst[1].message.properties = large_headers;
    burst[2].message.properties = long_name;
    burst[3].routing_key = "x".repeat(256);
    let results = within(publisher.publish_all(burst)).await;
    assert!(matches!(results[0], Err(PublishError::TooLarge { size: 1001, max: 1000 })));
    assert!(matches!(results[1], Err(PublishError::TooLarge { .. })), "{:?}", results[1]);
    assert!(matches!(results[2], Err(PublishError::Invalid(_))), "{:?}", results[2]);
    assert!(matches!(results[3], Err(PublishError::Invalid(_))), "{:?}", results[3]);
    assert!(results[4].is_ok());
    let state = setup.connection.state().borrow().clone();
    assert!(state.is_connected() && format!("{state:?}").contains("epoch: 1"), "{state:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_messages_arrive_once_and_in_order() {
    let setup = Setup::new("bursts").await;
    setup.declare([QueueSpec::classic("q")]).await;
    let publisher = Publisher::new(&setup.connection);
    let (first, second) = (numbered("q", 0..9000), numbered("q", 9000..10_000));
    // Two clones share the channel and the order of being handed over.
    let clone = publisher.clone();
    let results = within(publisher.publish_all(first)).await;
    assert!(results.iter().all(Result::is_ok));
    assert!(within(clone.publish_all(second)).await.iter().all(Result::is_ok));
    setup.wait_for_depth("q", 10_000, 0);
    let (mut deliveries, handle) =
        setup.consume(ConsumerOptions::new([QueueSpec::classic("q")]).prefetch(250)).await;
    let mut next = 0;
    let mut burst = Vec::new();
    while next < 10_000 {
        assert!(within(deliveries.next_burst(&mut burst)).await);
        for delivery in burst.drain(..) {
            assert_eq!(number(&delivery), next);
            next += 1;
            delivery.token.ack();
        }
    }
    within(handle.close()).await;
    setup.wait_for_depth("q", 0, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_of_many_frames_and_an_empty_one_arrive_as_they_were() {
    let setup = Setup::new("bodies").await;
    setup.declare([QueueSpec::classic("q")]).await;
    let publisher = Publisher::new(&setup.connection);
    let large: Vec<u8> = (0..5_000_000_u32).map(|n| n as u8).collect();
    for body in [large.clone(), Vec::new()] {
        within(publisher.publish(Publish::new("", "q", message(body)))).await.unwrap();
    }
    let (mut deliveries, _handle) =
        setup.consume(ConsumerOptions::new([QueueSpec::classic("q")]).prefetch(10)).await;
    let arrived = take(&mut deliveries, 2).await;
    assert!(arrived[0].message.body == large);
    assert!(arrived[1].message.body.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn properties_and_headers_arrive_as_they_were() {
    let setup = Setup::new("properties").await;
    setup.declare([QueueSpec::classic("q")]).await;
    let mut headers = Map::new();
    headers.push("array", Value::Array(vec![Value::Null, Value::Int(1 << 40)]));
    headers.push("bytes", vec![0_u8, 255]);
    headers.push("date", Value::Tagged(Tag::DateTime, "2026-11-22T11:08:56+00:00".to_owned()));
    headers.push("text", "ü");
    let text = |text: &str| Some(text.to_owned());
    let properties = Properties {
        content_type: text("application/json"),
        content_encoding: text("utf-8"),
        headers: Some(headers),
        delivery_mode: Some(2),
        priority: Some(3),
        correlation_id: text("c"),
        reply_to: text("r"),
        expiration: text("60000"),
        message_id: text("m"),
        timestamp: Some(1_700_000_000),
        kind: text("t"),
        user_id: text(setup.connection.broker().user()),
        app_id: text("a"),
    };
    let mut sent = message("x");
    sent.properties = properties;
    let publisher = Publisher::new(&setup.connection);
    within(publisher.publish(Publish::new("", "q", sent.clone()))).await.unwrap();
    let (mut deliveries, _handle) =
        setup.consume(ConsumerOptions::new([QueueSpec::classic("q")]).prefetch(1)).await;
    let arrived = take(&mut deliveries, 1).await;
    assert_eq!(arrived[0].message, sent);
    assert_eq!((arrived[0].exchange.as_str(), arrived[0].routing_key.as_str()), ("", "q"));
    assert_eq!(&*arrived[0].queue, "q");
    assert!(!arrived[0].redelivered);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_nacks_what_it_does_not_store() {
    let setup = Setup::new("nacked").await;
    let mut queue = QueueSpec::classic("q");
    queue.arguments.insert("x-max-length", 1_i64);
    queue.arguments.insert("x-overflow", "reject-publish");
    setup.declare([queue]).await;
    let publisher = Publisher::new(&setup.connection);
    let results = within(publisher.publish_all(numbered("q", 0..3))).await;
    assert!(results[0].is_ok());
    assert!(matches!(results[2], Err(PublishError::Nacked)), "{results:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn closing_answers_everything_and_then_refuses() {
    let setup = Setup::new("close").await;
    let exchanges = vec![ExchangeSpec::durable("e", ExchangeKind::Fanout)];
    let topology = Topology { exchanges, ..Topology::default() };
    within(setup.connection.declare(&topology)).await.unwrap();
    let publisher = Publisher::new(&setup.connection);
    let publish = || Publish::new("e", "", message("x"));
    let clone = publisher.clone();
    let pending = tokio::spawn(async move { clone.publish_all(vec![publish(); 500]).await });
    within(publisher.flush()).await;
    within(publisher.close()).await;
    // Either it came before the close, or it was refused; nothing is left without an answer.
    for result in within(pending).await.unwrap() {
        let result = result.unwrap_err();
        assert!(matches!(result, PublishError::Returned { .. } | PublishError::Closed));
    }
    assert!(matches!(within(publisher.publish(publish())).await, Err(PublishError::Closed)));
}
