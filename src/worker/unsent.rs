//! What is published instead of a call or a record that can never be sent. Pure.
//!
//! **Invariant:** whoever waits for what the message was to do is told, and nothing of a chord
//! that cannot begin is sent.

use super::downfall::{self, Cause};
use super::effect::{Effect, Kind};
use super::follow::chained;
use super::join;
use super::part;
use super::scribe::Scribe;
use crate::amqp::PublishError;
use crate::protocol::join::{Link, Open, Record};
use crate::protocol::{Exception, Limits, TaskMessage};

/// What is published instead of `effect`. If that is the beginning of a chord, the calls of its
/// parts, which were to come later, fail with it; what else was to come later still comes.
pub(super) fn instead(
    effect: &Effect,
    failed: &PublishError,
    later: &mut Vec<Effect>,
    scribe: &Scribe<'_>,
) -> Vec<Effect> {
    let text = format!("the message cannot be sent: {}", chained(failed));
    let exception = Exception::encode_error(text);
    match effect.kind {
        Kind::Step => downfall::undelivered(&effect.publish.message, &exception, scribe),
        Kind::Record => match Record::decode(&effect.publish.message, &Limits::default()) {
            Ok(Record::Open(open)) => {
                let mut instead = unopened(&open, &exception, scribe);
                instead.extend(parts_of(Some(&open.chord), later, &exception, scribe));
                instead
            }
            Ok(_) => part::instead(&effect.publish, &exception).into_iter().collect(),
            // It may have been the beginning of any of them.
            Err(_) => parts_of(None, later, &exception, scribe),
        },
        Kind::Value => {
            let exception = if failed.is_nowhere() { gone() } else { exception };
            part::not_parked(&effect.publish, &exception, later);
            Vec::new()
        }
        Kind::Park | Kind::Report | Kind::HandOn => Vec::new(),
    }
}

/// Where there is no queue for its values, a chord is over, or it has lost them.
fn gone() -> Exception {
    let text = "the queue for the large results of the chord is gone";
    Exception::new("celeriac", "ResultsLost", text)
}

/// Takes the calls that belong to `chord`, or all calls, out of `later`, and gives what tells of
/// their failure, but for the records to a chord that does not exist.
fn parts_of(
    chord: Option<&str>,
    later: &mut Vec<Effect>,
    exception: &Exception,
    scribe: &Scribe<'_>,
) -> Vec<Effect> {
    let belongs =
        |it: &Effect| it.kind == Kind::Step && chord.is_none_or(|chord| is_inside(it, chord));
    let (fallen, others) = std::mem::take(later).into_iter().partition(belongs);
    *later = others;
    let fallen: Vec<Effect> = fallen;
    let told = |it: &Effect| downfall::undelivered(&it.publish.message, exception, scribe);
    fallen
        .iter()
        .flat_map(told)
        .filter(|it| !chord.is_some_and(|chord| is_for(it, chord)))
        .collect()
}

/// Whether a call is a part of `chord`, or of a chord inside of it.
fn is_inside(step: &Effect, chord: &str) -> bool {
    let Ok(call) = TaskMessage::decode(&step.publish.message, &Limits::default()) else {
        return false;
    };
    let link = call.headers.extra.get(Link::HEADER);
    let link = link.and_then(|link| Link::from_value(link).ok());
    link.is_some_and(|link| link.chord == chord || link.stack.iter().any(|it| it == chord))
}

/// Whether an effect is a failure that is recorded for `chord`.
fn is_for(effect: &Effect, chord: &str) -> bool {
    let record = || Record::decode(&effect.publish.message, &Limits::default());
    effect.kind == Kind::Record
        && matches!(record(), Ok(Record::Err { chord: found, .. }) if found == chord)
}

