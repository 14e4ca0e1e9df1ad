//! Limits of the whole fleet: kept in the broker, and given back by workers that are gone.

use std::time::Duration;

use celeriac::{Signature, State, task};

use crate::bundle::{Bundle, PATIENCE, config, stop, within};
use crate::probe::Probe;
use crate::tasks::hold;

#[task(name = "tests.scarce", global_concurrency = 2)]
pub(crate) async fn scarce(label: i64, probe: State<Probe>) -> i64 {
    probe.record(format!("begins {label}"));
    probe.pass().await;
    probe.record(format!("ends {label}"));
    label
}

#[task(
    name = "tests.scarce_for",
    global_concurrency = 1,
    concurrency_key = "{tenant}/{header:region}"
)]
pub(crate) async fn scarce_for(label: i64, tenant: String, probe: State<Probe>) -> i64 {
    probe.record(format!("begins {tenant}"));
    probe.pass().await;
    probe.record(format!("ends {tenant}"));
    label
}

/// Runs on a thread, which cannot be stopped.
#[task(name = "tests.locked", global_concurrency = 1)]
fn locked(label: i64, probe: State<Probe>) -> i64 {
    probe.record(format!("begins {label}"));
    tokio::runtime::Handle::current().block_on(probe.pass());
    probe.record(format!("ends {label}"));
    label
}

#[task(name = "tests.in_the_room", global_concurrency = 1, concurrency_key = "the room")]
async fn in_the_room(probe: State<Probe>) {
    probe.record("is in the room");
    probe.pass().await;
}

/// Shares the room, and may start once an hour in each worker.
#[task(
    name = "tests.hourly_in_the_room",
    rate_limit = "1/h",
    global_concurrency = 1,
    concurrency_key = "the room"
)]
async fn hourly_in_the_room(probe: State<Probe>) {
    probe.record("hourly");
}

