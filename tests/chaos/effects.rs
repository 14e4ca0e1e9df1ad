//! What the bodies did and told: an effect that they take once, in a file, and their results, in a
//! queue that outlives every kill.

use std::collections::{HashMap, HashSet};
use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use celeriac::amqp::{Consumer, ConsumerHandle, ConsumerOptions, QueueSpec};
use celeriac::protocol::{Limits, ResultMeta, TaskState, Value};
use tokio::sync::watch;

use crate::marks::{Moment, now};
use crate::producer::Begun;

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

    /// The results so far.
    pub(crate) fn now(&self) -> Arc<Told> {
        Arc::clone(&self.told.borrow())
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

/// Checks what every body told. Counts the chords that ended with an error, which only those may
/// at which a producer died or failed.
pub(crate) fn check(begun: &Begun, told: &Told, parts: i64) -> usize {
    let known: HashSet<&String> = begun.confirmed.iter().chain(&begun.uncertain).collect();
    let unknown: Vec<_> = told.keys().filter(|id| !known.contains(id)).collect();
    assert!(unknown.is_empty(), "nobody has begun {unknown:?}");
    let mut otherwise = 0;
    for (id, metas) in told {
        if begun.uncertain.contains(id) && metas[0].status != TaskState::Success {
            otherwise += 1;
            continue;
        }
        for meta in metas {
            assert_eq!(meta.status, TaskState::Success, "{id}: {:?}", meta.result);
            let list = meta.result.as_array().unwrap();
            let index = |entry: &Value| entry.as_array().and_then(|entry| entry[0].as_i64());
            let order: Vec<_> = list.iter().filter_map(index).collect();
            assert_eq!(order, (0..parts).collect::<Vec<_>>(), "{id}");
            assert_eq!(meta.result, metas[0].result, "{id} told another list the second time");
        }
    }
    otherwise
}

/// A directory with a file for each body: its effect, which it takes only once, as the guide to
/// chords has it, because it remembers its id.
pub(crate) struct Ledger(PathBuf);

/// Bodies that ran more than once.
#[derive(Debug, Default)]
pub(crate) struct Again {
    /// The broker gave their message to another worker.
    pub(crate) delivered: usize,
    /// They were called by a second message.
    pub(crate) called: usize,
    /// Bodies of chords at which a producer died or failed.
    pub(crate) uncertain: usize,
}

impl Ledger {
    pub(crate) fn new() -> Self {
        let name = format!("chaos-chords-{}-{}", std::process::id(), crate::dice::seed());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(path.join("effects")).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Every body that was called took its effect, with the complete list; and one that ran again
    /// was delivered again, or called again after a strike.
    pub(crate) fn check(&self, begun: &Begun, strikes: &[(Moment, Moment)], parts: i64) -> Again {
        let mut again = Again::default();
        let mut effects = HashSet::new();
        for entry in std::fs::read_dir(self.0.join("effects")).unwrap() {
            let entry = entry.unwrap();
            let list = std::fs::read_to_string(entry.path()).unwrap();
            let order: Vec<i64> = list.lines().filter_map(leading).collect();
            assert_eq!(order, (0..parts).collect::<Vec<_>>(), "{entry:?}");
            effects.insert(entry.file_name().into_string().unwrap());
        }
        for id in &begun.confirmed {
            assert!(effects.remove(id), "the body {id} had no effect");
        }
        for id in &effects {
            assert!(begun.uncertain.contains(id), "nobody has begun {id}");
        }
        again.uncertain = effects.len();
        let mut first = HashMap::new();
        for line in std::fs::read_to_string(self.0.join("runs")).unwrap().lines() {
            let fields: Vec<&str> = line.split(' ').collect();
            let [id, redelivered, at, same] = fields[..] else { panic!("{line}") };
            assert_eq!(same, "true", "{id} was called with another list");
            let at = Duration::from_micros(at.parse().unwrap());
            let Some(first) = first.insert(id.to_owned(), at) else { continue };
            let between = |(begun, ended): &(Moment, Moment)| first <= *ended && at >= *begun;
            if redelivered == "true" && strikes.iter().any(between) {
                again.delivered += 1;
            } else {
                again.called += 1;
                // Its joiner was struck before it knew that it had called it.
                let before = strikes.iter().any(|(begun, _)| *begun <= at);
                assert!(before, "{id} ran at {first:?} and {at:?}: {strikes:?}");
            }
        }
        again
    }

    pub(crate) fn remove(self) {
        std::fs::remove_dir_all(self.0).unwrap();
    }
}

fn leading(line: &str) -> Option<i64> {
    line.split(' ').next()?.parse().ok()
}

/// Takes the effect of the body `id`, unless it was taken before; then it must have been the same.
pub(crate) fn take(
    ledger: &Path,
    id: &str,
    redelivered: bool,
    values: &[(i64, String)],
) -> std::io::Result<()> {
    let list: String = values.iter().map(|(index, value)| format!("{index} {value}\n")).collect();
    let effect = ledger.join("effects").join(id);
    let draft = ledger.join(uuid::Uuid::new_v4().to_string());
    std::fs::write(&draft, &list)?;
    // Whole, or not at all; and not over another one.
    let same = match std::fs::hard_link(&draft, &effect) {
        Ok(()) => true,
        Err(_) => std::fs::read_to_string(&effect)? == list,
    };
    std::fs::remove_file(&draft)?;
    let mut runs = OpenOptions::new().create(true).append(true).open(ledger.join("runs"))?;
    runs.write_all(format!("{id} {redelivered} {} {same}\n", now().as_micros()).as_bytes())
}
