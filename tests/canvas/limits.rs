//! What a workflow hands down to its parts is bounded, however small it was itself.

use celeriac::protocol::canvas::{Call, Canvas, CanvasError, lower};
use celeriac::protocol::join::Record;
use celeriac::protocol::{CallOptions, Signature, Value, msgpack};

fn task(name: &str) -> Canvas {
    Canvas::Task(Signature::new(name))
}

fn group(members: usize, member: &Canvas) -> Canvas {
    Canvas::group(vec![member.clone(); members]).expect("a group")
}

fn too_large(canvas: Canvas, call: Call) -> &'static str {
    match lower(canvas, call) {
        Err(CanvasError::TooLarge { what, .. }) => what,
        other => panic!("{:?} calls", other.map(|it| it.calls.len())),
    }
}

fn errbacks(count: usize) -> Vec<Signature> {
    (0..count).map(|at| Signature::new(format!("errback-{at}"))).collect()
}

fn with_errbacks(count: usize) -> Call {
    let options = CallOptions { link_error: errbacks(count), ..CallOptions::default() };
    Call { options, ..Call::default() }
}

#[test]
fn a_large_argument_is_not_copied_to_a_thousand_members() {
    let large = || Call { args: vec![Value::from("x".repeat(1 << 20))], ..Call::default() };
    let copied = "number of bytes that parts of a workflow get from those around them";
    assert_eq!(too_large(group(1_000, &task("a")), large()), copied);
    let nested = group(40, &group(40, &task("a")));
    assert_eq!(too_large(nested, large()), copied);
    let chord = Canvas::chord(vec![task("a"); 1_000], task("b")).expect("a chord");
    assert_eq!(too_large(chord, large()), copied);
    let few = lower(group(10, &task("a")), large()).expect("a small group");
    assert!(few.calls.iter().all(|call| call.args.len() == 1));
}

#[test]
fn no_task_has_more_errbacks_than_a_chord_takes() {
    let check =
        |canvas: Canvas| assert_eq!(too_large(canvas, with_errbacks(257)), "list of errbacks");
    check(task("a"));
    check(group(2, &task("a")));
    check(Canvas::chain(vec![task("a"); 2]).expect("a chain"));
    let mut own = task("a");
    own.link_error(&Signature::new("own"));
    assert_eq!(too_large(group(2, &own), with_errbacks(256)), "list of errbacks");
}

#[test]
fn errbacks_reach_every_step_once() {
    let mut own = task("a");
    own.link_error(&Signature::new("errback-0"));
    let lowered = lower(group(100, &own), with_errbacks(256)).expect("a group");
    assert_eq!(lowered.calls.len(), 100);
    for call in lowered.calls {
        let found = CallOptions::from_map(call.options).expect("options").link_error;
        assert_eq!(found, errbacks(256));
    }
}

/// Bytes of all that is published for `depth` chords, each the last part of the one around it.
fn bytes_of_nested(depth: usize) -> usize {
    let mut body = Signature::new("sum");
    body.args.push("x".repeat(10_000).into());
    let mut canvas = task("a");
    for _ in 0..depth {
        let header = vec![task("a"), task("a"), canvas];
        canvas = Canvas::chord(header, Canvas::Task(body.clone())).expect("a chord");
    }
    let lowered = lower(canvas, Call::default()).expect("a workflow");
    assert_eq!(lowered.opens.len(), depth);
    let opens = lowered.opens.into_iter().map(|open| {
        let record = Record::Open(Box::new(open)).encode().expect("a record");
        record.body.len()
    });
    let calls = lowered.calls.iter().map(|call| {
        let mut written = Vec::new();
        msgpack::encode(&call.to_value(), &mut written).expect("a call");
        written.len()
    });
    opens.chain(calls).sum()
}

#[test]
fn chords_inside_one_another_do_not_carry_the_bodies_of_others() {
    let (some, twice) = (bytes_of_nested(30), bytes_of_nested(60));
    // Only the ids of the chords around are in each link: 39 bytes for each.
    let links = |depth: usize| 3 * 39 * depth * (depth - 1) / 2;
    let (bare, twice_bare) = (some - links(30), twice - links(60));
    assert!(twice_bare <= 2 * bare + bare / 10, "{some}, {twice}: {bare}, {twice_bare}");
    assert!(twice < 60 * 2 * 10_000, "{twice}");
}

#[test]
fn many_errbacks_on_very_many_steps_are_refused() {
    let chain = Canvas::chain(vec![task("a"); 100_000]).expect("a chain");
    let copied = "number of bytes that parts of a workflow get from those around them";
    assert_eq!(too_large(chain, with_errbacks(256)), copied);
}
