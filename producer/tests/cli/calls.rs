//! Calls through a real broker, and the stock worker where results matter.

use std::process::Command;

use xtask::{QueueDepth, Spawned};

use crate::setup::{SOON, objects, setup};

#[test]
fn ping_tells_broker_version_and_times() {
    let setup = setup("ping");
    let run = setup.celeriac(&["ping"], "");
    assert_eq!(run.code, Some(0), "{run:?}");
    assert!(run.stdout.starts_with("RabbitMQ "), "{run:?}");
    assert!(run.stdout.contains(setup.vhost.name()), "{run:?}");

    let run = setup.celeriac(&["ping", "--json"], "");
    let object = objects(&run.stdout).remove(0);
    assert_eq!(object["product"], "RabbitMQ");
    assert!(object["login_s"].as_f64().unwrap() > 0.0, "{object}");
    assert_eq!(setup.vhost.queues().unwrap(), Vec::<String>::new(), "ping declares nothing");
}

#[test]
fn a_call_without_wait_ends_when_the_broker_has_confirmed() {
    let setup = setup("sent");
    let run = setup.celeriac(&["call", "add", "--args", "[2, 2]", "--task-id", "id-1"], "");
    assert_eq!(run.code, Some(0), "{run:?}");
    assert_eq!(run.stdout, "sent add[id-1] to queue celeriac\n");
    setup.vhost.wait_for_depth("celeriac", QueueDepth { ready: 1, unacked: 0 }, SOON).unwrap();
    let message = setup.vhost.messages("celeriac").unwrap().remove(0);
    assert_eq!(message.header("task").unwrap(), "add");
    assert_eq!(message.header("id").unwrap(), "id-1");
}

#[test]
fn a_queue_that_is_not_there_is_an_error_of_its_own() {
    let setup = setup("unroutable");
    let run = setup.celeriac(&["call", "add", "-Q", "nowhere"], "");
    run.is_refused(5, "nowhere");
}

