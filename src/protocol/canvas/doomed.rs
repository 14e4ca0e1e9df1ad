//! Which tasks can never run once an earlier one has failed.

use super::options::{self, text};
use super::tree::Canvas;
use crate::protocol::Signature;
use crate::protocol::join::Link;

/// A task that will never run, so that its FAILURE has to be reported on its behalf.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Doomed {
    /// Id of the task.
    pub task_id: String,
    /// Name of the task.
    pub task: String,
    /// Where its caller waits; `None` if nobody does.
    pub reply_to: Option<String>,
    /// Id of the group that it is a member of.
    pub group_id: Option<String>,
    /// The part of a chord that it would have delivered.
    pub link: Option<Link>,
    /// The body of a chord that is joined in Celery's own way, if it is a part of one.
    pub chord: Option<Signature>,
    /// What would have been called after its failure.
    pub link_error: Vec<Signature>,
}

/// Every frozen task in `rest`: the remaining steps of a chain (in any order) or the body of a
/// chord. Steps that were not frozen have no id that anybody could wait for, and are left out; so
/// is what cannot be read, since nothing better can be done about it.
///
/// ```
/// use celeriac::protocol::{Map, Signature, canvas::failed_with};
///
/// let options = Map::from_iter([("task_id", "2"), ("reply_to", "caller")]);
/// let rest = [Signature { options, ..Signature::new("store") }];
/// let doomed = failed_with(&rest);
/// assert_eq!((&*doomed[0].task_id, doomed[0].reply_to.as_deref()), ("2", Some("caller")));
/// ```
pub fn failed_with(rest: &[Signature]) -> Vec<Doomed> {
    let mut doomed = Vec::new();
    for signature in rest {
        match Canvas::from_signature(signature.clone()) {
            Ok(canvas) => collect(&canvas, &mut doomed),
            // What cannot be read as a workflow still says who waits for it.
            Err(_) => doomed.extend(task_of(signature)),
        }
    }
    doomed
}

fn collect(canvas: &Canvas, doomed: &mut Vec<Doomed>) {
    match canvas {
        Canvas::Task(task) => doomed.extend(task_of(task)),
        Canvas::Chain(it) | Canvas::Group(it) => {
            it.parts.iter().for_each(|part| collect(part, doomed));
        }
        Canvas::Chord(it, body) => {
            it.parts.iter().for_each(|part| collect(part, doomed));
            collect(body, doomed);
        }
    }
    // What follows a step of its own: the body of a chord keeps the rest of its chain there.
    let rest = options::list(canvas.options(), options::CHAIN).into_iter();
    let rest: Vec<_> = rest.filter_map(|value| Signature::from_value(value).ok()).collect();
    doomed.extend(failed_with(&rest));
}

fn task_of(task: &Signature) -> Option<Doomed> {
    let map = &task.options;
    let owned = |key| text(map, key).filter(|it| !it.is_empty()).map(str::to_owned);
    let signature = |value| Signature::from_value(value).ok();
    Some(Doomed {
        task_id: owned(options::TASK_ID)?,
        task: task.task.clone(),
        reply_to: owned(options::REPLY_TO),
        group_id: owned(options::GROUP_ID),
        link: options::link(&task.task, map).ok().flatten(),
        chord: map.get(options::CHORD).cloned().and_then(signature),
        link_error: options::list(map, options::LINK_ERROR)
            .into_iter()
            .filter_map(signature)
            .collect(),
    })
}
