//! The tree of a workflow, and how it is made.
//!
//! **Invariant:** a tree is never deeper than [`DEPTH_MAX`], whoever builds it, so that walking and
//! dropping it by recursion is safe.

use super::budget::Budget;
use super::freeze::{Around, freeze};
use super::{CanvasError, Ids, JoinDefaults, ResultTree, options};
use crate::protocol::{CallOptions, Map, Signature, Value};

/// Workflows inside one another, at most. Each level takes three of the levels of
/// [`Limits`](crate::protocol::Limits) on the wire, and arguments need some too.
pub const DEPTH_MAX: usize = 64;

/// A workflow: one task, or several and how they follow from one another.
///
/// ```
/// use celeriac::protocol::{Signature, canvas::Canvas};
///
/// let step = |name: &str| Canvas::Task(Signature::new(name));
/// let header = vec![step("fetch"), Canvas::chain(vec![step("fetch"), step("clean")])?];
/// let chord = Canvas::chord(header, step("merge"))?;
/// let signature = chord.clone().into_signature();
/// assert_eq!(signature.task, "celery.chord");
/// assert_eq!(Canvas::from_signature(signature)?, chord);
/// # Ok::<(), celeriac::protocol::canvas::CanvasError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub enum Canvas {
    /// A call of a task; also of `celery.map` and `celery.starmap`.
    Task(Signature),
    /// One step after the other; each gets the result of the one before.
    Chain(Composite),
    /// Members side by side.
    Group(Composite),
    /// A header, whose members run side by side, and the body that gets the list of their results.
    Chord(Composite, Box<Canvas>),
}

/// What chains, groups and chords have in common.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Composite {
    /// Steps, members or header.
    pub(super) parts: Vec<Canvas>,
    /// Arguments of the first tasks, before their own.
    pub(super) args: Vec<Value>,
    /// Keyword arguments of the first tasks.
    pub(super) kwargs: Map,
    /// Call options under Celery's names.
    pub(super) options: Map,
    pub(super) immutable: bool,
    pub(super) depth: usize,
}

impl Composite {
    fn new(parts: Vec<Canvas>) -> Self {
        let depth = 1 + parts.iter().map(Canvas::depth).max().unwrap_or(0);
        Self { parts, depth, ..Self::default() }
    }

    /// Steps, members or header.
    pub fn parts(&self) -> &[Canvas] {
        &self.parts
    }

    /// Call options under Celery's names.
    pub fn options(&self) -> &Map {
        &self.options
    }
}

impl Canvas {
    /// `steps` one after the other.
    ///
    /// # Errors
    /// [`CanvasError::EmptyChain`] without steps, and [`CanvasError::TooDeep`].
    pub fn chain(steps: Vec<Self>) -> Result<Self, CanvasError> {
        if steps.is_empty() {
            return Err(CanvasError::EmptyChain);
        }
        Self::checked(Self::Chain(Composite::new(steps)))
    }

    /// `members` side by side.
    ///
    /// # Errors
    /// [`CanvasError::TooDeep`].
    pub fn group(members: Vec<Self>) -> Result<Self, CanvasError> {
        Self::checked(Self::Group(Composite::new(members)))
    }

    /// `body` after all of `header`.
    ///
    /// # Errors
    /// [`CanvasError::TooDeep`].
    pub fn chord(header: Vec<Self>, body: Self) -> Result<Self, CanvasError> {
        let mut composite = Composite::new(header);
        composite.depth = composite.depth.max(1 + body.depth());
        Self::checked(Self::Chord(composite, Box::new(body)))
    }

    /// `next` after `self`. Appends to a chain instead of nesting it.
    ///
    /// # Errors
    /// [`CanvasError::TooDeep`].
    pub fn then(self, next: Self) -> Result<Self, CanvasError> {
        match self {
            Self::Chain(mut chain) if chain.is_bare() => {
                chain.depth = chain.depth.max(1 + next.depth());
                chain.parts.push(next);
                Self::checked(Self::Chain(chain))
            }
            first => Self::chain(vec![first, next]),
        }
    }

    fn checked(self) -> Result<Self, CanvasError> {
        if self.depth() > DEPTH_MAX {
            return Err(CanvasError::TooDeep { max: DEPTH_MAX });
        }
        Ok(self)
    }

    fn depth(&self) -> usize {
        match self {
            Self::Task(_) => 0,
            Self::Chain(composite) | Self::Group(composite) | Self::Chord(composite, _) => {
                composite.depth
            }
        }
    }

    /// The options of the call; those of a chain, group or chord are its own, not its parts'.
    pub fn options(&self) -> &Map {
        match self {
            Self::Task(signature) => &signature.options,
            Self::Chain(composite) | Self::Group(composite) | Self::Chord(composite, _) => {
                &composite.options
            }
        }
    }

    /// The options of the call, to be changed.
    pub fn options_mut(&mut self) -> &mut Map {
        match self {
            Self::Task(signature) => &mut signature.options,
            Self::Chain(composite) | Self::Group(composite) | Self::Chord(composite, _) => {
                &mut composite.options
            }
        }
    }

