//! The client: publishes calls and hands out their results.

use std::borrow::Cow;
use std::sync::Arc;

use jiff::Timestamp;
use tokio::sync::OnceCell;
use tracing::{Instrument, debug};

use super::canvas::Ready;
use super::compose::{Composed, Composer, Surroundings, compose};
use super::control::Revoker;
use super::delays::Delays;
use super::events::Dispatcher;
use super::unique::{self, Claim, Lock};
use super::{Config, ConnectError, Lineage, SendError, Signature, span};
use crate::amqp;
use crate::amqp::layout;
use crate::amqp::topology;
use crate::amqp::{
    Connection, ConnectionOptions, Publish, PublishError, Publisher, PublisherOptions,
};
use crate::clock::Clock;
use crate::protocol::{Limits, Value};
use crate::results::{AsyncResult, Inbox, InboxOptions};

/// Calls of [`Client::send_all`] that are handed over together.
const BURST: usize = 256;

/// A connection to the broker through which tasks are called.
///
/// Cheap to clone; all clones share one connection to publish, one reply queue, and their
/// memory. The reply queue is opened by the first call that wants a result.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::Duration;
/// use celeriac::{Client, Config, Signature};
///
/// let client = Client::connect(Config::default()).await?;
/// let call = Signature::<i64>::new("add").arg(2).arg(2);
/// let result = client.send(call).await?;
/// assert_eq!(result.get(Duration::from_secs(10)).await?, 4);
/// client.close().await;
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Client {
    pub(super) shared: Arc<Shared>,
    /// The running task, for a client that was taken from a task's context.
    pub(super) lineage: Option<Arc<Lineage>>,
}

#[derive(Debug)]
pub(super) struct Shared {
    config: Config,
    origin: String,
    connection: Connection,
    publisher: Publisher,
    inbox: OnceCell<Inbox>,
    /// Whether the queues of the join shards were declared.
    joins: OnceCell<()>,
    delays: Delays,
    clock: Arc<Clock>,
    /// Tells of calls, if the settings want it.
    dispatcher: Option<Dispatcher>,
}

impl Client {
    /// Connects to the broker and declares the queues that the settings name.
    ///
    /// # Errors
    /// [`ConnectError::Broker`] when no broker of `broker_url` answers, within the limits that
    /// the `broker_connection_*` settings give.
    pub async fn connect(config: Config) -> Result<Self, ConnectError> {
        let origin = origin();
        let connection = Connection::open(connection_options(&config, format!("{origin} publish")))
            .await
            .map_err(ConnectError::Broker)?;
        connection
            .declare(&layout::sending(config.known_queues()))
            .await
            .map_err(ConnectError::Declare)?;
        let message_max = config.broker_max_message_size;
        let options = PublisherOptions { message_max, ..PublisherOptions::default() };
        let publisher = Publisher::with_options(&connection, options);
        let (inbox, joins) = (OnceCell::new(), OnceCell::new());
        let kind = config.broker_native_delayed_delivery_queue_type;
        let delays = Delays::new(connection.clone(), kind);
        let clock = Arc::<Clock>::default();
        let dispatcher = config.task_send_sent_event.then(|| {
            let (exchange, clock) = (&config.event_exchange, Arc::clone(&clock));
            Dispatcher::start(connection.clone(), exchange, &origin, clock)
        });
        let shared = Shared {
            config,
            origin,
            connection,
            publisher,
            inbox,
            joins,
            delays,
            clock,
            dispatcher,
        };
        Ok(Self { shared: Arc::new(shared), lineage: None })
    }

    /// Sends one call; resolves when the broker has confirmed it.
    ///
    /// # Errors
    /// [`SendError`] says what went wrong; nothing is retried behind your back except a message
    /// whose confirm was lost with the connection, which is sent again with the same task id.
    pub async fn send<T>(
        &self,
        signature: Signature<T, impl Ready>,
    ) -> Result<AsyncResult<T>, SendError> {
        let wanted = wants_result(&signature, &self.shared.config);
        let inbox = self.inbox_for(wanted).await.map_err(SendError::ReplyQueue)?;
        let composed = compose(signature, self.surroundings(inbox))?;
        let span = span::send(&composed);
        let sending = async {
            if let Some(first) = self.claim(&composed, inbox).await? {
                return Ok(first);
            }
            let (pending, mut publish) = Pending::register(composed, inbox);
            self.delays().prepare(&mut publish).await;
            let event = self.sent_event(&publish);
            let published = self.shared.publisher.publish(publish).await;
            self.release(&pending, &published).await;
            self.tell_sent(event.filter(|_| published.is_ok()));
            pending.settle(published)
        };
        let sent = sending.instrument(span).await;
        self.remember(&sent);
        sent
    }

