//! Python calls, Rust works: the checks are in `client.py`.

use celeriac::protocol::Serializer;
use xtask::vhost::QueueDepth;

use crate::{CELERYS, OURS, PATIENCE, Setup};

async fn check(queue: &'static str, serializer: Serializer) {
    let setup = Setup::new(queue, serializer);
    let worker = setup.worker().await;
    let mut client = setup.python(&["client.py"]);
    let output = tokio::task::spawn_blocking(move || client.output()).await;
    let output = output.expect("the thread ends").expect("Python starts");
    worker.handle().shutdown();
    worker.wait().await.expect("worker stops");
    assert!(
        output.status.success(),
        "{}\n{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    let empty = QueueDepth { ready: 0, unacked: 0 };
    setup.vhost.wait_for_depth(queue, empty, PATIENCE).expect("nothing is left in the queue");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_python_client_in_json_is_served_on_our_queue() {
    check(OURS, Serializer::Json).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_python_client_in_msgpack_is_served_on_our_queue() {
    check(OURS, Serializer::Msgpack).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_python_client_in_json_is_served_on_celery_s_queue() {
    check(CELERYS, Serializer::Json).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_python_client_in_msgpack_is_served_on_celery_s_queue() {
    check(CELERYS, Serializer::Msgpack).await;
}
