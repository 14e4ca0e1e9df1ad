//! Events: Celery's monitor (`events.py`) and Flower (`flower_checks.py`) look at our worker, and
//! our monitor looks at Celery's worker.

use std::collections::HashMap;
use std::process::Command;
use std::time::Duration;

use celeriac::client::Events;
use celeriac::protocol::event::{Event, EventKind};
use celeriac::protocol::{Map, Serializer};
use celeriac::worker::Stopped;
use celeriac::{App, Client, Signature, Value, Worker};
use jiff::Timestamp;
use xtask::process::Spawned;
use xtask::python::FLOWER_REQUIREMENTS;

use crate::{CELERYS, OURS, PATIENCE, Setup};

/// Lets a Python program look at a worker of ours, which it shuts down at last.
async fn looked_at(setup: &Setup, mut command: Command) {
    let worker = Worker::new(App::new(setup.config())).hostname("rust@host");
    let worker = worker.start().await.expect("worker starts");
    let mut program = Spawned::start(&mut command).expect("Python starts");
    let ended = tokio::task::spawn_blocking(move || {
        let status = program.wait(4 * PATIENCE);
        (status, program.lines())
    });
    let (status, lines) = ended.await.expect("the thread ends");
    let status = status.unwrap_or_else(|error| panic!("{error}\n{}", lines.join("\n")));
    assert!(status.success(), "{}", lines.join("\n"));
    let stopped = tokio::time::timeout(PATIENCE, worker.wait()).await;
    let stopped = stopped.expect("Python has told it to shut down").expect("worker stops");
    assert_eq!(stopped, Stopped::Warm);
}

