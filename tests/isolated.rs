//! Isolated tasks in a real worker: whatever happens to their processes costs them alone.

#![cfg(all(unix, feature = "cli"))]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::process::Command;
use std::time::Duration;

use celeriac::protocol::control::{Mark, Revocation};
use celeriac::protocol::event::EventKind;
use celeriac::protocol::{TaskState, Value};
use celeriac::{AsyncResult, Client, Config, ResultError, Signature};
use xtask::process::{as_process_1, binary, is_alive, only_child, signal};
use xtask::{QueueDepth, Spawned, TestVhost, wait_until};

const SOON: Duration = Duration::from_secs(120);

struct Setup {
    vhost: TestVhost,
    worker: Spawned,
    client: Client,
}

impl Setup {
    async fn new(name: &str, args: &[&str]) -> Self {
        Self::on(TestVhost::create(name).unwrap(), args, &[]).await
    }

    async fn on(vhost: TestVhost, args: &[&str], variables: &[(&str, &str)]) -> Self {
        let mut command = Command::new(binary("examples/isolated").unwrap());
        command.args(args).envs(variables.iter().copied());
        Self::of(vhost, command).await
    }

    async fn of(vhost: TestVhost, mut command: Command) -> Self {
        command.env("CELERIAC_BROKER_URL", vhost.url());
        let worker = Spawned::start(&mut command).unwrap();
        worker.wait_for_line(" ready.", SOON).unwrap();
        let config = Config::builder().broker_url([vhost.url().parse().unwrap()]).build();
        let client = Client::connect(config).await.unwrap();
        Self { vhost, worker, client }
    }

    async fn crash(&self, how: &str) -> AsyncResult<u32> {
        let call = Signature::<u32>::new("isolated.crash").arg(how);
        self.client.send(call).await.unwrap()
    }

    /// Class and text of the exception that a task has failed with.
    async fn failure(&self, result: AsyncResult<u32>) -> (String, String) {
        match result.get(SOON).await {
            Err(ResultError::Failed(failed)) => {
                (failed.exception.exc_type.clone(), failed.exception.to_string())
            }
            other => panic!("{other:?}\n{}", self.worker.output()),
        }
    }

    async fn end(mut self) {
        self.vhost.wait_for_depth("celeriac", QueueDepth { ready: 0, unacked: 0 }, SOON).unwrap();
        self.worker.signal("TERM").unwrap();
        assert_eq!(self.worker.wait(SOON).unwrap().code(), Some(0), "{}", self.worker.output());
        self.client.close().await;
    }
}

#[tokio::test]
async fn a_task_that_crashes_fails_alone_and_says_how() {
    let setup = Setup::new("isolated-crash", &["--blocking-slots", "2"]).await;
    let fine = setup.crash("fine").await.get(SOON).await.unwrap();
    assert_ne!(fine, setup.worker.pid(), "it runs in another process");
    assert_eq!(setup.crash("fine").await.get(SOON).await.unwrap(), fine, "which stays warm");

    for (how, part) in [("abort", "SIGABRT"), ("segfault", "SIGSEGV"), ("exit", "exit code 3")] {
        let (class, text) = setup.failure(setup.crash(how).await).await;
        assert_eq!(class, "WorkerLostError", "{text}");
        assert!(text.contains(part), "{text}");
    }
    let (class, text) = setup.failure(setup.crash("error").await).await;
    assert_eq!((class.as_str(), text.contains("kaboom")), ("ValueError", true), "{text}");
    let (class, _) = setup.failure(setup.crash("panic").await).await;
    assert_eq!(class, "Panic");
    setup.crash("fine").await.get(SOON).await.unwrap();
    setup.end().await;
}

#[tokio::test]
async fn many_tasks_some_of_which_crash_all_end() {
    let setup = Setup::new("isolated-many", &["--blocking-slots", "4"]).await;
    let mut results = Vec::new();
    for number in 0..60 {
        results.push(setup.crash(if number % 6 == 0 { "abort" } else { "fine" }).await);
    }
    let mut failed = 0;
    for result in &results {
        failed += u32::from(result.get(SOON).await.is_err());
    }
    assert_eq!(failed, 10);
    setup.end().await;
}

