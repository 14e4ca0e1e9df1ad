//! One task for many items: `map`, `starmap` and `chunks`.

use serde::Serialize;

use super::compound::Built;
use super::{Complete, Group, Step, Takes, WorkflowError};
use crate::client::Signature;
use crate::protocol::canvas::{Canvas, Items, chunks, over_items};
use crate::protocol::{self, Value, ValueError, to_value};

impl<Out, T: Serialize> Signature<Out, Takes<T>> {
    /// One task that calls this one for each of `items`, one after the other: `celery.map`.
    ///
    /// The task is called with the item alone, as Celery does it: other arguments of the signature
    /// are not used.
    ///
    /// ```
    /// use celeriac::{Signature, task};
    ///
    /// #[task]
    /// async fn square(x: i64) -> i64 {
    ///     x * x
    /// }
    ///
    /// let squares: Signature<Vec<i64>> = square::partial().map([1, 2, 3]);
    /// assert_eq!(squares.task(), "celery.map");
    /// ```
    pub fn map(self, items: impl IntoIterator<Item = T>) -> Signature<Vec<Out>> {
        one_task(self, Items::Map, items)
    }
}

/// One task that calls `signature` with each of `items` as its arguments: `celery.starmap`.
pub(crate) fn starmap<Out, T: Serialize>(
    signature: Signature<Out>,
    items: impl IntoIterator<Item = T>,
) -> Signature<Vec<Out>> {
    one_task(signature, Items::Starmap, items)
}

/// As [`starmap`], in a group of tasks with `size` items each: `celery.chunks`.
pub(crate) fn chunked<Out, T: Serialize>(
    signature: Signature<Out>,
    items: impl IntoIterator<Item = T>,
    size: usize,
) -> Group<Vec<Vec<Out>>> {
    Group::new(group_of(signature, items, size))
}

fn group_of<Out, T: Serialize>(
    signature: Signature<Out>,
    items: impl IntoIterator<Item = T>,
    size: usize,
) -> Built {
    let task = signature.task.clone().into_owned();
    let items = values(items).map_err(|source| WorkflowError::Arguments { task, source })?;
    let Canvas::Task(data) = signature.into_canvas()? else {
        return Ok(Canvas::group(Vec::new())?);
    };
    Ok(Canvas::group(chunks(&data, items, size)?)?)
}

fn one_task<Out, In, T: Serialize>(
    signature: Signature<Out, In>,
    how: Items,
    items: impl IntoIterator<Item = T>,
) -> Signature<Vec<Out>> {
    let options = signature.options.clone();
    let data = values(items).and_then(|items| {
        let protocol::Signature { task, args, .. } = signature.into_data()?;
        let task = protocol::Signature { args, ..protocol::Signature::new(task) };
        Ok(over_items(how, task, items))
    });
    let call = Signature::<Vec<Out>, Complete>::new(how.name());
    match data {
        Ok(protocol::Signature { kwargs, .. }) => {
            call.kwargs(kwargs).immutable(true).with_options(options)
        }
        Err(error) => call.failed(error.in_key("it")),
    }
}

fn values<T: Serialize>(items: impl IntoIterator<Item = T>) -> Result<Vec<Value>, ValueError> {
    let items = items.into_iter().enumerate();
    items.map(|(at, item)| to_value(&item).map_err(|error| error.in_item(at))).collect()
}
