//! What stands one behind the other in a chain.

use super::{Chain, Fits, Handle, Step, WorkflowError};
use crate::protocol::canvas::Canvas;

/// Steps one after the other, each with the result of the one before as its first argument.
///
/// Takes a tuple of up to twelve steps, or a `Vec` of steps of one type. `|` makes the same.
///
/// ```
/// use celeriac::{chain, task};
///
/// #[task]
/// async fn add(x: i64, y: i64) -> i64 {
///     x + y
/// }
///
/// #[task]
/// async fn greet(to: i64) -> String {
///     format!("hello {to}")
/// }
///
/// let workflow = chain((add::s(2, 2), add::partial(4), greet::partial()));
/// let same = add::s(2, 2) | add::partial(4) | greet::partial();
/// # let _ = (workflow, same);
/// ```
pub fn chain<S: Steps>(steps: S) -> Chain<S::Out, S::In, S::Handle> {
    Chain::new(steps.into_canvases().and_then(|steps| Ok(Canvas::chain(steps)?)))
}

/// Steps of a chain: a tuple of up to twelve that fit, or a `Vec` of steps of one type.
pub trait Steps {
    /// How the first one begins.
    type In;
    /// What the last one yields.
    type Out;
    /// What a caller waits on.
    type Handle: Handle;

    /// The steps as data.
    ///
    /// # Errors
    /// The first mistake that was made in building one.
    fn into_canvases(self) -> Result<Vec<Canvas>, WorkflowError>;
}

impl<S: Step> Steps for Vec<S>
where
    S::In: Fits<S::Out>,
{
    type In = S::In;
    type Out = S::Out;
    type Handle = S::Handle;

    fn into_canvases(self) -> Result<Vec<Canvas>, WorkflowError> {
        self.into_iter().map(Step::into_canvas).collect()
    }
}

macro_rules! steps {
    ($First:ident $(, $Before:ident $Next:ident)*; $Last:ident) => {
        impl<$First: Step, $($Next: Step),*> Steps for ($First, $($Next,)*)
        where
            $($Next::In: Fits<$Before::Out>,)*
        {
            type In = $First::In;
            type Out = $Last::Out;
            type Handle = $Last::Handle;

            #[expect(non_snake_case, reason = "the names of the types are those of the values")]
            fn into_canvases(self) -> Result<Vec<Canvas>, WorkflowError> {
                let ($First, $($Next,)*) = self;
                Ok(vec![$First.into_canvas()?, $($Next.into_canvas()?),*])
            }
        }
    };
}

steps!(A; A);
steps!(A, A B; B);
steps!(A, A B, B C; C);
steps!(A, A B, B C, C D; D);
steps!(A, A B, B C, C D, D E; E);
steps!(A, A B, B C, C D, D E, E F; F);
steps!(A, A B, B C, C D, D E, E F, F G; G);
steps!(A, A B, B C, C D, D E, E F, F G, G H; H);
steps!(A, A B, B C, C D, D E, E F, F G, G H, H I; I);
steps!(A, A B, B C, C D, D E, E F, F G, G H, H I, I J; J);
steps!(A, A B, B C, C D, D E, E F, F G, G H, H I, I J, J K; K);
steps!(A, A B, B C, C D, D E, E F, F G, G H, H I, I J, J K, K L; L);