/// What follows when a chord can never begin: the callers of its body and of all behind that, its
/// errbacks, and the chord around it are told.
fn unopened(open: &Open, exception: &Exception, scribe: &Scribe<'_>) -> Vec<Effect> {
    let cause = Cause::found(exception);
    join::chord_failed(open, open.errbacks.clone(), cause, scribe).into_effects().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::{Composer, Config};
    use crate::protocol::{Map, ResultMeta, Signature, Value};
    use crate::task::{Registry, Request, Run, StateMap, TaskDef, TaskOptions};
    use crate::worker::follow;
    use crate::worker::sequel::Sequel;

    static KNOWN: TaskDef = TaskDef {
        name: "known",
        file: "",
        line: 1,
        options: TaskOptions::DEFAULT,
        params: &[],
        bound: false,
        states: &[],
        run: Run::Blocking(|_| Ok(Value::Null)),
    };

    fn step(name: &str, options: &[(&'static str, &str)]) -> Signature {
        let options = options.iter().map(|(key, value)| (*key, *value)).collect();
        Signature { options, ..Signature::new(name) }
    }

    fn awaited(name: &str) -> Signature {
        step(name, &[("task_id", name), ("reply_to", "caller")])
    }

    fn chord(header: Vec<Signature>, body: Signature) -> Signature {
        let header = Value::Array(header.into_iter().map(Signature::into_value).collect());
        let body = body.into_value();
        Signature {
            subtask_type: Some("chord".into()),
            kwargs: Map::from_iter([("header", header), ("body", body)]),
            ..Signature::new("celery.chord")
        }
    }

    /// What an effect is, and whom it is for: a task, a result, or a chord.
    fn shown(effect: &Effect) -> String {
        let (message, limits) = (&effect.publish.message, Limits::default());
        match effect.kind {
            Kind::Park => "parked".to_owned(),
            Kind::Value => "value".to_owned(),
            Kind::HandOn => "handed on".to_owned(),
            Kind::Report => {
                let meta = ResultMeta::decode(message, &limits).unwrap();
                format!("{} {}", meta.status, meta.task_id)
            }
            Kind::Step => {
                let headers = TaskMessage::decode(message, &limits).unwrap().headers;
                format!("call {}", headers.task)
            }
            Kind::Record => format!("record {}", Record::decode(message, &limits).unwrap().kind()),
        }
    }

    /// What is published in place of the opening of the `doomed`th chord behind a task with a
    /// callback, and what is still to come.
    fn unopened_behind_a_task(next: Signature, doomed: usize) -> (Vec<String>, Vec<String>) {
        let config = Config::default();
        let registry = Registry::of([&KNOWN], &StateMap::new()).unwrap();
        let scribe = Scribe::for_test(Composer::new(&config, "gen1@host"), &registry);
        let sequel =
            Sequel { callbacks: vec![step("note", &[])], chain: vec![next], ..Sequel::default() };
        let request = Request { id: "t".into(), ..Request::default() };
        let mut following = follow::success(&request, sequel, &Value::Int(4), &scribe);
        let opens = std::mem::take(&mut following.opens);
        let mut later = following.into_effects().collect();
        let failed = PublishError::TooLarge { size: 2, max: 1 };
        let instead = instead(&opens[doomed], &failed, &mut later, &scribe);
        (instead.iter().map(shown).collect(), later.iter().map(shown).collect())
    }

    #[test]
    fn a_chord_that_cannot_begin_fails_for_the_caller_of_its_body() {
        let mut body = awaited("body");
        body.options.insert("link_error", vec![step("on_error", &[]).into_value()]);
        let next = chord(vec![step("a", &[]), step("b", &[])], body);
        let (instead, later) = unopened_behind_a_task(next, 0);
        assert_eq!(instead, ["call on_error", "FAILURE body"], "and no record for the chord");
        assert_eq!(later, ["call note"], "which is no part of the chord");
    }

    #[test]
    fn the_chord_around_one_that_cannot_begin_hears_of_it_and_the_other_parts_run() {
        let inner = || chord(vec![step("a", &[]), step("b", &[])], step("sum", &[]));
        let next = || chord(vec![inner(), step("c", &[])], awaited("body"));
        let (instead, later) = unopened_behind_a_task(next(), 1);
        assert_eq!(instead, ["record err"]);
        assert_eq!(later, ["call note", "call c"]);
        let (instead, later) = unopened_behind_a_task(next(), 0);
        assert_eq!(instead, ["FAILURE body", "record err", "record err"], "for the inner one");
        assert_eq!(later, ["call note"]);
    }
}
