//! Errbacks that get the request, the exception and its traceback.
//!
//! Celery calls an errback this way if it is registered in the failing worker and takes more than
//! one argument; every other one is sent as a task that gets the id of the failed one (see
//! `downfall`). A task with a [`Context`] is of the second kind, like Celery's bound tasks.
//!
//! After a task that has run here, they are called here, and whatever one returns or raises is only
//! logged. **Invariant:** the failed task is not settled before its errbacks have ended, so that
//! none is lost with the worker; like the task, one may then be called a second time. Each has the
//! time limits of its own task. One that blocks runs with a slot for blocking tasks, that of the
//! failed task or else one of its own, so that its thread is counted when it is given up.
//!
//! For what has failed without a run, a step that cannot be sent or the body of a chord, they are
//! sent as tasks with the same three arguments: whoever finds that out, a settler or a joiner, has
//! others to look after, and must not wait for what an errback does.

use std::sync::Arc;
use std::time::Instant;

use tracing::error;

use super::attempt::{self, End, Of, Terms};
use super::downfall::Cause;
use super::guard::Panicked;
use super::running::Crew;
use super::slots::{Slot, Turn};
use super::unsettled::Unsettled;
use crate::protocol::{Exception, Map, Signature, Value, canvas};
use crate::task::{
    Context, Invocation, OnConnectionLoss, Registry, Request, Run, TaskDef, TaskError,
};

/// An errback that is to be called here.
#[derive(Debug)]
pub(super) struct Errback {
    task: &'static TaskDef,
    signature: Signature,
}

/// Takes the errbacks out of a request's sequel that are to be called here. Allocates nothing if
/// there are none.
pub(super) fn take(unsettled: &mut Unsettled, registry: &Registry) -> Vec<Errback> {
    let Some(sequel) = &mut unsettled.sequel else { return Vec::new() };
    let mut taken = Vec::new();
    for signature in std::mem::take(&mut sequel.errbacks) {
        match registry.task(&signature.task) {
            Some(task) if is_called_here(task, &signature) => {
                taken.push(Errback { task, signature });
            }
            _ => sequel.errbacks.push(signature),
        }
    }
    taken
}

/// Whether more than one argument is left for the failure to supply.
fn is_called_here(task: &TaskDef, signature: &Signature) -> bool {
    let composite = signature.subtask_type.is_some();
    let named = |name: &str| task.params.iter().any(|param| param.name == name);
    let given = if signature.immutable {
        0
    } else {
        signature.args.len() + signature.kwargs.iter().filter(|(name, _)| named(name)).count()
    };
    !composite && !task.bound && task.params.len().saturating_sub(given) > 1
}

/// Calls errbacks one after the other. `slot` is the one of the failed task, if it has one still.
pub(super) async fn call(
    errbacks: Vec<Errback>,
    request: &Arc<Request>,
    failure: (Exception, Option<String>),
    crew: &Crew,
    slot: &mut Option<Slot>,
) {
    let (exception, traceback) = failure;
    let given = [facts(request, None), exception.into_value(), traceback.into()];
    for Errback { task, signature } in errbacks {
        let Signature { args: own, kwargs, immutable, .. } = signature;
        let args = if immutable { own } else { given.iter().cloned().chain(own).collect() };
        let environment = Arc::clone(&crew.environment);
        let context = Context::new(Arc::clone(request), environment, Arc::default());
        let invocation = Invocation { args, kwargs, context };
        match run(task, invocation, request, crew, slot).await {
            End::Returned(Ok(_)) => {}
            End::Returned(Err(failed)) => log(task, request, &failed),
            End::Panicked(Panicked { message, .. }) => {
                log(task, request, &TaskError::permanent(message));
            }
            End::TimedOut(limit) => {
                let text = format!("it has run for longer than {limit:?}");
                log(task, request, &TaskError::permanent(text));
            }
            // Nobody does that.
            End::Cancelled(_) | End::Lost(_) => {}
        }
    }
}

/// Calls one within the limits that it would have as a task.
async fn run(
    task: &TaskDef,
    invocation: Invocation,
    request: &Request,
    crew: &Crew,
    slot: &mut Option<Slot>,
) -> End {
    let as_task = Request { task: task.name.to_owned(), ..Request::default() };
    let limits = crew.time_limits.of(&as_task, &task.options);
    let of = Of { request, entry: None, token: None };
    let mut own;
    let has_slot = slot.as_ref().is_some_and(|slot| slot.is_of(&crew.blocking_slots));
    let slot = if matches!(task.run, Run::Async(_)) || has_slot {
        slot
    } else {
        // No deadlock: who waits here keeps none of these slots.
        own = Turn::next(&crew.blocking_slots).come().await;
        &mut own
    };
    let (started, threads, on_loss) =
        (Instant::now(), &crew.lost_threads, OnConnectionLoss::Recognise);
    let mut terms = Terms { started, limits, on_loss, threads, slot, permit: &mut None };
    attempt::run(task, invocation, of, &mut terms).await
}

