//! Chains, groups and chords: what several steps make together.

use std::fmt;
use std::marker::PhantomData;
use std::ops::BitOr;

use super::{Complete, Fits, Handle, Members, Ready, Step, WorkflowError};
use crate::client::{Client, SendError, Signature};
use crate::protocol::canvas::{Canvas, Ids, JoinDefaults, ResultTree, StampingVisitor};
use crate::protocol::{self, CallOptions, Map, Value};
use crate::results::{AsyncResult, GroupResult};

/// Steps one after the other, each with the result of the one before. Made by
/// [`chain`](super::chain) and by `|`.
#[must_use = "a workflow does nothing until it is sent"]
pub struct Chain<Out, In = Complete, H = AsyncResult<Out>> {
    built: Built,
    types: PhantomData<fn(In) -> (Out, H)>,
}

/// Members side by side, whose results are a list in the order of the members. Made by [`group`].
#[must_use = "a workflow does nothing until it is sent"]
pub struct Group<Out, In = Complete> {
    built: Built,
    types: PhantomData<fn(In) -> Out>,
}

/// A header, whose members run side by side, and a body that is called with the list of their
/// results. Made by [`chord`].
#[must_use = "a workflow does nothing until it is sent"]
pub struct Chord<Out, In = Complete, H = AsyncResult<Out>> {
    built: Built,
    types: PhantomData<fn(In) -> (Out, H)>,
}

/// A workflow, or the first mistake that was made in building it.
pub(super) type Built = Result<Canvas, WorkflowError>;

/// `members` side by side: a `Vec` or array of steps of one type, or a tuple of up to eight steps
/// of different types. Iterators can be collected into a [`Group`].
///
/// ```
/// use celeriac::{Group, group, task};
///
/// #[task]
/// async fn square(x: i64) -> i64 {
///     x * x
/// }
///
/// #[task]
/// async fn name(x: i64) -> String {
///     x.to_string()
/// }
///
/// let numbers: Group<Vec<i64>> = group([square::s(2), square::s(3)]);
/// let many: Group<Vec<i64>> = (0..100).map(square::s).collect();
/// // Yields an `(i64, String)`.
/// let mixed = group((square::s(2), name::s(2)));
/// # let _ = (numbers, many, mixed);
/// ```
pub fn group<M: Members>(members: M) -> Group<M::Out, M::In> {
    Group::new(members.into_canvases().and_then(|all| Ok(Canvas::group(all)?)))
}

/// Calls `body` with the list of the results of `header`, once all have succeeded.
///
/// `header` is what [`group`] takes. Everything is kept in RabbitMQ, and no death of a process
/// loses a chord: see `docs/chords.md`.
///
/// ```
/// use celeriac::{chord, task};
///
/// #[task]
/// async fn square(x: i64) -> i64 {
///     x * x
/// }
///
/// #[task]
/// async fn sum(numbers: Vec<i64>) -> i64 {
///     numbers.into_iter().sum()
/// }
///
/// let workflow = chord([square::s(1), square::s(2)], sum::partial());
/// # let _ = workflow;
/// ```
pub fn chord<M: Members, B: Step>(header: M, body: B) -> Chord<B::Out, M::In, B::Handle>
where
    B::In: Fits<M::Out>,
{
    let built = header.into_canvases().and_then(|header| {
        let body = body.into_canvas()?;
        Ok(Canvas::chord(header, body)?)
    });
    Chord::new(built)
}

