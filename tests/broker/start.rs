//! Workers and clients that cannot start.

use std::net::TcpListener;

use celeriac::client::ConnectError;
use celeriac::worker::{Error, RunningWorker};
use celeriac::{App, Client, Config, Worker};

use crate::bundle::{Bundle, stop, within};
use crate::probe::Probe;

/// Settings for a port where nobody listens, without patience.
fn nowhere() -> Config {
    let unused = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    Config::builder()
        .broker_url([format!("amqp://guest:secret@{unused}//").parse().unwrap()])
        .broker_connection_retry_on_startup(false)
        .build()
}

async fn start(config: Config) -> Result<RunningWorker, Error> {
    let app = App::builder().config(config).state(Probe::default()).build();
    within(Worker::new(app).start()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_does_not_answer_is_told_without_the_password() {
    let error = start(nowhere()).await.unwrap_err();
    assert!(error.is_connection(), "{error:?}");
    let error = anyhow::Error::from(error);
    let told = format!("{error:#}");
    assert!(told.contains("127.0.0.1") && !told.contains("secret"), "{told}");
    let error = within(Client::connect(nowhere())).await.unwrap_err();
    assert!(matches!(error, ConnectError::Broker(_)), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_that_make_no_sense_stop_the_worker_before_it_connects() {
    for change in [(|config| config.worker_concurrency = 0) as fn(&mut Config), |config| {
        config.worker_blocking_slots = 0
    }] {
        let mut config = nowhere();
        change(&mut config);
        let error = start(config).await.unwrap_err();
        assert!(matches!(error, Error::Settings(_)) && !error.is_connection(), "{error:?}");
    }
    let mut config = nowhere();
    config.broker_url = Vec::new();
    assert!(start(config).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_that_a_task_wants_and_nobody_gave_stops_the_worker() {
    let error = within(Worker::new(App::new(nowhere())).start()).await.unwrap_err();
    assert!(matches!(error, Error::Registry(_)), "{error:?}");
    let told = error.to_string();
    assert!(told.contains("Probe") && told.contains("tasks.rs"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_virtual_host_that_does_not_exist_is_told_at_once() {
    let bundle = Bundle::new("vhost").await;
    let mut config = bundle.client.config().clone();
    config.broker_url = vec![config.broker_url[0].clone().with_vhost("no-such-vhost")];
    let told = format!("{:#}", anyhow::Error::from(start(config).await.unwrap_err()));
    assert!(told.contains("no-such-vhost"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_others_declared_otherwise_is_used_as_it_is() {
    let bundle = Bundle::with("classic", |config| {
        config.task_default_queue_type = celeriac::amqp::QueueKind::Classic;
    })
    .await;
    let mut quorum = bundle.client.config().clone();
    quorum.task_default_queue_type = celeriac::amqp::QueueKind::Quorum;
    let app = App::builder().config(quorum).state(bundle.probe.clone()).build();
    let worker = within(Worker::new(app).start()).await.unwrap();
    let sum = crate::tasks::add::delay(&bundle.client, 1, 1).await.unwrap();
    assert_eq!(sum.get(crate::bundle::PATIENCE).await.unwrap(), 2);
    assert_eq!(bundle.vhost.queue("celeriac").unwrap().unwrap()["type"], "classic");
    stop(worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_cannot_start_leaves_no_consumer_behind() {
    let bundle = Bundle::new("half-started").await;
    let user = bundle.vhost.url().split("://").nth(1).unwrap().split(':').next().unwrap();
    // It can consume tasks, and not join chords.
    let rights = serde_json::json!({
        "configure": "^(?!celeriac\\.join).*", "write": ".*", "read": ".*",
    });
    let path = ["permissions", bundle.vhost.name(), user];
    bundle.vhost.management().put(&path, &rights).unwrap();
    let error = start(bundle.client.config().clone()).await.unwrap_err();
    assert!(matches!(error, Error::Consume(_)), "{error:?}");
    crate::tasks::add::delay(&bundle.client, 1, 1).await.unwrap();
    assert_eq!(bundle.vhost.messages("celeriac").unwrap().len(), 1, "nobody has taken it");
}
