//! How often calls start in the whole fleet: kept in the broker, and used up by those who took it.

use celeriac::{State, task};

use crate::bundle::{Bundle, PATIENCE, stop, within};
use crate::probe::Probe;
use crate::tasks::note;

/// Twice within any second, in all workers together.
#[task(name = "tests.fleet_paced", global_rate_limit = "2/s")]
async fn fleet_paced() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}

#[task(name = "tests.fleet_held", global_rate_limit = "2/s")]
async fn fleet_held(probe: State<Probe>) {
    probe.record("begins");
    probe.pass().await;
}

/// Once an hour for each bank, together with the other task.
#[task(name = "tests.fleet_hourly", global_rate_limit = "1/h", rate_key = "bank {bank}")]
async fn fleet_hourly(bank: String, probe: State<Probe>) {
    probe.record(format!("asks {bank}"));
}

/// Not for the world: what another task has used is used.
#[task(name = "tests.fleet_hourly_too", global_rate_limit = "1/h", rate_key = "bank {name}")]
async fn fleet_hourly_too(name: String, probe: State<Probe>) {
    probe.record(format!("asks {name}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_start_as_often_as_they_may_in_all_workers_together() {
    let bundle = Bundle::new("starts").await;
    let workers = [bundle.worker().await, bundle.worker().await];
    let sent = bundle.client.send_all((0..8).map(|_| fleet_paced::s())).await;
    let mut starts: Vec<i64> = Vec::new();
    for result in sent {
        starts.push(within(result.unwrap().get(PATIENCE)).await.unwrap());
    }
    // Two in each second make three seconds at the least. By the clocks of those who run, which is
    // a little after a start was taken; without a limit all would be within a fraction of a second.
    let (first, last) = (starts.iter().min().unwrap(), starts.iter().max().unwrap());
    assert!(last - first >= 2_000, "{starts:?}");
    for worker in workers {
        stop(worker).await;
    }
    bundle.settled();
}

#[tokio::test(flavor = "multi_thread")]
async fn each_key_has_starts_of_its_own_and_tasks_share_them() {
    let bundle = Bundle::new("starts-key").await;
    let workers = [bundle.worker().await, bundle.worker().await];
    for _ in 0..4 {
        for bank in ["a", "b"] {
            bundle.client.send(fleet_hourly::s(bank.to_owned())).await.unwrap();
            bundle.client.send(fleet_hourly_too::s(bank.to_owned())).await.unwrap();
        }
    }
    bundle.probe.seen(2).await;
    // All others have been handed on: nothing of them is held.
    bundle.settled();
    let other = note::delay(&bundle.client, "other".to_owned()).await.unwrap();
    other.get(PATIENCE).await.unwrap();
    let mut runs = bundle.probe.runs();
    runs.sort();
    assert_eq!(runs, ["asks a", "asks b", "other"]);
    let mut queues = bundle.vhost.queues().unwrap();
    queues.retain(|queue| queue.starts_with("celeriac.starts."));
    let expected = ["a", "b"].map(|bank| format!("celeriac.starts.key:bank {bank}.1.3600000"));
    assert_eq!(queues, expected);
    for worker in workers {
        stop(worker).await;
    }
}

/// A start that a worker took is used, and is there again after its time, whatever became of it.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_is_killed_takes_no_start_with_it() {
    let bundle = Bundle::new("starts-killed").await;
    let doomed = bundle.worker().await;
    let sent = bundle.client.send_all((0..6).map(|_| fleet_held::s())).await;
    bundle.probe.seen(2).await;
    doomed.handle().terminate();
    within(doomed.wait()).await.unwrap();
    let worker = bundle.worker().await;
    // The two that ran there run once more.
    bundle.probe.open(8);
    for result in sent {
        within(result.unwrap().get(PATIENCE)).await.unwrap();
    }
    assert_eq!(bundle.probe.runs().len(), 8);
    stop(worker).await;
    bundle.settled();
}
