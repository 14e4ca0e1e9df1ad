//! What is called when the body of a chord cannot run.

use super::super::{Map, Signature, Value};
use super::options;
use super::tree::{Canvas, Composite};

/// The errbacks of a frozen body: they get the id of its result. The members of a body that is a
/// group are called with their own ids, so theirs are put in here.
pub(super) fn body_errbacks(body: &Canvas) -> Vec<Signature> {
    let all = errbacks_and_ids(body).into_iter();
    all.map(|(errback, id)| bind(errback, id.as_deref())).collect()
}

/// Lets the errbacks of a chain hear of the first `own` of its steps, which are frozen, and not of
/// what was put behind them.
pub(super) fn keep_errbacks(chain: &mut Composite, own: usize) {
    let Some(last) = chain.parts.get(own.wrapping_sub(1)) else { return };
    let id = last.result_id();
    let errbacks = if own == 1 {
        errbacks_and_ids(last)
    } else {
        read(&chain.options, options::BODY_ERRBACKS)
    };
    chain.options.remove(options::BODY_ERRBACKS);
    let bound = errbacks.into_iter().map(|(errback, named)| {
        let id = named.or_else(|| id.clone());
        bind(errback, id.as_deref()).into_value()
    });
    let bound: Vec<_> = bound.collect();
    if !bound.is_empty() {
        options::append_all(&mut chain.options, options::BODY_ERRBACKS, &bound);
    }
}

/// Puts in the id that an errback gets; one that is immutable gets none.
fn bind(mut errback: Signature, id: Option<&str>) -> Signature {
    match id {
        Some(id) if !errback.immutable => {
            errback.args.splice(0..0, [Value::from(id)]);
            errback.options.insert(options::BOUND, true);
            Signature { immutable: true, ..errback }
        }
        _ => errback,
    }
}

/// Takes the id out again that was put into an errback when the body of its chord was frozen.
/// `None` if none was, or if nobody knows any more.
pub(crate) fn unbind(errback: &mut Signature) -> Option<String> {
    let is_bound = errback.options.remove(options::BOUND)?.as_bool()? && errback.immutable;
    let id = errback.args.first()?.as_str().filter(|_| is_bound)?.to_owned();
    errback.args.remove(0);
    errback.immutable = false;
    Some(id)
}

/// The errbacks of a frozen body, and the ids that they get if that is not the body's own.
fn errbacks_and_ids(body: &Canvas) -> Vec<(Signature, Option<String>)> {
    match body {
        Canvas::Task(task) => read(&task.options, options::LINK_ERROR),
        Canvas::Chain(chain) => match &chain.parts[..] {
            // A chain of one is that one.
            [step] => errbacks_and_ids(step),
            _ => read(&chain.options, options::BODY_ERRBACKS),
        },
        Canvas::Chord(_, body) => errbacks_and_ids(body),
        Canvas::Group(group) => {
            let of_member = |member: &Canvas| {
                let member_id = member.result_id();
                let errbacks = errbacks_and_ids(member).into_iter();
                let named =
                    errbacks.map(|(errback, id)| (errback, id.or_else(|| member_id.clone())));
                named.collect::<Vec<_>>()
            };
            group.parts.iter().flat_map(of_member).collect()
        }
    }
}

fn read(from: &Map, key: &str) -> Vec<(Signature, Option<String>)> {
    let values = options::list(from, key).into_iter();
    let read = values.filter_map(|value| Signature::from_value(value).ok());
    read.map(|errback| (errback, None)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::CallOptions;
    use crate::protocol::canvas::{Call, Ids, lower};

    fn task(name: &str) -> Canvas {
        Canvas::Task(Signature::new(name))
    }

    /// What is called when the chord `header -> body -> rest` fails in its header.
    fn called(body: Canvas, errback: &Signature, rest: Option<Signature>) -> (Vec<Value>, Value) {
        let mut chord = Canvas::chord(vec![task("header")], body).unwrap();
        chord.link_error(errback);
        let options = CallOptions { chain: rest.map(|step| vec![step]), ..CallOptions::default() };
        let call = Call { options, ids: Ids::derived("call"), ..Call::default() };
        let lowered = lower(chord, call).unwrap();
        let [open] = &lowered.opens[..] else { panic!("one chord: {lowered:?}") };
        let [errback] = &open.errbacks[..] else { panic!("one errback: {open:?}") };
        let body = open.body.clone().unwrap();
        (errback.args.clone(), body.options.get(options::TASK_ID).unwrap().clone())
    }

    fn named(mut canvas: Canvas, id: &str) -> Canvas {
        canvas.options_mut().insert(options::TASK_ID, id);
        canvas
    }

    #[test]
    fn an_errback_hears_of_the_body_and_not_of_what_follows_it() {
        let errback = Signature::new("told");
        let steps = || vec![task("first"), named(task("last"), "b")];
        for steps in [steps(), vec![named(task("only"), "b")]] {
            let body = || Canvas::chain(steps.clone()).unwrap();
            // Without followers the joiner puts in the id of the body.
            assert_eq!(called(body(), &errback, None), (vec![], "b".into()));
            let rest = Signature::new("rest");
            let rest = Signature { options: [("task_id", "r")].into_iter().collect(), ..rest };
            let (args, body) = called(body(), &errback, Some(rest));
            assert_eq!((args, body), (vec!["b".into()], "r".into()));
        }
    }

    #[test]
    fn the_id_of_a_member_can_be_taken_out_again() {
        let mut told = Signature { args: vec!["own".into()], ..Signature::new("told") };
        let original = told.clone();
        assert_eq!(unbind(&mut told), None);
        told = bind(told, Some("m"));
        assert!(told.immutable && told.args == ["m".into(), "own".into()]);
        assert_eq!((unbind(&mut told).as_deref(), &told), (Some("m"), &original));
        let fixed = Signature { immutable: true, ..original };
        let mut unbound = bind(fixed.clone(), Some("m"));
        assert_eq!((unbind(&mut unbound), unbound), (None, fixed));
    }

    #[test]
    fn an_immutable_errback_gets_no_id() {
        let errback = Signature { immutable: true, ..Signature::new("told") };
        let body = Canvas::group(vec![task("a")]).unwrap();
        assert_eq!(called(body, &errback, None).0, []);
    }
}