/// The most that were running at once, as the probe has seen it.
fn most(runs: &[String]) -> usize {
    let (mut running, mut most) = (0_usize, 0);
    for run in runs {
        if run.starts_with("begins") {
            running += 1;
        } else {
            running -= 1;
        }
        most = most.max(running);
    }
    most
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_calls_run_in_all_workers_together_than_the_limit() {
    let bundle = Bundle::new("permits").await;
    let workers = [bundle.worker().await, bundle.worker().await, bundle.worker().await];
    let calls = (0..12).map(scarce::s);
    let results = bundle.client.send_all(calls).await;
    bundle.probe.seen(2).await;
    bundle.probe.open(12);
    for (label, result) in results.into_iter().enumerate() {
        assert_eq!(within(result.unwrap().get(PATIENCE)).await.unwrap(), label as i64);
    }
    let runs = bundle.probe.runs();
    assert_eq!(most(&runs), 2, "{runs:?}");
    assert_eq!(runs.len(), 24, "{runs:?}");
    for worker in workers {
        stop(worker).await;
    }
    bundle.settled();
    let left = || {
        let queues = bundle.vhost.queues().ok()?;
        (!queues.iter().any(|queue| queue.starts_with("celeriac.permits."))).then_some(())
    };
    bundle.vhost.wait_until("no permit is left", left).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn permits_of_a_lost_connection_are_not_handed_on() {
    let bundle = Bundle::new("permits-cut").await;
    let first = bundle.worker().await;
    let results = bundle.client.send_all((0..30).map(scarce::s)).await;
    bundle.probe.seen(2).await;
    bundle.cut_and_wait("consume");
    let second = bundle.worker_with(|worker| worker.hostname("other@host")).await;
    // What ran goes on, and its permits are free: two more begin.
    bundle.probe.seen(4).await;
    // Those that have waited for longest.
    bundle.probe.open(2);
    bundle.probe.seen(6).await;
    let echo = crate::tasks::add::delay(&bundle.client, 1, 1).await.unwrap();
    assert_eq!(within(echo.get(PATIENCE)).await.unwrap(), 2);
    bundle.probe.open(28);
    for result in results {
        within(result.unwrap().get(PATIENCE)).await.unwrap();
    }
    let runs = bundle.probe.runs();
    let over = runs.iter().enumerate().filter(|(_, run)| run.starts_with("ends")).nth(1);
    let (mut running, mut most) = (0, 0);
    for (at, run) in runs.iter().enumerate() {
        running += if run.starts_with("begins") { 1 } else { -1 };
        if at >= over.unwrap().0 {
            most = most.max(running);
        }
    }
    assert_eq!(most, 2, "once those have ended that ran when it was lost: {runs:?}");
    stop(first).await;
    stop(second).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_wait_for_a_slot_do_not_keep_permits_from_other_workers() {
    let bundle = Bundle::new("permits-slots").await;
    let of = |name: &'static str| {
        bundle.worker_with(move |it| it.queues([name]).hostname(name).concurrency(1))
    };
    let (busy, idle) = (of("busy").await, of("idle").await);
    let held = bundle.client.send(hold::s("held".to_owned()).queue("busy")).await.unwrap();
    bundle.probe.seen(1).await;
    let waiting = bundle.client.send_all((0..2).map(|n| scarce::s(n).queue("busy"))).await;
    let taken = || {
        let queues = bundle.vhost.queues().ok()?;
        let permits = queues.iter().filter(|queue| queue.starts_with("celeriac.permits."));
        (permits.count() == 2).then_some(())
    };
    bundle.vhost.wait_until("they have all permits", taken).unwrap();
    let other = bundle.client.send(scarce::s(2).queue("idle")).await.unwrap();
    bundle.probe.seen(2).await;
    assert_eq!(bundle.probe.runs()[1], "begins 2");
    bundle.probe.open(10);
    within(held.get(PATIENCE)).await.unwrap();
    within(other.get(PATIENCE)).await.unwrap();
    for result in waiting {
        within(result.unwrap().get(PATIENCE)).await.unwrap();
    }
    stop(busy).await;
    stop(idle).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_was_given_up_has_its_permit_until_its_function_returns() {
    let bundle = Bundle::new("permits-lost").await;
    let worker = bundle.worker().await;
    let call = locked::s(1).time_limit(Duration::from_millis(300));
    let error = bundle.client.send(call).await.unwrap().get(PATIENCE).await.unwrap_err();
    assert!(error.failure().unwrap().is("TimeLimitExceeded"), "{error:?}");
    bundle.settled();
    let queues = bundle.vhost.queues().unwrap();
    assert!(queues.iter().any(|it| it == "celeriac.permits.tests.locked.0"), "{queues:?}");
    let next = locked::delay(&bundle.client, 2).await.unwrap();
    bundle.wait_for_depth(0, 1);
    bundle.probe.open(2);
    assert_eq!(within(next.get(PATIENCE)).await.unwrap(), 2);
    assert_eq!(bundle.probe.runs(), ["begins 1", "ends 1", "begins 2", "ends 2"]);
    stop(worker).await;
    bundle.settled();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_permits_of_a_worker_that_is_gone_come_back() {
    let bundle = Bundle::new("permits-back").await;
    let doomed = bundle.worker().await;
    for label in 0..2 {
        bundle.client.send(scarce::s(label)).await.unwrap();
    }
    bundle.probe.seen(2).await;
    let other = within(celeriac::Client::connect(config(&bundle.vhost))).await.unwrap();
    let third = other.send(Signature::<i64>::new("tests.scarce").arg(7)).await.unwrap();
    doomed.handle().terminate();
    within(doomed.wait()).await.unwrap();
    let worker = bundle.worker().await;
    bundle.probe.open(5);
    assert_eq!(within(third.get(PATIENCE)).await.unwrap(), 7);
    stop(worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_key_has_permits_of_its_own() {
    let bundle = Bundle::new("permits-key").await;
    let workers = [bundle.worker().await, bundle.worker().await];
    let calls = (0..9).map(|label| {
        let tenant = ["a", "b", "c"][(label % 3) as usize];
        // By name and by place; both have the same key.
        let call = Signature::<i64>::new("tests.scarce_for").arg(label).header("region", "eu");
        if label < 3 { call.arg(tenant) } else { call.kwarg("tenant", tenant) }
    });
    let results = bundle.client.send_all(calls).await;
    // One of each, whatever the others do.
    bundle.probe.seen(3).await;
    let mut begun = bundle.probe.runs();
    begun.sort();
    assert_eq!(begun, ["begins a", "begins b", "begins c"]);
    let permits = || {
        let mut queues = bundle.vhost.queues().unwrap();
        queues.retain(|queue| queue.starts_with("celeriac.permits."));
        queues
    };
    let expected = ["a", "b", "c"].map(|key| format!("celeriac.permits.key:{key}/eu.0"));
    assert_eq!(permits(), expected);
    bundle.probe.open(9);
    for (label, result) in results.into_iter().enumerate() {
        assert_eq!(within(result.unwrap().get(PATIENCE)).await.unwrap(), label as i64);
    }
    let runs = bundle.probe.runs();
    assert_eq!(runs.len(), 18, "{runs:?}");
    for key in ["a", "b", "c"] {
        let own: Vec<String> = runs.iter().filter(|run| run.ends_with(key)).cloned().collect();
        assert_eq!((own.len(), most(&own)), (6, 1), "{own:?}");
    }
    for worker in workers {
        stop(worker).await;
    }
    bundle.settled();
}

#[tokio::test(flavor = "multi_thread")]
async fn who_gets_no_permit_has_used_up_no_start_of_its_worker() {
    let bundle = Bundle::new("permits-rate").await;
    let worker = bundle.worker().await;
    // A copy of all that comes back from the delay queues.
    let (vhost, management) = (bundle.vhost.name(), bundle.vhost.management());
    management.put(&["queues", vhost, "copies"], &serde_json::json!({})).unwrap();
    let binding = ["bindings", vhost, "e", "celery_delayed_delivery", "q", "copies"];
    management.post(&binding, &serde_json::json!({ "routing_key": "#" })).unwrap();
    let held = bundle.client.send(in_the_room::s()).await.unwrap();
    bundle.probe.seen(1).await;
    let hourly = bundle.client.send(hourly_in_the_room::s()).await.unwrap();
    let came_back = || (bundle.vhost.queue_depth("copies").ok()?.ready > 0).then_some(());
    bundle.vhost.wait_until("it has looked for a permit in vain", came_back).unwrap();
    bundle.probe.open(1);
    within(held.get(PATIENCE)).await.unwrap();
    within(hourly.get(PATIENCE)).await.unwrap();
    assert_eq!(bundle.probe.runs()[1], "hourly");
    stop(worker).await;
    bundle.settled();
}
