//! Workflows of every shape that Rust builds: chords with Python's steps and bodies, nesting,
//! items, stamps, replacements and retries.
//!
//! A worker of Celery's that knows nothing of chords may run bodies, and all elements of a chain in
//! a header but the last. What it runs as the last one delivers nothing, and neither does a failure
//! of an earlier one: such a chord expires. It cannot send a chord, so a step before one fails.

use std::time::Duration;

use celeriac::client::canvas::Step;
use celeriac::protocol::{CallOptions, Map, Signature, TaskState, Value, repr};
use celeriac::{AnyResult, Client, Workflow};

use crate::PATIENCE;
use crate::mixed::{apply, step};
use crate::tasks::add;

/// What a workflow gives, as Python shows it.
async fn given(client: &Client, workflow: Workflow) -> String {
    repr::value(&apply(client, workflow).await.get(PATIENCE).await.expect("a value"))
}

async fn failure(result: &AnyResult) -> String {
    let error = result.get(PATIENCE).await.expect_err("a failure");
    let failure = error.failure().expect("of a worker");
    assert_eq!(failure.state, TaskState::Failure);
    repr::exception(&failure.exception)
}

/// `n * 2 + n`, where Python does the second half of three and Rust delivers.
fn member(n: i64) -> Workflow {
    step("rs.add", &[n, n]) | step("py.add", &[n]) | step("rs.add", &[0])
}

fn total(of: &str) -> Workflow {
    step(of, &[])
}

pub(crate) async fn check(client: &Client) {
    // What has to wait runs beside the rest.
    tokio::join!(expire(client), wait(client), async {
        chords(client).await;
        nesting(client).await;
        small(client).await;
        failures(client).await;
        items(client).await;
        stamps(client).await;
        replacements(client).await;
    });
}

/// Chords with steps and bodies of Python.
async fn chords(client: &Client) {
    let header = || [member(1), step("rs.add", &[4, 4]), member(2)];
    let chord = |body| Workflow::chord(header(), body);
    assert_eq!(given(client, chord(total("py.total"))).await, "17");
    assert_eq!(given(client, chord(total("rs.sum"))).await, "17");
    let bodies = total("py.total") | step("rs.double", &[]) | step("py.add", &[1]);
    let result = apply(client, chord(bodies)).await;
    assert_eq!(result.get(PATIENCE).await.expect("a number"), Value::Int(35));
    let double = result.parent().expect("the step before");
    let first = double.parent().expect("the body's first step");
    let before = first.get(PATIENCE).await.expect("a number");
    assert_eq!((before, first.parent().is_some()), (Value::Int(17), true));
    let group = Workflow::group([total("py.total"), total("rs.sum"), total("py.echo")]);
    assert_eq!(given(client, chord(group)).await, "[17, 17, [[[3, 8, 6]], {}]]");
    let second = Workflow::chord([total("rs.sum"), total("rs.sum")], total("py.total"));
    assert_eq!(given(client, chord(second)).await, "34");
    // In a chain, whoever runs the step before sends the chord.
    let around = |before: &str| {
        let steps = [
            step("py.add", &[1, 0]),
            step(before, &[1]),
            Workflow::group([step("rs.double", &[]), step("py.mul", &[5]) | step("rs.add", &[0])]),
            total("py.total"),
            step("py.mul", &[10]),
        ];
        apply(client, Workflow::chain(steps))
    };
    let result = around("rs.add").await;
    assert_eq!(result.get(PATIENCE).await.expect("a number"), Value::Int(140));
    let shown = failure(&around("py.add").await).await;
    assert!(shown.starts_with("NotImplementedError("), "{shown}");
}

async fn nesting(client: &Client) {
    // The link passes from the chord inside, through its body's Python, to a Rust step.
    let inner = Workflow::chord([member(1), member(2)], total("py.total") | step("rs.add", &[1]));
    let group = Workflow::group([step("rs.add", &[1, 1]), member(3)]);
    let header = [inner.clone(), group, step("rs.add", &[2, 3])];
    let outer = Workflow::chord(header, total("py.echo"));
    assert_eq!(given(client, outer).await, "[[[10, [2, 9], 5]], {}]");
    let steps = [
        step("rs.add", &[1, 1]),
        Workflow::group([step("rs.double", &[]), step("py.mul", &[3]) | step("rs.add", &[0])]),
        total("py.total") | step("rs.add", &[1]),
        Workflow::group([step("rs.double", &[]), step("py.mul", &[2])]),
    ];
    assert_eq!(given(client, Workflow::chain(steps)).await, "[22, 22]");
    // A group behind a group: each of the second gets the list of the first.
    let both = Workflow::group([step("rs.add", &[1, 2]), member(1)])
        | Workflow::group([total("py.total"), total("rs.sum")]);
    assert_eq!(given(client, both).await, "[6, 6]");
    let groups = Workflow::group([inner, Workflow::group([step("py.add", &[1, 1]), member(1)])]);
    assert_eq!(given(client, groups).await, "[10, 2, 3]");
}

