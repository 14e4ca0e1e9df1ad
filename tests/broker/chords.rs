//! Chords: the body is called once, with all results in their order; or somebody is told why not.

use celeriac::client::ChordError;
use celeriac::group;
use celeriac::protocol::canvas::Canvas;
use celeriac::protocol::join::{ChordState, Mode, Open, Record};
use celeriac::protocol::{Exception, Signature, TaskState, Value};

use crate::bundle::{Bundle, PATIENCE, stop, within};
use crate::tasks::{add, sum};
use crate::workflow::{call, doubles, sums, total};

fn exception(value: &Value) -> String {
    Exception::from_value(value).unwrap().to_string()
}

fn option(canvas: &mut Canvas, key: &'static str, value: impl Into<Value>) {
    let Canvas::Task(task) = canvas else { panic!("only tasks are changed") };
    task.options.insert(key, value);
}

/// A call of a queue that nobody consumes from.
fn parked(n: i64) -> Canvas {
    let mut part = call("tests.add", [n, n]);
    option(&mut part, "queue", "nobody");
    part
}

/// A chord whose parts are told by hand.
async fn by_hand(bundle: &Bundle, size: i64) -> Open {
    let canvas = Canvas::chord((0..size).map(parked).collect(), total()).unwrap();
    let queues = vec![celeriac::amqp::QueueSpec::classic("nobody")];
    let topology = celeriac::amqp::Topology { queues, ..Default::default() };
    within(bundle.client.connection().declare(&topology)).await.unwrap();
    bundle.begin(canvas).await.opens.remove(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_is_called_once_with_the_results_in_the_order_of_the_header() {
    let bundle = Bundle::joining("chord-sizes").await;
    let worker = bundle.worker().await;
    for size in [3, 0, 1, 2, 5000] {
        let begun = bundle.begin(sums(size, total())).await;
        bundle.probe.seen(1).await;
        assert_eq!(bundle.probe.drain(), [format!("{} {}", begun.id, doubles(size))]);
    }
    assert_eq!(bundle.reports(5).len(), 5);
    bundle.nothing_is_left();
    assert!(bundle.probe.runs().is_empty());
    stop(worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chord_opens_although_the_exchange_of_results_was_deleted() {
    let bundle = Bundle::joining("chord-exchange-gone").await;
    let worker = bundle.worker().await;
    let chord = || group([add::s(1, 1), add::s(2, 2)]) | sum::partial();
    let first = bundle.client.apply(chord()).await.unwrap();
    assert_eq!(first.get(PATIENCE).await.unwrap(), 6);
    let (management, vhost) = (bundle.vhost.management(), bundle.vhost.name());
    management.delete(&["exchanges", vhost, "celeriac.results"]).unwrap();
    let second = bundle.client.apply(chord()).await.unwrap();
    assert_eq!(second.get(PATIENCE).await.unwrap(), 6);
    stop(worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_result_of_a_part_counts_and_all_others_vanish() {
    let bundle = Bundle::joining("chord-duplicates").await;
    let worker = bundle.worker().await;
    let open = by_hand(&bundle, 3).await;
    bundle.parts(&open, [(1, 10), (1, 11), (0, 5), (1, 12), (0, 6)]).await;
    bundle.parts(&open, [(2, 7), (2, 8), (0, 9)]).await;
    bundle.probe.seen(1).await;
    bundle.parts(&open, [(2, 13), (1, 14)]).await;
    bundle.nothing_is_left();
    let runs = bundle.probe.drain();
    assert_eq!(runs.len(), 1, "{runs:?}");
    assert!(runs[0].ends_with(" [5,10,7]"), "{runs:?}");
    stop(worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_chords_at_once_do_not_get_in_each_other_s_way() {
    let bundle = Bundle::joining("chord-many").await;
    let worker = bundle.worker().await;
    let mut expected = Vec::new();
    for size in 1..=60 {
        let begun = bundle.begin(sums(size, total())).await;
        expected.push(format!("{} {}", begun.id, doubles(size)));
    }
    bundle.probe.seen(60).await;
    bundle.nothing_is_left();
    let mut runs = bundle.probe.drain();
    runs.sort();
    expected.sort();
    assert_eq!(runs, expected);
    stop(worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn chords_and_groups_stand_for_parts_of_other_chords() {
    let bundle = Bundle::joining("chord-nested").await;
    let worker = bundle.worker().await;
    let inner = sums(3, call::<Value>("tests.echo", []));
    let group = Canvas::group((0..2).map(|n| call("tests.add", [n, 1])).collect()).unwrap();
    let chain = Canvas::chain(vec![
        call("tests.add", [1, 2]),
        call("tests.add", [10]),
        Canvas::group(vec![call("tests.add", [1]), call("tests.add", [2])]).unwrap(),
    ]);
    let header = vec![inner, group, call("tests.add", [7, 0]), chain.unwrap()];
    let begun = bundle.begin(Canvas::chord(header, total()).unwrap()).await;
    bundle.probe.seen(1).await;
    let expected = format!("{} [[0,2,4],[1,2],7,[14,15]]", begun.id);
    assert_eq!(bundle.probe.drain(), [expected]);
    bundle.nothing_is_left();
    stop(worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chord_can_be_the_body_of_another_one() {
    let bundle = Bundle::joining("chord-body").await;
    let worker = bundle.worker().await;
    let second = Canvas::chord(
        vec![call::<Value>("tests.echo", []), call::<Value>("tests.echo", [])],
        call::<Value>("tests.echo", []),
    );
    let body = Canvas::chain(vec![second.unwrap(), total()]).unwrap();
    let begun = bundle.begin(sums(2, body)).await;
    bundle.probe.seen(1).await;
    let runs = bundle.probe.drain();
    assert_eq!(runs, [format!("{} [[0,2],[0,2]]", begun.id)]);
    bundle.nothing_is_left();
    stop(worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_that_fails_fails_the_chord_and_calls_its_errbacks() {
    let bundle = Bundle::joining("chord-fails").await;
    let worker = bundle.worker().await;
    let mut header: Vec<_> = (0..3).map(|n| call("tests.add", [n, n])).collect();
    header.insert(1, call::<Value>("tests.python_error", []));
    let mut body = Canvas::chain(vec![total(), call("tests.add", [1])]).unwrap();
    body.link_error(&Signature::new("tests.note"));
    let begun = bundle.begin(Canvas::chord(header, body).unwrap()).await;
    // Of the body that could not run, and of the step behind it.
    let reports = bundle.reports(2);
    assert!(reports.iter().any(|report| report.task_id == begun.id));
    for report in &reports {
        assert_eq!(report.status, TaskState::Failure);
        let text = exception(&report.result);
        assert!(text.starts_with("ChordError: Dependency "), "{text}");
        assert!(text.ends_with(" raised ValueError('kaboom')"), "{text}");
    }
    bundle.probe.seen(1).await;
    bundle.nothing_is_left();
    assert_eq!(bundle.probe.drain(), [begun.id]);
    stop(worker).await;
}

/// As those that are called in the worker of a task that fails.
#[tokio::test(flavor = "multi_thread")]
async fn an_errback_of_a_body_that_wants_the_request_and_the_exception_gets_them() {
    let bundle = Bundle::joining("chord-tells-all").await;
    let worker = bundle.worker().await;
    let header = vec![call("tests.add", [1, 1]), call::<Value>("tests.python_error", [])];
    let mut body = total();
    body.link_error(&Signature::new("tests.on_failure"));
    let begun = bundle.begin(Canvas::chord(header, body).unwrap()).await;
    bundle.probe.seen(1).await;
    let told = bundle.probe.drain().remove(0);
    let expected = format!("called for {} with ChordError: Dependency ", begun.id);
    assert!(told.starts_with(&expected) && told.ends_with("ValueError('kaboom')"), "{told}");
    bundle.reports(1);
    bundle.nothing_is_left();
    stop(worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_inside_is_the_failure_of_the_part_outside() {
    let bundle = Bundle::joining("chord-fails-inside").await;
    let worker = bundle.worker().await;
    let inner = vec![call("tests.add", [1, 1]), call::<Value>("tests.python_error", [])];
    let inner = Canvas::chord(inner, call::<Value>("tests.echo", [])).unwrap();
    let outer = Canvas::chord(vec![call("tests.add", [1, 1]), inner], total()).unwrap();
    let begun = bundle.begin(outer).await;
    let report = bundle.reports(1).remove(0);
    assert_eq!((report.task_id, report.status), (begun.id, TaskState::Failure));
    let text = exception(&report.result);
    assert!(text.contains("raised ChordError(") && text.contains("kaboom"), "{text}");
    bundle.nothing_is_left();
    assert!(bundle.probe.runs().is_empty());
    stop(worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chord_that_collects_gives_its_body_values_and_errors() {
    let bundle = Bundle::joining("chord-collect").await;
    let worker = bundle.worker().await;
    let header = vec![call("tests.add", [1, 1]), call::<Value>("tests.python_error", [])];
    let canvas = Canvas::chord(header, total()).unwrap();
    bundle.begin_as(canvas, |call| call.join.mode = Mode::Collect).await;
    bundle.probe.seen(1).await;
    let runs = bundle.probe.drain();
    let (_, list) = runs[0].split_once(' ').unwrap();
    let list: serde_json::Value = serde_json::from_str(list).unwrap();
    assert_eq!(list[0], serde_json::json!({"ok": 2}));
    assert_eq!(list[1]["err"]["type"], "ValueError");
    assert_eq!(list[1]["err"]["message"], "kaboom");
    bundle.nothing_is_left();
    stop(worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chord_whose_time_is_over_is_given_up() {
    let bundle = Bundle::joining("chord-expires").await;
    let worker = bundle.worker().await;
    let canvas = Canvas::chord((0..3).map(parked).collect(), total()).unwrap();
    let queues = vec![celeriac::amqp::QueueSpec::classic("nobody")];
    let topology = celeriac::amqp::Topology { queues, ..Default::default() };
    within(bundle.client.connection().declare(&topology)).await.unwrap();
    let expires = std::time::Duration::from_millis(500);
    let begun = bundle.begin_as(canvas, |call| call.join.expires = expires).await;
    let open = &begun.opens[0];
    bundle.parts(open, [(0, 1)]).await;
    let report = bundle.reports(1).remove(0);
    assert_eq!((report.task_id, report.status), (begun.id, TaskState::Failure));
    let text = exception(&report.result);
    assert!(text.starts_with("ChordError: ") && text.contains("2 of 3 parts missing"), "{text}");
    bundle.parts(open, [(1, 1), (2, 2)]).await;
    bundle.nothing_is_left();
    assert!(bundle.probe.runs().is_empty());
    stop(worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_chord_never_calls_its_body_and_its_errbacks_only_when_asked() {
    let bundle = Bundle::joining("chord-cancel").await;
    let worker = bundle.worker().await;
    for errbacks in [false, true] {
        let mut open = by_hand(&bundle, 2).await;
        // What the errback gets is what the probe is told.
        open.errbacks = vec![Signature::new("tests.note")];
        open.chord = format!("cancelled-{errbacks}");
        let again = Record::Open(Box::new(open.clone()));
        let cancel =
            Record::Cancel { chord: open.chord.clone(), reason: "enough".to_owned(), errbacks };
        bundle.log([again, cancel].into_iter().map(|record| (record, &*open.route))).await;
        bundle.parts(&open, [(0, 1), (1, 2)]).await;
    }
    bundle.probe.seen(1).await;
    let reports = bundle.reports(2);
    for report in &reports {
        assert_eq!(report.status, TaskState::Revoked);
        assert_eq!(exception(&report.result), "TaskRevokedError: enough");
    }
    let runs = bundle.probe.drain();
    assert_eq!(runs.len(), 1, "only one was asked to call them: {runs:?}");
    stop(worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_queue_of_a_body_is_declared_when_it_is_missing() {
    let bundle = Bundle::joining("chord-queue").await;
    let worker = bundle.worker().await;
    let mut body = total();
    option(&mut body, "queue", "elsewhere");
    let begun = bundle.begin(sums(2, body)).await;
    let there = || bundle.vhost.messages("elsewhere").ok().filter(|all| all.len() == 1);
    let bodies = xtask::wait_until("the body is in its queue", PATIENCE, there).unwrap();
    assert_eq!(bodies[0].header("id").and_then(|id| id.as_str()), Some(&*begun.id));
    bundle.nothing_is_left();
    stop(worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_for_an_exchange_that_does_not_exist_fails_and_others_go_on() {
    let bundle = Bundle::joining("chord-exchange").await;
    let worker = bundle.worker().await;
    let mut body = total();
    option(&mut body, "exchange", "no such exchange");
    let begun = bundle.begin(sums(2, body)).await;
    let report = bundle.reports(1).remove(0);
    assert_eq!((report.task_id, report.status), (begun.id, TaskState::Failure));
    bundle.begin(sums(2, total())).await;
    bundle.probe.seen(1).await;
    bundle.nothing_is_left();
    stop(worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_worker_goes_on_where_the_joiner_was_cut_off() {
    let bundle = Bundle::joining("chord-takeover").await;
    let first = bundle.worker().await;
    let open = by_hand(&bundle, 40).await;
    bundle.parts(&open, (0..20).map(|n| (n, i64::from(n)))).await;
    let queue = celeriac::amqp::topology::join_queue(
        open.route.strip_prefix("join.").unwrap().parse().unwrap(),
    );
    let held = || (bundle.vhost.queue_depth(&queue).ok()?.unacked == 22).then_some(());
    bundle.vhost.wait_until("the first joiner holds all of it", held).unwrap();
    let joining = bundle.connections("join", 1);
    let second = bundle.worker_with(|worker| worker.hostname("other@host")).await;
    let stands_by = || (bundle.vhost.consumers(&queue).ok()? == 2).then_some(());
    bundle.vhost.wait_until("the second joiner stands by", stands_by).unwrap();
    bundle.cut(&joining);
    bundle.parts(&open, (20..40).map(|n| (n, i64::from(n)))).await;
    bundle.probe.seen(1).await;
    let list = serde_json::json!((0..40).collect::<Vec<_>>());
    bundle.nothing_is_left();
    let runs = bundle.probe.drain();
    assert_eq!(runs.len(), 1, "{runs:?}");
    assert!(runs[0].ends_with(&format!(" {list}")), "{runs:?}");
    stop(first).await;
    stop(second).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_in_a_shard_that_is_no_record_is_parked() {
    let bundle = Bundle::joining("chord-poison").await;
    let worker = bundle.worker().await;
    let properties = serde_json::json!({"content_type": "text/plain", "delivery_mode": 2});
    let routed = || {
        let exchange = celeriac::amqp::topology::results_exchange();
        bundle.vhost.publish(exchange, "join.0", &properties, b"hello").ok()?.then_some(())
    };
    bundle.vhost.wait_until("the shard is there", routed).unwrap();
    let found = || bundle.vhost.messages("celeriac.join.0.dead").ok().filter(|all| all.len() == 1);
    let found = xtask::wait_until("it is parked", PATIENCE, found).unwrap();
    assert_eq!(found[0].payload, b"hello");
    let reason = found[0].header("dead_error").and_then(|text| text.as_str()).unwrap();
    assert!(reason.contains("text/plain"), "{reason}");
    bundle.begin(sums(2, total())).await;
    bundle.probe.seen(1).await;
    bundle.nothing_is_left();
    stop(worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_can_ask_how_far_a_chord_is_and_end_it() {
    let bundle = Bundle::joining("chord-inspect").await;
    let worker = bundle.worker().await;
    let open = by_hand(&bundle, 10).await;
    bundle.parts(&open, [(0, 1), (1, 2), (5, 3)]).await;
    let before = bundle.reply_queues();
    let inspect = || bundle.client.inspect_chord(&open.chord, PATIENCE);
    let seen = within(inspect()).await.unwrap();
    assert_eq!((seen.state, seen.size, seen.failed), (ChordState::Collecting, 10, 0));
    assert_eq!((&*seen.missing, seen.missing_count), (&[(2, 4), (6, 9)][..], 7));
    within(bundle.client.cancel_chord(&open.chord, "enough", false)).await.unwrap();
    assert_eq!(bundle.reports(1)[0].status, TaskState::Revoked);
    bundle.nothing_is_left();
    let seen = within(inspect()).await.unwrap();
    assert!(matches!(seen.state, ChordState::Unknown | ChordState::Finished), "{seen:?}");
    stop(worker).await;
    let nobody =
        bundle.client.inspect_chord(&open.chord, std::time::Duration::from_millis(1)).await;
    assert!(matches!(nobody, Err(ChordError::NoAnswer { .. })), "{nobody:?}");
    assert_eq!(bundle.reply_queues(), before, "answers leave nothing behind");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_body_is_called_twice_because_a_worker_is_stopped() {
    let bundle = Bundle::joining("chord-stop").await;
    let leaving = bundle.worker().await;
    let staying = bundle.worker_with(|worker| worker.hostname("other@host")).await;
    let mut expected = Vec::new();
    for size in 1..=80 {
        let begun = bundle.begin(sums(size % 7 + 1, total())).await;
        expected.push(format!("{} {}", begun.id, doubles(size % 7 + 1)));
        if size == 40 {
            bundle.probe.seen(20).await;
            leaving.handle().shutdown();
        }
    }
    bundle.probe.seen(80).await;
    within(leaving.wait()).await.unwrap();
    bundle.nothing_is_left();
    let mut runs = bundle.probe.drain();
    runs.sort();
    expected.sort();
    assert_eq!(runs, expected);
    stop(staying).await;
}
