//! Rate limits in the worker.

use celeriac::client::NodeReply;
use celeriac::{State, task};

use crate::bundle::{Bundle, PATIENCE, stop, within};
use crate::probe::Probe;
use crate::tasks::note;

/// Says that it runs.
#[task(name = "tests.paced", rate_limit = "2/s")]
async fn paced(probe: State<Probe>) -> i64 {
    probe.record("paced");
    jiff::Timestamp::now().as_millisecond()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_starts_as_often_as_it_may_and_others_go_on_meanwhile() {
    let bundle = Bundle::new("rates").await;
    let begun = jiff::Timestamp::now().as_millisecond();
    let sent = bundle.client.send_all((0..4).map(|_| paced::s())).await;
    let other = note::delay(&bundle.client, "other".to_owned()).await.unwrap();
    let worker = bundle.narrow_worker().await;
    other.get(PATIENCE).await.unwrap();
    let mut starts = Vec::new();
    for result in sent {
        starts.push(result.unwrap().get(PATIENCE).await.unwrap());
    }
    let runs = bundle.probe.runs();
    assert_eq!((runs.len(), &*runs[0]), (5, "paced"));
    assert_ne!(runs[4], "other", "it has waited for all of them");
    starts.sort_unstable();
    // None can be earlier, however busy the machine is. By its clock, which may be set while a test
    // runs; by little, it is hoped.
    for (start, least) in starts.iter().zip((begun..).step_by(500)) {
        assert!(*start >= least - 10, "{starts:?} from {begun} on");
    }
    stop(worker).await;
    bundle.settled();
}

/// As often as once an hour.
#[task(name = "tests.hourly", rate_limit = "1/h")]
async fn hourly(probe: State<Probe>) {
    probe.record("hourly");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_not_start_soon_waits_in_the_broker() {
    let bundle = Bundle::new("rates-far").await;
    let worker = bundle.narrow_worker().await;
    let sent = bundle.client.send_all((0..3).map(|_| hourly::s())).await;
    assert!(sent.iter().all(Result::is_ok));
    bundle.probe.seen(1).await;
    // Nothing of it is held here.
    bundle.settled();
    let other = note::delay(&bundle.client, "other".to_owned()).await.unwrap();
    other.get(PATIENCE).await.unwrap();
    assert_eq!(bundle.probe.runs(), ["hourly", "other"]);
    stop(worker).await;
}

/// As often as there are slots, until somebody says otherwise.
#[task(name = "tests.unpaced")]
async fn unpaced(label: String, probe: State<Probe>) -> String {
    probe.record(&*label);
    label
}

/// Says to the only worker how often that task may start.
async fn limit(bundle: &Bundle, limit: Option<&str>) {
    let control = bundle.client.control().timeout(PATIENCE).limit(1);
    let replies = within(control.rate_limit("tests.unpaced", limit)).await.unwrap();
    let done = |reply: &NodeReply| reply.ok().is_some();
    assert!(replies.len() == 1 && replies.iter().all(done), "{replies:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_that_is_set_lowered_raised_or_lifted_counts_in_a_worker_that_runs() {
    let bundle = Bundle::new("rates-set").await;
    let worker = bundle.narrow_worker().await;
    let call = |label: &str| unpaced::s(label.to_owned());
    let run = async |label: &str| {
        let result = bundle.client.send(call(label)).await.unwrap();
        assert_eq!(result.get(PATIENCE).await.unwrap(), label);
    };
    for label in ["free", "as often", "as it likes"] {
        run(label).await;
    }
    // Set, and then lowered: the next start is an hour after the last one.
    limit(&bundle, Some("100/s")).await;
    run("limited").await;
    limit(&bundle, Some("1/h")).await;
    let held = bundle.client.send_all(["second", "third"].map(call)).await;
    bundle.settled();
    note::delay(&bundle.client, "other".to_owned()).await.unwrap().get(PATIENCE).await.unwrap();
    let before = ["free", "as often", "as it likes", "limited", "other"];
    assert_eq!(bundle.probe.runs(), before);
    // Raised: nobody waits for what is left of the hour, and those in the broker come back.
    limit(&bundle, Some("100/s")).await;
    run("raised").await;
    for result in held {
        result.unwrap().get(PATIENCE).await.unwrap();
    }
    // Lifted, of a task that was limited again.
    limit(&bundle, Some("1/h")).await;
    limit(&bundle, None).await;
    for label in ["free again", "and again"] {
        run(label).await;
    }
    stop(worker).await;
    bundle.settled();
}