    /// Makes sure that a call which is to be unique is the first of its kind. Gives the result of
    /// the first one if the call is content with that.
    async fn claim<T>(
        &self,
        composed: &Composed,
        inbox: Option<&Inbox>,
    ) -> Result<Option<AsyncResult<T>>, SendError> {
        let Some(lock) = &composed.lock else { return Ok(None) };
        let task = || composed.task.to_string();
        let claimed = unique::claim(&self.shared.connection, lock, &composed.task_id).await;
        match claimed {
            Ok(Claim::First) => Ok(None),
            Ok(Claim::Taken(Some(first))) if lock.joins_first => {
                let first: Arc<str> = first.into();
                let inbox = inbox.filter(|_| composed.wants_result);
                let registration = inbox.map(|inbox| inbox.register(&first));
                Ok(Some(AsyncResult::new(first, registration)))
            }
            Ok(Claim::Taken(id)) => Err(SendError::Duplicate { task: task(), id }),
            Err(source) => Err(SendError::Unique { task: task(), source: Arc::new(source) }),
        }
    }

    /// A call that surely was not sent must not be in the way of the next one.
    async fn release<T>(&self, pending: &Pending<T>, published: &Result<(), PublishError>) {
        let Err(failed) = published else { return };
        let Some(lock) = &pending.lock else { return };
        if (failed.is_returned() || failed.is_permanent())
            && let Err(error) = self.shared.connection.delete_queue(&lock.queue).await
        {
            debug!(queue = lock.queue, %error, "the lock of a call that was not sent is left");
        }
    }

    /// The running task keeps a reference to what it has called.
    fn remember<T>(&self, sent: &Result<AsyncResult<T>, SendError>) {
        if let (Some(lineage), Ok(result)) = (&self.lineage, sent) {
            lineage.trail.add_task(result.id());
        }
    }

    /// Sends many calls, with one outcome for each, in the same order.
    ///
    /// The calls travel in bursts whose confirms are awaited together; one that fails does not
    /// hold up the others. All outcomes are kept until the last is known: split very long lists.
    pub async fn send_all<T>(
        &self,
        signatures: impl IntoIterator<Item = Signature<T, impl Ready>>,
    ) -> Vec<Result<AsyncResult<T>, SendError>> {
        let signatures: Vec<_> = signatures.into_iter().collect();
        let span = span::send_all(signatures.len());
        self.send_each(signatures).instrument(span).await
    }

    async fn send_each<T, In>(
        &self,
        signatures: Vec<Signature<T, In>>,
    ) -> Vec<Result<AsyncResult<T>, SendError>> {
        let wanted = signatures.iter().any(|it| wants_result(it, &self.shared.config));
        let inbox = match self.inbox_for(wanted).await {
            Ok(inbox) => inbox,
            Err(error) => {
                let each = |_| Err(SendError::ReplyQueue(Arc::clone(&error)));
                return (0..signatures.len()).map(each).collect();
            }
        };
        let mut outcomes = Vec::with_capacity(signatures.len());
        let mut bursts = Vec::with_capacity(signatures.len().div_ceil(BURST));
        let mut events = Vec::new();
        let mut signatures = signatures.into_iter();
        while signatures.len() > 0 {
            let mut publishes = Vec::with_capacity(BURST.min(signatures.len()));
            for signature in signatures.by_ref().take(BURST) {
                outcomes.push(self.begin(signature, inbox, &mut publishes).await);
            }
            // One for each, or none at all.
            events.extend(publishes.iter().filter_map(|it| self.sent_event(it)));
            bursts.push(self.shared.publisher.hand_over(publishes).await);
            // They are on their way while the next ones are written.
            tokio::task::yield_now().await;
        }
        let mut published = Vec::with_capacity(outcomes.len());
        for burst in bursts {
            published.append(&mut burst.outcomes().await);
        }
        let (mut published, mut events) = (published.into_iter(), events.into_iter());
        let mut all = Vec::with_capacity(outcomes.len());
        for outcome in outcomes {
            let sent = match outcome {
                Ok(Sending::Under(pending)) => {
                    // One outcome for each publish is the publisher's contract.
                    let published = published.next().unwrap_or(Err(PublishError::Closed));
                    self.release(&pending, &published).await;
                    let event = events.next();
                    self.tell_sent(event.filter(|_| published.is_ok()));
                    pending.settle(published)
                }
                Ok(Sending::Over(first)) => Ok(first),
                Err(error) => Err(error),
            };
            self.remember(&sent);
            all.push(sent);
        }
        all
    }

