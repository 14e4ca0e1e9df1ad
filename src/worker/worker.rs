//! The worker before it runs: its options, and the way from options to consuming.

use std::path::PathBuf;
use std::sync::Arc;

use super::Error;
use super::active::Active;
use super::autoscale::{Autoscale, Bounds};
use super::binder::Binder;
use super::consume::Consuming;
use super::control::Control;
use super::delay::Hold;
use super::deletion::Deletions;
use super::events::{Events, Heart};
use super::gather;
use super::health_file::HealthFile;
#[cfg(unix)]
use super::isolate;
use super::join::Joining;
use super::limits::{Limits as Within, TimeLimits};
use super::lost_threads::LostThreads;
use super::permits::Permits;
use super::prefetch::Prefetch;
use super::pulse::Pulse;
use super::rate::Rates;
use super::reaper::Reaper;
use super::recycling::Recycling;
use super::redelivered::Recent;
use super::revocations::Revocations;
use super::revoked::Revoked;
use super::running::{Crew, RunningWorker, Stop, WorkerInfo};
use super::slots::Slots;
use super::starts::Starts;
use super::tally::Tally;
use super::updates::Updates;
use super::watchdog;
use crate::amqp::{
    Connection, Consumer, ConsumerHandle, ConsumerOptions, Deliveries, QueueSpec, layout,
};
use crate::app::App;
use crate::client::{Client, Config, connection_options};
use crate::protocol::{Limits, Map};
use crate::task::{Environment, RateLimit, Registry, TaskDef};

/// A worker that was not started yet.
///
/// What is not set here comes from the [`Config`] of the app.
#[derive(Debug)]
pub struct Worker {
    app: App,
    queues: Vec<String>,
    hostname: Option<String>,
    tasks_max: Option<usize>,
    memory_max_kib: Option<usize>,
    autoscale: Option<(usize, usize)>,
    health_file: Option<PathBuf>,
}

impl Worker {
    /// A worker for the tasks of `app`.
    pub fn new(app: App) -> Self {
        Self {
            app,
            queues: Vec::new(),
            hostname: None,
            tasks_max: None,
            memory_max_kib: None,
            autoscale: None,
            health_file: None,
        }
    }

    /// The settings.
    pub fn config(&self) -> &Config {
        self.app.config()
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

    /// Stops warmly after so many tasks, or when the process holds more than so many KiB of memory
    /// in RAM, looked at once a second; see [`WorkerHandle::is_recycled`](super::WorkerHandle).
    /// It prefetches no more than it has slots, or with a number of tasks can run in a few lives.
    #[must_use]
    pub fn recycle_after(mut self, tasks: Option<usize>, memory_kib: Option<usize>) -> Self {
        (self.tasks_max, self.memory_max_kib) = (tasks, memory_kib);
        self
    }

    /// Lets the slots follow the load: from `min` to `max` async tasks, and as many blocking ones,
    /// at once. All slots taken double; what nobody needed for half a minute goes.
    #[must_use]
    pub fn autoscale(mut self, max: usize, min: usize) -> Self {
        self.autoscale = Some((max, min));
        self.concurrency(min.max(1)).blocking_slots(min.max(1))
    }

    /// A file that is touched as often as the broker is asked (three times in
    /// `worker_liveness_timeout`) while the worker can do its work, and removed when it ends: for
    /// probes of its health from outside.
    #[must_use]
    pub fn health_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.health_file = Some(path.into());
        self
    }

