//! The client for programs without tokio: the same calls, each of which blocks its thread.
//!
//! ```no_run
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use std::time::Duration;
//! use celeriac::{Config, Signature, blocking};
//!
//! let client = blocking::Client::connect(Config::default())?;
//! let result = client.send(Signature::<i64>::new("add").arg(2).arg(2))?;
//! assert_eq!(result.get(Duration::from_secs(10))?, 4);
//! # Ok(()) }
//! ```

use std::future::IntoFuture;
use std::sync::Arc;
use std::time::Duration;

use serde::de::DeserializeOwned;
use tokio::runtime::{Builder, Runtime};

use super::canvas::{Ready, Step};
use super::{Config, ConnectError, SendError, Signature};
use crate::protocol::{TaskState, Value};
use crate::results::{ResultError, RevokeError};

/// A [`Client`](super::Client) with a small runtime of its own, on one background thread.
///
/// Cheap to clone. Must not be used from inside an async runtime: a blocked runtime thread would
/// stop other work, so tokio ends such a call with a panic.
#[derive(Clone, Debug)]
pub struct Client {
    inner: super::Client,
    runtime: Arc<Runtime>,
}

impl Client {
    /// Connects to the broker.
    ///
    /// # Errors
    /// As [`Client::connect`](super::Client::connect); and [`ConnectError::Runtime`] when the
    /// operating system gives no thread.
    pub fn connect(config: Config) -> Result<Self, ConnectError> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("celeriac-client")
            .enable_all()
            .build()
            .map_err(ConnectError::Runtime)?;
        let inner = runtime.block_on(super::Client::connect(config))?;
        Ok(Self { inner, runtime: Arc::new(runtime) })
    }

    /// Sends one call; returns when the broker has confirmed it.
    ///
    /// # Errors
    /// As [`Client::send`](super::Client::send).
    pub fn send<T>(
        &self,
        signature: Signature<T, impl Ready>,
    ) -> Result<AsyncResult<T>, SendError> {
        let sent = self.runtime.block_on(self.inner.send(signature))?;
        Ok(self.wrap(sent))
    }

    /// Sends many calls, with one outcome for each, in the same order.
    pub fn send_all<T>(
        &self,
        signatures: impl IntoIterator<Item = Signature<T, impl Ready>>,
    ) -> Vec<Result<AsyncResult<T>, SendError>> {
        let sent = self.runtime.block_on(self.inner.send_all(signatures));
        sent.into_iter().map(|sent| sent.map(|result| self.wrap(result))).collect()
    }

    /// Sends a workflow; returns when the broker has confirmed everything with which it begins.
    /// [`wait`](Self::wait) waits for what its handle gives.
    ///
    /// # Errors
    /// As [`Client::apply`](super::Client::apply).
    pub fn apply<S: Step>(&self, workflow: S) -> Result<S::Handle, SendError>
    where
        S::In: Ready,
    {
        self.runtime.block_on(self.inner.apply(workflow))
    }

    /// Waits for what gives its value later, a result of a task or of a group.
    ///
    /// ```no_run
    /// # fn example(client: celeriac::blocking::Client) -> Result<(), Box<dyn std::error::Error>> {
    /// use std::time::Duration;
    /// use celeriac::Workflow;
    ///
    /// let sum = Workflow::task("add", [2.into(), 2.into()]);
    /// let result = client.apply(sum | Workflow::task("double", []))?;
    /// let value = client.wait(result.get(Duration::from_secs(10)))?;
    /// # let _ = value;
    /// # Ok(()) }
    /// ```
    pub fn wait<T>(&self, result: impl IntoFuture<Output = T>) -> T {
        self.runtime.block_on(async { result.await })
    }

    /// Calls a task by its name, with positional arguments.
    ///
    /// # Errors
    /// As [`Client::send`](super::Client::send).
    pub fn send_task<T>(
        &self,
        name: impl Into<String>,
        args: impl IntoIterator<Item = Value>,
    ) -> Result<AsyncResult<T>, SendError> {
        self.send(Signature::<T>::new(name.into()).args(args))
    }

    /// Commands to workers, each of which [`wait`](Self::wait) waits for:
    /// `client.wait(Box::pin(control.ping()))` gives the replies.
    pub fn control(&self) -> super::Control {
        self.inner.control()
    }

    /// Revokes tasks by their ids; returns when the broker has it.
    ///
    /// # Errors
    /// As [`Control::revoke`](super::Control::revoke).
    pub fn revoke(
        &self,
        ids: impl IntoIterator<Item = impl Into<String>>,
        terminate: bool,
    ) -> Result<Vec<super::NodeReply>, super::ControlError> {
        self.runtime.block_on(self.inner.control().revoke(ids, terminate))
    }

    /// Revokes a whole workflow by the id of its first task.
    ///
    /// # Errors
    /// As [`Client::revoke_root`](super::Client::revoke_root).
    pub fn revoke_root(
        &self,
        root_id: impl Into<String>,
        terminate: bool,
    ) -> Result<(), super::ControlError> {
        self.runtime.block_on(self.inner.revoke_root(root_id, terminate))
    }

    /// Revokes the tasks of a group by its id.
    ///
    /// # Errors
    /// As [`Client::revoke_group`](super::Client::revoke_group).
    pub fn revoke_group(
        &self,
        group_id: impl Into<String>,
        terminate: bool,
    ) -> Result<(), super::ControlError> {
        self.runtime.block_on(self.inner.revoke_group(group_id, terminate))
    }

    /// Deletes the reply queue and closes the connections.
    pub fn close(&self) {
        self.runtime.block_on(self.inner.close());
    }

    fn wrap<T>(&self, inner: crate::AsyncResult<T>) -> AsyncResult<T> {
        AsyncResult { inner, runtime: Arc::clone(&self.runtime) }
    }
}

/// The result of a task, with calls that block.
#[derive(Clone, Debug)]
pub struct AsyncResult<T = Value> {
    inner: crate::AsyncResult<T>,
    runtime: Arc<Runtime>,
}

impl<T> AsyncResult<T> {
    /// Id of the task.
    pub fn id(&self) -> &str {
        self.inner.id()
    }

    /// The latest state that was reported; `PENDING` if there was no report.
    pub fn state(&self) -> TaskState {
        self.inner.state()
    }

    /// Revokes the task; returns when the broker has it.
    ///
    /// # Errors
    /// As [`AsyncResult::revoke`](crate::AsyncResult::revoke).
    pub fn revoke(&self, terminate: bool) -> Result<(), RevokeError> {
        self.runtime.block_on(self.inner.revoke(terminate))
    }

    /// The result for use in async code.
    pub fn into_async(self) -> crate::AsyncResult<T> {
        self.inner
    }
}

impl<T: DeserializeOwned> AsyncResult<T> {
    /// Waits for the value, for at most `timeout`.
    ///
    /// # Errors
    /// As [`AsyncResult::get`](crate::AsyncResult::get).
    pub fn get(&self, timeout: Duration) -> Result<T, ResultError> {
        self.runtime.block_on(self.inner.get(timeout))
    }
}
