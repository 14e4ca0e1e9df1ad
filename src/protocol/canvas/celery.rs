//! What Celery makes of groups in special places, for workflows that are built without types.
//!
//! Lowering itself never changes what a workflow yields; here is where a list may become a value.

use super::CanvasError;
use super::tree::Canvas;

impl Canvas {
    /// `next` after `self`, as Celery composes them: a group of one is its member, an empty group
    /// is left out.
    ///
    /// # Errors
    /// [`CanvasError::TooDeep`].
    pub fn then_as_celery(self, next: Self) -> Result<Self, CanvasError> {
        let Self::Group(group) = &next else { return self.then(next) };
        match group.parts.len() {
            0 => Ok(self),
            1 => match next {
                Self::Group(mut group) => {
                    let only = group.parts.pop().ok_or(CanvasError::EmptyChain)?;
                    self.then_as_celery(only)
                }
                other => self.then(other),
            },
            _ => self.then(next),
        }
    }

    /// The same with the members of groups in groups in one list, as Celery gives their results.
    /// Headers of chords keep their lists.
    ///
    /// # Errors
    /// [`CanvasError::TooDeep`].
    pub fn flattened(self) -> Result<Self, CanvasError> {
        match self {
            Self::Group(mut group) => {
                let parts = std::mem::take(&mut group.parts);
                for part in parts {
                    match part.flattened()? {
                        Self::Group(inner) if inner.is_bare() => group.parts.extend(inner.parts),
                        other => group.parts.push(other),
                    }
                }
                Ok(Self::Group(group))
            }
            Self::Chain(mut chain) => {
                // Only the last one's list can be seen: a group before that is a header.
                if let Some(last) = chain.parts.pop() {
                    chain.parts.push(last.flattened()?);
                }
                Ok(Self::Chain(chain))
            }
            Self::Chord(header, body) => Ok(Self::Chord(header, Box::new(body.flattened()?))),
            task @ Self::Task(_) => Ok(task),
        }
    }
}
