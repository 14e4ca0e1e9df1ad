//! `celeriac dlq`: what is parked is found, comes back to its queue, or goes; and nothing is lost.

use std::thread;

use celeriac::amqp::{Connection, ConnectionOptions};
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

/// An empty queue of calls and its parking queue.
fn queues(setup: &Setup, name: &str) {
    for name in [name.to_owned(), format!("{name}.dead")] {
        let spec = json!({"durable": true, "arguments": {"x-queue-type": "quorum"}});
        setup.vhost.management().put(&["queues", setup.vhost.name(), &name], &spec).unwrap();
    }
}

/// Sends `count` calls of `task` to the queue `name`, with the ids `<task>-0` and so on.
fn send(setup: &Setup, name: &str, task: &str, count: usize) {
    let line =
        |at| format!("{{\"task\": \"{task}\", \"options\": {{\"task_id\": \"{task}-{at}\"}}}}\n");
    let lines: String = (0..count).map(line).collect();
    let sent = setup.celeriac(&["call", "--from", "-", "-Q", name], &lines);
    assert_eq!(sent.code, Some(0), "{sent:?}");
}

fn ids(setup: &Setup, queue: &str) -> Vec<String> {
    let id = |message: &xtask::FetchedMessage| {
        message.header("id").unwrap().as_str().unwrap().to_owned()
    };
    let mut ids: Vec<String> = setup.vhost.messages(queue).unwrap().iter().map(id).collect();
    ids.sort();
    ids
}

#[test]
fn a_message_behind_many_others_is_found() {
    const COUNT: usize = 11_000;
    let setup = setup("dlq-many");
    queues(&setup, "many");
    send(&setup, "many.dead", "a", COUNT);
    send(&setup, "many.dead", "b", 1);
    depth(&setup, "many.dead", COUNT + 1);
    let run = setup.celeriac(&["dlq", "show", "b-0", "-Q", "many"], "");
    assert_eq!(run.code, Some(0), "{run:?}");
    let run = setup.celeriac(&["dlq", "export", "-Q", "many"], "");
    assert_eq!((run.code, run.stdout.lines().count()), (Some(0), COUNT + 1), "{}", run.stderr);
    let run = setup.celeriac(&["dlq", "requeue", "--task", "b", "-Q", "many"], "");
    assert_eq!((run.code, &*run.stdout), (Some(0), "1 requeued\n"), "{run:?}");
    depth(&setup, "many", 1);
    depth(&setup, "many.dead", COUNT);
}

#[test]
fn every_command_takes_reasons_and_ages() {
    let setup = setup("dlq-filters");
    let hours_ago =
        |hours: u64| jiff::Timestamp::now() - std::time::Duration::from_secs(3600 * hours);
    let filters = [
        (&["--reason", "body"][..], vec!["new"]),
        (&["--older-than", "1h"], vec!["old", "older"]),
        (&["--newer-than", "3h"], vec!["new", "old"]),
        (&["--older-than", "1h", "--newer-than", "3h"], vec!["old"]),
        (&["--reason", "rejected", "--older-than", "3h"], vec!["older"]),
        (&["--reason", "body", "--older-than", "1h"], vec![]),
    ];
    for at in 0..filters.len() {
        let name = format!("filters{at}");
        queues(&setup, &name);
        let all = [("new", "body", 0), ("old", "rejected", 2), ("older", "rejected", 5)];
        for (id, reason, hours) in all {
            let time = hours_ago(hours).to_string();
            let headers = json!({"task": "t", "id": id, "lang": "py", "dead_reason": reason,
                "dead_time": time, "dead_queue": name});
            let properties = json!({"content_type": "application/json", "headers": headers});
            let parking = format!("{name}.dead");
            assert!(setup.vhost.publish("", &parking, &properties, b"[[], {}, {}]").unwrap());
        }
    }
    for (at, (filter, taken)) in filters.into_iter().enumerate() {
        let name = format!("filters{at}");
        depth(&setup, &format!("{name}.dead"), 3);
        let dlq = |verb: &[&str]| {
            let run = setup.celeriac(&[&["dlq"], verb, &["-Q", &name], filter].concat(), "");
            assert_eq!(run.code, Some(0), "{filter:?} {run:?}");
            run
        };
        let exported = objects(&dlq(&["export"]).stdout);
        let exported: Vec<_> = exported.iter().map(|it| it["id"].as_str().unwrap()).collect();
        assert_eq!(exported, taken, "{filter:?}");
        dlq(&["requeue"]);
        assert_eq!(ids(&setup, &name), taken, "{filter:?}");
        // What was not meant is still parked.
        let back = setup.celeriac(&["dlq", "list", "--json", "-Q", &name], "");
        assert_eq!(objects(&back.stdout).len(), 3 - taken.len(), "{back:?}");
    }
}

