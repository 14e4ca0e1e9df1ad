//! Chords as they are sent: the body once in the opening record, and links instead of copies.

use celeriac::protocol::canvas::{Call, Ids, JoinDefaults, Lowered, failed_with, lower};
use celeriac::protocol::join::{self, Link, Mode, Parent, Place};
use celeriac::protocol::{CallOptions, Signature, Value};

use super::shapes::{call, canvas, chain, chord, group, lowered, options};

const CALLER: &str = "caller";

fn t(name: &str) -> String {
    call(name, "", "")
}

fn link(call: &Signature) -> Link {
    let options = options(call);
    Link::from_value(options.headers.get(Link::HEADER).expect("a link")).expect("a link")
}

fn names(signatures: &[Signature]) -> Vec<&str> {
    signatures.iter().map(|it| &*it.task).collect()
}

fn rest(call: &Signature) -> Vec<Signature> {
    options(call).chain.unwrap_or_default().into_iter().rev().collect()
}

fn check_ids_are_unique(lowered: &Lowered) {
    let mut ids: Vec<_> = lowered.calls.iter().map(|it| options(it).task_id).collect();
    ids.sort();
    let all = ids.len();
    ids.dedup();
    assert_eq!(ids.len(), all);
}

#[test]
fn a_chord_is_one_open_and_linked_parts() {
    let lowered = lowered(&chord(&[t("a"), t("b")], &t("sum")), CALLER);
    let [open] = &lowered.opens[..] else { panic!("one chord") };
    assert_eq!((open.size, open.mode, open.parent.as_ref()), (2, Mode::FailFast, None));
    assert_eq!(open.route, join::route(&open.chord, 8));
    assert_eq!(open.expires_ms - open.created_ms, 24 * 60 * 60 * 1000);
    assert_eq!(open.reply_to.as_deref(), Some(CALLER));
    let body = options(open.body.as_ref().unwrap());
    assert_eq!(body.task_id, Some(join::body_id(&open.chord)));
    assert_eq!(
        (body.reply_to.as_deref(), body.group_id.as_ref()),
        (Some(CALLER), Some(&open.chord))
    );
    for (index, part) in (0..).zip(&lowered.calls) {
        let it = options(part);
        let root = join::header_id(&open.chord, 0);
        let expected = Link {
            chord: open.chord.clone(),
            route: open.route.clone(),
            index: Place::from(index),
            is_final: true,
            stack: vec![],
            root: Some(root),
            park_above: None,
        };
        assert_eq!(link(part), expected);
        assert_eq!(it.task_id, Some(join::header_id(&open.chord, index)));
        assert_eq!((it.group_id.as_ref(), it.group_index), (Some(&open.chord), Some(index.into())));
        // The value goes to the chord only, and the body travels once.
        assert_eq!((it.reply_to.as_deref(), it.chord), (Some(""), None));
    }
    assert_eq!(lowered.result.id(), join::body_id(&open.chord));
    let header = lowered.result.parent().unwrap();
    assert_eq!((header.id(), header.members().unwrap().len()), (&*open.chord, 2));
    assert!(header.is_silent() && !lowered.result.is_silent());
}

#[test]
fn values_are_parked_if_the_body_begins_with_one_task_that_takes_them() {
    let park = |body: &str| {
        let (a, b) = (t("a"), t("b"));
        let text = format!(
            r#"{{"task": "celery.chord", "subtask_type": "chord",
                "options": {{"join": {{"park_above": 9, "expires": 60}}}},
                "kwargs": {{"header": [{a}, {b}], "body": {body}, "kwargs": {{}}}}}}"#
        );
        let lowered = lowered(&text, CALLER);
        let above: Vec<_> = lowered.calls.iter().map(|it| link(it).park_above).collect();
        (lowered.opens[0].park_ms, above)
    };
    let week_ms = 7 * 24 * 60 * 60 * 1000;
    let parks = (Some(60_000 + week_ms), vec![Some(9); 2]);
    assert_eq!(park(&t("sum")), parks);
    assert_eq!(park(&chain(&[t("sum"), t("next")])), parks);
    let immutable = r#"{"task": "sum", "immutable": true}"#.to_owned();
    let inner = chord(&[t("c"), t("d")], &t("sum"));
    for body in [immutable, inner, group(&[t("c"), t("d")])] {
        assert_eq!(park(&body), (None, vec![None; 2]), "{body:?}");
    }
}