    /// Connects, declares, and consumes.
    ///
    /// # Errors
    /// [`Error::Registry`] when there are no tasks, two of one name, or a state is missing;
    /// [`Error::Connect`] and [`Error::Consume`] when the broker cannot be used.
    pub async fn start(self) -> Result<RunningWorker, Error> {
        let registry = Arc::new(self.app.registry()?);
        check_isolation(&registry)?;
        let autoscale = Autoscale::new(self.autoscale.map(bounds).transpose()?);
        let recycling = Recycling::new(self.tasks_max, self.memory_max_kib);
        let config = self.app.config().clone();
        let most = most_slots(&autoscale, &config);
        let multiplier = config.worker_prefetch_multiplier;
        let prefetch = Prefetch::new(most.both(), multiplier, &recycling);
        let info = self.describe(&registry, &config, prefetch)?;
        let specs: Vec<QueueSpec> = info.queues.iter().map(|name| config.queue(name)).collect();
        let client = self.app.connect().await?;
        let events = Arc::new(Events::new(&client, &info.hostname));
        let environment = Arc::new(environment(self.app, &client, &registry, &events));
        let options = connection_options(&config, format!("{} consume", info.hostname));
        let connection = Connection::open(options).await.map_err(Error::Consume)?;
        connection.declare(&layout::working(&specs)).await.map_err(Error::Consume)?;
        let priority = config.worker_consumer_priority.map(|it| ("x-priority", i64::from(it)));
        let consumer = ConsumerOptions::new(specs)
            .prefetch(prefetch.all)
            .prefetch_queue_min(prefetch.each)
            .tag_prefix(&*info.hostname)
            .arguments(Map::from_iter(priority));
        let (limits, stop) = (Limits::default(), Stop::default());
        let revoked = Revoked::new(config.worker_revokes_max, config.worker_revoke_expires);
        let tally = Tally::new(registry.names());
        let permits = Permits::new(connection.clone(), client.publisher().clone());
        let starts = Starts::new(client.connection().clone(), client.publisher().clone());
        let crew = Arc::new(Crew {
            permits,
            starts,
            gathering: gather::Budget::of(client.config()),
            deletions: Deletions::new(client.config().join_queue_type),
            active: Active::default(),
            slots: Slots::new(info.concurrency),
            blocking_slots: Slots::new(info.blocking_slots),
            rates: Rates::new(registry.iter().filter_map(rate_limit)),
            time_limits: TimeLimits::new(Within {
                soft: config.task_soft_time_limit,
                hard: config.task_time_limit,
            }),
            lost_threads: LostThreads::new(most.blocking),
            recent: Recent::new(),
            hold: Hold::new(info.prefetch),
            pulse: Pulse::new(&config),
            events,
            info,
            client,
            registry,
            environment,
            limits,
            stop,
            revoked,
            tally,
            recycling,
            autoscale,
            #[cfg(unix)]
            isolates: isolate::Pool::new(
                config.worker_max_tasks_per_child,
                config.worker_max_memory_per_child,
            ),
        });
        // Boxed, because whoever starts a worker would hold room for all of it.
        Box::pin(begin(crew, connection, consumer, self.health_file.map(HealthFile::new))).await
    }

    fn describe(
        &self,
        registry: &Registry,
        config: &Config,
        prefetch: Prefetch,
    ) -> Result<WorkerInfo, Error> {
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
        let broker = config.broker_url.iter().map(ToString::to_string).collect::<Vec<_>>();
        Ok(WorkerInfo {
            hostname: self.hostname.clone().unwrap_or_else(default_hostname),
            broker: broker.join(";"),
            queues,
            tasks: registry.names(),
            concurrency,
            blocking_slots,
            prefetch: prefetch.all,
        })
    }
}

/// The most slots that there will be without a command.
#[derive(Clone, Copy, Debug)]
struct Most {
    concurrency: usize,
    blocking: usize,
}

impl Most {
    fn both(self) -> usize {
        self.concurrency.saturating_add(self.blocking)
    }
}

/// What tasks find around them.
fn environment(
    app: App,
    client: &Client,
    registry: &Arc<Registry>,
    events: &Arc<Events>,
) -> Environment {
    Environment {
        states: app.into_states(),
        client: Some(client.clone()),
        updates: Some(Arc::new(Updates { client: client.clone() })),
        events: Some(Arc::clone(events) as _),
        registry: Some(Arc::clone(registry)),
        runtime: Some(tokio::runtime::Handle::current()),
        connect: None,
    }
}

