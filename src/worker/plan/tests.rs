//! Every end of a request, and what must be published for it.

use super::super::events::Facts;
use super::*;
use crate::TaskError;
use crate::amqp::topology;
use crate::client::{Composer, Config, Route, Routes};
use crate::protocol::join::{ArgsRef, Link, Record};
use crate::protocol::{Limits, Map, Message, Serializer, TaskMessage};
use crate::task::{NewArguments, Registry, Run, StateMap, TaskDef, TaskOptions};

static KNOWN: TaskDef = TaskDef {
    name: "known",
    file: "",
    line: 1,
    options: TaskOptions { queue: Some("own"), ..TaskOptions::DEFAULT },
    params: &[],
    bound: false,
    states: &[],
    run: Run::Blocking(|_| Ok(Value::Null)),
};

static URGENT: TaskDef = TaskDef {
    name: "urgent",
    options: TaskOptions { priority: Some(5), ..TaskOptions::DEFAULT },
    ..KNOWN
};

/// What one request makes the worker publish.
#[derive(Debug, PartialEq)]
enum Made {
    Parked,
    /// The queue of its chord.
    Value(String),
    /// State and task id.
    Report(String, String),
    /// Name, arguments and id.
    Call(String, Vec<Value>, String),
    /// Kind and route.
    Record(&'static str, String),
}

fn request() -> Request {
    Request { id: "t".into(), reply_to: Some("caller".into()), ..Request::default() }
}

fn step(name: &str, options: &[(&'static str, &str)]) -> Signature {
    let options = options.iter().map(|(key, value)| (*key, *value)).collect();
    Signature { options, ..Signature::new(name) }
}

/// A step that somebody waits for.
fn awaited(name: &str) -> Signature {
    step(name, &[("task_id", name), ("reply_to", "caller")])
}

fn link(is_final: bool) -> Link {
    let (chord, route) = ("c".to_owned(), "join.3".to_owned());
    Link { chord, route, index: 1.into(), is_final, ..Link::default() }
}

fn made(effect: &Effect) -> Made {
    let (message, limits) = (&effect.publish.message, Limits::default());
    match effect.kind {
        Kind::Park | Kind::HandOn => Made::Parked,
        Kind::Value => Made::Value(effect.publish.routing_key.clone()),
        Kind::Report => {
            let meta = ResultMeta::decode(message, &limits).unwrap();
            Made::Report(meta.status.to_string(), meta.task_id)
        }
        Kind::Step => {
            let call = TaskMessage::decode(message, &limits).unwrap();
            Made::Call(call.headers.task, call.body.args, call.headers.id)
        }
        Kind::Record => {
            let kind = Record::decode(message, &limits).unwrap().kind();
            Made::Record(kind, effect.publish.routing_key.clone())
        }
    }
}

/// A request that has ended, with what is to follow it.
fn unsettled(request: Request, sequel: Sequel) -> Box<Unsettled> {
    Box::new(Unsettled {
        request: Arc::new(request),
        original: Original::untouched(Message::default()),
        token: None,
        sequel: Some(Box::new(sequel)),
        children: Vec::new(),
        entry: None,
        facts: Facts::default(),
    })
}

/// The effects of the first round and of the later one.
fn planned(request: Request, sequel: Sequel, ending: Ending) -> (Vec<Effect>, Vec<Effect>) {
    let route = Route::queue("q").with_priority(3);
    let task_routes = Routes::new().route("routed", route).unwrap();
    let config = Config { task_routes, ..Config::default() };
    let registry = Registry::of([&KNOWN, &URGENT], &StateMap::new()).unwrap();
    let scribe = Scribe::for_test(Composer::new(&config, "gen1@host"), &registry);
    let mut round = Vec::new();
    let finished = Finished { unsettled: unsettled(request, sequel), ending };
    let open = begin(finished, &scribe, &mut round);
    assert_eq!(open.effects, round.len());
    (round, open.later)
}

fn effects(sequel: Sequel, outcome: Outcome) -> Vec<Made> {
    let (round, later) = planned(request(), sequel, Ending::Ended(outcome));
    assert!(later.is_empty());
    round.iter().map(made).collect()
}

fn call(name: &str, args: &[i64], id: &str) -> Made {
    let args = args.iter().copied().map(Value::Int).collect();
    Made::Call(name.to_owned(), args, id.to_owned())
}

fn report(state: &str, id: &str) -> Made {
    Made::Report(state.to_owned(), id.to_owned())
}

fn record(kind: &'static str) -> Made {
    Made::Record(kind, "join.3".to_owned())
}

fn success() -> Outcome {
    Outcome::Success(Value::Int(4))
}

fn failure() -> Outcome {
    Outcome::Failure(TaskError::permanent("no"))
}

#[test]
fn a_large_value_is_parked_before_anything_tells_of_it() {
    let link = Link { park_above: Some(0), ..link(true) };
    let sequel = Sequel { link: Some(link), ..Sequel::default() };
    let (round, later) = planned(request(), sequel, Ending::Ended(success()));
    let [parked] = &*round else { panic!("{round:?}") };
    assert_eq!(made(parked), Made::Value(topology::park_queue("c")));
    let later: Vec<_> = later.iter().map(made).collect();
    assert_eq!(later, [record("ref"), report("SUCCESS", "t")]);
}

#[test]
fn parked_values_are_let_go_when_their_body_has_ended_and_not_before() {
    let let_go = |ending: Ending| {
        let header = ArgsRef { task: "sum".to_owned(), chord: "c".to_owned() };
        let headers = Map::from_iter([(ArgsRef::HEADER, header.into_value())]);
        let request = Request { task: "sum".to_owned(), headers, ..request() };
        gather::let_go(&request, &ending)
    };
    let retry = |args: Option<Vec<Value>>| Outcome::Retry {
        error: TaskError::retry().into(),
        after: std::time::Duration::ZERO,
        changed: args.map(|args| Box::new(NewArguments { args: Some(args), kwargs: None })),
    };
    let revoked = Outcome::Revoked { reason: "expired".into() };
    for over in [success(), failure(), Outcome::Ignore, revoked, retry(Some(Vec::new()))] {
        let shown = format!("{over:?}");
        assert_eq!(let_go(Ending::Ended(over)).as_deref(), Some("c"), "{shown}");
    }
    let reason = || Reason { word: "rejected", error: String::new() };
    let comes_again = [
        Ending::Ended(retry(None)),
        Ending::Ended(Outcome::Reject { reason: String::new(), requeue: true }),
        Ending::Ended(Outcome::Reject { reason: String::new(), requeue: false }),
        Ending::Refused { reason: reason(), exception: Exception::encode_error("no") },
        Ending::Delayed { until: jiff::Timestamp::now() },
        Ending::Counted { deliveries: 2 },
        Ending::Parked { reason: reason(), outcome: failure() },
    ];
    for ending in comes_again {
        let shown = format!("{ending:?}");
        assert_eq!(let_go(ending), None, "{shown}");
    }
    let plain = Request { task: "sum".to_owned(), ..request() };
    assert_eq!(gather::let_go(&plain, &Ending::Ended(success())), None);
}

#[test]
fn every_end_is_reported_and_parked_as_it_must_be() {
    let check = |outcome: Outcome, state: Option<&str>, parked: bool, requeue: bool| {
        let shown = format!("{outcome:?}");
        let finished = Finished {
            unsettled: Box::new(Unsettled {
                request: Arc::new(request()),
                original: Original::untouched(Message::default()),
                token: None,
                sequel: None,
                children: Vec::new(),
                entry: None,
                facts: Facts::default(),
            }),
            ending: Ending::Ended(outcome),
        };
        let config = Config::default();
        let registry = Registry::of([&KNOWN], &StateMap::new()).unwrap();
        let scribe = Scribe::for_test(Composer::new(&config, "gen1@host"), &registry);
        let mut round = Vec::new();
        let open = begin(finished, &scribe, &mut round);
        assert_eq!(open.requeue, requeue, "{shown}");
        let expected = parked.then_some(Made::Parked).into_iter();
        let expected = expected.chain(state.map(|state| report(state, "t")));
        let found: Vec<Made> = round.iter().map(made).collect();
        assert_eq!(found, expected.collect::<Vec<_>>(), "{shown}");
    };
    let reject = |requeue| Outcome::Reject { requeue, reason: "poison".into() };
    let panicked = Outcome::Panicked { message: "oh".into(), backtrace: None };
    check(success(), Some("SUCCESS"), false, false);
    check(reject(true), None, false, true);
    check(reject(false), Some("FAILURE"), true, false);
    check(Outcome::Ignore, None, false, false);
    check(Outcome::Revoked { reason: "expired".into() }, Some("REVOKED"), false, false);
    check(panicked, Some("FAILURE"), false, false);
    check(failure(), Some("FAILURE"), false, false);
}

#[test]
fn callbacks_come_before_the_next_step_and_the_report_last() {
    let sequel = Sequel {
        callbacks: vec![step("note", &[("task_id", "cb")])],
        chain: vec![awaited("third"), awaited("second")],
        ..Sequel::default()
    };
    let expected =
        [call("note", &[4], "cb"), call("second", &[4], "second"), report("SUCCESS", "t")];
    assert_eq!(effects(sequel, success()), expected);
}

#[test]
fn the_next_step_carries_the_rest_the_lineage_and_the_priority() {
    let mut request = Request { root_id: Some("root".into()), ..request() };
    request.delivery_info.priority = Some(7);
    let chain = vec![awaited("third"), awaited("known")];
    let sequel = Sequel { chain, ..Sequel::default() };
    let (round, _) = planned(request, sequel, Ending::Ended(success()));
    let publish = &round[0].publish;
    assert_eq!(publish.routing_key, "own", "as the task's definition says");
    let message = TaskMessage::decode(&publish.message, &Limits::default()).unwrap();
    assert_eq!(message.headers.parent_id.as_deref(), Some("t"));
    assert_eq!(message.headers.root_id.as_deref(), Some("root"));
    assert_eq!((message.priority, message.reply_to.as_deref()), (Some(7), Some("caller")));
    assert_eq!(message.body.embed.chain, Some(vec![awaited("third")]));
}

#[test]
fn an_inherited_priority_is_only_for_calls_that_have_none() {
    let with_own = |name: &str| {
        let mut step = step(name, &[]);
        step.options.insert("priority", 9);
        step
    };
    let check = |step: Signature, expected: u8| {
        let shown = format!("{step:?}");
        let found = |sequel: Sequel| {
            let mut request = request();
            request.delivery_info.priority = Some(1);
            let (round, _) = planned(request, sequel, Ending::Ended(success()));
            let call = TaskMessage::decode(&round[0].publish.message, &Limits::default());
            call.unwrap().priority
        };
        let next = Sequel { chain: vec![step.clone()], ..Sequel::default() };
        assert_eq!(found(next), Some(expected), "{shown}");
        let callback = Sequel { callbacks: vec![step], ..Sequel::default() };
        assert_eq!(found(callback), Some(expected), "{shown}");
    };
    check(with_own("unknown"), 9);
    check(with_own("urgent"), 9);
    check(step("urgent", &[]), 5);
    check(step("routed", &[]), 3);
    check(step("unknown", &[]), 1);
}

#[test]
fn errbacks_do_not_inherit_the_priority() {
    let sequel = Sequel { errbacks: vec![step("on_error", &[])], ..Sequel::default() };
    let mut request = request();
    request.delivery_info.priority = Some(7);
    let (round, _) = planned(request, sequel, Ending::Ended(failure()));
    let called = round.iter().find(|effect| effect.kind == Kind::Step).unwrap();
    let call = TaskMessage::decode(&called.publish.message, &Limits::default()).unwrap();
    assert_eq!(call.priority, Some(0));
}

#[test]
fn a_failure_is_told_to_all_that_can_never_run() {
    let sequel = || Sequel {
        errbacks: vec![step("on_error", &[("task_id", "eb")])],
        chain: vec![awaited("third"), awaited("second")],
        callbacks: vec![step("note", &[])],
        ..Sequel::default()
    };
    let mut found = effects(sequel(), failure());
    assert_eq!(found.remove(0), report("FAILURE", "t"));
    let id = vec![Value::from("t")];
    assert!(found.contains(&Made::Call("on_error".into(), id, "eb".into())), "{found:?}");
    assert!(found.contains(&report("FAILURE", "second")));
    assert!(found.contains(&report("FAILURE", "third")));
    assert_eq!(found.len(), 3);
    let mut found = effects(sequel(), Outcome::Revoked { reason: "expired".into() });
    found.sort_by_key(|made| format!("{made:?}"));
    let expected = ["second", "t", "third"].map(|id| report("REVOKED", id));
    assert_eq!(found, expected, "no errbacks after a revocation");
}

#[test]
fn a_part_of_a_chord_makes_one_record_however_it_ends() {
    let check = |is_final: bool, outcome: Outcome, kind: Option<&'static str>| {
        let shown = format!("{outcome:?} {is_final}");
        let sequel = Sequel { link: Some(link(is_final)), ..Sequel::default() };
        let found = effects(sequel, outcome);
        let records: Vec<&Made> =
            found.iter().filter(|made| matches!(made, Made::Record(..))).collect();
        let expected: Vec<Made> = kind.map(record).into_iter().collect();
        assert_eq!(records, expected.iter().collect::<Vec<_>>(), "{shown}");
    };
    check(true, success(), Some("ok"));
    check(false, success(), None);
    let revoked = || Outcome::Revoked { reason: "expired".into() };
    for is_final in [true, false] {
        check(is_final, failure(), Some("err"));
        check(is_final, revoked(), Some("err"));
        check(is_final, Outcome::Ignore, Some("err"));
        check(is_final, Outcome::Reject { requeue: true, reason: String::new() }, None);
        check(is_final, Outcome::Reject { requeue: false, reason: String::new() }, Some("err"));
    }
    check(true, Outcome::Success(Value::BigInt("1".repeat(40))), Some("err"));
}

#[test]
fn a_chord_in_a_chain_is_opened_before_its_parts_are_sent() {
    let header = Value::Array(vec![step("a", &[]).into_value(), step("b", &[]).into_value()]);
    let body = awaited("body").into_value();
    let chord = Signature {
        subtask_type: Some("chord".into()),
        kwargs: Map::from_iter([("header", header), ("body", body)]),
        ..Signature::new("celery.chord")
    };
    let sequel = Sequel { chain: vec![chord], ..Sequel::default() };
    let (round, later) = planned(request(), sequel, Ending::Ended(success()));
    let kinds = |effects: &[Effect]| effects.iter().map(|it| it.kind).collect::<Vec<_>>();
    assert_eq!(kinds(&round), [Kind::Record]);
    assert_eq!(kinds(&later), [Kind::Step, Kind::Step, Kind::Report]);
    let Made::Record("open", route) = made(&round[0]) else { panic!("{round:?}") };
    let part = TaskMessage::decode(&later[0].publish.message, &Limits::default()).unwrap();
    let link = Link::from_value(part.headers.extra.get(Link::HEADER).unwrap()).unwrap();
    assert_eq!((link.route, link.index, link.is_final), (route, 0.into(), true));
    assert_eq!(part.reply_to, None, "its value travels to the joiner alone");
}

#[test]
fn what_a_part_adds_is_sent_before_the_record_that_counts_it() {
    let chord = || {
        let header = Value::Array(vec![step("a", &[]).into_value()]);
        let body = step("b", &[]).into_value();
        Signature {
            subtask_type: Some("chord".into()),
            kwargs: Map::from_iter([("header", header), ("body", body)]),
            ..Signature::new("celery.chord")
        }
    };
    let planned = |added| {
        let sequel = Sequel { link: Some(link(true)), added, ..Sequel::default() };
        let (config, registry) = (Config::default(), Registry::of([&KNOWN], &StateMap::new()));
        let registry = registry.unwrap();
        let scribe = Scribe::for_test(Composer::new(&config, "gen1@host"), &registry);
        let mut rounds = vec![Vec::new()];
        let finished =
            Finished { unsettled: unsettled(request(), sequel), ending: Ending::Ended(success()) };
        let mut open = begin(finished, &scribe, &mut rounds[0]);
        while let Some(next) = Some(open.next_round()).filter(|next| !next.is_empty()) {
            rounds.push(next);
        }
        rounds
    };
    let kinds = |rounds: &[Vec<Effect>]| -> Vec<Vec<Kind>> {
        rounds.iter().map(|round| round.iter().map(|it| it.kind).collect()).collect()
    };
    let plain = planned(vec![step("x", &[]), step("y", &[])]);
    let calls = [Kind::Step, Kind::Step, Kind::Report].to_vec();
    assert_eq!(kinds(&plain), [calls, vec![Kind::Record]]);
    let record = Record::decode(&plain[1][0].publish.message, &Limits::default()).unwrap();
    let Record::Ok { index, adds, .. } = record else { panic!("{record:?}") };
    assert_eq!((index, adds), (1.into(), 2));
    let second = TaskMessage::decode(&plain[0][1].publish.message, &Limits::default()).unwrap();
    let own = Link::from_value(second.headers.extra.get(Link::HEADER).unwrap()).unwrap();
    assert_eq!((own.index.to_string(), own.is_final), ("1.2".to_owned(), true));
    assert_eq!(second.reply_to, None);
    let whole = kinds(&planned(vec![chord()]));
    assert_eq!(whole, [vec![Kind::Record], vec![Kind::Step, Kind::Report], vec![Kind::Record]]);
}

#[test]
fn what_follows_has_the_same_ids_when_the_task_runs_again() {
    let sequel = || Sequel {
        callbacks: vec![step("note", &[]), step("note", &[])],
        chain: vec![step("second", &[])],
        ..Sequel::default()
    };
    let ids = |found: Vec<Made>| -> Vec<String> {
        let id = |made| if let Made::Call(_, _, id) = made { Some(id) } else { None };
        found.into_iter().filter_map(id).collect()
    };
    let first = ids(effects(sequel(), success()));
    let distinct: std::collections::HashSet<_> = first.iter().collect();
    assert_eq!(distinct.len(), 3);
    assert_eq!(ids(effects(sequel(), success())), first);
}

#[test]
fn a_step_that_cannot_be_sent_has_failed_and_the_task_before_it_has_not() {
    let mut broken = awaited("second");
    broken.subtask_type = Some("unheard-of".into());
    let chain = vec![awaited("third"), broken];
    let sequel = Sequel { chain, link: Some(link(false)), ..Sequel::default() };
    let found = effects(sequel, success());
    assert!(found.contains(&report("SUCCESS", "t")), "{found:?}");
    assert!(found.contains(&report("FAILURE", "second")), "{found:?}");
    assert!(found.contains(&report("FAILURE", "third")));
    assert!(found.contains(&record("err")));
}

#[test]
fn a_callback_that_cannot_be_sent_has_failed_and_the_task_before_it_has_not() {
    let mut broken = awaited("note");
    broken.subtask_type = Some("unheard-of".into());
    broken.options.insert("link_error", vec![step("on_error", &[("task_id", "eb")]).into_value()]);
    let sequel = Sequel { callbacks: vec![broken], ..Sequel::default() };
    let found = effects(sequel, success());
    assert!(found.contains(&report("SUCCESS", "t")), "{found:?}");
    assert!(found.contains(&report("FAILURE", "note")), "{found:?}");
    let id = vec![Value::from("note")];
    assert!(found.contains(&Made::Call("on_error".into(), id, "eb".into())), "{found:?}");
}

#[test]
fn a_replacement_takes_the_place_of_the_task() {
    let sequel = Sequel {
        callbacks: vec![step("note", &[])],
        errbacks: vec![step("on_error", &[])],
        chain: vec![awaited("second")],
        link: Some(link(false)),
        ..Sequel::default()
    };
    let request = Request { group: Some("g".into()), group_index: Some(2), ..request() };
    let by = Box::new(Signature { args: vec![1.into()], ..Signature::new("other") });
    let (round, later) = planned(request, sequel, Ending::Ended(Outcome::Replaced { by }));
    assert!(later.is_empty());
    let [effect] = &round[..] else { panic!("nothing else is published: {round:?}") };
    let other = TaskMessage::decode(&effect.publish.message, &Limits::default()).unwrap();
    assert_eq!((other.headers.task.as_str(), other.headers.id.as_str()), ("other", "t"));
    assert_eq!(other.reply_to.as_deref(), Some("caller"));
    assert_eq!((other.headers.group.as_deref(), other.headers.group_index), (Some("g"), Some(2)));
    assert_eq!(other.headers.replaced_task_nesting, 1);
    assert_eq!(other.headers.extra.get(Link::HEADER), Some(&link(false).into_value()));
    let embed = other.body.embed;
    let names = |list: Option<Vec<Signature>>| -> Vec<String> {
        list.into_iter().flatten().map(|signature| signature.task).collect()
    };
    assert_eq!(names(embed.callbacks), ["note"]);
    assert_eq!(names(embed.errbacks), ["on_error"]);
    assert_eq!(names(embed.chain), ["second"]);
}

#[test]
fn a_replacement_that_cannot_be_sent_is_a_failure() {
    let by = Signature { subtask_type: Some("unheard-of".into()), ..Signature::new("x") };
    let sequel = Sequel { chain: vec![awaited("second")], ..Sequel::default() };
    let found = effects(sequel, Outcome::Replaced { by: Box::new(by) });
    assert_eq!(found, [report("FAILURE", "t"), report("FAILURE", "second")]);
}

#[test]
fn a_refused_part_of_celery_s_chord_tells_the_body_s_caller_too() {
    let foreign_chord = Some(Box::new(awaited("body")));
    let sequel = Sequel { foreign_chord, ..Sequel::default() };
    let ending = Ending::Refused {
        reason: Reason { word: "canvas", error: "no".into() },
        exception: Exception::type_error("no"),
    };
    let (round, _) = planned(request(), sequel, ending);
    let found: Vec<Made> = round.iter().map(made).collect();
    assert_eq!(found, [Made::Parked, report("FAILURE", "t"), report("FAILURE", "body")]);
}

#[test]
fn what_is_given_up_is_parked_and_tells_those_behind_it() {
    let given_up = |outcome| {
        let reason = Reason { word: "delivery-limit", error: "too often".into() };
        let sequel = Sequel { chain: vec![awaited("second")], ..Sequel::default() };
        let ending = Ending::Parked { reason, outcome };
        let (round, later) = planned(request(), sequel, ending);
        assert!(later.is_empty());
        round.iter().map(made).collect::<Vec<_>>()
    };
    let lost = given_up(Outcome::Lost { reason: "too often".into() });
    assert_eq!(lost, [Made::Parked, report("FAILURE", "t"), report("FAILURE", "second")]);
    let expired = given_up(Outcome::Revoked { reason: "expired".into() });
    assert_eq!(expired, [Made::Parked, report("REVOKED", "t"), report("REVOKED", "second")]);
    assert_eq!(given_up(Outcome::Ignore), [Made::Parked]);
}

#[test]
fn what_is_counted_goes_to_its_queue_and_nobody_is_told() {
    let mut request = request();
    request.delivery_info.queue = "own".to_owned();
    let sequel = Sequel { chain: vec![awaited("second")], ..Sequel::default() };
    let (round, later) = planned(request, sequel, Ending::Counted { deliveries: 4 });
    let [effect] = &*round else { panic!("{round:?}") };
    assert!(later.is_empty() && effect.kind == Kind::HandOn);
    assert!(effect.is_delayed(), "until the first one is acked");
    assert!(effect.publish.routing_key.ends_with(".own"), "{effect:?}");
    let count = effect.publish.message.header(dead::DELIVERIES);
    assert_eq!(count.and_then(Value::as_i64), Some(4));
    let hand_ons = effect.publish.message.header(dead::HAND_ONS);
    assert_eq!(hand_ons.and_then(Value::as_i64), Some(1), "it can be told from the first one");
}

#[test]
fn a_call_that_embeds_a_group_is_written_in_json() {
    let members = Value::Array(vec![step("a", &[]).into_value(), step("b", &[]).into_value()]);
    let group = Signature {
        subtask_type: Some("group".into()),
        kwargs: Map::from_iter([("tasks", members)]),
        ..Signature::new("celery.group")
    };
    let check = |chain: Vec<Signature>, serializer: Serializer| {
        let sequel = Sequel { chain, ..Sequel::default() };
        let request = Request { serializer: Serializer::Msgpack, ..request() };
        let (round, _) = planned(request, sequel, Ending::Ended(success()));
        let step = &round[0].publish.message;
        let found = TaskMessage::decode(step, &Limits::default()).unwrap().serializer;
        assert_eq!(found, serializer);
    };
    check(vec![group, awaited("second")], Serializer::Json);
    check(vec![awaited("third"), awaited("second")], Serializer::Msgpack);
}
