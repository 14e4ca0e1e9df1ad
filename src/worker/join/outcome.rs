//! The messages that follow from the outcome of a chord. Pure.
//!
//! Everything but the time of day comes from the shard, so that a successor which has to publish
//! an outcome once more publishes the same messages with the same ids.
//!
//! **Invariant:** every outcome tells everybody who waits for it: the caller of the body and of
//! all that follows the body, the errbacks, and the chord around.

use std::sync::Arc;

use tracing::error;

use crate::amqp::{Publish, topology};
use crate::protocol::canvas::{self, Call, Canvas, Ids};
use crate::protocol::control::{self, Mark, Revocation};
use crate::protocol::join::{self, Link, Open, Parent, Record};
use crate::protocol::{
    CallOptions, Error, Exception, Limits, ResultMeta, Signature, TaskState, Value, msgpack, repr,
};
use crate::results::join::{Outcome, Part, has_references, list_of_results};
use crate::task::Request;
use crate::worker::downfall::{self, Cause};
use crate::worker::effect::{Effect, Kind};
use crate::worker::follow::{self, Following};
use crate::worker::gather;
use crate::worker::part;
use crate::worker::report::report;
use crate::worker::scribe::Scribe;
use crate::worker::sequel::Sequel;

/// Revokes the parts that have not begun, if `outcome` does. Nobody is to wait for it. To say so
/// twice, after a crash, does no harm.
pub(super) fn revocation(outcome: &Outcome) -> Option<Publish> {
    if !outcome.revokes_rest() {
        return None;
    }
    let chord = outcome.open().chord.clone();
    let (mark, stream) = match outcome {
        // Somebody has asked for that.
        Outcome::Cancelled { .. } => (Mark::Group(chord), topology::revocation_stream()),
        _ => (Mark::Rest(chord), topology::rest_stream()),
    };
    let written = control::Record::Revoke(Revocation::now([mark])).encode();
    let chord = &outcome.open().chord;
    let message = written.inspect_err(|error| error!(chord, %error, "parts cannot be revoked"));
    Some(Publish::new("", stream, message.ok()?))
}

/// What has to be published for `outcome`.
pub(in crate::worker) fn following(outcome: &Outcome, scribe: &Scribe<'_>) -> Following {
    match outcome {
        Outcome::Complete { open, parts } => complete(open, parts, scribe),
        Outcome::Failed { open, failure, .. } => {
            let exception = if failure.exc.exc_type == "ResultTooLarge" {
                failure.exc.clone()
            } else {
                let (id, raised) = (&failure.task_id, repr::exception(&failure.exc));
                chord_error(format!("Dependency {id} raised {raised}"))
            };
            let traceback = failure.traceback.as_deref();
            let cause = Cause { exception: &exception, traceback, state: &TaskState::Failure };
            failed(open, open.errbacks.clone(), cause, scribe)
        }
        Outcome::Expired { open, missing, places, size, reason } => {
            let chord = &open.chord;
            let exception = chord_error(match reason {
                Some(reason) => format!("chord {chord} is given up: {reason}"),
                None => {
                    let places = runs(places);
                    format!(
                        "chord {chord} has expired with {missing} of {size} parts missing{places}"
                    )
                }
            });
            failed(open, open.errbacks.clone(), Cause::found(&exception), scribe)
        }
        Outcome::Cancelled { open, reason, errbacks } => {
            let exception = Exception::task_revoked(reason);
            let cause = Cause { state: &TaskState::Revoked, ..Cause::found(&exception) };
            let mut following = failed(open, Vec::new(), cause, scribe);
            if *errbacks {
                let request = stand_in(open);
                let sequel = Sequel { errbacks: open.errbacks.clone(), ..Sequel::default() };
                let called = downfall::failure(&request, sequel, Cause::found(&exception), scribe);
                following.opens.extend(called.opens);
                following.calls.extend(called.calls);
                following.rest.extend(called.rest);
            }
            following
        }
    }
}

fn complete(open: &Open, parts: &[Part], scribe: &Scribe<'_>) -> Following {
    let refers = has_references(parts);
    let followed = list_of_results(open.mode, parts)
        .map_err(|failed| unwritable(&failed))
        .and_then(|list| match &open.body {
            Some(body) => call(open, body.clone(), (&list, refers), scribe),
            None if refers => Err(chord_error(no_gatherer(open))),
            None => hand_on(open, list, scribe),
        });
    followed.unwrap_or_else(|exception| {
        error!(chord = open.chord, error = %exception, "the outcome of a chord cannot be sent");
        failed(open, open.errbacks.clone(), Cause::found(&exception), scribe)
    })
}

/// Runs of places, for people.
fn runs(places: &[(u32, u32)]) -> String {
    let run = |(first, last): &(u32, u32)| match first == last {
        true => first.to_string(),
        false => format!("{first}-{last}"),
    };
    let runs: Vec<_> = places.iter().map(run).collect();
    if runs.is_empty() { String::new() } else { format!(": {}", runs.join(", ")) }
}

