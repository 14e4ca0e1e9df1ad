//! Ids that occur twice in a workflow: results would be taken for those of another task, and the
//! parts of two chords would fill the same places.
//!
//! Callbacks and errbacks are not looked at: the same one may be linked to many tasks, and has an
//! id of its own only if somebody gave it one. **Invariant:** what is lowered names each of its
//! tasks, groups and chords once.

use std::collections::HashSet;

use super::options::{self, text};
use super::tree::Canvas;
use super::{CanvasError, Composite};
use crate::protocol::Map;

/// Refuses a frozen workflow that names two of its parts alike.
pub(super) fn check(canvas: &Canvas) -> Result<(), CanvasError> {
    match canvas {
        // Its only id.
        Canvas::Task(_) => Ok(()),
        _ => Seen::default().canvas(canvas),
    }
}

/// Refuses a chord that is among those around it.
pub(super) fn check_stack(chord: &str, stack: &[String]) -> Result<(), CanvasError> {
    if stack.iter().any(|outer| outer == chord) {
        return Err(CanvasError::Repeated { id: chord.to_owned() });
    }
    Ok(())
}

#[derive(Default)]
struct Seen<'a> {
    ids: HashSet<&'a str>,
}

impl<'a> Seen<'a> {
    fn canvas(&mut self, canvas: &'a Canvas) -> Result<(), CanvasError> {
        match canvas {
            Canvas::Task(task) => self.id(&task.options),
            // Its id is that of its last step.
            Canvas::Chain(chain) => self.parts(chain),
            Canvas::Group(group) => {
                self.id(&group.options)?;
                self.parts(group)
            }
            Canvas::Chord(header, body) => {
                self.id(&header.options)?;
                self.parts(header)?;
                self.canvas(body)
            }
        }
    }

    fn parts(&mut self, composite: &'a Composite) -> Result<(), CanvasError> {
        composite.parts.iter().try_for_each(|part| self.canvas(part))
    }

    fn id(&mut self, options: &'a Map) -> Result<(), CanvasError> {
        match text(options, options::TASK_ID) {
            Some(id) if !self.ids.insert(id) => Err(CanvasError::Repeated { id: id.to_owned() }),
            _ => Ok(()),
        }
    }
}
