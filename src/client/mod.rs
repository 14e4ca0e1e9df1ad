//! The client: the one path by which a signature becomes a confirmed message.
//!
//! [`Signature`] says what to call; `compose` turns it into a message and an address, without
//! IO; [`Client`] publishes it and hands out the [`AsyncResult`](crate::AsyncResult).
//!
//! Does not run tasks.
//!
//! **Invariant:** a send resolves to success only after the broker has confirmed the message.

mod apply;
pub mod blocking;
pub mod canvas;
mod chord_progress;
mod chords;
#[expect(clippy::module_inception, reason = "the folder's main type is the client")]
mod client;
mod compose;
pub mod config;
pub mod control;
pub(crate) mod delays;
mod error;
mod events;
mod inquiry;
mod lineage;
pub(crate) mod parked;
pub mod parking;
mod ping;
mod queues;
mod route;
mod signature;
mod span;
mod unique;

pub use chord_progress::ChordProgress;
pub use chords::ChordError;
pub use client::Client;
pub(crate) use client::connection_options;
pub(crate) use compose::Composer;
pub use config::{Config, ConfigBuilder, ConfigError};
pub use control::{Control, ControlError, NodeReply};
pub use error::{ConnectError, SendError};
pub(crate) use events::Dispatcher;
pub use events::Events;
pub(crate) use lineage::{Lineage, Trail};
pub use ping::{Pong, ping};
pub use route::{InvalidPattern, Route, RouteRequest, Routes};
pub use signature::Signature;