#[test]
fn an_empty_header_calls_the_body_at_once() {
    let lowered = lowered(&chord(&[], &t("sum")), CALLER);
    assert!(lowered.opens.is_empty());
    assert_eq!(lowered.calls[0].args, [Value::Array(vec![])]);
    assert_eq!(lowered.result.parent().unwrap().members().unwrap().len(), 0);
}

#[test]
fn every_step_of_a_chain_in_a_header_carries_the_link_and_the_last_ends_it() {
    let member = chain(&[t("a"), t("b"), t("c")]);
    let lowered = lowered(&chord(&[member, t("d")], &t("sum")), CALLER);
    assert_eq!(names(&lowered.calls), ["a", "d"]);
    let rest = rest(&lowered.calls[0]);
    assert_eq!(names(&rest), ["b", "c"]);
    let finals = [&lowered.calls[0], &rest[0], &rest[1]]
        .map(|it| (link(it).index.index(), link(it).is_final));
    assert_eq!(finals, [(0, false), (0, false), (0, true)]);
    assert!(rest.iter().all(|it| options(it).reply_to.as_deref() == Some("")));
    check_ids_are_unique(&lowered);
}

#[test]
fn a_chord_in_a_header_is_one_part_and_delivers_by_its_body() {
    let lowered = lowered(&chord(&[chord(&[t("a"), t("b")], &t("inner"))], &t("outer")), CALLER);
    let [outer, inner] = &lowered.opens[..] else { panic!("two chords") };
    assert_eq!((outer.size, inner.size), (1, 2));
    let parent = Parent { route: outer.route.clone(), chord: outer.chord.clone(), index: 0.into() };
    assert_eq!(
        (inner.parent.as_ref(), inner.stack.as_slice()),
        (Some(&parent), &[outer.chord.clone()][..])
    );
    let body = link(inner.body.as_ref().unwrap());
    assert_eq!((body.chord, body.index, body.is_final), (outer.chord.clone(), 0.into(), true));
    let part = link(&lowered.calls[0]);
    assert_eq!((part.chord, part.stack), (inner.chord.clone(), vec![outer.chord.clone()]));
}

#[test]
fn a_group_in_a_header_is_a_chord_without_body() {
    let member = group(&[t("a"), chain(&[t("b"), t("c")])]);
    let lowered = lowered(&chord(&[t("x"), member], &t("sum")), CALLER);
    let [outer, inner] = &lowered.opens[..] else { panic!("two chords") };
    assert_eq!((outer.size, inner.size, inner.body.as_ref()), (2, 2, None));
    assert_eq!(inner.parent.as_ref().map(|it| it.index.clone()), Some(1.into()));
    assert_eq!(names(&lowered.calls), ["x", "a", "b"]);
    check_ids_are_unique(&lowered);
}

#[test]
fn an_empty_group_in_a_header_is_a_task_that_returns_an_empty_list() {
    let lowered = lowered(&chord(&[group(&[]), t("a")], &t("sum")), CALLER);
    assert_eq!(names(&lowered.calls), ["celery.accumulate", "a"]);
    assert!(lowered.calls[0].immutable && link(&lowered.calls[0]).is_final);
}

#[test]
fn what_follows_a_group_is_the_body_of_a_chord() {
    let lowered = lowered(&chain(&[group(&[t("a"), t("b")]), t("sum"), t("last")]), CALLER);
    let [open] = &lowered.opens[..] else { panic!("one chord") };
    let body = open.body.as_ref().unwrap();
    assert_eq!((&*body.task, names(&rest(body))), ("sum", vec!["last"]));
    assert_eq!(lowered.result.id(), options(&rest(body)[0]).task_id.unwrap());
    let header = lowered.result.parent().unwrap().parent().unwrap();
    assert_eq!(header.id(), open.chord);
}

