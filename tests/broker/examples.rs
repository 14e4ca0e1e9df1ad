//! The example of workflows prints what it says, with a worker that has the demo tasks.

use std::process::Command;

use celeriac::task;
use xtask::process::binary;

use crate::bundle::{Bundle, stop};

#[task(name = "add")]
async fn add(x: i64, y: i64) -> i64 {
    x + y
}

#[task(name = "multiply")]
async fn multiply(x: i64, y: i64) -> i64 {
    x * y
}

#[task(name = "power")]
async fn power(x: i64, exponent: u32) -> i64 {
    x.pow(exponent)
}

#[task(name = "square")]
async fn square(x: i64) -> i64 {
    x * x
}

#[task(name = "double")]
async fn double(x: i64) -> i64 {
    2 * x
}

#[task(name = "sum_task")]
async fn sum_task(numbers: Vec<i64>) -> i64 {
    numbers.iter().sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_example_of_workflows_gives_what_it_shows() {
    let bundle = Bundle::new("example").await;
    let worker = bundle.worker().await;
    let mut example = Command::new(binary("examples/canvas").unwrap());
    example.env("CELERIAC_BROKER_URL", bundle.vhost.url());
    let output = tokio::task::spawn_blocking(move || example.output()).await.unwrap().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    let printed = String::from_utf8_lossy(&output.stdout);
    let values: Vec<_> = printed.lines().filter_map(|line| line.split_once(" = ")).collect();
    let values: Vec<_> = values.iter().map(|(_, value)| *value).collect();
    assert_eq!(values, ["144", "144", "[4, 9, 16, 10]", "5", "25"], "{printed}");
    stop(worker).await;
    bundle.settled();
}
