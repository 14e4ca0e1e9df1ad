//! The worker before it runs: its options, and the way from options to consuming.

use std::sync::Arc;

use super::Error;
use super::consume::Consuming;
use super::join::Joining;
use super::running::{Crew, RunningWorker, Stop, WorkerInfo};
use super::updates::Updates;
use crate::amqp::layout;
use crate::amqp::{Connection, Consumer, ConsumerOptions, QueueSpec};
use crate::app::App;
use crate::client::{Config, connection_options};
use crate::protocol::Limits;
use crate::task::{Environment, Registry};

/// A worker that was not started yet.
///
/// What is not set here comes from the [`Config`] of the app.
#[derive(Debug)]
pub struct Worker {
    app: App,
    queues: Vec<String>,
    hostname: Option<String>,
}

impl Worker {
    /// A worker for the tasks of `app`.
    pub fn new(app: App) -> Self {
        Self { app, queues: Vec::new(), hostname: None }
    }

    /// The queues to consume from; the default is `task_default_queue`.
    #[must_use]
    pub fn queues(mut self, queues: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.queues = queues.into_iter().map(Into::into).collect();
        self
    }

    /// How many async tasks run at once; overrides `worker_concurrency`.
    #[must_use]
    pub fn concurrency(mut self, slots: usize) -> Self {
        self.app.config_mut().worker_concurrency = slots;
        self
    }

    /// How many blocking tasks run at once; overrides `worker_blocking_slots`.
    #[must_use]
    pub fn blocking_slots(mut self, slots: usize) -> Self {
        self.app.config_mut().worker_blocking_slots = slots;
        self
    }

    /// Messages taken from the broker for each slot; overrides `worker_prefetch_multiplier`.
    #[must_use]
    pub fn prefetch_multiplier(mut self, multiplier: u32) -> Self {
        self.app.config_mut().worker_prefetch_multiplier = multiplier;
        self
    }

    /// Node name, `name@host`; must be unique among the workers of a virtual host.
    #[must_use]
    pub fn hostname(mut self, hostname: impl Into<String>) -> Self {
        self.hostname = Some(hostname.into());
        self
    }

    /// Connects, declares, and consumes.
    ///
    /// # Errors
    /// [`Error::Registry`] when there are no tasks, two of one name, or a state is missing;
    /// [`Error::Connect`] and [`Error::Consume`] when the broker cannot be used.
    pub async fn start(self) -> Result<RunningWorker, Error> {
        let registry = Arc::new(self.app.registry()?);
        let config = self.app.config().clone();
        let info = self.describe(&registry, &config)?;
        let specs: Vec<QueueSpec> = info.queues.iter().map(|name| config.queue(name)).collect();
        let client = self.app.connect().await?;
        let environment = Arc::new(Environment {
            states: self.app.into_states(),
            client: Some(client.clone()),
            updates: Some(Arc::new(Updates { client: client.clone() })),
            registry: Some(Arc::clone(&registry)),
            runtime: Some(tokio::runtime::Handle::current()),
        });
        let options = connection_options(&config, format!("{} consume", info.hostname));
        let connection = Connection::open(options).await.map_err(Error::Consume)?;
        connection.declare(&layout::working(&specs)).await.map_err(Error::Consume)?;
        // One busy queue alone must be able to fill every slot.
        let slots = u32::try_from(info.concurrency + info.blocking_slots).unwrap_or(u32::MAX);
        let consumer = ConsumerOptions::new(specs)
            .prefetch(info.prefetch)
            .prefetch_queue_min(slots)
            .tag_prefix(&*info.hostname);
        let (deliveries, handle) =
            Consumer::start(&connection, consumer).await.map_err(Error::Consume)?;
        let (limits, stop) = (Limits::default(), Stop::default());
        let crew = Arc::new(Crew { info, client, registry, environment, limits, stop });
        let joining = Joining::start(&crew).await?;
        let crew_of = Arc::clone(&crew);
        let consuming = Consuming { connection, deliveries, handle, joining, crew: crew_of };
        Ok(RunningWorker { crew, consuming: tokio::spawn(consuming.run()) })
    }

    fn describe(&self, registry: &Registry, config: &Config) -> Result<WorkerInfo, Error> {
        let (concurrency, blocking_slots) =
            (config.worker_concurrency, config.worker_blocking_slots);
        if concurrency == 0 || blocking_slots == 0 {
            return Err(Error::Settings(
                "worker_concurrency and worker_blocking_slots must be at least 1".to_owned(),
            ));
        }
        let mut queues = self.queues.clone();
        if queues.is_empty() {
            queues.push(config.task_default_queue.clone());
        }
        queues.sort();
        queues.dedup();
        let slots = u32::try_from(concurrency + blocking_slots).unwrap_or(u32::MAX);
        let broker = config.broker_url.iter().map(ToString::to_string).collect::<Vec<_>>();
        Ok(WorkerInfo {
            hostname: self.hostname.clone().unwrap_or_else(default_hostname),
            broker: broker.join(";"),
            queues,
            tasks: registry.names(),
            concurrency,
            blocking_slots,
            prefetch: slots.saturating_mul(config.worker_prefetch_multiplier.max(1)),
        })
    }
}

/// `celeriac@<host>`.
fn default_hostname() -> String {
    format!("celeriac@{}", gethostname::gethostname().to_string_lossy())
}
