//! What follows from a success: callbacks, the next step of the chain, the part of a chord; and
//! what takes the place of a task. Pure.
//!
//! Calls are laid out here and published by `settle`. Their ids are derived from the id of the
//! task that they follow, so that a task which runs again calls the same ones again.
//!
//! **Invariant:** a step or callback that cannot be sent has failed, and is reported like one that
//! ran: those behind it are told, and the task before it stays a success.

use std::slice::from_ref;

use tracing::error;

use super::downfall::{self, Cause};
use super::effect::{Effect, Kind};
use super::part;
use super::scribe::Scribe;
use super::sequel::Sequel;
use crate::client::SendError;
use crate::protocol::canvas::{self, Call, Canvas, CanvasError, Ids, Lowered};
use crate::protocol::join::{Link, Open, Record, derived_id};
use crate::protocol::{CallOptions, Exception, Signature, Value};
use crate::task::Request;

/// The messages that follow from one request, in the order in which they are published.
#[derive(Debug, Default)]
pub(super) struct Following {
    /// The beginnings of chords, and values that are parked, which are confirmed before anything
    /// else is published.
    pub(super) opens: Vec<Effect>,
    /// Calls of tasks.
    pub(super) calls: Vec<Effect>,
    /// Records and reports.
    pub(super) rest: Vec<Effect>,
    /// References of the results of what is called.
    pub(super) children: Vec<Value>,
}

/// What follows from the value that `request` returned.
pub(super) fn success(
    request: &Request,
    sequel: Sequel,
    value: &Value,
    scribe: &Scribe<'_>,
) -> Following {
    let Sequel { callbacks, mut chain, link, added, .. } = sequel;
    let mut following = Following::default();
    following.callbacks(request, callbacks, value, scribe);
    if let Some(next) = chain.pop() {
        following.step(request, (next, chain), link.as_ref(), value, scribe);
    }
    if let Some(link) = link.filter(|link| link.is_final) {
        match following.add_to_chord(request, &link, added, scribe) {
            Ok(adds) => following.part(request, &link, value, adds),
            Err(exception) => {
                error!(task_id = request.id, error = %exception, "a part cannot be added");
                let cause = Cause::found(&exception);
                downfall::part_failed(&link, request, cause, &mut following.rest);
            }
        }
    }
    following
}

/// Puts `by` in the place of `request`, with everything that was to follow it.
///
/// # Errors
/// Why it cannot take that place, so that the request has failed.
pub(super) fn replace(
    request: &Request,
    sequel: &Sequel,
    by: Signature,
    scribe: &Scribe<'_>,
) -> Result<Following, Exception> {
    let seed = format!("replace/{}", request.replaced_task_nesting);
    let mut call = call(request, &[], &seed, scribe);
    call.link.clone_from(&sequel.link);
    let options = &mut call.options;
    options.task_id = Some(request.id.clone());
    options.stamps.clone_from(&request.stamps);
    options.link.clone_from(&sequel.callbacks);
    options.link_error.clone_from(&sequel.errbacks);
    options.chain = Some(&sequel.chain).filter(|chain| !chain.is_empty()).cloned();
    options.group_id.clone_from(&request.group);
    options.group_index = request.group_index;
    options.reply_to.clone_from(&request.reply_to);
    options.replaced_task_nesting = Some(request.replaced_task_nesting.saturating_add(1));
    options.ignore_result = request.ignore_result.then_some(true);
    let lowered = replacement(by).and_then(|canvas| canvas::lower(canvas, call));
    let mut following = Following::default();
    following.add(lowered.map_err(|failed| canvas_exception(&failed))?, request, scribe)?;
    Ok(following)
}

/// A group becomes a chord whose body hands its list on, so that there is one result with the
/// id of the task, and a place for what follows it.
fn replacement(by: Signature) -> Result<Canvas, CanvasError> {
    let canvas = Canvas::from_signature(by)?;
    let ends_in_group = match &canvas {
        Canvas::Group(_) => true,
        Canvas::Chain(chain) => matches!(chain.parts().last(), Some(Canvas::Group(_))),
        Canvas::Task(_) | Canvas::Chord(..) => false,
    };
    if !ends_in_group {
        return Ok(canvas);
    }
    let mut whole = Signature::new("celery.accumulate");
    whole.kwargs.push("index", 0);
    canvas.then(Canvas::Task(whole))
}

impl Following {
    /// All that is published after the opens.
    pub(super) fn into_effects(self) -> impl Iterator<Item = Effect> {
        self.calls.into_iter().chain(self.rest)
    }

    /// One alone; several as a group, but those that are groups stay the groups that they are.
    fn callbacks(
        &mut self,
        request: &Request,
        callbacks: Vec<Signature>,
        value: &Value,
        scribe: &Scribe<'_>,
    ) {
        let alone = callbacks.len() == 1;
        let stays = |it: &Signature| alone || it.subtask_type.as_deref() == Some("group");
        let (mut called, side_by_side): (Vec<_>, Vec<_>) = callbacks.into_iter().partition(stays);
        if !side_by_side.is_empty() {
            called.push(group_of(side_by_side));
        }
        for (at, callback) in called.into_iter().enumerate() {
            let call = call(request, from_ref(value), &format!("callbacks/{at}"), scribe);
            let Err(exception) = self.call(callback.clone(), call, request, scribe) else {
                continue;
            };
            error!(task_id = request.id, error = %exception, "callback cannot be sent");
            let told = downfall::unsent(request, callback, Vec::new(), None, &exception, scribe);
            self.rest.extend(told);
        }
    }

