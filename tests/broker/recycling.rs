//! Workers that are to be replaced, and what they give back.

use celeriac::Config;
use celeriac::amqp::topology;
use celeriac::worker::Stopped;

use crate::bundle::{Bundle, PATIENCE, stop, within};
use crate::tasks::block;

/// How often a message may be delivered.
const DELIVERIES: u32 = 4;

/// More than may be delivered so often, with one call in each life of a worker.
const CALLS: usize = 8;

#[tokio::test(flavor = "multi_thread")]
async fn what_workers_that_are_too_large_give_back_is_run_in_the_end() {
    let few = |config: &mut Config| config.worker_delivery_limit = DELIVERIES;
    let bundle = Bundle::with("too-large", few).await;
    let sent = bundle.client.send_all((0..CALLS).map(|_| block::s())).await;
    let results: Vec<_> = sent.into_iter().map(Result::unwrap).collect();
    let all_run = async {
        while bundle.probe.runs().len() < CALLS {
            // No worker is as small as that.
            let doomed = |worker: celeriac::Worker| {
                worker.concurrency(100).blocking_slots(1).recycle_after(None, Some(1))
            };
            let worker = bundle.worker_with(doomed).await;
            let handle = worker.handle();
            let recycled = || handle.is_recycled().then_some(());
            bundle.vhost.wait_until("it is too large", recycled).unwrap();
            bundle.probe.open(1);
            assert_eq!(within(worker.wait()).await.unwrap(), Stopped::Warm);
        }
    };
    within(Box::pin(all_run)).await;
    let last = bundle.worker().await;
    for result in results {
        assert_eq!(result.get(PATIENCE).await.unwrap(), 4);
    }
    let dead = |queue| bundle.vhost.queue_depth(queue).map_or(0, |depth| depth.ready);
    assert_eq!([topology::dead_queue(), "celeriac.dead"].map(dead), [0, 0]);
    stop(last).await;
    bundle.settled();
}
