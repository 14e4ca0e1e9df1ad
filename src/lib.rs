//! A distributed task queue on RabbitMQ alone that speaks Celery's protocol.
//!
//! Write a task, run it in a worker, call it from anywhere:
//!
//! ```no_run
//! use std::time::Duration;
//! use celeriac::{App, Config, Worker, task};
//!
//! #[task]
//! async fn add(x: i64, y: i64) -> i64 {
//!     x + y
//! }
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let worker = Worker::new(App::new(Config::default())).start().await?;
//!
//! let client = App::new(Config::default()).connect().await?;
//! let result = add::delay(&client, 2, 2).await?;
//! assert_eq!(result.get(Duration::from_secs(10)).await?, 4);
//!
//! client.close().await;
//! worker.handle().shutdown();
//! worker.wait().await?;
//! # Ok(()) }
//! ```
//!
//! A send resolves when the broker has confirmed the message, and a message is acked after its
//! result was confirmed: no task is lost. Python's Celery clients and workers can take part on
//! the same broker.
//!
//! | to | see |
//! |---|---|
//! | write tasks | [`macro@task`], [`Context`], [`State`], [`TaskError`] |
//! | call tasks | [`Client`], [`Signature`], [`AsyncResult`], [`blocking`] |
//! | make workflows of them | [`chain`], [`group`], [`chord`], [`Workflow`], [`GroupResult`] |
//! | revoke and steer | [`AsyncResult::revoke`], [`Client::control`] |
//! | watch workers and tasks | [`Client::events`] |
//! | run tasks | [`Worker`], and `cli` (feature `cli`) for a command line |
//! | set it up | [`App`], [`Config`] |
//! | keep processes running | `supervisor` (on Unix) |

pub mod amqp;
mod app;
pub mod backoff;
#[cfg(feature = "cli")]
pub mod cli;
pub mod client;
mod clock;
#[cfg(unix)]
mod process;
pub mod protocol;
pub mod results;
#[cfg(unix)]
pub mod supervisor;
pub mod task;
pub mod worker;

pub use app::{App, AppBuilder};
pub use celeriac_macros::task;
pub use client::canvas::{Chain, Chord, Group, Workflow, chain, chord, group};
pub use client::{Client, Config, SendError, Signature, blocking};
pub use protocol::Value;
pub use results::{AnyResult, AsyncResult, GroupResult, ResultError, TaskFailure};
pub use task::{Context, Retry, State, TaskError, TaskResult};
pub use worker::Worker;

/// What the code of `#[task]` names; not a part of the API.
#[doc(hidden)]
pub mod __private {
    pub use futures::future::BoxFuture;
    pub use inventory;

    pub use crate::client::canvas::{Immutable, Takes};
    pub use crate::protocol::Serializer;
    pub use crate::task::expansion::{
        Fallible, chunks, finish, finish_result, open, signature, starmap,
    };
    pub use crate::task::name::{dotted, dotted_len, text};
    pub use crate::task::{
        Acks, Context, ErrorClass, Invocation, Isolate, KeyPart, LimitKey, OnConnectionLoss, Param,
        RateLimit, Run, StateType, Submitted, TaskDef, TaskOptions, TaskResult,
    };
}