/// Groups of one and of none.
async fn small(client: &Client) {
    let one = Workflow::group([member(2)]);
    assert_eq!(given(client, one.clone()).await, "[6]");
    assert_eq!(given(client, one.clone() | total("py.total")).await, "6");
    assert_eq!(
        given(client, step("py.add", &[1, 1]) | Workflow::group([total("rs.double")])).await,
        "4"
    );
    let none = || Workflow::group([]);
    assert_eq!(given(client, none()).await, "[]");
    assert_eq!(given(client, none() | total("py.total")).await, "0");
    assert_eq!(given(client, Workflow::chord([], total("py.total"))).await, "0");
    let left_out = Workflow::chain([step("py.add", &[1, 1]), none(), step("py.mul", &[4])]);
    assert_eq!(given(client, left_out).await, "8");
    assert_eq!(
        given(client, Workflow::chord([one, none()], total("py.echo"))).await,
        "[[[[6], []]], {}]"
    );
}

async fn failures(client: &Client) {
    let mut bodies = Vec::new();
    for body in ["py.total", "rs.sum"] {
        let errback = step("py.on_error", &[]) | step("rs.remember", &[]);
        let errbacks = |it: Workflow| it.link_error(errback).link_error(step("rs.remember", &[]));
        let header = [member(1), step("py.add", &[1, 2]) | step("rs.fail", &[])];
        let result = apply(client, Workflow::chord(header, errbacks(step(body, &[])))).await;
        let shown = failure(&result).await;
        assert!(shown.starts_with("ChordError('Dependency "), "{shown}");
        assert!(shown.ends_with(" raised ValueError(3)')"), "{shown}");
        bodies.push(result);
    }
    for body in &bodies {
        let seen = Workflow::task("rs.remembered", [body.id().into(), 2.into()]);
        assert_eq!(given(client, seen).await, "2");
    }
    // A body of Python that fails, and one that gets errors in the place of values.
    let header = || [member(1), step("rs.fail", &[3])];
    let collect = |body: Workflow| {
        let join = Map::from_iter([("mode", "collect")]);
        let extra = Map::from_iter([("join", join)]);
        Workflow::chord(header(), body).set(CallOptions { extra, ..CallOptions::default() })
    };
    let shown = given(client, collect(total("py.echo"))).await;
    assert!(shown.starts_with("[[[{'ok': 3}, {'err': {"), "{shown}");
    assert!(shown.contains("'type': 'ValueError'"), "{shown}");
    let result = apply(client, collect(total("py.boom") | step("rs.double", &[]))).await;
    assert!(failure(&result).await.starts_with("ValueError([{"));
}

/// `map`, `starmap` and `chunks`, whose tasks go where they are told to.
async fn items(client: &Client) {
    let pairs = || (0..5_i64).map(|n| (n, n));
    let starmap = add::starmap(pairs());
    let starmap = client.send(starmap).await.expect("sent");
    assert_eq!(starmap.get(PATIENCE).await.expect("numbers"), [0, 2, 4, 6, 8]);
    let chunks = client.apply(add::chunks(pairs(), 2)).await.expect("sent");
    let expected: [&[i64]; 3] = [&[0, 2], &[4, 6], &[8]];
    assert_eq!(chunks.get(PATIENCE).await.expect("lists"), expected);
    let joined = add::chunks([(1, 1), (2, 2), (3, 3)], 2).dynamic() | total("py.echo");
    assert_eq!(given(client, joined).await, "[[[[2, 4], [6]]], {}]");
    // A task that another one calls has to be in the same worker.
    let kind = celeriac::Signature::<String>::new("py.kind").partial::<Value>();
    let kinds = kind.map([1.into(), "x".into()]).queue("python");
    let kinds = client.send(kinds).await.expect("sent");
    assert_eq!(kinds.get(PATIENCE).await.expect("texts"), ["int", "str"]);
    let of = |name: &str, subtask_type: &str, more: Map| {
        let task = Signature::new("py.mul").into_value();
        let items = [(2, 3), (4, 5), (6, 7)].map(|(x, y)| Value::from(vec![x, y]));
        let mut kwargs = Map::from_iter([("task", task), ("it", items.to_vec().into())]);
        more.into_iter().for_each(|(key, value)| kwargs.push(key, value));
        let options = Map::from_iter([("queue", "python")]);
        let subtask_type = Some(subtask_type.to_owned());
        let items = Signature { kwargs, options, subtask_type, ..Signature::new(name) };
        Workflow::from_signature(Signature { immutable: true, ..items })
    };
    assert_eq!(given(client, of("celery.starmap", "xstarmap", Map::new())).await, "[6, 20, 42]");
    let chunks = of("celery.chunks", "chunks", Map::from_iter([("n", 2)]));
    assert_eq!(given(client, chunks).await, "[[6, 20], [42]]");
}

