//! Workflows that are known only at run time.

use std::ops::BitOr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::compound::Built;
use super::{Dynamic, Step, WorkflowError};
use crate::client::{Client, SendError};
use crate::protocol::canvas::{Canvas, CanvasError, StampingVisitor};
use crate::protocol::{CallOptions, Map, Signature, Value};
use crate::results::AnyResult;

/// A workflow without types: by name, from JSON, or from a signature that came as an argument.
///
/// It composes as in Celery, with what that makes of special cases: a group of one is its member
/// when it follows a step, an empty group after a step is left out, and a group among the members
/// of a group is flattened into it. (Workflows with types keep their lists.)
///
/// ```
/// use celeriac::Workflow;
/// use celeriac::protocol::{Limits, Signature, json};
///
/// let text = br#"{"task": "celery.chain", "kwargs": {"tasks": [
///     {"task": "add", "args": [2, 2]}, {"task": "multiply", "args": [3]}]}}"#;
/// let received = Signature::from_value(json::decode(text, &Limits::default())?)?;
/// let power = Workflow::task("power", [2.into()]);
/// let workflow = Workflow::from_signature(received) | power;
/// assert_eq!(workflow.into_signature()?.task, "celery.chain");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// A task may take one as an argument or give one back:
///
/// ```
/// use celeriac::{Context, TaskResult, Workflow, task};
///
/// #[task]
/// async fn later(workflow: Workflow, cx: Context) -> TaskResult<String> {
///     let result = workflow.apply_async(&cx.client()).await?;
///     Ok(result.id().to_owned())
/// }
/// ```
#[derive(Clone, Debug)]
#[must_use = "a workflow does nothing until it is sent"]
pub struct Workflow(Built);

impl Workflow {
    pub(super) fn from_built(built: Built) -> Self {
        Self(built)
    }

    /// A call of the task `name`.
    pub fn task(name: impl Into<String>, args: impl IntoIterator<Item = Value>) -> Self {
        let args = args.into_iter().collect();
        Self(Ok(Canvas::Task(Signature { args, ..Signature::new(name) })))
    }

    /// The workflow that a signature is; a mistake in it is reported when it is sent.
    pub fn from_signature(signature: Signature) -> Self {
        Self(Canvas::from_signature(signature).map_err(WorkflowError::from))
    }

    /// `steps` one after the other.
    pub fn chain(steps: impl IntoIterator<Item = Self>) -> Self {
        let mut steps = steps.into_iter();
        let Some(first) = steps.next() else {
            return Self(Canvas::chain(Vec::new()).map_err(WorkflowError::from));
        };
        steps.fold(first, |before, step| before | step)
    }

    /// `members` side by side.
    pub fn group(members: impl IntoIterator<Item = Self>) -> Self {
        Self(all(members).and_then(|members| Ok(Canvas::group(members)?)))
    }

    /// `body` after all of `header`.
    pub fn chord(header: impl IntoIterator<Item = Self>, body: Self) -> Self {
        Self(all(header).and_then(|header| Ok(Canvas::chord(header, body.0?)?)))
    }

    /// Sets options, which reach the tasks with which the workflow begins.
    pub fn set(self, options: CallOptions) -> Self {
        self.change(|canvas| canvas.set(options))
    }

    /// Whether the result of the step before is ignored.
    pub fn immutable(self, immutable: bool) -> Self {
        self.change(|canvas| canvas.set_immutable(immutable))
    }

    /// Calls another workflow with the result.
    pub fn link(self, callback: Self) -> Self {
        match callback.0 {
            Ok(callback) => self.change(|canvas| canvas.link(callback.into_signature())),
            Err(error) => Self(self.0.and(Err(error))),
        }
    }

    /// Calls another workflow after a failure.
    pub fn link_error(self, errback: Self) -> Self {
        match errback.0 {
            Ok(errback) => self.change(|canvas| canvas.link_error(&errback.into_signature())),
            Err(error) => Self(self.0.and(Err(error))),
        }
    }

    /// Adds a header that passes through the whole workflow, callbacks included, for monitoring and
    /// for revoking.
    pub fn stamp(self, name: &str, value: impl Into<Value>) -> Self {
        let stamps = Map::from_iter([(name.to_owned(), value.into())]);
        self.stamp_with(&mut |_: &Signature| stamps.clone())
    }

    /// Stamps with a visitor, which sees every task, chain, group and chord.
    pub fn stamp_with(self, visitor: &mut dyn StampingVisitor) -> Self {
        Self(self.0.and_then(|mut canvas| {
            canvas.stamp(visitor)?;
            Ok(canvas)
        }))
    }

    /// The signature that carries the workflow: what tasks take as an argument or give back.
    ///
    /// # Errors
    /// The first mistake that was made in building it.
    pub fn into_signature(self) -> Result<Signature, WorkflowError> {
        self.0.map(Canvas::into_signature)
    }

    /// Sends the workflow; the same as [`Client::apply`].
    ///
    /// # Errors
    /// As [`Client::apply`].
    pub async fn apply_async(self, client: &Client) -> Result<AnyResult, SendError> {
        client.apply(self).await
    }

    pub(super) fn join_setting(self, key: &'static str, value: impl Into<Value>) -> Self {
        match &self.0 {
            Ok(Canvas::Task(_) | Canvas::Chain(_)) => Self(Err(CanvasError::NoJoin { key }.into())),
            _ => self.change(|it| it.set_join(key, value.into())),
        }
    }

    fn change(mut self, change: impl FnOnce(&mut Canvas)) -> Self {
        if let Ok(canvas) = &mut self.0 {
            change(canvas);
        }
        self
    }
}

fn all(parts: impl IntoIterator<Item = Workflow>) -> Result<Vec<Canvas>, WorkflowError> {
    parts.into_iter().map(|part| part.0).collect()
}

impl Step for Workflow {
    type In = Dynamic;
    type Out = Value;
    type Handle = AnyResult;

    fn into_canvas(self) -> Built {
        Ok(self.0?.flattened()?)
    }

    fn dynamic(self) -> Workflow {
        self
    }
}

impl BitOr for Workflow {
    type Output = Self;

    fn bitor(self, next: Self) -> Self {
        Self(self.0.and_then(|first| Ok(first.then_as_celery(next.0?)?)))
    }
}

/// As an argument or result of a task: the signature map.
impl Serialize for Workflow {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.0 {
            Ok(canvas) => canvas.clone().into_signature().serialize(serializer),
            Err(error) => Err(serde::ser::Error::custom(error)),
        }
    }
}

impl<'de> Deserialize<'de> for Workflow {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let signature = Signature::deserialize(deserializer)?;
        Canvas::from_signature(signature).map(|it| Self(Ok(it))).map_err(serde::de::Error::custom)
    }
}

impl From<Signature> for Workflow {
    fn from(signature: Signature) -> Self {
        Self::from_signature(signature)
    }
}
