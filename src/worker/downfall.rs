//! What follows from a failure: reports for the tasks that can never run, the part of a chord,
//! and errbacks. Pure.
//!
//! **Invariant:** whoever waits for a task behind the failed one is told, once for each task.

use tracing::error;

use super::effect::{Effect, Kind};
use super::errback;
use super::follow::{self, Following};
use super::gather;
use super::part;
use super::report::report;
use super::scribe::Scribe;
use super::sequel::Sequel;
use crate::protocol::canvas::{self, Canvas, Doomed};
use crate::protocol::join::{Failure, Link};
use crate::protocol::{
    CallOptions, Exception, Limits, Message, ResultMeta, Signature, TaskMessage, TaskState, Value,
};
use crate::task::Request;

/// How a task failed, as far as those behind it are concerned.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cause<'a> {
    pub(super) exception: &'a Exception,
    pub(super) traceback: Option<&'a str>,
    /// `FAILURE`; or `REVOKED`, after which no errbacks are called, as in Celery.
    pub(super) state: &'a TaskState,
}

impl<'a> Cause<'a> {
    /// A failure that this worker has found out.
    pub(super) fn found(exception: &'a Exception) -> Self {
        Self { exception, traceback: None, state: &TaskState::Failure }
    }

    fn meta(self, task_id: &str) -> ResultMeta {
        let result = self.exception.clone().into_value();
        let mut meta = ResultMeta::new(task_id, self.state.clone(), result);
        meta.traceback = self.traceback.map(str::to_owned);
        meta
    }
}

/// What follows from the failure of `request`, besides the report about itself.
pub(super) fn failure(
    request: &Request,
    sequel: Sequel,
    cause: Cause<'_>,
    scribe: &Scribe<'_>,
) -> Following {
    let mut following = Following::default();
    let Sequel { errbacks, mut chain, link, foreign_chord, .. } = sequel;
    chain.extend(foreign_chord.map(|body| *body));
    doom(request, &chain, cause, scribe, &mut following.rest);
    if let Some(link) = link {
        part_failed(&link, request, cause, &mut following.rest);
    }
    if *cause.state == TaskState::Failure {
        call_errbacks(request, errbacks, cause, scribe, &mut following);
    }
    following
}

/// What follows when the step behind `request`, and so all of `rest`, can never be sent.
pub(super) fn unsent(
    request: &Request,
    step: Signature,
    mut rest: Vec<Signature>,
    link: Option<&Link>,
    exception: &Exception,
    scribe: &Scribe<'_>,
) -> Vec<Effect> {
    let mut following = Following::default();
    let options = CallOptions::from_map(step.options.clone()).unwrap_or_default();
    let task = step.task.clone();
    rest.push(step);
    let cause = Cause::found(exception);
    doom(request, &rest, cause, scribe, &mut following.rest);
    if let Some(link) = link {
        part_failed(link, request, cause, &mut following.rest);
    }
    if let Some(id) = options.task_id {
        let fallen = Request { id, task, ..lineage(request) };
        call_errbacks(&fallen, options.link_error, cause, scribe, &mut following);
    }
    following.into_effects().collect()
}

/// What follows when `message`, the call of a task, can never be delivered.
pub(super) fn undelivered(
    message: &Message,
    exception: &Exception,
    scribe: &Scribe<'_>,
) -> Vec<Effect> {
    let Ok(call) = TaskMessage::decode(message, &Limits::default()) else { return Vec::new() };
    let mut headers = call.headers;
    gather::name_task(&mut headers);
    let (sequel, _) = Sequel::read(call.body.embed, &headers.extra);
    let fallen = Request {
        id: headers.id,
        task: headers.task,
        root_id: headers.root_id,
        parent_id: headers.parent_id,
        group: headers.group,
        group_index: headers.group_index,
        ignore_result: headers.ignore_result.unwrap_or(false),
        reply_to: call.reply_to,
        correlation_id: call.correlation_id,
        serializer: call.serializer,
        ..Request::default()
    };
    let cause = Cause::found(exception);
    let mut following = failure(&fallen, sequel.map(|it| *it).unwrap_or_default(), cause, scribe);
    let own = report(&fallen, cause.meta(&fallen.id), scribe.config());
    following.rest.extend(own.map(|publish| Effect::new(Kind::Report, publish)));
    following.into_effects().collect()
}

/// The part of a chord has failed.
pub(super) fn part_failed(link: &Link, request: &Request, cause: Cause<'_>, out: &mut Vec<Effect>) {
    let mut failure = Failure::new(cause.exception.clone(), &*request.task, &*request.id);
    failure.traceback = cause.traceback.map(str::to_owned);
    match part::err(link, failure) {
        Some(record) => out.push(record),
        None => error!(task_id = request.id, chord = link.chord, "failure cannot be recorded"),
    }
}

/// Reports the failure for every task of `chain`.
fn doom(
    request: &Request,
    chain: &[Signature],
    cause: Cause<'_>,
    scribe: &Scribe<'_>,
    out: &mut Vec<Effect>,
) {
    for doomed in canvas::failed_with(chain) {
        let Doomed { task_id, reply_to, group_id, .. } = doomed;
        let fallen = Request {
            id: task_id,
            reply_to,
            group: group_id,
            serializer: request.serializer,
            hostname: request.hostname.clone(),
            ..Request::default()
        };
        let report = report(&fallen, cause.meta(&fallen.id), scribe.config());
        out.extend(report.map(|publish| Effect::new(Kind::Report, publish)));
    }
}

/// Calls errbacks as tasks, always as a group, as Celery does: with the id of the failed task, or,
/// if this worker knows that they want it, with the request, the exception and its traceback.
fn call_errbacks(
    request: &Request,
    mut errbacks: Vec<Signature>,
    cause: Cause<'_>,
    scribe: &Scribe<'_>,
    following: &mut Following,
) {
    if errbacks.is_empty() {
        return;
    }
    errback::tell_all(&mut errbacks, request, cause, scribe.registry());
    let call = follow::call(request, &[Value::from(&*request.id)], "errbacks", scribe);
    // As in Celery, errbacks do not inherit the priority.
    let request = &Request { id: request.id.clone(), ..lineage(request) };
    let lowered = Canvas::from_signature(follow::group_of(errbacks))
        .and_then(|group| canvas::lower(group, call))
        .map_err(|failed| follow::canvas_exception(&failed));
    let called = lowered.and_then(|lowered| following.add(lowered, request, scribe));
    if let Err(exception) = called {
        error!(task_id = request.id, error = %exception, "errbacks cannot be sent");
    }
}

/// What the tasks behind `request` have in common with it.
fn lineage(request: &Request) -> Request {
    Request {
        root_id: request.root_id.clone(),
        serializer: request.serializer,
        hostname: request.hostname.clone(),
        ..Request::default()
    }
}
