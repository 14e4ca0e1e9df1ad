//! The tasks that every Celery worker has: what canvas primitives become when they are called.
//!
//! `celery.map` and `celery.starmap` call another task of this worker for each item, in order, in
//! their own slot. `celery.accumulate` hands its arguments back. The names of composite
//! signatures are tasks, too, for whoever calls them by name: the call is replaced by the
//! workflow that it describes.
//!
//! Lists of tasks do not show them. A task of the program wins over one of the same name here.

use futures::FutureExt;
use futures::future::BoxFuture;

use super::{
    Invocation, Param, Run, StateType, TaskDef, TaskError, TaskErrorKind, TaskOptions, TaskResult,
};
use crate::protocol::{Exception, Map, Signature, Value};

/// Whether a name is reserved for tasks like these.
pub(super) fn is_hidden(name: &str) -> bool {
    name.starts_with("celery.")
}

/// The built-in task of this name.
pub(super) fn find(name: &str) -> Option<&'static TaskDef> {
    BUILTINS.into_iter().find(|task| task.name == name)
}

static BUILTINS: [&TaskDef; 7] = [&MAP, &STARMAP, &ACCUMULATE, &CHUNKS, &GROUP, &CHAIN, &CHORD];

const fn parameter(name: &'static str) -> Param {
    Param { name, has_default: false }
}

const NO_STATES: &[StateType] = &[];
const MAPPED: &[Param] = &[parameter("task"), parameter("it")];

macro_rules! builtin {
    ($($ident:ident = $name:literal, $params:expr, $run:path;)*) => {$(
        static $ident: TaskDef = TaskDef {
            name: $name,
            file: file!(),
            line: line!(),
            options: TaskOptions::DEFAULT,
            params: $params,
            bound: true,
            states: NO_STATES,
            run: Run::Async($run),
        };
    )*};
}

builtin! {
    MAP = "celery.map", MAPPED, map;
    STARMAP = "celery.starmap", MAPPED, starmap;
    ACCUMULATE = "celery.accumulate", &[], accumulate;
    CHUNKS = "celery.chunks", &[], composite::<0>;
    GROUP = "celery.group", &[], composite::<1>;
    CHAIN = "celery.chain", &[], composite::<2>;
    CHORD = "celery.chord", &[], composite::<3>;
}

fn map(invocation: Invocation) -> BoxFuture<'static, TaskResult> {
    each(invocation, "map", |item| Ok(vec![item])).boxed()
}

fn starmap(invocation: Invocation) -> BoxFuture<'static, TaskResult> {
    each(invocation, "starmap", |item| match item {
        Value::Array(args) => Ok(args),
        other => Err(TaskError::type_error(format!(
            "starmap() items must be lists of arguments, not {}",
            other.kind()
        ))),
    })
    .boxed()
}

/// Calls a task with each item, one after the other, and lists the results.
async fn each(
    invocation: Invocation,
    function: &'static str,
    args: fn(Value) -> Result<Vec<Value>, TaskError>,
) -> TaskResult {
    let (context, mut arguments) = super::expansion::open(invocation, function, MAPPED)?;
    let signature: Value = arguments.take(0)?;
    let items: Vec<Value> = arguments.take(1)?;
    let signature = Signature::from_value(signature)
        .map_err(|problem| TaskError::type_error(format!("{function}() task: {problem}")))?;
    let task = context.task(&signature.task).ok_or_else(|| {
        TaskError::from(Exception::not_registered(&signature.task))
            .with_kind(TaskErrorKind::Permanent)
    })?;
    let mut results = Vec::with_capacity(items.len());
    for item in items {
        let call = Invocation { args: args(item)?, kwargs: Map::new(), context: context.clone() };
        results.push(match task.run {
            Run::Async(run) => run(call).await?,
            Run::Blocking(run) => blocking(run, call).await?,
        });
    }
    Ok(Value::Array(results))
}

/// Runs a task that may block its thread; its panic is ours.
async fn blocking(run: fn(Invocation) -> TaskResult, call: Invocation) -> TaskResult {
    match tokio::task::spawn_blocking(move || run(call)).await {
        Ok(result) => result,
        Err(failed) if failed.is_panic() => std::panic::resume_unwind(failed.into_panic()),
        // Only a runtime that shuts down drops blocking work, and this future with it.
        Err(_) => Err(TaskError::retryable("the worker is shutting down")),
    }
}

/// `accumulate(*args, index=None)`: the arguments, or the one at `index`.
fn accumulate(invocation: Invocation) -> BoxFuture<'static, TaskResult> {
    let Invocation { mut args, mut kwargs, .. } = invocation;
    let result = match kwargs.remove("index") {
        None | Some(Value::Null) => Ok(Value::Array(args)),
        Some(index) => match index.as_i64().and_then(|index| place(index, args.len())) {
            Some(at) => Ok(args.swap_remove(at)),
            None => {
                let error = Exception::new("builtins", "IndexError", "tuple index out of range");
                Err(TaskError::from(error).with_kind(TaskErrorKind::Permanent))
            }
        },
    };
    std::future::ready(result).boxed()
}

