//! What a worker says about its health, and that it ends when it does not recover.

use std::time::Duration;

use celeriac::Config;
use celeriac::worker::Error;
use xtask::{Proxy, TestVhost};

use crate::bundle::{Bundle, PATIENCE, stop, within};
use crate::tasks::{hold, note};

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_knows_whether_it_is_connected() {
    let bundle = Bundle::new("health").await;
    let worker = bundle.worker().await;
    let healthy = |wanted: bool| {
        let what = format!("healthy: {wanted}");
        let seen = || (worker.health().is_healthy() == wanted).then_some(());
        bundle.vhost.wait_until(&what, seen).unwrap();
    };
    healthy(true);
    let limit = ["vhost-limits", bundle.vhost.name(), "max-connections"];
    bundle.vhost.management().put(&limit, &serde_json::json!({"value": 0})).unwrap();
    bundle.cut(&bundle.connections("consume", 1));
    healthy(false);
    assert!(!worker.health().is_consuming && worker.health().is_publishing);
    bundle.vhost.management().delete(&limit).unwrap();
    healthy(true);
    let called = note::delay(&bundle.client, "x".to_owned()).await.unwrap();
    assert_eq!(called.get(PATIENCE).await.unwrap(), "x");
    stop(worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_does_not_recover_ends_with_an_error_and_loses_nothing() {
    let bundle = Bundle::with("no-recovery", |config| {
        config.worker_liveness_timeout = Duration::from_secs(1);
        config.worker_recovery_limit = Some(Duration::from_secs(2));
    })
    .await;
    let worker = bundle.worker().await;
    hold::delay(&bundle.client, "x".to_owned()).await.unwrap();
    bundle.probe.seen(1).await;
    let limit = ["vhost-limits", bundle.vhost.name(), "max-connections"];
    bundle.vhost.management().put(&limit, &serde_json::json!({"value": 0})).unwrap();
    bundle.cut(&bundle.connections("consume", 1));
    let error = within(worker.wait()).await.unwrap_err();
    assert!(matches!(error, Error::Unhealthy(_)) && error.is_connection(), "{error:?}");
    bundle.wait_for_depth(1, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_warm_stop_that_can_settle_nothing_ends_at_the_limit() {
    let bundle = Bundle::with("no-settling", |config| {
        config.worker_liveness_timeout = Duration::from_secs(1);
        config.worker_recovery_limit = Some(Duration::from_secs(2));
    })
    .await;
    let worker = bundle.worker().await;
    hold::delay(&bundle.client, "x".to_owned()).await.unwrap();
    bundle.probe.seen(1).await;
    worker.handle().shutdown();
    let limit = ["vhost-limits", bundle.vhost.name(), "max-connections"];
    bundle.vhost.management().put(&limit, &serde_json::json!({"value": 0})).unwrap();
    // The worker's and the client's.
    for (role, count) in [("consume", 1), ("publish", 2)] {
        bundle.cut(&bundle.connections(role, count));
    }
    bundle.probe.open(1);
    let error = within(worker.wait()).await.unwrap_err();
    assert!(matches!(error, Error::Unhealthy(_)) && error.is_connection(), "{error:?}");
    bundle.wait_for_depth(1, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_health_file_of_a_worker_is_touched_only_while_it_is_well() {
    let quick = |config: &mut Config| config.worker_liveness_timeout = Duration::from_millis(600);
    let bundle = Bundle::with("health-file", quick).await;
    let path = std::env::temp_dir().join(bundle.vhost.name());
    let worker = bundle.worker_with(|worker| worker.health_file(&path)).await;
    let appears = |what| {
        let seen = || path.exists().then_some(());
        bundle.vhost.wait_until(what, seen).unwrap();
        std::fs::remove_file(&path).unwrap();
    };
    appears("it is well");
    appears("it still is");
    let limit = ["vhost-limits", bundle.vhost.name(), "max-connections"];
    bundle.vhost.management().put(&limit, &serde_json::json!({"value": 0})).unwrap();
    bundle.cut(&bundle.connections("consume", 1));
    let ill = || (!worker.health().is_healthy()).then_some(());
    bundle.vhost.wait_until("it is ill", ill).unwrap();
    // What was begun before; after that it stays away.
    let _ = std::fs::remove_file(&path);
    let second = Duration::from_secs(1);
    let touched = || path.exists().then(|| std::fs::remove_file(&path).unwrap());
    let _ = xtask::wait_until("the last touch", second, touched);
    assert!(xtask::wait_until("it is touched", second, touched).is_err());
    bundle.vhost.management().delete(&limit).unwrap();
    appears("it is well again");
    stop(worker).await;
    assert!(!path.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_notices_that_the_broker_does_not_answer() {
    let vhost = TestVhost::create("no-answer").unwrap();
    let (proxy, through) = Proxy::for_url(vhost.url()).unwrap();
    let bundle = Bundle::on(vhost, |config| {
        config.broker_url = vec![through.parse().unwrap()];
        config.broker_heartbeat = 5;
        config.worker_liveness_timeout = Duration::from_secs(2);
    })
    .await;
    let worker = bundle.worker().await;
    let answered = |wanted: bool| {
        let seen = || (worker.health().is_answered == wanted).then_some(());
        bundle.vhost.wait_until(&format!("answered: {wanted}"), seen).unwrap();
    };
    answered(true);
    proxy.silence();
    answered(false);
    assert!(!worker.health().is_healthy());
    // New connections work, once the heartbeats have missed their answers.
    answered(true);
    let called = note::delay(&bundle.client, "x".to_owned()).await.unwrap();
    assert_eq!(called.get(PATIENCE).await.unwrap(), "x");
    stop(worker).await;
}