/// Why references are of no use to what follows a chord.
fn no_gatherer(open: &Open) -> String {
    let chord = &open.chord;
    format!("results of chord {chord} are parked, and its body does not begin with one task")
}

/// Calls the body with the list of results, which `refers` to what is parked, or does not.
fn call(
    open: &Open,
    body: Signature,
    (list, refers): (&[u8], bool),
    scribe: &Scribe<'_>,
) -> Result<Following, Exception> {
    let list = msgpack::decode(list, &Limits::default()).map_err(|failed| unwritable(&failed))?;
    let call = Call {
        args: vec![list],
        options: CallOptions { root_id: open.root.clone(), ..CallOptions::default() },
        ids: Ids::derived(join::body_id(&open.chord)),
        join: scribe.join(),
        link: None,
    };
    let lowered = Canvas::from_signature(body).and_then(|body| canvas::lower(body, call));
    let lowered = lowered.map_err(|failed| follow::canvas_exception(&failed))?;
    let gathers = |call: &Signature| !call.immutable;
    let one = lowered.opens.is_empty() && matches!(&*lowered.calls, [it] if gathers(it));
    if refers && !one {
        return Err(chord_error(no_gatherer(open)));
    }
    let mut following = Following::default();
    following.add(lowered, &stand_in(open), scribe)?;
    for effect in following.calls.iter_mut().filter(|_| refers) {
        gather::refer(&mut Arc::make_mut(&mut effect.publish).message, &open.chord);
    }
    Ok(following)
}

/// Gives the list itself to the chord around, or to the caller.
fn hand_on(open: &Open, list: Vec<u8>, scribe: &Scribe<'_>) -> Result<Following, Exception> {
    let mut following = Following::default();
    if let Some(reply_to) = &open.reply_to {
        let list =
            msgpack::decode(&list, &Limits::default()).map_err(|failed| unwritable(&failed))?;
        let request = Request { reply_to: Some(reply_to.clone()), ..stand_in(open) };
        let report = report(&request, ResultMeta::success(&*open.chord, list), scribe.config());
        following.rest.extend(report.map(|publish| Effect::new(Kind::Report, publish)));
    }
    if let Some(Parent { route, chord, index }) = &open.parent {
        let record = Record::Ok {
            chord: chord.clone(),
            index: index.clone(),
            adds: 0,
            execution: open.chord.clone(),
            task_id: open.chord.clone(),
            value: list,
        };
        let message = record.encode().map_err(|failed| unwritable(&failed))?;
        // A list of lists can be too deep for a reader though each value in it was not.
        Record::decode(&message, &Limits::default()).map_err(|failed| unwritable(&failed))?;
        following.rest.push(part::effect(route, message));
    }
    Ok(following)
}

/// Tells everybody who waits that the body cannot run.
pub(in crate::worker) fn failed(
    open: &Open,
    errbacks: Vec<Signature>,
    cause: Cause<'_>,
    scribe: &Scribe<'_>,
) -> Following {
    let (request, sequel) = bereaved(open);
    let mut following = downfall::failure(&request, Sequel { errbacks, ..sequel }, cause, scribe);
    if request.reply_to.is_some() {
        let result = cause.exception.clone().into_value();
        let meta = ResultMeta::new(&*request.id, cause.state.clone(), result);
        let report = report(&request, meta, scribe.config());
        following.rest.extend(report.map(|publish| Effect::new(Kind::Report, publish)));
    }
    following
}

/// The request that the chord stands for, and who is to hear that it has failed.
pub(in crate::worker) fn bereaved(open: &Open) -> (Request, Sequel) {
    let part = |parent: &Parent| Link {
        chord: parent.chord.clone(),
        route: parent.route.clone(),
        index: parent.index.clone(),
        is_final: true,
        ..Link::default()
    };
    let sequel = Sequel {
        errbacks: open.errbacks.clone(),
        chain: open.body.iter().cloned().collect(),
        link: open.parent.as_ref().map(part),
        ..Sequel::default()
    };
    // With a body, the callers are those of the body and of what follows it.
    let reply_to = open.reply_to.clone().filter(|_| open.body.is_none());
    (Request { reply_to, ..stand_in(open) }, sequel)
}

/// The request that the chord stands for: that of its body, or of the list of results.
fn stand_in(open: &Open) -> Request {
    let body = open.body.clone();
    let task = body.as_ref().map_or_else(|| "celery.group".to_owned(), |body| body.task.clone());
    let id = body.and_then(|body| Canvas::from_signature(body).ok()?.result_id());
    Request {
        id: id.unwrap_or_else(|| match open.body {
            Some(_) => join::body_id(&open.chord),
            None => open.chord.clone(),
        }),
        task,
        root_id: open.root.clone(),
        group: Some(open.chord.clone()),
        serializer: open.serializer(),
        ..Request::default()
    }
}

fn chord_error(text: String) -> Exception {
    Exception::new("celery.exceptions", "ChordError", Value::from(text))
}

fn unwritable(failed: &Error) -> Exception {
    Exception::encode_error(failed.to_string())
}
