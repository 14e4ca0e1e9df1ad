//! What has to be confirmed before something else is sent or acked: a shard without room shows it.

use celeriac::amqp::{Publish, PublishError, Publisher, topology};
use celeriac::protocol::join::Record;
use celeriac::{App, Config, SendError, Worker, Workflow};
use serde_json::json;

use crate::bundle::{Bundle, PATIENCE, stop, within};
use crate::workflow::brisk;

/// Makes the only shard refuse records: it is full, and nobody reads it.
async fn fill(bundle: &Bundle) {
    let publisher = Publisher::new(bundle.client.connection());
    let refused = async {
        loop {
            let (chord, reason) = ("nobody".to_owned(), "none".to_owned());
            let record = Record::Cancel { chord, reason, errbacks: false }.encode().unwrap();
            let publish = Publish::new(topology::results_exchange(), "join.0", record);
            match publisher.publish_all(vec![publish]).await.remove(0) {
                Err(PublishError::Nacked) => break,
                other => other.unwrap(),
            }
        }
    };
    within(refused).await;
}

/// Rules 3 and 4 of docs/chords.md: parts are sent after the `open` is confirmed, by clients and by
/// workers, and a part's task is acked after its record is confirmed.
#[tokio::test(flavor = "multi_thread")]
async fn a_shard_without_room_holds_up_parts_that_were_not_opened_and_acks() {
    let change = |config: &mut Config| {
        brisk(config);
        config.join_shards = 1;
    };
    let bundle = Bundle::with("chord-order", change).await;
    let (management, vhost) = (bundle.vhost.management(), bundle.vhost.name().to_owned());
    let policy = ["policies", &*vhost, "full"];
    let definition = json!({"max-length": 1, "overflow": "reject-publish"});
    let pattern = r"^celeriac\.join\.";
    let limit = json!({"pattern": pattern, "apply-to": "queues", "definition": definition});
    management.put(&policy, &limit).unwrap();
    let step = |label: &str| Workflow::task("tests.note", [label.into()]).immutable(true);
    let total = || Workflow::task("tests.total", []);
    let chord = |label: &str| Workflow::chord([step(label)], total());
    let opened = within(bundle.client.apply(chord("part"))).await.unwrap();
    fill(&bundle).await;
    let error = within(bundle.client.apply(chord("not opened"))).await.unwrap_err();
    assert!(
        matches!(&error, SendError::Publish { source, .. }
        if matches!(**source, PublishError::Nacked)),
        "{error}"
    );
    let mut config = bundle.client.config().clone();
    config.join_enabled = false;
    let app = App::builder().config(config).state(bundle.probe.clone()).build();
    let worker = Worker::new(app).concurrency(1).hostname("other@host").start();
    let worker = within(worker).await.unwrap();
    // One after the other, so that what was sent between two of them has run before the second.
    let done = async |label: &str| {
        let result = within(bundle.client.apply(step(label))).await.unwrap();
        result.get(PATIENCE).await.unwrap();
    };
    done("first").await;
    let begins =
        Workflow::chain([step("begins"), Workflow::group([step("step"), step("step")]), total()]);
    let begun = within(bundle.client.apply(begins)).await.unwrap();
    done("second").await;
    done("third").await;
    assert_eq!(bundle.probe.drain(), ["part", "first", "begins", "second", "third"]);
    // Neither the part nor the task before the chord is acked.
    bundle.wait_for_depth(0, 2);
    // The broker goes on to refuse what comes over the same channels.
    management.delete(&policy).unwrap();
    let joining = bundle.worker().await;
    for result in [opened, begun] {
        result.get(PATIENCE).await.unwrap();
    }
    bundle.nothing_is_left();
    stop(worker).await;
    stop(joining).await;
    bundle.settled();
    let runs = bundle.probe.runs();
    assert_eq!(runs.iter().filter(|run| *run == "step").count(), 2, "{runs:?}");
    assert_eq!(runs.len(), 4, "{runs:?}");
}