/// Where a process can be given less memory than the machine has.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_task_that_runs_out_of_memory_costs_itself_alone() {
    let vhost = TestVhost::create("isolated-memory").unwrap();
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -v 16000000 && exec \"$0\" --blocking-slots 2"]);
    command.arg(binary("examples/isolated").unwrap());
    let setup = Setup::of(vhost, command).await;
    let fine = setup.crash("fine").await.get(SOON).await.unwrap();
    let (hoard, other) = (setup.crash("hoard").await, setup.crash("fine").await);
    let (class, text) = setup.failure(hoard).await;
    assert_eq!((&*class, text.contains("SIGABRT")), ("WorkerLostError", true), "{text}");
    other.get(SOON).await.unwrap();
    assert_ne!(setup.crash("fine").await.get(SOON).await.unwrap(), setup.worker.pid());
    assert_ne!(fine, setup.worker.pid());
    assert!(setup.worker.output().contains("memory allocation of"), "{}", setup.worker.output());
    setup.end().await;
}

#[tokio::test]
async fn an_endless_loop_can_be_killed_and_ends_with_its_worker() {
    let mut setup = Setup::new("isolated-loop", &["-l", "debug"]).await;
    let endless = setup.crash("loop").await;
    let (next, pid) = started(&setup.worker, 0);
    // Before it has its task, that would go to the next child.
    setup.worker.wait_for_line(&format!("looping in {pid}"), SOON).unwrap();
    signal(pid, "KILL").unwrap();
    let (class, text) = setup.failure(endless).await;
    assert_eq!((&*class, text.contains("SIGKILL")), ("WorkerLostError", true), "{text}");
    let _endless = setup.crash("loop").await;
    let (_, pid) = started(&setup.worker, next);
    setup.worker.kill_9().unwrap();
    wait_until("the child ends", SOON, || (!is_alive(pid)).then_some(())).unwrap();
    setup.client.close().await;
}

#[tokio::test]
async fn an_isolated_task_that_runs_is_revoked_by_killing_its_child() {
    let setup = Setup::new("isolated-revoke", &["-l", "debug"]).await;
    let endless = setup.crash("loop").await;
    let (_, pid) = started(&setup.worker, 0);
    endless.revoke(true).await.unwrap();
    let (class, text) = setup.failure(endless).await;
    assert_eq!((class.as_str(), text.contains("terminated")), ("TaskRevokedError", true), "{text}");
    wait_until("the child ends", SOON, || (!is_alive(pid)).then_some(())).unwrap();
    setup.crash("fine").await.get(SOON).await.unwrap();
    setup.end().await;
}

#[tokio::test]
async fn a_child_gets_the_signal_that_was_asked_for_and_is_killed_if_it_goes_on() {
    let setup = Setup::new("isolated-signal", &["-l", "debug"]).await;
    let listens = setup.client.send(Signature::<u32>::new("isolated.listens")).await.unwrap();
    let (_, pid) = started(&setup.worker, 0);
    setup.worker.wait_for_line("it listens", SOON).unwrap();
    let marks = [Mark::Task(listens.id().to_owned())];
    let signal = Some("SIGUSR1".to_owned());
    let revocation = Revocation { terminate: true, signal, ..Revocation::now(marks) };
    let control = setup.client.control().limit(1).timeout(SOON);
    control.revoke_marked(revocation).await.unwrap();
    let (class, text) = setup.failure(listens).await;
    assert_eq!((class.as_str(), text.contains("terminated")), ("TaskRevokedError", true), "{text}");
    setup.worker.wait_for_line("it goes on after SIGUSR1", SOON).unwrap();
    wait_until("the child ends", SOON, || (!is_alive(pid)).then_some(())).unwrap();
    setup.end().await;
}