fn most_slots(autoscale: &Autoscale, config: &Config) -> Most {
    let max = autoscale.bounds().map_or(0, Bounds::max);
    let (concurrency, blocking) = (config.worker_concurrency, config.worker_blocking_slots);
    Most { concurrency: concurrency.max(max), blocking: blocking.max(max) }
}

/// Starts the parts of a worker in their order: nothing runs before the revocations were read.
async fn begin(
    crew: Arc<Crew>,
    connection: Connection,
    consumer: ConsumerOptions,
    health_file: Option<HealthFile>,
) -> Result<RunningWorker, Error> {
    watchdog::watch(crew.active.clone(), Arc::downgrade(&crew));
    // Before the first task comes.
    let revocations = match crew.client.config().worker_enable_remote_control {
        true => Some(Revocations::start(&connection, &crew).await),
        false => None,
    };
    let consumers = match Consumers::start(&crew, &connection, consumer).await {
        Ok(consumers) => consumers,
        Err(error) => {
            // Nobody else could end what has begun, and it would hold what is delivered to it.
            if let Some(revocations) = revocations {
                revocations.stop().await;
            }
            connection.close().await;
            return Err(error);
        }
    };
    let Consumers { deliveries, handle, joining, reaper } = consumers;
    // What holds the crew until the worker stops comes after all that may fail.
    Recycling::watch_memory(&crew);
    Autoscale::start(&crew, handle.clone());
    let binder = Binder::start(&crew, &handle);
    let crew_of = Arc::clone(&crew);
    let control = Control::open(&crew, &handle, &connection, revocations, binder).await;
    let heart = Heart::start(&crew);
    let consuming = Consuming {
        connection,
        deliveries,
        handle,
        joining,
        reaper,
        control,
        heart,
        health_file,
        crew: crew_of,
    };
    Ok(RunningWorker { crew, consuming: tokio::spawn(consuming.run()) })
}

/// What takes messages in.
struct Consumers {
    deliveries: Deliveries,
    handle: ConsumerHandle,
    joining: Option<Joining>,
    reaper: Reaper,
}

impl Consumers {
    async fn start(
        crew: &Arc<Crew>,
        connection: &Connection,
        options: ConsumerOptions,
    ) -> Result<Self, Error> {
        let (deliveries, handle) =
            Consumer::start(connection, options).await.map_err(Error::Consume)?;
        crew.pulse.begin(connection.clone(), handle.clone());
        let joining = Joining::start(crew).await?;
        let reaper = Reaper::start(connection, crew).await.map_err(Error::Consume)?;
        Ok(Self { deliveries, handle, joining, reaper })
    }
}

fn bounds((max, min): (usize, usize)) -> Result<Bounds, Error> {
    Bounds::new(max, min).ok_or_else(|| {
        Error::Settings(format!("autoscale: {min} slots at least are more than {max} at most"))
    })
}

/// Whether isolated tasks, if there are any, can be run in this program.
fn check_isolation(registry: &Registry) -> Result<(), Error> {
    let Some(task) = registry.isolated().min_by_key(|task| task.name) else { return Ok(()) };
    let of_task =
        format!("task '{}' ({}:{}) has isolate = process", task.name, task.file, task.line);
    #[cfg(unix)]
    if isolate::is_served() {
        return Ok(());
    }
    let advice = if cfg!(unix) {
        "call celeriac::worker::serve_isolated(app) first in main"
    } else {
        "which needs a Unix system"
    };
    Err(Error::Settings(format!("{of_task}: {advice}")))
}

fn rate_limit(task: &'static TaskDef) -> Option<(&'static str, RateLimit)> {
    Some((task.name, task.options.rate_limit?))
}

/// `celeriac@<host>`.
fn default_hostname() -> String {
    format!("celeriac@{}", gethostname::gethostname().to_string_lossy())
}
