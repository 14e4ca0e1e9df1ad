//! Remote control from the caller's side: commands to workers, and their replies.
//!
//! Does not know what commands do. **Invariants:** replies are waited for within limits of time
//! and number; what is revoked is in the broker's stream when the caller hears that it is.

mod commands;
mod error;
mod replies;
mod revoke;

use std::time::Duration;

pub use error::ControlError;
pub use replies::NodeReply;
pub(super) use revoke::Revoker;

use super::Client;
use crate::amqp::{Publish, PublishError, layout, topology};
use crate::protocol::Map;
use crate::protocol::control::{Matcher, ReplyTo, Request};

/// How long the next reply is waited for, unless something else is said.
const TIMEOUT: Duration = Duration::from_secs(1);

/// Sends commands to workers, of celeriac and of Celery alike, and collects their replies.
///
/// Each command goes to all workers unless [`to`](Self::to) or [`matching`](Self::matching)
/// chooses some. Waiting ends when no reply has come for the [`timeout`](Self::timeout), or when
/// as many have come as there can be: nobody knows how many workers there are.
///
/// ```no_run
/// # async fn example(client: celeriac::Client) -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::Duration;
///
/// let control = client.control();
/// for reply in control.ping().await? {
///     println!("{} is alive", reply.hostname);
/// }
/// control.to(["worker1@host"]).pool_grow(10).await?;
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Control {
    client: Client,
    destination: Vec<String>,
    pattern: Option<(Matcher, String)>,
    timeout: Duration,
    limit: Option<usize>,
}

impl Client {
    /// Commands to workers.
    pub fn control(&self) -> Control {
        let client = self.clone();
        Control { client, destination: Vec::new(), pattern: None, timeout: TIMEOUT, limit: None }
    }
}

impl Control {
    /// Only for the workers with these node names, `name@host`.
    #[must_use]
    pub fn to(mut self, hostnames: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.destination = hostnames.into_iter().map(Into::into).collect();
        self
    }

    /// Only for the workers whose node name matches.
    #[must_use]
    pub fn matching(mut self, matcher: Matcher, pattern: impl Into<String>) -> Self {
        self.pattern = Some((matcher, pattern.into()));
        self
    }

    /// How long the next reply is waited for. Default: 1 s, as in Celery.
    #[must_use]
    pub fn timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    /// Waits for this many replies at most.
    #[must_use]
    pub fn limit(self, limit: usize) -> Self {
        Self { limit: Some(limit), ..self }
    }

    /// Sends any command and collects the replies; none if there is no worker.
    ///
    /// # Errors
    /// When the command cannot be sent, or replies cannot be received.
    pub async fn command(
        &self,
        method: &str,
        arguments: Map,
    ) -> Result<Vec<NodeReply>, ControlError> {
        replies::ask(self, self.request(method, arguments), async {}).await
    }

    /// Sends any command and wants no reply.
    ///
    /// # Errors
    /// When the command cannot be sent.
    pub async fn cast(&self, method: &str, arguments: Map) -> Result<(), ControlError> {
        self.publish(&self.request(method, arguments)).await.map(|_| ())
    }

    fn request(&self, method: &str, arguments: Map) -> Request {
        let (matcher, pattern) = self.pattern.clone().unzip();
        Request {
            method: method.to_owned(),
            arguments,
            destination: self.destination.clone(),
            pattern,
            matcher: matcher.map(|it: Matcher| it.name().to_owned()),
            ticket: None,
            reply_to: None,
        }
    }

    /// False if no worker has a mailbox.
    async fn publish(&self, request: &Request) -> Result<bool, ControlError> {
        let config = self.client.config();
        let exchange = topology::control_exchange(&config.control_exchange);
        let commanding = layout::commanding(&config.control_exchange);
        self.client.connection().declare(&commanding).await.map_err(ControlError::declare)?;
        let expires = jiff::Timestamp::now().as_second() as f64 + self.timeout.as_secs_f64();
        let message =
            request.encode(config.task_serializer, self.client.clock().tick(), expires).map_err(
                |source| ControlError::Arguments { method: request.method.clone(), source },
            )?;
        match self.client.publisher().publish(Publish::new(exchange, "", message)).await {
            Ok(()) => Ok(true),
            Err(PublishError::Returned { .. }) => Ok(false),
            Err(source) => Err(ControlError::Publish(Box::new(source))),
        }
    }

    fn reply_to(&self, id: &str) -> ReplyTo {
        let name = &self.client.config().control_exchange;
        let exchange = topology::control_reply_exchange(name);
        ReplyTo { exchange, routing_key: id.to_owned() }
    }
}