    /// Writes one of several calls; what is to be published for it is added to `publishes`.
    async fn begin<T, In>(
        &self,
        signature: Signature<T, In>,
        inbox: Option<&Inbox>,
        publishes: &mut Vec<Publish>,
    ) -> Result<Sending<T>, SendError> {
        let composed = compose(signature, self.surroundings(inbox))?;
        if let Some(first) = self.claim(&composed, inbox).await? {
            return Ok(Sending::Over(first));
        }
        let (pending, mut publish) = Pending::register(composed, inbox);
        self.delays().prepare(&mut publish).await;
        publishes.push(publish);
        Ok(Sending::Under(pending))
    }

    /// Calls a task that lives elsewhere by its name, with positional arguments.
    ///
    /// # Errors
    /// As [`Client::send`].
    pub async fn send_task<T>(
        &self,
        name: impl Into<String>,
        args: impl IntoIterator<Item = Value>,
    ) -> Result<AsyncResult<T>, SendError> {
        self.send(Signature::<T>::new(name.into()).args(args)).await
    }

    /// The settings that this client was made with.
    pub fn config(&self) -> &Config {
        &self.shared.config
    }

    /// The connection that messages are published on, to watch its state.
    pub fn connection(&self) -> &Connection {
        &self.shared.connection
    }

    /// Deletes the reply queue and closes the connections. Results that are still awaited end
    /// as [`ResultError::Closed`](crate::ResultError::Closed).
    pub async fn close(&self) {
        if let Some(inbox) = self.shared.inbox.get() {
            inbox.close().await;
        }
        self.stop_telling().await;
        self.shared.connection.close().await;
    }

    /// Sends what is still to be told of calls, as far as that takes no long time.
    pub(crate) async fn stop_telling(&self) {
        if let Some(dispatcher) = self.dispatcher() {
            dispatcher.close().await;
        }
    }

    /// The same client, whose calls are made on behalf of a running task.
    pub(crate) fn on_behalf_of(&self, lineage: Lineage) -> Self {
        Self { shared: Arc::clone(&self.shared), lineage: Some(Arc::new(lineage)) }
    }

