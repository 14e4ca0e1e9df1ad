//! What is refused before a broker is asked, and brokers that do not answer: one sentence and an
//! exit code each.

use std::net::TcpListener;

use crate::run::celeriac;

#[test]
fn malformed_arguments_are_one_sentence() {
    for (args, part) in [
        (&["call", "add", "--args", "[1, 2"][..], "--args is not valid JSON: "),
        (&["call", "add", "--args", "[1,, 2]"], "at byte 3"),
        (&["call", "add", "--args", "{}"], "--args must be a JSON array"),
        (&["call", "add", "--args", "3"], "not a number"),
        (&["call", "add", "--kwargs", "[]"], "--kwargs must be a JSON object"),
        (&["call", "add", "--kwargs", "{\"x\": }"], "--kwargs is not valid JSON"),
        (&["call", "add", "--eta", "tomorrow"], "eta: 'tomorrow' is not"),
        (&["call", "add", "--expires", "soon"], "expires: 'soon' is not"),
        (&["ping", "-b", "http://localhost"], "broker_url: broker URL has the unknown scheme"),
        (&["ping", "--config", "/no/such.toml"], "failed to read the settings file"),
        (&["call", "--from", "/no/such.jsonl"], "failed to read /no/such.jsonl: No such file"),
    ] {
        celeriac(args, &[], "").is_refused(2, part);
    }
}

#[test]
fn unknown_settings_are_refused_with_a_suggestion() {
    let variables = [("CELERIAC_TASK_SERIALISER", "json")];
    celeriac(&["ping"], &variables, "").is_refused(2, "did you mean 'CELERIAC_TASK_SERIALIZER'?");
}

#[test]
fn unknown_options_and_values_are_refused() {
    for args in [
        &["call"][..],
        &["call", "add", "--priority", "300"],
        &["call", "add", "--serializer", "pickle"],
        &["call", "add", "--countdown", "later"],
        &["call", "add", "--header", "x"],
        &["completions", "cmd"],
        &["fly"],
    ] {
        let run = celeriac(args, &[], "");
        assert_eq!(run.code, Some(2), "{run:?}");
        assert!(run.stderr.starts_with("error: "), "{run:?}");
        assert_eq!(run.stdout, "");
    }
}

#[test]
fn a_broker_that_is_not_there_is_told_at_once() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let url = format!("amqp://me:hunter2@127.0.0.1:{port}");
    for args in [&["ping"][..], &["call", "add"], &["call", "--from", "-"]] {
        let run = celeriac(args, &[("CELERIAC_BROKER_URL", &url)], "{\"task\": \"add\"}\n");
        run.is_refused(3, &format!("127.0.0.1:{port}"));
        assert!(!run.stderr.contains("hunter2"), "{run:?}");
    }
}

#[test]
fn a_broker_that_does_not_answer_is_given_up_after_the_timeout() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("amqp://{}", silent.local_addr().unwrap());
    let timeout = ("CELERIAC_BROKER_CONNECTION_TIMEOUT", "200ms");
    celeriac(&["ping", "-b", &url], &[timeout], "").is_refused(3, "200ms");
}

#[test]
fn completions_are_written_for_every_shell() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let run = celeriac(&["completions", shell], &[], "");
        assert_eq!(run.code, Some(0), "{run:?}");
        assert!(run.stdout.contains("celeriac"), "{run:?}");
        assert!(run.stdout.contains("routing-key"), "{run:?}");
    }
}

#[test]
fn help_teaches_by_examples_and_lists_the_exit_codes() {
    let run = celeriac(&["--help"], &[], "");
    assert_eq!(run.code, Some(0), "{run:?}");
    assert!(run.stdout.contains("celeriac call add --args '[2, 2]' --wait"), "{run:?}");
    for help in [run, celeriac(&["call", "--help"], &[], "")] {
        for code in ["  1  a task failed", "  3  the broker cannot be reached", "  5  not sent"] {
            assert!(help.stdout.contains(code), "{help:?}");
        }
    }
}
