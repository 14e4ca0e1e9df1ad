//! State updates that a running task asks for, such as PROGRESS.

use futures::FutureExt;
use futures::future::BoxFuture;

use super::report::report;
use crate::client::Client;
use crate::protocol::{ResultMeta, TaskState, Value};
use crate::task::{Request, StateUpdates, UpdateError};

/// Publishes state updates through the worker's client, confirmed.
#[derive(Debug)]
pub(super) struct Updates {
    pub(super) client: Client,
}

impl StateUpdates for Updates {
    fn publish(
        &self,
        request: &Request,
        state: &str,
        meta: Value,
    ) -> BoxFuture<'static, Result<(), UpdateError>> {
        let meta = ResultMeta::new(&*request.id, TaskState::from(state), meta);
        let Some(report) = report(request, meta, self.client.config()) else {
            return futures::future::ready(Ok(())).boxed();
        };
        let publisher = self.client.publisher().clone();
        let published = async move {
            match publisher.publish(report).await {
                // Nobody listens any more, which is no concern of the task.
                Err(failed) if failed.is_returned() => Ok(()),
                done => done.map_err(|failed| UpdateError::Publish(failed.into())),
            }
        };
        published.boxed()
    }
}