/// Gives those that want it the request, the exception and its traceback as their arguments.
pub(super) fn tell_all(
    errbacks: &mut [Signature],
    request: &Request,
    cause: Cause<'_>,
    registry: &Registry,
) {
    for errback in errbacks {
        let mut plain = errback.clone();
        let id = canvas::unbind(&mut plain);
        let task = registry.task(&plain.task).filter(|task| is_called_here(task, &plain));
        if task.is_some() && !plain.immutable {
            let exception = cause.exception.clone().into_value();
            let given = [facts(request, id.as_deref()), exception, cause.traceback.into()];
            plain.args.splice(0..0, given);
            *errback = Signature { immutable: true, ..plain };
        } else {
            // Only for us.
            errback.options = plain.options;
        }
    }
}

fn log(task: &TaskDef, request: &Request, failed: &TaskError) {
    let (task_id, errback) = (request.id.as_str(), task.name);
    error!(task_id, errback, error = %failed, "errback raised an exception");
}

/// The request as an errback gets it: the names are those of Celery's `task.request`. `id` is that
/// of the failed task, if the request does not have it.
fn facts(request: &Request, id: Option<&str>) -> Value {
    let mut facts = Map::with_capacity(16);
    facts.push("id", id.unwrap_or(&request.id));
    facts.push("task", request.task.as_str());
    facts.push("retries", request.retries);
    facts.push("root_id", request.root_id.as_deref());
    facts.push("parent_id", request.parent_id.as_deref());
    facts.push("group", request.group.as_deref());
    facts.push("group_index", request.group_index);
    facts.push("replaced_task_nesting", request.replaced_task_nesting);
    facts.push("argsrepr", request.argsrepr.as_str());
    facts.push("kwargsrepr", request.kwargsrepr.as_str());
    facts.push("shadow", request.shadow.as_deref());
    facts.push("reply_to", request.reply_to.as_deref());
    facts.push("correlation_id", request.correlation_id.as_deref());
    facts.push("origin", request.origin.as_deref());
    facts.push("hostname", request.hostname.as_str());
    facts.push("headers", request.headers.clone());
    facts.push("stamps", request.stamps.clone());
    Value::Map(facts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::{Param, Run, TaskOptions};

    const fn parameter(name: &'static str) -> Param {
        Param { name, has_default: false }
    }

    const THREE: &[Param] = &[parameter("request"), parameter("error"), parameter("traceback")];
    const FOUR: &[Param] =
        &[parameter("request"), parameter("error"), parameter("traceback"), parameter("who")];

    const fn task(params: &'static [Param], bound: bool) -> TaskDef {
        TaskDef {
            name: "on_error",
            file: "",
            line: 1,
            options: TaskOptions::DEFAULT,
            params,
            bound,
            states: &[],
            run: Run::Blocking(|_| Ok(Value::Null)),
        }
    }

    #[test]
    fn more_than_one_argument_left_makes_an_errback_that_is_called_here() {
        let bare = Signature::new("on_error");
        let with = |args: usize| Signature { args: vec![Value::Null; args], ..bare.clone() };
        let named = Signature { kwargs: Map::from_iter([("who", "me")]), ..bare.clone() };
        let fixed = |args| Signature { immutable: true, ..with(args) };
        assert!(is_called_here(&task(THREE, false), &bare));
        assert!(is_called_here(&task(FOUR, false), &named));
        assert!(is_called_here(&task(FOUR, false), &with(2)));
        assert!(is_called_here(&task(THREE, false), &fixed(3)));
        assert!(!is_called_here(&task(THREE, false), &with(2)));
        assert!(!is_called_here(&task(THREE, true), &bare));
        assert!(!is_called_here(&task(&THREE[..1], false), &bare));
        let chain = Signature { subtask_type: Some("chain".into()), ..bare };
        assert!(!is_called_here(&task(THREE, false), &chain));
    }

    #[test]
    fn one_that_cannot_be_called_here_is_given_all_of_the_failure() {
        static NEW_STYLE: TaskDef = task(FOUR, false);
        let registry = Registry::of([&NEW_STYLE], &crate::task::StateMap::new()).unwrap();
        let own = Signature { args: vec!["me".into()], ..Signature::new("on_error") };
        let fixed = Signature { immutable: true, ..Signature::new("on_error") };
        let options = Map::from_iter([("bound_to_id", true)]);
        let args = vec!["member".into(), "me".into()];
        let bound = Signature { args, options, ..fixed.clone() };
        let mut errbacks = [own, Signature::new("elsewhere"), fixed.clone(), bound];
        let request = Request { id: "1".into(), task: "step".into(), ..Request::default() };
        let exception = Exception::type_error("no");
        tell_all(&mut errbacks, &request, Cause::found(&exception), &registry);
        let [told, unknown, unchanged, bound] = errbacks;
        let [Value::Map(facts), error, Value::Null, label] = &told.args[..] else {
            panic!("{told:?}")
        };
        assert_eq!((facts.get("id"), facts.get("task")), (Some(&"1".into()), Some(&"step".into())));
        assert_eq!((error, label), (&exception.into_value(), &"me".into()));
        assert!(told.immutable, "so that nothing comes before them");
        assert_eq!(unknown, Signature::new("elsewhere"), "only its own worker knows what it wants");
        assert_eq!(unchanged, fixed);
        let facts = bound.args.first().and_then(Value::as_map);
        assert_eq!(facts.and_then(|facts| facts.get("id")), Some(&"member".into()));
        assert_eq!((bound.args.len(), bound.options.is_empty()), (4, true));
    }
}
