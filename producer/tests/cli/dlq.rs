//! `celeriac dlq`: what is parked is found, comes back to its queue, or goes; and nothing is lost.

use std::thread;

use serde_json::json;
use xtask::QueueDepth;

use crate::setup::{SOON, Setup, objects, setup};

const PARKING: &str = "celeriac.dead";

/// Parks calls of tasks that no worker knows.
fn parked(hint: &str, tasks: &[&str]) -> Setup {
    let setup = setup(hint);
    let worker = setup.worker();
    let lines = tasks.iter().enumerate();
    let lines: String = lines
        .map(|(at, task)| {
            let options = format!("{{\"task_id\": \"id-{at}\"}}");
            format!("{{\"task\": \"{task}\", \"args\": [{at}], \"options\": {options}}}\n")
        })
        .collect();
    assert_eq!(setup.celeriac(&["call", "--from", "-"], &lines).code, Some(0));
    depth(&setup, PARKING, tasks.len());
    // A worker that is killed before it has acknowledged what it parked gets it again.
    depth(&setup, "celeriac", 0);
    drop(worker);
    setup
}

fn depth(setup: &Setup, queue: &str, ready: usize) {
    let depth = QueueDepth { ready: ready as u64, unacked: 0 };
    setup.vhost.wait_for_depth(queue, depth, SOON).unwrap();
}

#[test]
fn what_is_parked_is_listed_shown_and_exported_and_stays_where_it_is() {
    let setup = parked("dlq-list", &["mail.send", "mail.sort", "other"]);
    let run = setup.celeriac(&["dlq", "list"], "");
    assert_eq!(run.code, Some(0), "{run:?}");
    let lines: Vec<&str> = run.stdout.lines().collect();
    assert_eq!(lines.len(), 3, "{run:?}");
    // Bursts are parked side by side, so the order is not that of the calls.
    let line = "  unknown-task  mail.send[id-0]  celeriac  received";
    assert!(lines.iter().any(|it| it.contains(line)), "{run:?}");

    let run = setup.celeriac(&["dlq", "list", "--task", "mail.*", "--json"], "");
    let found = objects(&run.stdout);
    assert_eq!(found.len(), 2, "{run:?}");
    let second = found.iter().find(|it| it["id"] == "id-1").unwrap();
    assert_eq!(second["attempts"], 1, "{run:?}");
    for (filters, count) in [
        (&["--newer-than", "1h"][..], 3),
        (&["--older-than", "1h"], 0),
        (&["--id", "id-2", "--reason", "unknown-task"], 1),
        (&["--reason", "body"], 0),
        (&["--limit", "2"], 2),
    ] {
        let run = setup.celeriac(&[&["dlq", "list", "--json"], filters].concat(), "");
        assert_eq!(objects(&run.stdout).len(), count, "{filters:?} {run:?}");
    }

    let run = setup.celeriac(&["dlq", "show", "id-1"], "");
    assert!(run.stdout.contains("task: mail.sort\n"), "{run:?}");
    assert!(run.stdout.contains("args: [1]\n"), "{run:?}");
    setup.celeriac(&["dlq", "show", "id-9"], "").is_refused(1, "id-9");

    let file = std::env::temp_dir().join(format!("{}.jsonl", setup.vhost.name()));
    let run = setup.celeriac(&["dlq", "export", "-o", file.to_str().unwrap()], "");
    assert_eq!((run.code, &*run.stdout), (Some(0), "3 exported\n"), "{run:?}");
    let exported = objects(&std::fs::read_to_string(&file).unwrap());
    std::fs::remove_file(&file).unwrap();
    assert_eq!(exported.len(), 3);
    let last = exported.iter().find(|it| it["id"] == "id-2").unwrap();
    assert_eq!(last["args"], json!([2]));
    assert!(last["body_base64"].as_str().unwrap().len() > 4);
    // Looking counts as a delivery, of which a queue bears only so many.
    for _ in 0..12 {
        assert_eq!(setup.celeriac(&["dlq", "list"], "").stdout.lines().count(), 3);
    }
    depth(&setup, PARKING, 3);
}