macro_rules! compound {
    ($Type:ident<$Out:ident, $In:ident $(, $H:ident)?>, $handle:ty) => {
        impl<$Out, $In $(, $H)?> $Type<$Out, $In $(, $H)?> {
            pub(super) fn new(built: Built) -> Self {
                Self { built, types: PhantomData }
            }

            fn change(mut self, change: impl FnOnce(&mut Canvas)) -> Self {
                if let Ok(canvas) = &mut self.built {
                    change(canvas);
                }
                self
            }

            /// Calls another task or workflow with the result: of the last step, or of the body.
            ///
            /// As in Celery, a group calls it after its first member, and without a result; to
            /// call something after all members, let it follow with `|`.
            pub fn link<S: Step>(self, callback: S) -> Self
            where
                S::In: Fits<$Out>,
            {
                match callback.into_canvas() {
                    Ok(callback) => self.change(|it| it.link(callback.into_signature())),
                    Err(error) => Self::new(self.built.and(Err(error))),
                }
            }

            /// Calls another task or workflow after a failure: of any step of a chain, of each
            /// member of a group that fails, once for the body of a chord.
            pub fn link_error<S: Step>(self, errback: S) -> Self {
                match errback.into_canvas() {
                    Ok(errback) => self.change(|it| it.link_error(&errback.into_signature())),
                    Err(error) => Self::new(self.built.and(Err(error))),
                }
            }

            /// The same as [`link_error`](Self::link_error).
            pub fn on_error<S: Step>(self, errback: S) -> Self {
                self.link_error(errback)
            }

            /// Sets options, which reach the tasks with which the workflow begins.
            pub fn set(self, options: CallOptions) -> Self {
                self.change(|it| it.set(options))
            }

            /// Adds a header that passes through the whole workflow, callbacks included, for
            /// monitoring and for revoking.
            pub fn stamp(self, name: &str, value: impl Into<Value>) -> Self {
                let stamps = Map::from_iter([(name.to_owned(), value.into())]);
                self.stamp_with(&mut |_: &protocol::Signature| stamps.clone())
            }

            /// Stamps with a visitor, which sees every task, chain, group and chord.
            pub fn stamp_with(self, visitor: &mut dyn StampingVisitor) -> Self {
                Self::new(self.built.and_then(|mut canvas| {
                    canvas.stamp(visitor)?;
                    Ok(canvas)
                }))
            }

            /// Names all tasks now, and tells the ids that the caller will wait for.
            ///
            /// A frozen workflow should be sent once: a second time would call the same tasks.
            ///
            /// # Errors
            /// The first mistake that was made in building it.
            pub fn freeze(self) -> Result<(Self, ResultTree), WorkflowError> {
                let mut canvas = self.built?;
                let result = canvas.freeze(&mut Ids::Random, &JoinDefaults::default())?;
                Ok((Self::new(Ok(canvas)), result))
            }

            /// Sends the workflow; the same as [`Client::apply`].
            ///
            /// # Errors
            /// As [`Client::apply`].
            pub async fn apply_async(self, client: &Client) -> Result<$handle, SendError>
            where
                $In: Ready,
                $($H: Handle,)?
            {
                client.apply(self).await
            }
        }

        impl<$Out, $In $(, $H: Handle)?> Step for $Type<$Out, $In $(, $H)?> {
            type In = $In;
            type Out = $Out;
            type Handle = $handle;

            fn into_canvas(self) -> Built {
                self.built
            }
        }

        // Written out because derives would ask the parameters for the same traits.
        impl<$Out, $In $(, $H)?> Clone for $Type<$Out, $In $(, $H)?> {
            fn clone(&self) -> Self {
                Self::new(self.built.clone())
            }
        }

        impl<$Out, $In $(, $H)?> fmt::Debug for $Type<$Out, $In $(, $H)?> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_tuple(stringify!($Type)).field(&self.built).finish()
            }
        }

        impl<$Out, $In, S: Step $(, $H: Handle)?> BitOr<S> for $Type<$Out, $In $(, $H)?>
        where
            S::In: Fits<$Out>,
        {
            type Output = Chain<S::Out, $In, S::Handle>;

            fn bitor(self, next: S) -> Self::Output {
                Chain::new(then(self.built, next))
            }
        }
    };
}

compound!(Chain<Out, In, H>, H);
compound!(Group<Out, In>, GroupResult<Out>);
compound!(Chord<Out, In, H>, H);

impl<Out, In, S: Step> BitOr<S> for Signature<Out, In>
where
    S::In: Fits<Out>,
{
    type Output = Chain<S::Out, In, S::Handle>;

    fn bitor(self, next: S) -> Self::Output {
        Chain::new(then(self.into_canvas(), next))
    }
}

fn then<S: Step>(first: Built, next: S) -> Built {
    Ok(first?.then(next.into_canvas()?)?)
}

impl<S: Step> FromIterator<S> for Group<Vec<S::Out>, S::In> {
    fn from_iter<I: IntoIterator<Item = S>>(members: I) -> Self {
        group(members.into_iter().collect::<Vec<_>>())
    }
}

impl<Out, In> Group<Out, In> {
    pub(super) fn join_setting(self, key: &'static str, value: impl Into<Value>) -> Self {
        self.change(|it| it.set_join(key, value.into()))
    }
}

impl<Out, In, H> Chord<Out, In, H> {
    pub(super) fn join_setting(self, key: &'static str, value: impl Into<Value>) -> Self {
        self.change(|it| it.set_join(key, value.into()))
    }
}
