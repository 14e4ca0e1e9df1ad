//! The client for programs without tokio.

use std::time::Duration;

use celeriac::{Signature, Value, blocking};
use tokio::runtime::Runtime;

use crate::bundle::{Bundle, PATIENCE, stop};
use crate::tasks::{add, python_error};

#[test]
fn a_plain_thread_calls_tasks_and_reads_their_results() {
    let runtime = Runtime::new().unwrap();
    let bundle = runtime.block_on(Bundle::new("blocking"));
    let client = blocking::Client::connect(bundle.client.config().clone()).unwrap();
    let early = client.send(add::s(1, 1)).unwrap();
    assert!(early.get(Duration::from_millis(10)).unwrap_err().is_timeout());
    assert_eq!(early.state().as_str(), "PENDING");
    let worker = runtime.block_on(bundle.worker());
    assert_eq!(early.get(PATIENCE).unwrap(), 2);
    let failed = client.send(python_error::s()).unwrap().get(PATIENCE).unwrap_err();
    assert!(failed.failure().unwrap().is("ValueError"), "{failed:?}");
    let by_name = client.send_task::<i64>("tests.add", [Value::Int(2), 3.into()]).unwrap();
    assert_eq!(by_name.get(PATIENCE).unwrap(), 5);
    let sent = client.send_all([add::s(1, 2), Signature::new("tests.add").queue("nowhere")]);
    assert_eq!(sent[0].as_ref().unwrap().get(PATIENCE).unwrap(), 3);
    assert!(sent[1].as_ref().unwrap_err().is_unroutable());
    client.close();
    runtime.block_on(stop(worker));
}