#[test]
fn what_is_too_large_for_the_broker_is_not_sent() {
    let setup = setup("large");
    let value = "x".repeat(200_000);
    let line = format!(r#"{{"task": "add", "options": {{"headers": {{"note": "{value}"}}}}}}"#);
    let run = setup.celeriac(&["call", "--from", "-"], &line);
    assert_eq!(run.code, Some(5), "{}", run.stderr);
    assert!(run.stderr.contains("bytes where "), "{}", run.stderr);
    assert!(run.stderr.contains("0 sent in "), "{}", run.stderr);
}

#[test]
fn a_wrong_password_is_told_as_such() {
    let setup = setup("password");
    let (_, host) = setup.url.rsplit_once('@').unwrap();
    let run = setup.celeriac(&["ping", "-b", &format!("amqp://nobody:hunter2@{host}")], "");
    run.is_refused(3, "nobody");
    assert!(!run.stderr.contains("hunter2"), "{run:?}");
}

#[test]
fn waiting_shows_values_failures_and_timeouts() {
    let setup = setup("wait");
    let _worker = setup.worker();

    let run = setup.celeriac(&["call", "add", "--args", "[2, 2]", "--wait"], "");
    assert_eq!(run.code, Some(0), "{run:?}");
    assert!(run.stdout.contains("SUCCESS in "), "{run:?}");
    assert!(run.stdout.ends_with(" s: 4\n"), "{run:?}");

    let message = r#"{"message": "café"}"#;
    let run = setup.celeriac(&["call", "fail", "--kwargs", message, "--wait"], "");
    assert_eq!(run.code, Some(1), "{run:?}");
    assert!(run.stdout.contains("FAILURE in "), "{run:?}");
    assert!(run.stdout.contains("RuntimeError: café"), "{run:?}");

    let nap = &["call", "sleep", "--args", "[60]", "--wait", "--timeout", "200ms"];
    let run = setup.celeriac(nap, "");
    assert_eq!(run.code, Some(4), "{run:?}");
    assert!(run.stdout.contains("TIMEOUT after "), "{run:?}");
}

#[test]
fn programs_get_one_object_for_each_call() {
    let setup = setup("json");
    let _worker = setup.worker();

    let run = setup.celeriac(&["call", "add", "--args", "[1.5, 2]", "--wait", "--json"], "");
    let object = objects(&run.stdout).remove(0);
    assert_eq!(object["task"], "add");
    assert_eq!(object["args"], serde_json::json!([1.5, 2]));
    assert_eq!(object["status"], "SUCCESS");
    assert_eq!(object["result"], 3.5);
    assert!(object["runtime_s"].as_f64().is_some(), "{object}");

    let run = setup.celeriac(&["call", "fail", "--wait", "--json"], "");
    assert_eq!(run.code, Some(1), "{run:?}");
    let object = objects(&run.stdout).remove(0);
    assert_eq!(object["status"], "FAILURE");
    assert_eq!(object["exception"]["exc_type"], "RuntimeError");
    assert!(object["traceback"].is_string(), "{object}");
}

#[test]
fn lines_are_sent_and_wrong_ones_are_told_with_their_numbers() {
    let setup = setup("lines");
    let input = "\
        {\"task\": \"add\", \"args\": [1, 2]}\n\
        \n\
        {\"task\": \"add\", \"args\": 3}\n\
        {\"task\": \"add\", \"options\": {\"queue\": \"nowhere\"}}\n\
        not json\n\
        {\"task\": \"add\", \"options\": {\"priority\": 256}}\n\
        {\"task\": \"add\", \"options\": {\"serializer\": \"pickle\"}}\n\
        {\"task\": \"square\", \"args\": [4], \"options\": {\"serializer\": \"json\"}}";
    let run = setup.celeriac(&["call", "--from", "-"], input);
    assert_eq!(run.code, Some(2), "{run:?}");
    assert_eq!(run.stdout, "");
    for part in [
        "error: line 3: \"args\" must be a JSON array",
        "error: line 4: ",
        "error: line 5: the line is not valid JSON",
        "error: line 6: priority must be",
        "error: line 7: unknown serializer \"pickle\"",
        "2 sent in ",
        "1 not sent",
        "4 malformed",
    ] {
        assert!(run.stderr.contains(part), "{part} is not in {run:?}");
    }
    setup.vhost.wait_for_depth("celeriac", QueueDepth { ready: 2, unacked: 0 }, SOON).unwrap();
}

#[test]
fn many_lines_are_sent_and_their_results_awaited() {
    const COUNT: i64 = 3_000;
    let setup = setup("many");
    let _worker = setup.worker();
    let input: String =
        (0..COUNT).map(|x| format!("{{\"task\": \"square\", \"args\": [{x}]}}\n")).collect();
    let args = ["call", "--from", "-", "--wait", "--timeout", "10m", "--json"];
    let run = setup.celeriac(&args, &input);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    let mut lines = Vec::new();
    for object in objects(&run.stdout) {
        let x = object["args"][0].as_i64().unwrap();
        assert_eq!(object["result"], x * x, "{object}");
        lines.push(object["line"].as_i64().unwrap());
    }
    lines.sort_unstable();
    assert_eq!(lines, (1..=COUNT).collect::<Vec<_>>());
    let summary = objects(&run.stderr).remove(0);
    assert_eq!(summary["sent"], COUNT);
    assert_eq!(summary["succeeded"], COUNT);
}

#[test]
fn lines_are_sent_while_the_input_pauses() {
    let setup = setup("pause");
    let mut command = Command::new(env!("CARGO_BIN_EXE_celeriac"));
    command.args(["call", "--from", "-", "--json"]).env("CELERIAC_BROKER_URL", &setup.url);
    let (mut run, mut input) = Spawned::start_with_input(&mut command).unwrap();
    for task in ["one", "two"] {
        use std::io::Write;
        writeln!(input, "{{\"task\": \"{task}\"}}").unwrap();
        run.wait_for_line(&format!("\"task\": \"{task}\""), SOON).unwrap();
    }
    drop(input);
    assert_eq!(run.wait(SOON).unwrap().code(), Some(0));
}