#[tokio::test]
async fn a_task_that_is_cancelled_with_its_connection_ends_with_its_child_and_runs_again() {
    let setup = Setup::new("isolated-cut", &["-l", "debug"]).await;
    let lingers = setup.client.send(Signature::<u32>::new("isolated.lingers")).await.unwrap();
    let (_, pid) = started(&setup.worker, 0);
    setup.worker.wait_for_line("it lingers", SOON).unwrap();
    let is_consuming = |connection: &serde_json::Value| {
        let name = connection["user_provided_name"].as_str()?;
        name.ends_with("consume").then(|| connection["name"].as_str().unwrap().to_owned())
    };
    let consuming = || setup.vhost.connections().ok()?.iter().find_map(is_consuming);
    let name = setup.vhost.wait_until("the worker's connection is seen", consuming).unwrap();
    setup.vhost.management().delete(&["connections", &name]).unwrap();
    let again = lingers.get(SOON).await.unwrap();
    assert_ne!(again, pid, "another child has run it");
    wait_until("the first child ends", SOON, || (!is_alive(pid)).then_some(())).unwrap();
    setup.end().await;
}

/// Waits for a child of the worker; gives the number of the line after that, and the child's id.
fn started(worker: &Spawned, from: usize) -> (usize, u32) {
    let part = "started a child for isolated tasks";
    let (next, line) = worker.wait_for_line_from(from, part, SOON).unwrap();
    let pid = line.split_once("pid=").unwrap().1.split_whitespace().next().unwrap();
    (next, pid.parse().unwrap())
}

#[tokio::test]
async fn time_limits_reach_into_the_child() {
    let setup = Setup::new("isolated-limits", &["-l", "debug", "--blocking-slots", "1"]).await;
    let spin = setup.client.send(Signature::<u32>::new("isolated.spin")).await.unwrap();
    let (_, pid) = started(&setup.worker, 0);
    let (class, text) = setup.failure(spin).await;
    assert_eq!(class, "TimeLimitExceeded", "{text}");
    wait_until("the child ends", SOON, || (!is_alive(pid)).then_some(())).unwrap();

    let patient = setup.client.send(Signature::<String>::new("isolated.patient")).await.unwrap();
    let told = patient.get(SOON).await.unwrap();
    assert_eq!(told, "the soft time limit has passed");
    setup.end().await;
}

#[tokio::test]
async fn as_process_1_a_parent_obeys_signals_and_waits_for_orphans() {
    let Some(mut command) = as_process_1() else { return };
    let vhost = TestVhost::create("isolated-init").unwrap();
    command.arg(binary("examples/isolated").unwrap());
    command.args(["--processes", "1", "-l", "debug"]).env("CELERIAC_BROKER_URL", vhost.url());
    let mut worker = Spawned::start(&mut command).unwrap();
    worker.wait_for_line(" ready.", SOON).unwrap();
    let config = Config::builder().broker_url([vhost.url().parse().unwrap()]).build();
    let client = Client::connect(config).await.unwrap();
    let call = Signature::<u32>::new("isolated.crash").arg("orphan");
    client.send(call).await.unwrap().get(SOON).await.unwrap();
    worker.wait_for_line("an orphan has ended", SOON).unwrap();

    let init = only_child(worker.pid()).unwrap();
    signal(init, "TERM").unwrap();
    assert_eq!(worker.wait(SOON).unwrap().code(), Some(0), "{}", worker.output());
    client.close().await;
}

#[tokio::test]
async fn progress_and_calls_leave_the_child_and_printing_does_not_disturb() {
    let setup = Setup::new("isolated-context", &[]).await;
    let print = Signature::<u32>::new("isolated.print").arg(1000);
    assert_eq!(setup.client.send(print).await.unwrap().get(SOON).await.unwrap(), 1000);
    setup.worker.wait_for_line("line 999 from", SOON).unwrap();

    let count = Signature::<u64>::new("isolated.count").arg(3);
    let count = setup.client.send(count).await.unwrap();
    let mut updates = count.updates();
    let mut seen = Vec::new();
    while let Some(update) = updates.next().await {
        if update.status == TaskState::Success {
            break;
        }
        seen.push(update.result.as_map().unwrap().get("current").cloned().unwrap());
    }
    assert_eq!(seen, [1, 2, 3].map(Value::Int));

    let call = Signature::<Vec<String>>::new("isolated.call").arg(2);
    let called = setup.client.send(call).await.unwrap();
    let ids = called.get(SOON).await.unwrap();
    let children = format!("{:?}", called.latest().unwrap().children);
    for id in &ids {
        assert!(children.contains(id), "{id} is not in {children}");
        setup.worker.wait_for_line(&format!("isolated.print[{id}] succeeded"), SOON).unwrap();
    }
    setup.end().await;
}