#[test]
fn what_is_dropped_is_chosen_by_reasons_and_ages_too() {
    let setup = setup("dlq-drop-filters");
    queues(&setup, "drops");
    let now = jiff::Timestamp::now();
    for (id, reason, hours) in [("new", "body", 0), ("old", "body", 2), ("other", "rejected", 2)] {
        let time = (now - std::time::Duration::from_secs(3600 * hours)).to_string();
        let headers = json!({"task": "t", "id": id, "lang": "py", "dead_reason": reason,
            "dead_time": time, "dead_queue": "drops"});
        let properties = json!({"content_type": "application/json", "headers": headers});
        assert!(setup.vhost.publish("", "drops.dead", &properties, b"[[], {}, {}]").unwrap());
    }
    depth(&setup, "drops.dead", 3);
    let drop = |filter: &[&str]| {
        setup.celeriac(&[&["dlq", "drop", "--yes", "-Q", "drops"], filter].concat(), "").stdout
    };
    assert_eq!(drop(&["--reason", "body", "--older-than", "3h"]), "0 dropped\n");
    assert_eq!(drop(&["--reason", "body", "--older-than", "1h"]), "1 dropped\n");
    depth(&setup, "drops.dead", 2);
    assert_eq!(drop(&["--newer-than", "1h"]), "1 dropped\n");
    depth(&setup, "drops.dead", 1);
    assert_eq!(ids(&setup, "drops.dead"), ["other"]);
}

/// Waits until a message is in the queue, and asks the broker itself, which knows it at once.
fn some_are_there(setup: &Setup, queue: &str) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let options = ConnectionOptions {
        urls: vec![setup.url.parse().unwrap()],
        ..ConnectionOptions::default()
    };
    let there = async {
        let connection = Connection::open(options).await.unwrap();
        while connection.queue_depth(queue).await.unwrap() == Some(0) {}
    };
    runtime.block_on(async { tokio::time::timeout(SOON, there).await }).unwrap();
}

#[test]
fn a_requeue_that_is_killed_loses_nothing() {
    const COUNT: usize = 2000;
    let setup = setup("dlq-killed");
    queues(&setup, "killed");
    send(&setup, "killed.dead", "t", COUNT);
    depth(&setup, "killed.dead", COUNT);
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_celeriac"));
    command.args(["dlq", "requeue", "--all", "-Q", "killed"]);
    let mut requeue =
        xtask::Spawned::start(command.env("CELERIAC_BROKER_URL", &setup.url)).unwrap();
    some_are_there(&setup, "killed");
    let status = requeue.kill_9().unwrap();
    assert!(!status.success(), "it had ended: {}", requeue.output());
    let idle = || setup.vhost.queue_depth("killed.dead").ok().filter(|depth| depth.unacked == 0);
    setup.vhost.wait_until("what it held is back", idle).unwrap();
    let (again, parked) = (ids(&setup, "killed"), ids(&setup, "killed.dead"));
    let mut all: Vec<_> = again.iter().chain(&parked).collect();
    all.sort();
    all.dedup();
    assert_eq!(all.len(), COUNT, "{} requeued, {} parked", again.len(), parked.len());
    let rest = setup.celeriac(&["dlq", "requeue", "--all", "-Q", "killed"], "");
    assert_eq!(rest.code, Some(0), "{rest:?}");
    depth(&setup, "killed.dead", 0);
}