/// Stamps reach all steps, callbacks, bodies, replacements and retries.
async fn stamps(client: &Client) {
    let stamped = |workflow: Workflow| workflow.stamp("job", "j1");
    let both = || [total("rs.stamps"), total("py.stamps")];
    let shown = "{'job': 'j1'}";
    for last in both() {
        let steps = step("rs.add", &[1, 1]) | step("py.add", &[1]) | last.clone();
        assert_eq!(given(client, stamped(steps)).await, shown);
        let chord = Workflow::chord([member(1), member(2)], last);
        assert_eq!(given(client, stamped(chord)).await, shown);
    }
    let group = step("py.add", &[1, 1]) | Workflow::group(both());
    assert_eq!(given(client, stamped(group)).await, format!("[{shown}, {shown}]"));
    let header = [step("py.add", &[1, 1]) | step("rs.stamps", &[]), step("rs.stamps", &[0])];
    let header = Workflow::chord(header, total("py.echo"));
    assert_eq!(given(client, stamped(header)).await, format!("[[[{shown}, {shown}]], {{}}]"));
}

async fn replacements(client: &Client) {
    let by = |workflow: Workflow| workflow.into_signature().expect("a workflow").into_value();
    let replaced = |name: &str, given: i64, workflow: Workflow| {
        Workflow::task(name, [given.into(), by(workflow)])
    };
    let adds = || step("rs.add", &[40]);
    let steps = replaced("py.replace_by", 2, adds()) | step("rs.double", &[]);
    assert_eq!(given(client, steps).await, "84");
    let muls = || step("py.mul", &[21]) | step("rs.add", &[1]);
    assert_eq!(
        given(client, replaced("rs.replace_by", 2, muls()) | step("py.add", &[1])).await,
        "44"
    );
    // Parts that are replaced, by one language and the other, and a body.
    let header = [
        replaced("rs.replace_by", 2, muls()),
        replaced("py.replace_by", 2, adds()) | step("rs.double", &[]),
        replaced("rs.replace_by", 3, Workflow::group([adds(), muls()])),
    ];
    let chord = Workflow::chord(header, total("py.echo"));
    assert_eq!(given(client, chord).await, "[[[43, 84, [43, 64]]], {}]");
    let body = Workflow::task("rs.replace_by", [by(total("py.total") | step("rs.double", &[]))]);
    let chord = Workflow::chord([member(1), member(2)], body);
    assert_eq!(given(client, chord).await, "18");
}

/// Steps that are tried again, and such as have a time of their own.
async fn wait(client: &Client) {
    let again = |name: &str| step("py.add", &[1, 1]) | step(name, &[]) | step("rs.add", &[1]);
    let header = [again("rs.flaky"), again("py.flaky"), step("rs.flaky", &[5])];
    let chord = Workflow::chord(header, total("py.flaky") | total("py.echo"));
    assert_eq!(given(client, chord.stamp("job", "j1")).await, "[[[3, 3, 5]], {}]");
    let later = |name: &str| {
        let countdown = Some(Duration::from_millis(500));
        step(name, &[1]).set(CallOptions { countdown, ..CallOptions::default() })
    };
    let steps = Workflow::chain([step("rs.add", &[1, 1]), later("py.add"), later("rs.add")]);
    let header = [steps, step("py.add", &[1, 1]) | later("rs.add")];
    assert_eq!(given(client, Workflow::chord(header, total("py.echo"))).await, "[[[4, 3]], {}]");
}

/// Celery's worker delivers no part, so a chord in which it has to is given up after its time.
async fn expire(client: &Client) {
    let seconds = Duration::from_secs(2);
    for part in [step("py.add", &[1, 1]), step("py.boom", &[1]) | step("rs.double", &[])] {
        let header = [step("rs.add", &[1, 1]), part];
        let chord = Workflow::chord(header, total("py.total")).expires_after(seconds);
        let shown = failure(&apply(client, chord).await).await;
        assert!(shown.contains("1 of 2 parts missing"), "{shown}");
    }
}