#[tokio::test]
async fn what_an_isolated_task_tells_monitors_is_told_by_its_worker() {
    let setup = Setup::new("isolated-event", &["-n", "isolated@host"]).await;
    let mut events = setup.client.events().await.unwrap();
    let tells = setup.client.send(Signature::<u64>::new("isolated.tells").arg(3)).await.unwrap();
    let told = async {
        loop {
            let event = events.next().await.unwrap();
            if event.name() == "task-progress" {
                break event;
            }
        }
    };
    let event = tokio::time::timeout(SOON, told).await.unwrap();
    assert_eq!((event.hostname.as_str(), event.kind.uuid()), ("isolated@host", Some(tells.id())));
    let EventKind::Custom { fields, .. } = &event.kind else { panic!("{event:?}") };
    assert_eq!(fields.get("done"), Some(&Value::Int(3)));
    assert_eq!(tells.get(SOON).await.unwrap(), 3);
    setup.end().await;
}

#[tokio::test]
async fn a_task_that_may_run_again_is_delivered_again() {
    let setup = Setup::new("isolated-again", &[]).await;
    let again = setup.client.send(Signature::<bool>::new("isolated.again")).await.unwrap();
    assert!(again.get(SOON).await.unwrap());
    setup.end().await;
}

#[tokio::test]
async fn a_task_that_crashes_at_every_delivery_is_given_up_in_every_kind_of_queue() {
    let kinds = [
        ("quorum", serde_json::json!({"x-queue-type": "quorum"}), 3),
        ("classic", serde_json::json!({}), 4),
    ];
    for (kind, arguments, runs) in kinds {
        let vhost = TestVhost::create(&format!("isolated-poison-{kind}")).unwrap();
        // As Celery declares it.
        let spec = serde_json::json!({"durable": true, "arguments": arguments});
        vhost.management().put(&["queues", vhost.name(), "celeriac"], &spec).unwrap();
        let limit = [("CELERIAC_WORKER_DELIVERY_LIMIT", "3")];
        let setup = Setup::on(vhost, &["-l", "debug"], &limit).await;
        let poison = setup.client.send(Signature::<u32>::new("isolated.poison")).await.unwrap();
        let (class, text) = setup.failure(poison).await;
        assert_eq!(
            (&*class, text.contains("again and again")),
            ("WorkerLostError", true),
            "{text}"
        );
        let lines = setup.worker.lines();
        let started = lines.iter().filter(|line| line.contains("started a child for isolated"));
        assert_eq!(started.count(), runs, "{}", setup.worker.output());
        let parked = || setup.vhost.messages("celeriac.dead").ok().filter(|all| all.len() == 1);
        wait_until("it is parked", SOON, parked).unwrap();
        setup.end().await;
    }
}

#[tokio::test]
async fn children_are_replaced_when_they_have_served_or_grown() {
    let args = ["--blocking-slots", "1", "--max-tasks-per-child", "2"];
    let setup = Setup::new("isolated-served", &args).await;
    let mut pids = Vec::new();
    for _ in 0..4 {
        pids.push(setup.crash("fine").await.get(SOON).await.unwrap());
    }
    assert_eq!(pids[0], pids[1]);
    assert_eq!(pids[2], pids[3]);
    assert_ne!(pids[1], pids[2]);
    setup.end().await;

    let setup = Setup::new("isolated-grown", &["--max-memory-per-child", "1000"]).await;
    let first = setup.crash("fine").await.get(SOON).await.unwrap();
    let second = setup.crash("fine").await.get(SOON).await.unwrap();
    assert_ne!(first, second);
    setup.end().await;
}
