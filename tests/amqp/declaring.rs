//! Declaring: what is missing is created, and what exists is used as it is.

use std::time::Duration;

use celeriac::amqp::{
    Binding, Connection, Declare, ExchangeKind, ExchangeSpec, Publish, Publisher, QueueSpec,
    Topology,
};
use serde_json::json;

use crate::setup::{Setup, message, numbered, within};

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_exists_with_other_arguments_is_used_as_it_is() {
    let setup = Setup::new("mismatch").await;
    setup.declare([QueueSpec::classic("q")]).await;
    // Twice: the difference is known by then.
    setup.declare([QueueSpec::quorum("q")]).await;
    setup.declare([QueueSpec::quorum("q")]).await;
    let queue = setup.vhost.queue("q").unwrap().unwrap();
    assert_eq!(queue["type"], json!("classic"));
    let publisher = Publisher::new(&setup.connection);
    assert!(within(publisher.publish_all(numbered("q", 0..1))).await[0].is_ok());
    // Once it is gone, it is created as it should be.
    setup.vhost.delete_queue("q").unwrap();
    setup.declare([QueueSpec::quorum("q")]).await;
    let queue = setup.vhost.queue("q").unwrap().unwrap();
    assert_eq!(queue["type"], json!("quorum"));
}

#[tokio::test(flavor = "multi_thread")]
async fn declarations_say_what_their_fields_say() {
    let setup = Setup::new("fields").await;
    let mut queue = QueueSpec::classic("q");
    queue.expires = Some(Duration::from_secs(60));
    queue.max_priority = Some(5);
    queue.auto_delete = true;
    let topology = Topology {
        exchanges: vec![
            ExchangeSpec::durable("from", ExchangeKind::Topic),
            ExchangeSpec::durable("to", ExchangeKind::Fanout),
        ],
        queues: vec![queue],
        bindings: vec![Binding::exchange("to", "from", "a.#"), Binding::queue("q", "to", "")],
    };
    within(setup.connection.declare(&topology)).await.unwrap();
    within(setup.connection.declare(&topology)).await.unwrap();
    let mut queue = setup.vhost.queue("q").unwrap().unwrap();
    // RabbitMQ 4 adds what the default is.
    let kind = queue["arguments"].as_object_mut().unwrap().remove("x-queue-type");
    assert!(kind.is_none_or(|kind| kind == "classic"));
    assert_eq!(queue["arguments"], json!({"x-expires": 60_000, "x-max-priority": 5}));
    assert_eq!(queue["auto_delete"], json!(true));
    let publisher = Publisher::new(&setup.connection);
    within(publisher.publish(Publish::new("from", "a.b.c", message("x")))).await.unwrap();
    let strange = within(publisher.publish(Publish::new("from", "b", message("x")))).await;
    assert!(strange.unwrap_err().is_returned());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_must_exist_is_never_created() {
    let setup = Setup::new("existing").await;
    let declare = |connection: Connection, topology: Topology| async move {
        within(connection.declare(&topology)).await
    };
    let queues = vec![QueueSpec::existing("nowhere")];
    let topology = Topology { queues, ..Topology::default() };
    assert!(declare(setup.connection.clone(), topology).await.unwrap_err().is_not_found());
    let missing = ExchangeSpec {
        declare: Declare::UseExisting,
        ..ExchangeSpec::durable("nowhere", ExchangeKind::Direct)
    };
    let topology = Topology { exchanges: vec![missing], ..Topology::default() };
    assert!(declare(setup.connection.clone(), topology).await.unwrap_err().is_not_found());
    assert!(setup.vhost.queues().unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_argument_that_the_broker_does_not_take_is_an_error() {
    let setup = Setup::new("badarg").await;
    let mut queue = QueueSpec::classic("q");
    queue.arguments.insert("x-max-length", "many");
    let topology = Topology { queues: vec![queue], ..Topology::default() };
    let error = within(setup.connection.declare(&topology)).await.unwrap_err();
    assert!(error.is_refused() && error.to_string().contains("x-max-length"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_queue_stays_deleted() {
    let setup = Setup::new("delete").await;
    setup.declare([QueueSpec::classic("q")]).await;
    within(setup.connection.delete_queue("q")).await.unwrap();
    within(setup.connection.delete_queue("q")).await.unwrap();
    assert!(setup.vhost.queues().unwrap().is_empty());
}
