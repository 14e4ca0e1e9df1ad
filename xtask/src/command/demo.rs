//! `cargo xtask demo`: two workers, a producer, and what goes back and forth between them.
//!
//! All of it happens in a virtual host of its own, so nothing is left behind on the broker.

use std::io::Write;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;
use xtask::process::binary;
use xtask::{Broker, Error, Spawned, TestVhost};

const READY: &str = " ready.";
const START_WITHIN: Duration = Duration::from_secs(60);
const STOP_WITHIN: Duration = Duration::from_secs(60);
const BURST: usize = 1_000;
// How the producer reads calls from standard input.
const CALLS_FROM_INPUT: [&str; 3] = ["call", "--from", "-"];

/// Task, arguments as JSON, and whether it is to succeed.
const CALLS: [(&str, &str, bool); 11] = [
    ("add", "[2, 2]", true),
    ("multiply", "[4, 3]", true),
    ("power", "[12, 2]", true),
    ("square", "[4]", true),
    ("double", "[5]", true),
    ("sum_task", "[[0, 1, 4]]", true),
    ("process_data", r#"[{"b": 2, "a": 1}]"#, true),
    ("send_email", r#"["you@example.org", "Hello"]"#, true),
    ("calculate_sum", "[[1, 2, 3, 4]]", true),
    ("sleep", "[0.5]", true),
    ("fail", r#"["on purpose"]"#, false),
];

/// Words for the producer, and the value that is to come back.
const WORKFLOWS: [(&[&str], &str); 5] = [
    (&["chain", "add(2, 2)", "multiply(3)", "power(2)"], "144"),
    (&["chain", "add(2, 2) | multiply(3) | power(2)"], "144"),
    (&["group", "square(2)", "square(3)", "square(4)", "double(5)"], "[4,9,16,10]"),
    (&["chord", "square(0)", "square(1)", "square(2)", "--body", "sum_task"], "5"),
    (&["chain", "group(square(0), square(1), square(2))", "sum_task", "double"], "10"),
];

/// Runs the demo and says whether everything came back as it should.
pub(crate) fn run() -> xtask::Result<bool> {
    println!("== broker");
    let broker = super::provision()?;
    let outcome = build_and_show(&broker);
    broker.stop()?;
    println!("\neverything that was started is stopped");
    outcome
}

fn build_and_show(broker: &Broker) -> xtask::Result<bool> {
    println!("\n== building");
    let programs = ["build", "-p", "celeriac-worker", "-p", "celeriac-producer"];
    if !super::cargo(&programs).status()?.success() {
        return Ok(false);
    }
    let vhost = TestVhost::create_on(&broker.url, broker.management(), "demo")?;
    with_fleet(&vhost)
}

fn with_fleet(vhost: &TestVhost) -> xtask::Result<bool> {
    println!("\n== two workers");
    let mut fleet = vec![("demo1", worker(vhost, "demo1")?), ("demo2", worker(vhost, "demo2")?)];
    for (name, worker) in &fleet {
        println!("{name}: {}", worker.wait_for_line(READY, START_WITHIN)?.trim());
    }
    let calls = calls(vhost)?;
    let workflows = workflows(vhost)?;
    let burst = burst(vhost)?;
    println!("\n== stopping");
    let mut stopped = true;
    for (name, worker) in &mut fleet {
        let ran = worker.lines().iter().filter(|line| line.contains(" succeeded in ")).count();
        worker.signal("TERM")?;
        let status = worker.wait(STOP_WITHIN)?;
        println!("{name}: succeeded with {ran} tasks, {status}");
        stopped &= status.success();
    }
    Ok(calls && workflows && burst && stopped)
}

fn worker(vhost: &TestVhost, name: &str) -> xtask::Result<Spawned> {
    let mut command = Command::new(binary("celeriac-worker")?);
    command.args(["--broker", vhost.url(), "-n", &format!("{name}@%h"), "-c", "10", "-l", "info"]);
    Spawned::start(&mut command)
}

fn producer(vhost: &TestVhost) -> xtask::Result<Command> {
    let mut command = Command::new(binary("celeriac")?);
    command.args(["--broker", vhost.url()]);
    Ok(command)
}

/// One call after another, each awaited.
fn calls(vhost: &TestVhost) -> xtask::Result<bool> {
    println!("\n== one by one, as by `celeriac call NAME --args JSON --wait`");
    println!("{:<14} {:<30} {:<36} {:>8}  result", "task", "arguments", "id", "ms");
    let mut as_expected = true;
    for (task, arguments, succeeds) in CALLS {
        let output = producer(vhost)?
            .args(["call", task, "--args", arguments, "--wait", "--json"])
            .output()?;
        let answer: Value = serde_json::from_slice(&output.stdout).map_err(|_| {
            let text = String::from_utf8_lossy(&output.stderr);
            Error::new(format!("the call of {task} gave no result: {}", text.trim()))
        })?;
        let id = answer.get("task_id").and_then(Value::as_str).unwrap_or("?");
        let runtime_ms = answer.get("runtime_s").and_then(Value::as_f64).unwrap_or(0.0) * 1e3;
        let good = output.status.success() == succeeds;
        as_expected &= good;
        let mark = match (good, succeeds) {
            (true, true) => "",
            (true, false) => "  (as it should)",
            (false, _) => "  NOT AS EXPECTED",
        };
        println!(
            "{task:<14} {arguments:<30} {id:<36} {runtime_ms:>8.1}  {}{mark}",
            ending(&answer)
        );
    }
    Ok(as_expected)
}

/// Tasks that build on one another, each workflow awaited as a whole.
fn workflows(vhost: &TestVhost) -> xtask::Result<bool> {
    println!("\n== workflows, as by `celeriac chain 'add(2, 2)' 'multiply(3)' --wait`");
    println!("{:<66} {:>8}  result", "workflow", "ms");
    let mut as_expected = true;
    for (words, expected) in WORKFLOWS {
        let output = producer(vhost)?.args(words).args(["--wait", "--json"]).output()?;
        let answer: Value = serde_json::from_slice(&output.stdout).map_err(|_| {
            let text = String::from_utf8_lossy(&output.stderr);
            Error::new(format!("the workflow {words:?} gave no result: {}", text.trim()))
        })?;
        let runtime_ms = answer.get("runtime_s").and_then(Value::as_f64).unwrap_or(0.0) * 1e3;
        let found = ending(&answer);
        let good = output.status.success() && found == expected;
        as_expected &= good;
        let mark = if good { String::new() } else { format!("  EXPECTED {expected}") };
        println!("{:<66} {runtime_ms:>8.1}  {found}{mark}", words.join(" "));
    }
    Ok(as_expected)
}

/// The result, or the state and the exception in Python's form.
fn ending(answer: &Value) -> String {
    let status = answer.get("status").and_then(Value::as_str).unwrap_or("?");
    if let ("SUCCESS", Some(result)) = (status, answer.get("result")) {
        return result.to_string();
    }
    let exception = answer.get("exception").or_else(|| answer.get("result"));
    let class = exception.and_then(|it| it.get("exc_type")).and_then(Value::as_str);
    let message = exception.and_then(|it| it.get("exc_message")).and_then(|it| match it {
        Value::Array(parts) => parts.first().map(plain),
        other => Some(plain(other)),
    });
    match (class, message) {
        (Some(class), Some(message)) => format!("{status}: {class}: {message}"),
        _ => status.to_owned(),
    }
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Many calls through one producer, without waiting for each; the workers' results are awaited.
fn burst(vhost: &TestVhost) -> xtask::Result<bool> {
    println!("\n== {BURST} at once, as by `celeriac {} --wait`", CALLS_FROM_INPUT.join(" "));
    let mut command = producer(vhost)?;
    let started = Instant::now();
    let (mut child, mut input) =
        Spawned::start_with_input(command.args(CALLS_FROM_INPUT).args(["--wait", "--json"]))?;
    for number in 0..BURST {
        writeln!(input, r#"{{"task": "add", "args": [{number}, 1]}}"#)?;
    }
    drop(input);
    let status = child.wait(Duration::from_secs(120))?;
    let seconds = started.elapsed().as_secs_f64();
    let results = child.lines().iter().filter(|line| is_success(line)).count();
    println!("{results} results in {seconds:.2} s, {:.0} a second", results as f64 / seconds);
    println!("the producer ended with {status}");
    Ok(results == BURST && status.success())
}

fn is_success(line: &str) -> bool {
    serde_json::from_str::<Value>(line)
        .is_ok_and(|line| line.get("status").and_then(Value::as_str) == Some("SUCCESS"))
}
