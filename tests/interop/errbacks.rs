//! How often errbacks are called, by Celery's worker and by ours: `errbacks.py` makes the workflows
//! and says what the rules are; `errbacks_chords.py` makes chords, and both are compared.
//!
//! Each call of an errback has an id of its own. A failing task that our worker runs twice, because
//! the broker has delivered it twice, calls the same ones again; so calls are told apart by their
//! ids. One that runs more than once must have been delivered more than once, or published more
//! than once, which happens only when the connection is lost before the confirm.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use celeriac::protocol::Serializer;
use celeriac::{Context, TaskError, TaskResult, task};
use serde_json::Value;
use tokio::sync::watch;
use xtask::redis::Redis;

use crate::canvas::Mixed;
use crate::{OURS, PATIENCE};

/// One run of an errback.
#[derive(Clone, Debug)]
struct Run {
    /// The world and the place in its shape.
    label: String,
    id: String,
    redelivered: bool,
}

/// What ran in this process.
#[derive(Debug, Default)]
struct Seen {
    /// Tasks by session.
    ended: BTreeMap<String, usize>,
    errbacks: Vec<Run>,
}

impl Seen {
    fn of(&self, start: &str) -> impl Iterator<Item = &Run> {
        self.errbacks.iter().filter(move |run| run.label.starts_with(start))
    }

    fn has(&self, session: &str, ended: usize, called: usize) -> bool {
        let all = self.ended.get(session).copied().unwrap_or_default();
        let ids: BTreeSet<_> = self.of(session).map(|run| &run.id).collect();
        all >= ended && ids.len() >= called
    }
}

static SEEN: LazyLock<watch::Sender<Seen>> = LazyLock::new(watch::Sender::default);

#[task(name = "rs.count")]
async fn count(context: Context, label: String) {
    let request = context.request();
    let redelivered = request.delivery_info.redelivered;
    let run = Run { label, id: request.id.clone(), redelivered };
    SEEN.send_modify(|seen| seen.errbacks.push(run));
}

/// A step of a workflow.
#[task(name = "rs.ends")]
async fn ends(world: String, _path: String, fails: bool) -> TaskResult<()> {
    let session = world.split('/').next().unwrap_or_default().to_owned();
    SEEN.send_modify(|seen| *seen.ended.entry(session).or_default() += 1);
    if fails { Err(TaskError::python("ValueError", "builtins", [world])) } else { Ok(()) }
}

/// Waits until so many steps have run, and so many errbacks were called.
#[task(name = "rs.seen")]
async fn seen(session: String, ended: usize, called: usize) {
    let mut seen = SEEN.subscribe();
    let enough = seen.wait_for(|seen| seen.has(&session, ended, called)).await;
    drop(enough.expect("it is never dropped"));
}

/// What is wrong with the calls in one world; nothing if all is right.
fn wrong(world: &Value, seen: &Seen, has_reconnected: bool) -> Vec<String> {
    let mut called: BTreeMap<&str, BTreeMap<&str, Vec<bool>>> = BTreeMap::new();
    let name = world["world"].as_str().expect("text");
    for run in seen.of(&format!("{name} ")) {
        let place = run.label.split(' ').nth(1).expect("a place");
        called.entry(place).or_default().entry(&run.id).or_default().push(run.redelivered);
    }
    let expected: BTreeMap<&str, usize> = world["calls"]
        .as_object()
        .expect("a map")
        .iter()
        .map(|(place, times)| (&**place, times.as_u64().expect("a number") as usize))
        .collect();
    let found: BTreeMap<&str, usize> =
        called.iter().map(|(place, ids)| (*place, ids.len())).collect();
    let mut wrong = Vec::new();
    if found != expected {
        wrong.push(format!("{name} {}: called {found:?}, not {expected:?}", world["shape"]));
    }
    for (id, runs) in called.values().flatten() {
        let sent = runs.iter().filter(|redelivered| !**redelivered).count();
        if sent > 1 && !has_reconnected {
            wrong.push(format!("{name}: errback {id} was sent twice, {runs:?}"));
        }
    }
    wrong
}

