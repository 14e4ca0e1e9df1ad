//! Calling a task: typed where the task is Rust code that you link, by name where it is not.
//!
//! Needs a worker with the demo tasks: `cargo run -p celeriac-worker`.

#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::time::Duration;

use celeriac::{Client, Config, Signature, task};

/// The same signature as the task of the stock worker; here it is only called, never run.
#[task(name = "add")]
async fn add(x: i64, y: i64) -> i64 {
    x + y
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let client = Client::connect(Config::from_env()?).await?;

    // The compiler checks the arguments and knows the type of the result.
    let sum = add::delay(&client, 2, 2).await?;
    println!("2 + 2 = {}", sum.get(Duration::from_secs(10)).await?);

    // With Celery's options of a call.
    let later = add::s(20, 22).countdown(Duration::from_secs(1)).apply_async(&client).await?;
    println!("20 + 22 = {}, a second later", later.get(Duration::from_secs(10)).await?);

    // A task that lives elsewhere, perhaps in Python.
    let call = Signature::<f64>::new("power").arg(2).kwarg("exponent", 0.5);
    let root = client.send(call).await?;
    println!("2 ** 0.5 = {}", root.get(Duration::from_secs(10)).await?);

    client.close().await;
    Ok(())
}