    /// Writes calls on behalf of tasks, without publishing them.
    pub(crate) fn composer(&self) -> Composer<'_> {
        Composer::new(&self.shared.config, &self.shared.origin)
    }

    pub(crate) fn publisher(&self) -> &Publisher {
        &self.shared.publisher
    }

    /// The delay queues, as far as this client knows them.
    pub(crate) fn delays(&self) -> &Delays {
        &self.shared.delays
    }

    /// What orders the events of this program.
    pub(crate) fn clock(&self) -> &Arc<Clock> {
        &self.shared.clock
    }

    /// Tells of calls; `None` if the settings do not want it.
    pub(super) fn dispatcher(&self) -> Option<&Dispatcher> {
        self.shared.dispatcher.as_ref()
    }

    /// Whether the queues of the join shards were declared through this client.
    pub(super) fn joins(&self) -> &OnceCell<()> {
        &self.shared.joins
    }

    /// The running task, for a client that was taken from a task's context.
    pub(super) fn lineage(&self) -> Option<&Lineage> {
        self.lineage.as_deref()
    }

    /// The priority of that task.
    pub(super) fn inherited_priority(&self) -> Option<u8> {
        self.lineage().and_then(|lineage| lineage.priority)
    }

    fn surroundings<'a>(&'a self, inbox: Option<&'a Inbox>) -> Surroundings<'a> {
        Surroundings {
            config: &self.shared.config,
            origin: &self.shared.origin,
            reply_to: inbox.map(Inbox::queue),
            lineage: self.lineage.as_deref(),
            inherited_priority: self.inherited_priority(),
            now: Timestamp::now(),
            delays: true,
        }
    }

    /// The reply queue, opened when one of the calls wants a result.
    pub(super) async fn inbox_for(&self, wanted: bool) -> Result<Option<&Inbox>, Arc<amqp::Error>> {
        if !wanted {
            return Ok(None);
        }
        let opened = self.shared.inbox.get_or_try_init(|| self.open_inbox()).await;
        opened.map(Some).map_err(Arc::new)
    }

    async fn open_inbox(&self) -> Result<Inbox, amqp::Error> {
        let Shared { config, origin, .. } = &*self.shared;
        // A connection of its own: reading must not stop while publishing is blocked.
        let connection =
            Connection::open(connection_options(config, format!("{origin} results"))).await?;
        let queue = topology::reply_queue(&uuid::Uuid::new_v4().to_string());
        debug!(queue, "reply queue opened");
        let revoker = Arc::new(Revoker(Arc::downgrade(&self.shared)));
        let (expires, limits) = (config.result_expires, Limits::default());
        let options = InboxOptions { expires, limits, revoker: Some(revoker) };
        Inbox::open(connection, queue, options).await
    }
}

/// One of several calls.
enum Sending<T> {
    /// It is published.
    Under(Pending<T>),
    /// It need not be: this was sent before.
    Over(AsyncResult<T>),
}

/// A call under way.
struct Pending<T> {
    task: Cow<'static, str>,
    lock: Option<Lock>,
    result: AsyncResult<T>,
}

impl<T> Pending<T> {
    /// Registers before publishing, because the result may be faster than the confirm.
    fn register(composed: Composed, inbox: Option<&Inbox>) -> (Self, Publish) {
        let Composed { task, task_id, wants_result, lock, publish } = composed;
        let inbox = inbox.filter(|_| wants_result);
        let registration = inbox.map(|inbox| inbox.register(&task_id));
        (Self { task, lock, result: AsyncResult::new(task_id, registration) }, publish)
    }

    fn settle(self, published: Result<(), PublishError>) -> Result<AsyncResult<T>, SendError> {
        match published {
            Ok(()) => {
                debug!(task_id = self.result.id(), task_name = &*self.task, "task sent");
                Ok(self.result)
            }
            Err(source) => Err(SendError::Publish {
                task: self.task.into_owned(),
                task_id: self.result.id().to_owned(),
                source: Box::new(source),
            }),
        }
    }
}

fn wants_result<T, In>(signature: &Signature<T, In>, config: &Config) -> bool {
    !signature.options.ignore_result.unwrap_or(config.task_ignore_result)
}

/// How connections are made, from the settings.
pub(crate) fn connection_options(config: &Config, name: String) -> ConnectionOptions {
    let mut options = ConnectionOptions {
        urls: config.broker_url.clone(),
        name,
        heartbeat_s: config.broker_heartbeat,
        connect_timeout: config.broker_connection_timeout,
        tls: config.broker_use_ssl.clone(),
        ..ConnectionOptions::default()
    };
    let patience = options.connect_timeout.max(options.answer_timeout);
    options.answer_timeout = patience;
    options.retry.backoff.cap = config.broker_connection_retry_delay_max;
    options.retry.at_startup = config.broker_connection_retry_on_startup;
    options.retry.attempts_max =
        if config.broker_connection_retry { config.broker_connection_max_retries } else { Some(0) };
    options
}

/// The text that tells which process sent a task, in Celery's form `gen<pid>@<host>`.
fn origin() -> String {
    format!("gen{}@{}", std::process::id(), gethostname::gethostname().to_string_lossy())
}
