//! What the code of `#[task]` calls, so that the macro itself stays thin.
//!
//! Public for that code only, under `celeriac::__private`.

use serde::Serialize;

use super::arguments::Arguments;
use super::{Context, IntoTaskError, Invocation, Param, TaskDef, TaskError, TaskResult};
use crate::client::Signature;
use crate::client::canvas::{self, Group};
use crate::protocol::{Exception, to_value};

/// Takes an invocation apart: its context, and its arguments bound to the parameters.
pub fn open(
    invocation: Invocation,
    function: &'static str,
    params: &'static [Param],
) -> Result<(Context, Arguments), TaskError> {
    let Invocation { args, kwargs, context } = invocation;
    Ok((context, Arguments::bind(function, params, args, kwargs)?))
}

/// The result of a function that cannot fail.
pub fn finish<T: Serialize>(value: T) -> TaskResult {
    to_value(&value).map_err(|error| {
        let text = format!("failed to serialize the result: {error}");
        TaskError::from(Exception::encode_error(text)).with_kind(super::TaskErrorKind::Permanent)
    })
}

/// The result of a function that can fail.
pub fn finish_result<T: Serialize, E: IntoTaskError>(result: Result<T, E>) -> TaskResult {
    match result {
        Ok(value) => finish(value),
        Err(error) => Err(error.into_task_error()),
    }
}

/// The `Ok` type of a result, for return types that do not spell it out.
pub trait Fallible {
    /// The type of success.
    type Ok;
}

impl<T, E> Fallible for Result<T, E> {
    type Ok = T;
}

/// A call without arguments, with the options of the task's definition.
pub fn signature<Out>(def: &'static TaskDef) -> Signature<Out> {
    let options = &def.options;
    let mut signature = Signature::new(def.name);
    if let Some(queue) = options.queue {
        signature = signature.queue(queue);
    }
    if let Some(priority) = options.priority {
        signature = signature.priority(priority);
    }
    if let Some(serializer) = options.serializer {
        signature = signature.serializer(serializer);
    }
    if let Some(ignore) = options.ignore_result {
        signature = signature.ignore_result(ignore);
    }
    if let Some(window) = options.unique {
        signature = signature.unique_by_task(window);
    }
    if let Some(limit) = options.time_limit {
        signature = signature.time_limit(limit);
    }
    if let Some(limit) = options.soft_time_limit {
        signature = signature.soft_time_limit(limit);
    }
    signature
}

/// One task for many items; see the macro's `starmap`.
pub fn starmap<Out, T: Serialize>(
    call: Signature<Out>,
    items: impl IntoIterator<Item = T>,
) -> Signature<Vec<Out>> {
    canvas::starmap(call, items)
}

/// Several tasks for many items; see the macro's `chunks`.
pub fn chunks<Out, T: Serialize>(
    call: Signature<Out>,
    items: impl IntoIterator<Item = T>,
    size: usize,
) -> Group<Vec<Vec<Out>>> {
    canvas::chunked(call, items, size)
}
