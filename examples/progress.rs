//! A task that tells how far it is, and a caller that watches it.
//!
//! Worker and caller are one program here; usually they are two.

#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::time::Duration;

use celeriac::protocol::repr;
use celeriac::{App, Config, Context, TaskError, Worker, task};

#[task(name = "import_rows")]
async fn import_rows(context: Context, rows: u64) -> Result<u64, TaskError> {
    for row in 0..rows {
        // A worker that is told to stop in a hurry asks its tasks to end.
        if context.is_cancelled() {
            return Ok(row);
        }
        context.progress(row, rows).await?;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    Ok(rows)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let app = App::new(Config::from_env()?);
    let client = app.connect().await?;
    // A queue of its own: a worker of another program would not know the task.
    let worker = Worker::new(app).queues(["imports"]).start().await?;

    let result = import_rows::s(10).queue("imports").apply_async(&client).await?;
    let mut updates = result.updates();
    while let Some(update) = updates.next().await {
        println!("{}: {}", update.status, repr::value(&update.result));
    }
    println!("imported {} rows", result.get(Duration::from_secs(10)).await?);

    client.close().await;
    worker.handle().shutdown();
    worker.wait().await?;
    Ok(())
}
