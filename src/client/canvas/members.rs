//! What stands side by side in a group or header.

use super::{Step, WorkflowError};
use crate::protocol::canvas::Canvas;

/// Members of a group: a `Vec` or array of steps of one type, or a tuple of steps.
#[diagnostic::on_unimplemented(
    message = "these are no members of a group",
    label = "no steps",
    note = "give a `Vec` or an array of signatures, a tuple of up to eight, or collect an iterator \
            into a `Group`"
)]
pub trait Members {
    /// How they begin: what each takes from the step before.
    type In;
    /// What they yield together.
    type Out;

    /// The members as data.
    ///
    /// # Errors
    /// The first mistake that was made in building one.
    fn into_canvases(self) -> Result<Vec<Canvas>, WorkflowError>;
}

impl<S: Step> Members for Vec<S> {
    type In = S::In;
    type Out = Vec<S::Out>;

    fn into_canvases(self) -> Result<Vec<Canvas>, WorkflowError> {
        self.into_iter().map(Step::into_canvas).collect()
    }
}

impl<S: Step, const N: usize> Members for [S; N] {
    type In = S::In;
    type Out = Vec<S::Out>;

    fn into_canvases(self) -> Result<Vec<Canvas>, WorkflowError> {
        self.into_iter().map(Step::into_canvas).collect()
    }
}

macro_rules! members {
    ($($S:ident)+) => {
        impl<$($S: Step),+> Members for ($($S,)+) {
            type In = ($($S::In,)+);
            type Out = ($($S::Out,)+);

            #[expect(non_snake_case, reason = "the names of the types are those of the values")]
            fn into_canvases(self) -> Result<Vec<Canvas>, WorkflowError> {
                let ($($S,)+) = self;
                Ok(vec![$($S.into_canvas()?),+])
            }
        }
    };
}

members!(A);
members!(A B);
members!(A B C);
members!(A B C D);
members!(A B C D E);
members!(A B C D E F);
members!(A B C D E F G);
members!(A B C D E F G H);