    /// Whether results of earlier tasks are kept out of the arguments.
    pub fn set_immutable(&mut self, immutable: bool) {
        match self {
            Self::Task(signature) => signature.immutable = immutable,
            Self::Chain(composite) | Self::Chord(composite, _) => composite.immutable = immutable,
            // As in Celery: a group as such gets no arguments, its members do.
            Self::Group(group) => {
                group.parts.iter_mut().for_each(|member| member.set_immutable(immutable));
            }
        }
    }

    /// Steps, members or header; none for a task.
    pub fn parts(&self) -> &[Self] {
        match self {
            Self::Task(_) => &[],
            Self::Chain(it) | Self::Group(it) | Self::Chord(it, _) => &it.parts,
        }
    }

    /// Sets options; those of a chain, group or chord reach the tasks with which it begins.
    pub fn set(&mut self, options: CallOptions) {
        options::merge(self.options_mut(), &options.into_map());
    }

    /// Says how a chord is joined: `mode`, `expires`, `revoke_rest`, `header_results` or
    /// `park_above`.
    pub(crate) fn set_join(&mut self, key: &'static str, value: Value) {
        let options = self.options_mut();
        let mut join = match options.remove(options::JOIN) {
            Some(Value::Map(join)) => join,
            _ => Map::new(),
        };
        join.insert(key, value);
        options.insert(options::JOIN, join);
    }

    /// Names all tasks, and tells the ids that a caller will wait for. Where results go is left
    /// to whoever sends the workflow.
    ///
    /// # Errors
    /// [`CanvasError`] for workflows that cannot be run.
    pub fn freeze(
        &mut self,
        ids: &mut Ids,
        join: &JoinDefaults,
    ) -> Result<ResultTree, CanvasError> {
        let budget = Budget::default();
        freeze(self, ids, Around { reply_to: None, join, budget: &budget }, None)
    }

    /// Calls `callback` with the result: of the last step of a chain, of the body of a chord. A
    /// group's is called, without a result, after its first member, as in Celery: to call something
    /// after all members, make a chord.
    pub fn link(&mut self, callback: Signature) {
        match self {
            Self::Task(_) | Self::Chain(_) => {
                options::append(self.options_mut(), options::LINK, callback.into_value());
            }
            Self::Group(group) => {
                if let Some(first) = group.parts.first_mut() {
                    first.link(Signature { immutable: true, ..callback });
                }
            }
            Self::Chord(_, body) => body.link(callback),
        }
    }

    /// Calls `errback` after a failure: of any step of a chain, of each member of a group that
    /// fails, and once if the body of a chord fails or cannot run.
    pub fn link_error(&mut self, errback: &Signature) {
        match self {
            Self::Task(_) | Self::Chain(_) => {
                options::append(self.options_mut(), options::LINK_ERROR, errback.to_value());
            }
            Self::Group(group) => {
                group.parts.iter_mut().for_each(|member| member.link_error(errback));
            }
            Self::Chord(header, body) => {
                let chords = header.parts.iter_mut().filter(|it| matches!(it, Self::Chord(..)));
                chords.for_each(|chord| chord.link_error(errback));
                body.link_error(errback);
            }
        }
    }
}

impl Canvas {
    /// Does the same for many, of which no two are alike.
    pub(super) fn link_errors(&mut self, errbacks: &[Value]) -> Result<(), CanvasError> {
        match self {
            Self::Task(_) | Self::Chain(_) => {
                let options = self.options_mut();
                options::append_all(options, options::LINK_ERROR, errbacks);
                options::check_errbacks(options)?;
            }
            Self::Group(group) => {
                for member in &mut group.parts {
                    member.link_errors(errbacks)?;
                }
            }
            Self::Chord(header, body) => {
                for chord in header.parts.iter_mut().filter(|it| matches!(it, Self::Chord(..))) {
                    chord.link_errors(errbacks)?;
                }
                body.link_errors(errbacks)?;
            }
        }
        Ok(())
    }

    /// How many tasks and chains `link_error` reaches.
    pub(super) fn error_links(&self) -> usize {
        match self {
            Self::Task(_) | Self::Chain(_) => 1,
            Self::Group(group) => group.parts.iter().map(Self::error_links).sum(),
            Self::Chord(header, body) => {
                let chords = header.parts.iter().filter(|it| matches!(it, Self::Chord(..)));
                body.error_links() + chords.map(Self::error_links).sum::<usize>()
            }
        }
    }

    /// The id that a caller waits for, once it is frozen: of the last task of a chain, of the body
    /// of a chord, of a group.
    pub fn result_id(&self) -> Option<String> {
        match self {
            Self::Chord(_, body) => body.result_id(),
            other => options::text(other.options(), options::TASK_ID).map(str::to_owned),
        }
    }
}

impl Composite {
    /// Takes over what stands beside the parts.
    pub(super) fn take_over(&mut self, other: Self) {
        let Self { args, kwargs, options, immutable, .. } = other;
        (self.args, self.kwargs, self.options, self.immutable) = (args, kwargs, options, immutable);
    }

    /// Whether the parts are all that there is.
    pub(super) fn is_bare(&self) -> bool {
        self.args.is_empty() && self.kwargs.is_empty() && self.options.is_empty() && !self.immutable
    }
}