#[test]
fn groups_that_follow_one_another_are_chords_in_bodies() {
    let pair = || group(&[t("a"), t("b")]);
    let lowered = lowered(&chain(&[pair(), pair(), t("sum")]), CALLER);
    let [open] = &lowered.opens[..] else { panic!("the second begins later") };
    let body = open.body.clone().unwrap();
    let call = Call { args: vec![Value::Array(vec![1.into()])], ..Call::default() };
    let body =
        lower(celeriac::protocol::canvas::Canvas::from_signature(body).unwrap(), call).unwrap();
    let [second] = &body.opens[..] else { panic!("a chord as body") };
    assert_eq!((second.size, &*second.body.as_ref().unwrap().task), (2, "sum"));
    assert!(body.calls.iter().all(|it| it.args == [Value::Array(vec![1.into()])]));
    assert_eq!(body.result.id(), lowered.result.id());
}

/// The way of a chord in a chain in a header: every step is lowered where the one before ended.
#[test]
fn a_chord_in_a_chain_hands_the_link_and_the_rest_to_its_body() {
    let member = chain(&[t("a"), chord(&[t("b")], &t("c")), t("d")]);
    let outer = lowered(&chord(&[member], &t("sum")), CALLER);
    let mut next = rest(&outer.calls[0]);
    let after = next.split_off(1);
    let call = Call {
        args: vec![1.into()],
        options: CallOptions {
            chain: Some(after.into_iter().rev().collect()),
            ..CallOptions::default()
        },
        ids: Ids::derived("a"),
        ..Call::default()
    };
    let step = celeriac::protocol::canvas::Canvas::from_signature(next.remove(0)).unwrap();
    let inner = lower(step, call).unwrap();
    let body = inner.opens[0].body.as_ref().unwrap();
    assert_eq!(inner.opens[0].parent.as_ref().map(|it| &it.chord), Some(&outer.opens[0].chord));
    assert_eq!((link(body).chord, link(body).is_final), (outer.opens[0].chord.clone(), false));
    assert_eq!(names(&rest(body)), ["d"]);
    assert!(link(&rest(body)[0]).is_final);
    assert_eq!(inner.calls[0].args, [Value::Int(1)]);
}

#[test]
fn settings_of_one_chord_win_over_the_defaults() {
    let text = chord(&[t("a")], &t("sum")).replace(
        r#""subtask_type": "chord","#,
        r#""subtask_type": "chord", "options": {"join": {"mode": "collect", "expires": 60,
            "header_results": true, "revoke_rest": true}},"#,
    );
    let lowered = lowered(&text, CALLER);
    let open = &lowered.opens[0];
    assert_eq!((open.mode, open.revoke_rest), (Mode::Collect, true));
    assert_eq!(open.expires_ms - open.created_ms, 60_000);
    assert_eq!(options(&lowered.calls[0]).reply_to.as_deref(), Some(CALLER));
    assert!(!lowered.result.parent().unwrap().is_silent());
}