    /// The next step of the chain, with the rest of it behind.
    fn step(
        &mut self,
        request: &Request,
        (next, rest): (Signature, Vec<Signature>),
        link: Option<&Link>,
        value: &Value,
        scribe: &Scribe<'_>,
    ) {
        let mut call = call(request, from_ref(value), "next", scribe);
        // As in Celery, the last task of a chain has an empty rest.
        call.options.chain = Some(rest.clone());
        let Err(exception) = self.call(next.clone(), call, request, scribe) else { return };
        error!(task_id = request.id, error = %exception, "next step cannot be sent");
        self.rest.extend(downfall::unsent(request, next, rest, link, &exception, scribe));
    }

    /// Calls what `request` has added to the chord, and says how many parts that is. The record
    /// that counts them comes when they are confirmed: whichever run's record comes first, the
    /// parts that it counts were sent.
    fn add_to_chord(
        &mut self,
        request: &Request,
        link: &Link,
        added: Vec<Signature>,
        scribe: &Scribe<'_>,
    ) -> Result<u32, Exception> {
        let mut adds = 0;
        for signature in added {
            adds += 1;
            let too_many = || Exception::new("builtins", "ValueError", "too many parts are added");
            let index = link.index.added(adds).ok_or_else(too_many)?;
            let mut call = call(request, &[], &format!("added/{adds}"), scribe);
            call.link = Some(Link { index, ..link.clone() });
            call.options.group_id.clone_from(&request.group);
            call.options.stamps.clone_from(&request.stamps);
            self.call(signature, call, request, scribe)?;
        }
        Ok(adds)
    }

    /// The part of a chord that `request` has completed.
    fn part(&mut self, request: &Request, link: &Link, value: &Value, adds: u32) {
        match part::ok(link, &request.id, value, adds) {
            Ok(part::Success { parked, record }) => {
                self.opens.extend(parked);
                self.rest.push(record);
            }
            Err(failed) => {
                let exception = Exception::encode_error(failed.to_string());
                downfall::part_failed(link, request, Cause::found(&exception), &mut self.rest);
            }
        }
    }

    fn call(
        &mut self,
        signature: Signature,
        call: Call,
        request: &Request,
        scribe: &Scribe<'_>,
    ) -> Result<(), Exception> {
        let lowered = Canvas::from_signature(signature).and_then(|it| canvas::lower(it, call));
        let lowered = lowered.map_err(|failed| canvas_exception(&failed))?;
        let reference = lowered.result.to_reference();
        self.add(lowered, request, scribe)?;
        self.children.push(reference);
        Ok(())
    }

    /// Adds what a workflow begins with; nothing of it if some of it cannot be written. Calls
    /// inherit the priority of `request`, unless they, their tasks or their routes have one.
    pub(super) fn add(
        &mut self,
        lowered: Lowered,
        request: &Request,
        scribe: &Scribe<'_>,
    ) -> Result<(), Exception> {
        let Lowered { opens, calls, .. } = lowered;
        let open = |mut open: Open| {
            open.write_in(request.serializer);
            opening(open, scribe)
        };
        let opens: Vec<_> = opens.into_iter().map(open).collect::<Result<_, _>>()?;
        let priority = request.delivery_info.priority;
        let compose = |call| scribe.compose(call, request.serializer, priority);
        let calls: Result<Vec<_>, _> = calls.into_iter().map(compose).collect();
        let calls = calls.map_err(|failed| Exception::encode_error(chained(&failed)))?;
        self.opens.extend(opens);
        self.calls.extend(calls.into_iter().map(|publish| Effect::new(Kind::Step, publish)));
        Ok(())
    }
}

/// The record of a chord whose body can be called: else its parts would run for nothing.
fn opening(open: Open, scribe: &Scribe<'_>) -> Result<Effect, Exception> {
    let record = Record::Open(Box::new(open));
    let encoded = record.encode();
    let message = encoded.map_err(|failed| Exception::encode_error(failed.to_string()))?;
    let Record::Open(open) = record else { return Ok(part::effect("", message)) };
    let max = scribe.config().joined_message_max();
    if let Some(size) = open.large_body(message.body.len(), max) {
        let chord = open.chord;
        let error = SendError::LargeBody { chord, size, max };
        return Err(Exception::encode_error(error.to_string()));
    }
    Ok(part::effect(&open.route, message))
}

/// How a task calls another one on behalf of a workflow: with its lineage. Its priority is only
/// for calls that have none, see [`Following::add`].
pub(super) fn call(request: &Request, args: &[Value], seed: &str, scribe: &Scribe<'_>) -> Call {
    let options = CallOptions {
        parent_id: Some(request.id.clone()),
        root_id: Some(request.root_id.as_ref().unwrap_or(&request.id).clone()),
        ..CallOptions::default()
    };
    let ids = Ids::derived(derived_id(&request.id, seed));
    Call { args: args.to_vec(), options, ids, join: scribe.join(), link: None }
}

/// `signatures` side by side.
pub(super) fn group_of(signatures: Vec<Signature>) -> Signature {
    let tasks: Vec<Value> = signatures.into_iter().map(Signature::into_value).collect();
    let mut group = Signature::new("celery.group");
    group.subtask_type = Some("group".to_owned());
    group.kwargs.push("tasks", tasks);
    group
}

pub(super) fn canvas_exception(failed: &CanvasError) -> Exception {
    Exception::new("celeriac", "CanvasError", chained(failed))
}

/// An error with its sources, in one line.
pub(super) fn chained(error: &dyn std::error::Error) -> String {
    let sources = std::iter::successors(error.source(), |error| error.source());
    sources.fold(error.to_string(), |text, source| format!("{text}: {source}"))
}
