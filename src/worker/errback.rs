//! Errbacks that are called in this worker, with the request, the exception and its traceback.
//!
//! Celery calls an errback this way if it is registered in the failing worker and takes more than
//! one argument; every other one is sent as a task that gets the id of the failed one (see
//! `downfall`). A task with a [`Context`] is of the second kind, like Celery's bound tasks.
//!
//! Whatever such an errback returns or raises is only logged. **Invariant:** the failed task is not
//! settled before its errbacks have ended, so that none is lost with the worker; like the task,
//! one may then be called a second time.

use std::sync::Arc;

use tracing::error;

use super::guard::{self, Guarded, Panicked};
use super::unsettled::Unsettled;
use crate::protocol::{Exception, Map, Signature, Value};
use crate::task::{
    Context, Environment, Invocation, Registry, Request, Run, TaskDef, TaskError, TaskResult,
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

/// Calls errbacks one after the other.
pub(super) async fn call(
    errbacks: Vec<Errback>,
    request: &Arc<Request>,
    failure: (Exception, Option<String>),
    environment: &Arc<Environment>,
) {
    let (exception, traceback) = failure;
    let given = [facts(request), exception.into_value(), traceback.into()];
    for Errback { task, signature } in errbacks {
        let Signature { args: own, kwargs, immutable, .. } = signature;
        let args = if immutable { own } else { given.iter().cloned().chain(own).collect() };
        let context = Context::new(Arc::clone(request), Arc::clone(environment), Arc::default());
        let invocation = Invocation { args, kwargs, context };
        let (name, task_id) = (task.name, &request.id);
        match run(task, invocation).await {
            Ok(Ok(_)) => {}
            Ok(Err(failed)) => log(name, task_id, &failed),
            Err(Panicked { message, .. }) => log(name, task_id, &TaskError::permanent(message)),
        }
    }
}

async fn run(task: &TaskDef, invocation: Invocation) -> Result<TaskResult, Panicked> {
    match task.run {
        Run::Async(run) => match guard::catch(|| run(invocation)) {
            Ok(future) => Guarded::new(future).await,
            Err(panicked) => Err(panicked),
        },
        Run::Blocking(run) => {
            let guarded = move || guard::catch(|| run(invocation));
            tokio::task::spawn_blocking(guarded).await.unwrap_or_else(|_| Err(Panicked::default()))
        }
    }
}

fn log(name: &str, task_id: &str, failed: &TaskError) {
    error!(task_id, errback = name, error = %failed, "errback raised an exception");
}

/// The request as an errback gets it: the names are those of Celery's `task.request`.
fn facts(request: &Request) -> Value {
    let mut facts = Map::with_capacity(16);
    facts.push("id", request.id.as_str());
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
    use crate::task::{Param, TaskOptions};

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
}
