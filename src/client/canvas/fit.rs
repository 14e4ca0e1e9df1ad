//! What may follow what: the types by which the compiler checks workflows.
//!
//! **Invariant:** a step gets exactly the type that the step before yields.

use std::marker::PhantomData;

/// The beginning of a workflow whose tasks have all their arguments.
#[derive(Clone, Copy, Debug)]
pub struct Complete;

/// The beginning of a workflow that waits for a `T`, its first argument.
#[derive(Clone, Copy, Debug)]
pub struct Takes<T>(PhantomData<fn(T)>);

/// The beginning of a workflow that ignores what the step before yields.
#[derive(Clone, Copy, Debug)]
pub struct Immutable;

/// The beginning of a workflow of which nothing is known before it runs.
#[derive(Clone, Copy, Debug)]
pub struct Dynamic;

/// A beginning that can follow a step which yields a `T`.
#[diagnostic::on_unimplemented(
    message = "the step before yields `{T}`, which this step does not take",
    label = "does not take `{T}` as its first argument",
    note = "`task::partial(..)` leaves the first argument to the result of the step before",
    note = "`task::si(..)` ignores that result; `task::s(..)` can only begin a workflow"
)]
pub trait Fits<T> {}

impl<T> Fits<T> for Takes<T> {}
impl<T> Fits<T> for Immutable {}
impl<T> Fits<T> for Dynamic {}

/// A beginning that waits for nothing, so that the workflow can be sent.
#[diagnostic::on_unimplemented(
    message = "this workflow waits for a result to begin with",
    label = "cannot be sent by itself",
    note = "it begins with `task::partial(..)`: begin it with `task::s(..)`, which takes all \
            arguments, or let it follow another step"
)]
pub trait Ready {}

impl Ready for Complete {}
impl Ready for Immutable {}
impl Ready for Dynamic {}

macro_rules! side_by_side {
    ($($In:ident)+) => {
        impl<T, $($In: Fits<T>),+> Fits<T> for ($($In,)+) {}
        impl<$($In: Ready),+> Ready for ($($In,)+) {}
    };
}

side_by_side!(A);
side_by_side!(A B);
side_by_side!(A B C);
side_by_side!(A B C D);
side_by_side!(A B C D E);
side_by_side!(A B C D E F);
side_by_side!(A B C D E F G);
side_by_side!(A B C D E F G H);
