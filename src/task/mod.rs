//! Tasks: functions that run on a worker, called by a message.
//!
//! ```text
//! #[task] fn ──► TaskDef ──► Registry          what there is, checked once at start
//!                   │
//! message ──► Invocation ──► Run ──► TaskResult ──► Outcome    one call
//! ```
//!
//! The attribute describes the function in a [`TaskDef`], which registers itself. The worker looks
//! the definition up by name, hands its [`Run`] an [`Invocation`], and turns what comes back into
//! an [`Outcome`]. Arguments are bound as Python would bind them; parameters of the types
//! [`Context`] and [`State`] are not on the wire.
//!
//! Nothing here talks to a broker, and nothing here catches panics or counts time: both belong to
//! whoever runs a task. **Invariant:** wrong arguments, of any shape, are an error of the call and
//! never a panic.

mod arguments;
mod builtin;
mod context;
mod custom_event;
mod definition;
mod error;
#[doc(hidden)]
pub mod expansion;
mod limit_key;
#[doc(hidden)]
pub mod name;
mod outcome;
mod rate_limit;
mod registry;
pub(crate) mod retry;
mod state;
mod time_limit;

pub use context::{
    Connect, Context, DeliveryInfo, Environment, Replacement, Request, StateUpdates, UpdateError,
};
#[doc(hidden)]
pub use custom_event::{CustomEvent, EventError, SendEvents};
pub use definition::Submitted;
pub use definition::{
    Acks, Invocation, Isolate, OnConnectionLoss, Param, Run, StateType, TaskDef, TaskOptions,
};
pub use error::{IntoTaskError, TaskError, TaskErrorKind, TaskResult};
pub use limit_key::{KeyPart, LimitKey};
pub use outcome::Outcome;
pub(crate) use rate_limit::Window;
pub use rate_limit::{RateLimit, RateLimitError};
pub use registry::{Registry, RegistryError};
pub use retry::{ErrorClass, NewArguments, Retry};
pub use state::{State, StateMap};
pub use time_limit::SoftTimeLimitExceeded;