#[test]
fn errbacks_of_a_body_are_called_for_the_header_too() {
    let errback = t("on_error");
    let with = |task: &str| call(task, "", &format!(r#""link_error": [{errback}]"#));
    let plain = lowered(&chord(&[t("a")], &with("sum")), CALLER);
    assert_eq!(names(&plain.opens[0].errbacks), ["on_error"]);
    assert!(options(&plain.calls[0]).link_error.is_empty());
    // Of a body that is a group every member's, with the member's own id.
    let many = lowered(&chord(&[t("a")], &group(&[with("b"), with("c")])), CALLER);
    let bound: Vec<_> = many.opens[0].errbacks.iter().map(|it| it.args.clone()).collect();
    let ids: Vec<_> =
        many.result.members().unwrap().iter().map(|it| vec![it.id().into()]).collect();
    assert_eq!(bound, ids);
}

/// A joiner would not read the opening record.
#[test]
fn more_errbacks_than_an_opening_record_holds_are_refused() {
    let with_errback = call("b", "", &format!(r#""link_error": [{}]"#, t("on_error")));
    let members: Vec<_> = (0..257).map(|_| with_errback.clone()).collect();
    let text = chord(&[t("a")], &group(&members));
    let error = lower(canvas(&text), Call::default()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "a list of errbacks of 257 is larger than the limit of 256: split it"
    );
}

#[test]
fn a_part_of_a_chord_that_is_replaced_hands_its_link_on() {
    let link_of_task = Link {
        chord: "outer".to_owned(),
        route: "join.1".to_owned(),
        index: 3.into(),
        is_final: true,
        ..Link::default()
    };
    let call = |options| Call { link: Some(link_of_task.clone()), options, ..Call::default() };
    let options_of_task = CallOptions { task_id: Some("me".to_owned()), ..CallOptions::default() };
    let by_chain = lower(canvas(&chain(&[t("a"), t("b")])), call(options_of_task.clone())).unwrap();
    assert!(!link(&by_chain.calls[0]).is_final && link(&rest(&by_chain.calls[0])[0]).is_final);
    assert_eq!(by_chain.result.id(), "me");
    let by_chord = lower(canvas(&chord(&[t("a")], &t("b"))), call(options_of_task)).unwrap();
    let open = &by_chord.opens[0];
    assert_eq!(open.parent.as_ref().map(|it| it.index.clone()), Some(3.into()));
    assert_eq!(options(open.body.as_ref().unwrap()).task_id.as_deref(), Some("me"));
}

#[test]
fn a_task_that_runs_again_makes_the_same_workflow_again() {
    let text = chain(&[t("a"), group(&[t("b"), chord(&[t("c")], &t("d"))]), t("e")]);
    let now = JoinDefaults::default();
    let again = || {
        let call = Call { ids: Ids::derived("task"), join: now.clone(), ..Call::default() };
        let lowered = lower(canvas(&text), call).unwrap();
        (lowered.opens, lowered.calls)
    };
    assert_eq!(again(), again());
}

#[test]
fn sizes_beyond_the_limit_are_refused() {
    let members: Vec<_> = (0..11).map(|_| t("a")).collect();
    for text in [group(&members), chord(&members, &t("sum")), chain(&[t("x"), group(&members)])] {
        let join = JoinDefaults { max_size: 10, ..JoinDefaults::default() };
        let error = lower(canvas(&text), Call { join, ..Call::default() }).unwrap_err();
        assert!(error.to_string().ends_with("of 11 is larger than the limit of 10: split it"));
    }
}

#[test]
fn all_that_can_never_run_is_known() {
    let steps = [t("a"), t("b"), chord(&[t("c")], &t("d")), group(&[t("e"), t("f")])];
    let lowered = lowered(&chain(&steps), CALLER);
    let doomed = failed_with(&rest(&lowered.calls[0]));
    let seen: Vec<_> = doomed.iter().map(|it| (&*it.task, it.reply_to.as_deref())).collect();
    let caller = Some(CALLER);
    assert_eq!(seen, [("b", caller), ("c", None), ("d", caller), ("e", caller), ("f", caller)]);
    assert_eq!(
        doomed[0].task_id,
        lowered.result.parent().unwrap().parent().unwrap().parent().unwrap().id()
    );
}

/// What follows a chord in a chain joins the steps of its body; the last of all ends the part.
#[test]
fn a_body_that_is_a_chain_and_the_rest_behind_it_deliver_the_part_together() {
    let member = chain(&[t("a"), chord(&[t("b")], &chain(&[t("c"), t("d")])), t("e")]);
    let outer = lowered(&chord(&[member], &t("sum")), CALLER);
    let [inner, last] = &rest(&outer.calls[0])[..] else { panic!("two steps") };
    let lower_again = |signature: Signature, chain: Vec<Signature>| {
        let options = CallOptions { chain: Some(chain), ..CallOptions::default() };
        let canvas = celeriac::protocol::canvas::Canvas::from_signature(signature).unwrap();
        lower(canvas, Call { options, ids: Ids::derived("x"), ..Call::default() }).unwrap()
    };
    let inner = lower_again(inner.clone(), vec![last.clone()]);
    let body = lower_again(inner.opens[0].body.clone().unwrap(), Vec::new());
    let rest = rest(&body.calls[0]);
    assert_eq!((&*body.calls[0].task, names(&rest)), ("c", vec!["d", "e"]));
    let finals: Vec<_> = body.calls.iter().chain(&rest).map(|it| link(it).is_final).collect();
    assert_eq!(finals, [false, false, true]);
}
