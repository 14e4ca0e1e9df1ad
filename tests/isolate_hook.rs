//! A program that has isolated tasks and no way in for their children: this one.

#![cfg(unix)]

use celeriac::{App, Config, Worker, task};

#[task(name = "alone", isolate = process)]
fn alone() {}

#[tokio::test]
async fn a_worker_that_could_not_isolate_a_task_refuses_to_start() {
    // No broker is there to be asked, nor needed for this.
    let nowhere = Config::builder().broker_url(["amqp://127.0.0.1:1".parse().unwrap()]).build();
    let refused = Worker::new(App::new(nowhere)).start().await.unwrap_err().to_string();
    assert!(refused.contains("task 'alone'"), "{refused}");
    assert!(refused.contains("celeriac::worker::serve_isolated(app)"), "{refused}");
    alone();
}