/// Python's index, which may count from the end.
fn place(index: i64, len: usize) -> Option<usize> {
    let from_end = usize::try_from(index.unsigned_abs()).ok()?;
    let at = if index < 0 { len.checked_sub(from_end)? } else { from_end };
    (at < len).then_some(at)
}

/// A composite signature that was sent as if it were a task: `kwargs` are what it is made of.
fn composite<const KIND: usize>(invocation: Invocation) -> BoxFuture<'static, TaskResult> {
    const KINDS: [&str; 4] = ["chunks", "group", "chain", "chord"];
    let Invocation { args, mut kwargs, .. } = invocation;
    // What Celery's own calls of these carry besides.
    for extra in ["result", "group_id", "partial_args", "add_to_parent", "eager"] {
        kwargs.remove(extra);
    }
    let kind = KINDS[KIND];
    let by = Signature {
        args,
        kwargs,
        subtask_type: Some(kind.to_owned()),
        ..Signature::new(format!("celery.{kind}"))
    };
    std::future::ready(Err(TaskError::replace(by))).boxed()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::task::{Context, Environment, Registry, Request, StateMap};

    static DOUBLE: TaskDef = TaskDef {
        name: "double",
        params: &[parameter("x")],
        run: Run::Blocking(|call| {
            let first = call.args.first().and_then(Value::as_i64);
            let double = first.ok_or_else(|| TaskError::permanent("no number"));
            Ok(Value::Int(double? * 2 * call.args.len() as i64))
        }),
        bound: false,
        file: "",
        line: 1,
        options: TaskOptions::DEFAULT,
        states: NO_STATES,
    };

    async fn call(name: &str, args: Vec<Value>, kwargs: Map) -> TaskResult {
        let registry = Registry::of([&DOUBLE], &StateMap::new()).unwrap();
        let environment =
            Environment { registry: Some(Arc::new(registry)), ..Environment::default() };
        let context =
            Context::new(Arc::new(Request::default()), Arc::new(environment), Arc::default());
        let Run::Async(run) = find(name).unwrap().run else { panic!("all are async") };
        run(Invocation { args, kwargs, context }).await
    }

    fn ints(numbers: &[i64]) -> Value {
        Value::Array(numbers.iter().copied().map(Value::Int).collect())
    }

    fn mapped(task: &str, items: Vec<Value>) -> Map {
        let mut kwargs = Map::new();
        kwargs.push("task", Signature::new(task).into_value());
        kwargs.push("it", items);
        kwargs
    }

    #[tokio::test]
    async fn map_and_starmap_call_a_task_for_each_item() {
        let mapped_over = mapped("double", vec![1.into(), 2.into()]);
        let result = call("celery.map", vec![], mapped_over).await;
        assert_eq!(result.unwrap(), ints(&[2, 4]));
        let pairs = mapped("double", vec![ints(&[1, 0]), ints(&[3])]);
        let result = call("celery.starmap", vec![], pairs).await;
        assert_eq!(result.unwrap(), ints(&[4, 6]));
    }

    #[tokio::test]
    async fn map_fails_with_its_first_item_or_for_an_unknown_task() {
        let error = call("celery.map", vec![], mapped("double", vec!["x".into()])).await;
        assert_eq!(error.unwrap_err().to_string(), "Exception: no number");
        let error = call("celery.map", vec![], mapped("nowhere", vec![])).await;
        assert_eq!(error.unwrap_err().to_string(), "NotRegistered: nowhere");
        let error = call("celery.starmap", vec![], mapped("double", vec![1.into()])).await;
        assert!(error.unwrap_err().to_string().contains("must be lists of arguments, not int"));
    }

    #[tokio::test]
    async fn accumulate_gives_its_arguments_or_one_of_them() {
        let index = |at: i64| Map::from_iter([("index", at)]);
        let args = || vec![ints(&[1, 2]), 3.into()];
        let check = |found: TaskResult, expected: Value| assert_eq!(found.unwrap(), expected);
        check(call("celery.accumulate", args(), Map::new()).await, Value::Array(args()));
        check(call("celery.accumulate", args(), index(0)).await, ints(&[1, 2]));
        check(call("celery.accumulate", args(), index(-1)).await, 3.into());
        for outside in [2, -3, i64::MIN, i64::MAX] {
            let error = call("celery.accumulate", args(), index(outside)).await.unwrap_err();
            assert_eq!(error.to_string(), "IndexError: tuple index out of range");
        }
    }

    #[tokio::test]
    async fn a_composite_that_is_called_by_name_is_replaced_by_its_workflow() {
        let kwargs = Map::from_iter([("tasks", Value::Array(vec![]))]);
        let mut error = call("celery.chain", vec![1.into()], kwargs).await.unwrap_err();
        let by = error.take_replacement().unwrap();
        assert_eq!((by.task.as_str(), by.subtask_type.as_deref()), ("celery.chain", Some("chain")));
        assert_eq!((by.args.len(), by.kwargs.len()), (1, 1));
    }
}