/// Compares what was called with what the script has told.
fn check(output: &str, has_reconnected: bool) {
    let told = output.lines().last().expect("a line of JSON");
    let told: Value = serde_json::from_str(told).expect("JSON");
    let worlds = told["worlds"].as_array().expect("a list");
    let again = told["again"].as_array().expect("a list");
    let seen = SEEN.borrow();
    // Celery gives errbacks other ids when their task is delivered again.
    let comparable = worlds.iter().filter(|world| !again.contains(&world["world"]));
    let wrong = comparable.flat_map(|world| wrong(world, &seen, has_reconnected));
    let wrong: Vec<String> = wrong.collect();
    let seed = output.lines().next().unwrap_or_default();
    assert!(wrong.is_empty(), "{seed}\n{}", wrong.join("\n"));
    assert_eq!(told["complete"], Value::Bool(true), "something did not run: {output}");
    assert!(again.len() < worlds.len() / 2, "{output}");
}

#[tokio::test(flavor = "multi_thread")]
async fn errbacks_are_called_as_often_as_by_celery() {
    let mixed = Mixed::start(OURS, Serializer::Json).await;
    let since_ms = jiff::Timestamp::now().as_millisecond();
    let output = mixed.run("errbacks.py").await;
    let has_reconnected = mixed.has_reconnected(since_ms);
    // Whatever was called too often is run, or left in a queue.
    mixed.stop().await;
    check(&output, has_reconnected);
}

/// How often each errback of a world was called, by its place.
fn calls<'a>(seen: &'a Seen, world: &str) -> BTreeMap<&'a str, usize> {
    let mut ids: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for run in seen.of(&format!("{world} ")) {
        let place = run.label.split(' ').nth(1).expect("a place");
        ids.entry(place).or_default().insert(&run.id);
    }
    ids.into_iter().map(|(place, ids)| (place, ids.len())).collect()
}

/// The same chords by Celery, which counts their parts in Redis, and by us.
#[tokio::test(flavor = "multi_thread")]
async fn errbacks_of_chords_are_called_as_often_as_by_celery_with_redis() {
    let redis = Redis::start().expect("Redis starts");
    let mixed = Mixed::start_with(OURS, Serializer::Json, Some(redis.url())).await;
    let output = mixed.run("errbacks_chords.py").await;
    let told = output.lines().last().expect("a line of JSON");
    let told: Value = serde_json::from_str(told).expect("JSON");
    assert_eq!(told["again"], Value::Array(Vec::new()), "{output}");
    let session = told["session"].as_str().expect("text");
    let ended = told["ended"].as_u64().expect("a number") as usize;
    let mut seen = SEEN.subscribe();
    let (celerys, ours) = (format!("{session}-py"), format!("{session}-rs"));
    let enough = |seen: &Seen| {
        let called: BTreeSet<_> = seen.of(&celerys).map(|run| &run.id).collect();
        seen.has(&ours, ended, called.len())
    };
    let all = tokio::time::timeout(PATIENCE, seen.wait_for(enough)).await.is_ok();
    // Whatever was called too often is run, or left in a queue.
    mixed.stop().await;
    let seen = SEEN.borrow();
    let shapes = told["shapes"].as_array().expect("a list").iter().enumerate();
    let differ = shapes.filter_map(|(at, shape)| {
        let calls = |of: &str| calls(&seen, &format!("{of}/{at}"));
        let (celerys, ours) = (calls(&celerys), calls(&ours));
        (celerys != ours).then(|| format!("{shape}: {ours:?}, by Celery {celerys:?}"))
    });
    let differ: Vec<_> = differ.collect();
    assert!(differ.is_empty(), "{output}\n{}", differ.join("\n"));
    assert!(all, "not all has run: {output}");
}

/// Cuts the worker's connections when some tasks have run, and then waits for ever.
async fn cut(mixed: &Mixed, connections: &[String]) {
    let count = |seen: &Seen| seen.ended.values().sum::<usize>();
    let mut seen = SEEN.subscribe();
    let before = count(&SEEN.borrow());
    let enough = seen.wait_for(|seen| count(seen) >= before + 30).await;
    drop(enough.expect("it is never dropped"));
    tokio::task::block_in_place(|| mixed.cut(connections));
    std::future::pending().await
}

/// What is published and not confirmed is published again, and what is not acked may run again; but
/// each errback keeps its id, so that whoever remembers ids does its work once.
#[tokio::test(flavor = "multi_thread")]
async fn errbacks_that_are_sent_again_after_a_lost_connection_keep_their_ids() {
    let mixed = Mixed::start(OURS, Serializer::Json).await;
    let connections = mixed.connections(&[]);
    let output = tokio::select! {
        output = mixed.run("errbacks.py") => output,
        () = cut(&mixed, &connections) => unreachable!("it waits for ever"),
    };
    // They were cut.
    mixed.connections(&connections);
    mixed.stop().await;
    check(&output, true);
}
