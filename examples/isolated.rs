//! Tasks that may crash: each runs in a child process of the worker, which the worker outlives.
//!
//! ```sh
//! cargo run --example isolated --features cli
//! celeriac call isolated.crash --args '["abort"]' --wait
//! ```

use std::process::{Command, ExitCode};
use std::time::Duration;

use celeriac::protocol::Map;
use celeriac::{App, Config, Context, Signature, TaskError, TaskResult, task};
use tokio::signal::unix::{SignalKind, signal};

/// Ends its process in the way that is asked for, or returns its id.
#[expect(clippy::print_stdout, reason = "so that others know when to end it")]
#[task(name = "isolated.crash", isolate = process)]
fn crash(how: String) -> TaskResult<u32> {
    let pid = std::process::id();
    match how.as_str() {
        "abort" => std::process::abort(),
        "exit" => std::process::exit(3),
        "segfault" => {
            // Rust's handler lets the first one pass that no address caused, and two that come
            // together are one.
            let again = format!("while kill -SEGV {pid}; do sleep 0.01; done");
            Command::new("sh").args(["-c", &again]).status()?;
            std::thread::sleep(Duration::from_secs(60));
        }
        "loop" => {
            println!("looping in {pid}");
            loop {
                std::hint::spin_loop();
            }
        }
        "panic" => panic!("as asked for"),
        "error" => return Err(TaskError::python("ValueError", "builtins", ["kaboom"])),
        "orphan" => drop(Command::new("sh").args(["-c", "sleep 0.2 &"]).status()?),
        "grow" => {
            let memory = vec![1_u8; 100 << 20];
            assert_eq!(std::hint::black_box(memory).len(), 100 << 20);
        }
        "hoard" => {
            // Nothing of it is touched, should there be as much.
            let memory = vec![0_u8; 32 << 30];
            assert_eq!(std::hint::black_box(memory).len(), 32 << 30);
        }
        _ => {}
    }
    Ok(pid)
}

/// Prints, which does not come between a task and its worker.
#[expect(clippy::print_stdout, reason = "that is what is shown here")]
#[task(name = "isolated.print", isolate = process)]
fn print(lines: u32) -> u32 {
    for line in 0..lines {
        println!("line {line} from {}", std::process::id());
    }
    lines
}

/// Tells monitors something that only it knows.
#[task(name = "isolated.tells", isolate = process)]
fn tells(context: Context, done: u64) -> TaskResult<u64> {
    context.send_event("task-progress", Map::from_iter([("done", done)]))?;
    Ok(done)
}

/// Tells how far it is.
#[task(name = "isolated.count", isolate = process)]
async fn count(context: Context, to: u64) -> TaskResult<u64> {
    for done in 1..=to {
        context.progress(done, to).await?;
    }
    Ok(to)
}

/// Calls another task, over a connection of its own.
#[task(name = "isolated.call", isolate = process)]
async fn call(context: Context, times: u32) -> TaskResult<Vec<String>> {
    let client = context.client();
    let mut ids = Vec::new();
    for _ in 0..times {
        let called = Signature::<u32>::new("isolated.print").arg(1).apply_async(&client).await?;
        ids.push(called.id().to_owned());
    }
    Ok(ids)
}

/// Crashes at its first delivery, and at its second it does not.
#[task(name = "isolated.again", isolate = process, reject_on_worker_lost)]
fn again(context: Context) -> bool {
    if !context.request().delivery_info.redelivered {
        std::process::abort();
    }
    true
}

/// Never ends by itself, and hears SIGUSR1, which does not end it either.
#[expect(clippy::print_stdout, reason = "that is what is shown here")]
#[task(name = "isolated.listens", isolate = process)]
async fn listens() -> TaskResult<u32> {
    let mut signals = signal(SignalKind::user_defined1())?;
    println!("it listens");
    loop {
        signals.recv().await;
        println!("it goes on after SIGUSR1");
    }
}

/// Does not end at its first delivery, unless the connection that brought it is lost.
#[expect(clippy::print_stdout, reason = "that is what is shown here")]
#[task(name = "isolated.lingers", isolate = process, on_connection_loss = cancel)]
fn lingers(context: Context) -> u32 {
    if !context.request().delivery_info.redelivered {
        println!("it lingers");
        std::thread::sleep(Duration::from_secs(3600));
    }
    std::process::id()
}

/// Crashes whenever it runs, and is delivered again all the same.
#[task(name = "isolated.poison", isolate = process, reject_on_worker_lost)]
fn poison() -> u32 {
    std::process::abort()
}

/// Never ends by itself, nor by any kind word.
#[task(name = "isolated.spin", isolate = process, time_limit = 1)]
fn spin() {
    loop {
        std::hint::spin_loop();
    }
}

/// Waits until its time is up, and says so.
#[task(name = "isolated.patient", isolate = process, soft_time_limit = "500ms")]
async fn patient(context: Context) -> String {
    context.soft_time_limit_exceeded().await.to_string()
}

fn main() -> ExitCode {
    celeriac::cli::main(App::new(Config::default()))
}
