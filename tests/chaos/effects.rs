//! What the bodies told: their results, in a queue that outlives every kill.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use celeriac::amqp::{Consumer, ConsumerHandle, ConsumerOptions, QueueSpec};
use celeriac::protocol::{Limits, ResultMeta, TaskState, Value};
use tokio::sync::watch;

/// Where the results of the bodies go.
pub(crate) const QUEUE: &str = "chaos.effects";

type Told = HashMap<String, Vec<ResultMeta>>;

/// The results so far, by the id of the body.
pub(crate) struct Effects {
    told: watch::Receiver<Arc<Told>>,
    _handle: ConsumerHandle,
}

impl Effects {
    pub(crate) async fn listen(url: &str) -> Self {
        let connection = crate::connect(url).await;
        let options = ConsumerOptions::new([QueueSpec::quorum(QUEUE)]).prefetch(250);
        let (mut deliveries, handle) = Consumer::start(&connection, options).await.unwrap();
        let (sender, told) = watch::channel(Arc::default());
        tokio::spawn(async move {
            let mut burst = Vec::new();
            while deliveries.next_burst(&mut burst).await {
                sender.send_modify(|told: &mut Arc<Told>| {
                    for delivery in burst.drain(..) {
                        let meta = ResultMeta::decode(&delivery.message, &Limits::default());
                        let meta = meta.unwrap();
                        let told = Arc::make_mut(told);
                        told.entry(meta.task_id.clone()).or_default().push(meta);
                        delivery.token.ack();
                    }
                });
            }
        });
        Self { told, _handle: handle }
    }

    /// All results, when every one of `ids` has one.
    pub(crate) async fn of_all(&self, ids: &[String], patience: Duration) -> Arc<Told> {
        let mut told = self.told.clone();
        let all = told.wait_for(|told| ids.iter().all(|id| told.contains_key(id)));
        if let Ok(all) = tokio::time::timeout(patience, all).await {
            return Arc::clone(&all.unwrap());
        }
        let told = self.told.borrow().clone();
        let missing: Vec<_> = ids.iter().filter(|id| !told.contains_key(*id)).collect();
        panic!("{} of {} bodies were not called: {missing:?}", missing.len(), ids.len());
    }
}

/// Checks what every body told, and counts those that told it more than once.
pub(crate) fn check(ids: &[String], told: &Told, parts: i64) -> usize {
    assert_eq!(ids.len(), told.len(), "each chord has one body");
    for id in ids {
        for meta in &told[id] {
            assert_eq!(meta.status, TaskState::Success, "{id}: {:?}", meta.result);
            let list = meta.result.as_array().unwrap();
            let index = |entry: &Value| entry.as_array().and_then(|entry| entry[0].as_i64());
            let order: Vec<_> = list.iter().filter_map(index).collect();
            assert_eq!(order, (0..parts).collect::<Vec<_>>(), "{id}");
            assert_eq!(meta.result, told[id][0].result, "{id} told another list the second time");
        }
    }
    told.values().filter(|told| told.len() > 1).count()
}