#[test]
fn what_is_sent_again_is_as_it_was_sent_first() {
    let setup = parked("dlq-requeue", &["nobody.knows", "other"]);
    setup.celeriac(&["dlq", "requeue"], "").is_refused(2, "--all");
    let run = setup.celeriac(&["dlq", "requeue", "--task", "nobody.*"], "");
    assert_eq!((run.code, &*run.stdout), (Some(0), "1 requeued\n"), "{run:?}");
    depth(&setup, "celeriac", 1);
    depth(&setup, PARKING, 1);
    let message = setup.vhost.messages("celeriac").unwrap().remove(0);
    assert_eq!(message.header("id").unwrap(), "id-0");
    let headers = message.properties["headers"].as_object().unwrap();
    let added = |name: &&String| name.starts_with("dead_") || name.contains("death");
    assert_eq!(headers.keys().find(added), None);

    let run = setup.celeriac(&["dlq", "requeue", "--all", "--to", "nowhere"], "");
    assert_eq!((run.code, &*run.stdout), (Some(5), "0 requeued, 1 failed\n"), "{run:?}");
    assert!(run.stderr.contains("nowhere"), "{run:?}");
    depth(&setup, PARKING, 1);

    setup
        .celeriac(&["dlq", "requeue", "--all", "-Q", "unheard-of"], "")
        .is_refused(5, "unheard-of.dead");
}

#[test]
fn what_is_dropped_is_only_what_was_meant() {
    let setup = parked("dlq-drop", &["a", "b", "b"]);
    setup.celeriac(&["dlq", "drop", "--all"], "y\n").is_refused(2, "--yes");
    depth(&setup, PARKING, 3);
    let run = setup.celeriac(&["dlq", "drop", "--task", "b", "--yes", "--json"], "");
    assert_eq!(objects(&run.stdout)[0]["dropped"], 2, "{run:?}");
    depth(&setup, PARKING, 1);
    assert_eq!(setup.vhost.messages(PARKING).unwrap()[0].header("task").unwrap(), "a");
}

#[test]
fn of_two_people_at_once_each_message_is_handled_by_one() {
    const COUNT: usize = 1500;
    let setup = setup("dlq-two");
    let queue = |name: &str| {
        let spec = json!({"durable": true, "arguments": {"x-queue-type": "quorum"}});
        setup.vhost.management().put(&["queues", setup.vhost.name(), name], &spec).unwrap();
    };
    queue("again");
    queue("again.dead");
    let lines: String = (0..COUNT)
        .map(|at| format!("{{\"task\": \"t\", \"options\": {{\"task_id\": \"{at}\"}}}}\n"))
        .collect();
    let sent = setup.celeriac(&["call", "--from", "-", "-Q", "again.dead"], &lines);
    assert_eq!(sent.code, Some(0), "{sent:?}");
    depth(&setup, "again.dead", COUNT);
    let requeue = || setup.celeriac(&["dlq", "requeue", "--all", "-Q", "again", "--json"], "");
    let runs = thread::scope(|scope| {
        let both = [scope.spawn(requeue), scope.spawn(requeue)];
        both.map(|run| run.join().unwrap())
    });
    let counts = runs.each_ref().map(|run| objects(&run.stdout)[0]["requeued"].as_u64().unwrap());
    assert_eq!(counts.iter().sum::<u64>(), COUNT as u64, "{counts:?}");
    depth(&setup, "again.dead", 0);
    let mut ids: Vec<String> = setup
        .vhost
        .messages("again")
        .unwrap()
        .iter()
        .map(|message| message.header("id").unwrap().as_str().unwrap().to_owned())
        .collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), COUNT);
}