#[tokio::test(flavor = "multi_thread")]
async fn celery_follows_our_worker_and_its_tasks() {
    let setup = Setup::new(OURS, Serializer::Json);
    looked_at(&setup, setup.python(&["events.py"])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn celery_follows_our_worker_on_a_queue_of_celery() {
    let setup = Setup::new(CELERYS, Serializer::Msgpack);
    looked_at(&setup, setup.python(&["events.py"])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn flower_shows_our_worker_and_steers_it() {
    let setup = Setup::new(OURS, Serializer::Json);
    looked_at(&setup, setup.python_with(&[FLOWER_REQUIREMENTS], &["flower_checks.py"])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn we_follow_a_python_worker_and_its_tasks() {
    let setup = Setup::new(CELERYS, Serializer::Json);
    let mut config = setup.config();
    config.task_send_sent_event = true;
    let client = Client::connect(config).await.expect("client connects");
    let mut events = client.events().await.expect("we may listen");
    let mut command = setup.python(&["-m", "celery", "-A", "proj", "worker", "-c", "1"]);
    command.args(["-l", "info", "-Q", CELERYS, "-n", "python@host", "--pool", "prefork"]);
    let mut worker = Spawned::start(&mut command).expect("the Python worker starts");
    worker.wait_for_line(" ready.", PATIENCE).expect("the Python worker is ready");
    let control = client.control().timeout(PATIENCE).limit(1);
    let reply = control.enable_events().await.expect("sent").remove(0);
    assert_eq!(reply.ok().and_then(Value::as_str), Some("task events enabled"));
    let result = client.send(Signature::<Value>::new("py.flaky").arg(7)).await.expect("sent");
    result.get(PATIENCE).await.expect("a result");
    let tells = client.send(Signature::<Value>::new("py.tells").arg(3)).await.expect("sent");
    tells.get(PATIENCE).await.expect("a result");
    client.control().shutdown().await.expect("sent");
    let mut seen: Vec<Event> = Vec::new();
    while seen.last().is_none_or(|event| event.name() != "worker-offline") {
        let next = tokio::time::timeout(PATIENCE, events.next()).await;
        seen.extend(next.expect("in time"));
    }
    assert!(worker.wait(PATIENCE).expect("it shuts down").success());
    let names = |own: &dyn Fn(&Event) -> bool| -> Vec<String> {
        seen.iter().filter(|event| own(event)).map(|event| event.name().to_owned()).collect()
    };
    let mut of_task = names(&|it| it.kind.uuid() == Some(result.id()) && it.name() != "task-sent");
    // A retry may come back before Celery has told of it.
    of_task.sort();
    let counts = [(3, "task-received"), (2, "task-retried"), (3, "task-started")];
    let expected = counts.iter().flat_map(|(count, name)| vec![*name; *count]);
    let expected: Vec<_> = expected.chain(["task-succeeded"]).collect();
    assert_eq!(of_task, expected);
    // A child of Celery's pool tells it by a connection of its own.
    let own = seen.iter().find(|it| it.name() == "task-progress").expect("it was told");
    assert_eq!((own.kind.uuid(), &*own.hostname), (Some(tells.id()), "python@host"));
    let EventKind::Custom { fields, .. } = &own.kind else { panic!("{own:?}") };
    let fields: Vec<_> = fields.iter().map(|(key, value)| (key, value.clone())).collect();
    assert_eq!(fields, [("uuid", tells.id().into()), ("done", 3.into()), ("of", 10.into())]);
    let sent = names(&|it| it.name() == "task-sent");
    assert_eq!(sent.len(), 2, "Python has not been told to send any");
    let of_worker = names(&|it| it.hostname == "python@host" && !it.kind.is_of_task());
    assert!(of_worker.contains(&"worker-online".to_owned()), "{of_worker:?}");
    let kinds = seen.iter().map(|event| &event.kind);
    for kind in kinds {
        match kind {
            EventKind::WorkerOnline(facts) | EventKind::WorkerOffline(facts) => {
                assert_eq!(facts.sw_ident.as_deref(), Some("py-celery"));
                assert!(facts.active.is_some() && facts.loadavg.is_some());
            }
            EventKind::TaskRetried { exception, .. } => {
                let exception = exception.as_deref().unwrap_or_default();
                assert!(exception.starts_with("ConnectionError('try "), "{exception}");
            }
            EventKind::TaskSucceeded { result, runtime, .. } => {
                assert!(matches!(result.as_deref(), Some("7" | "3")), "{result:?}");
                assert!(runtime.is_some_and(|runtime| runtime >= 0.0));
            }
            _ => {}
        }
    }
    client.close().await;
}

/// Python's own votes suffice as long as there are few workers of ours: two have four.
const OURS_MANY: usize = 4;

#[tokio::test(flavor = "multi_thread")]
async fn python_workers_elect_one_of_them_although_ours_are_there() {
    let setup = Setup::new(CELERYS, Serializer::Json);
    let mut config = setup.config();
    config.task_default_queue = OURS.to_owned();
    config.worker_heartbeat_interval = Some(Duration::from_millis(200));
    let mut ours = Vec::new();
    for number in 0..OURS_MANY {
        let worker = Worker::new(App::new(config.clone())).hostname(format!("rust{number}@host"));
        ours.push(worker.start().await.expect("worker starts"));
    }
    let client = Client::connect(setup.config()).await.expect("client connects");
    let mut events = client.events().await.expect("we may listen");
    let python = ["one@host", "two@host"].map(|name| {
        let mut command = setup.python(&["-m", "celery", "-A", "proj", "worker", "-c", "1", "-E"]);
        command.args(["-l", "info", "-Q", CELERYS, "-n", name, "--pool", "solo"]);
        Spawned::start(&mut command).expect("the Python worker starts")
    });
    for worker in &python {
        worker.wait_for_line(" ready.", PATIENCE).expect("the Python worker is ready");
    }
    // Python must have heard of each worker twice, or it would not wait for its vote.
    let ready = Timestamp::now().as_second() as f64 + 1.0;
    let mut beats: HashMap<String, usize> = HashMap::new();
    while beats.values().filter(|count| **count > 1).count() < OURS_MANY + python.len() {
        let event = next(&mut events).await;
        if event.name() == "worker-heartbeat" && event.timestamp > ready {
            *beats.entry(event.hostname).or_default() += 1;
        }
    }
    let mut action = Map::from_iter([("task", Value::from("py.add"))]);
    action.push("args", Value::Array(vec![1.into(), 2.into()]));
    action.push("kwargs", Map::new());
    action.push("options", Map::new());
    let mut arguments = Map::from_iter([("id", "vote"), ("topic", "task")]);
    arguments.push("action", action);
    client.control().cast("election", arguments).await.expect("sent");
    let is_done = |event: &Event| match event.kind.task() {
        Some(task) => task.name.as_deref() == Some("py.add"),
        None => false,
    };
    let deadline = tokio::time::Instant::now() + PATIENCE;
    let elected = async { while !is_done(&next(&mut events).await) {} };
    let elected = tokio::time::timeout_at(deadline, elected).await;
    assert!(elected.is_ok(), "{:?}", python.map(|worker| worker.lines()));
    client.close().await;
    for worker in ours {
        worker.handle().shutdown();
        worker.wait().await.expect("worker stops");
    }
}

async fn next(events: &mut Events) -> Event {
    let next = tokio::time::timeout(PATIENCE, events.next()).await;
    next.expect("in time").expect("the connection is there")
}
