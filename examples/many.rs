//! Many calls at once: they travel in bursts, and each has an outcome of its own.
//!
//! Needs a worker with the demo tasks: `cargo run -p celeriac-worker`.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "an example shows what it does")]

use std::time::Duration;

use celeriac::{Client, Config, Signature};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let client = Client::connect(Config::from_env()?).await?;

    let calls = (1..=1_000).map(|x| Signature::<i64>::new("square").arg(x));
    let mut sum = 0;
    for sent in client.send_all(calls).await {
        // A call that was not sent does not hold up the others.
        match sent {
            Ok(result) => sum += result.get(Duration::from_secs(30)).await?,
            Err(error) => eprintln!("not sent: {error}"),
        }
    }
    println!("the squares of 1 to 1000 add up to {sum}");

    client.close().await;
    Ok(())
}
