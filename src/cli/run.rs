//! The life of a worker process, from its settings to its exit code.

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use tokio::runtime::{Builder, Runtime};
use tracing::{info, warn};

use super::args::Args;
use super::banner::Banner;
#[cfg(unix)]
use super::child::ChildOf;
use super::logging::{self, LogFormat, LogLevel};
use super::pidfile::{Pidfile, PidfileError};
#[cfg(unix)]
use super::processes;
use super::signals::Signals;
use super::stopping::{Listener, Step};
use super::{hostname, report};
use crate::app::App;
use crate::client::ConfigError;
use crate::task::RegistryError;
use crate::worker::{self, RunningWorker, Stopped, Worker};

/// Threads for what blocks besides tasks, such as looking up host names.
const SPARE_BLOCKING_THREADS: usize = 16;

/// Runs a worker with `app`'s tasks and state as the command line says, until it is told to stop.
///
/// This is the whole `main` of a worker binary. The settings in `app` are the ones that files,
/// the environment and options are put over. The exit code is 0 after a warm shutdown, 1 after a
/// failure or a cold shutdown, 2 for wrong options or settings, 3 if the broker cannot be reached.
///
/// ```no_run
/// use std::process::ExitCode;
/// use celeriac::{App, Config};
///
/// fn main() -> ExitCode {
///     celeriac::cli::main(App::new(Config::default()))
/// }
/// ```
pub fn main(app: App) -> ExitCode {
    let args = Args::parse();
    match run(app, &args) {
        Ok(code) => code,
        Err(error) => {
            report::complain(&error);
            error.exit_code()
        }
    }
}

/// How the one worker of this process has ended.
#[derive(Clone, Copy, Debug)]
struct Ended {
    stopped: Stopped,
    /// Whether a signal was the cause.
    by_signal: bool,
    /// Whether it has stopped because it was to be replaced.
    recycled: bool,
}

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Filter(#[from] logging::InvalidFilter),
    #[error(transparent)]
    Pidfile(#[from] PidfileError),
    #[error(transparent)]
    Registry(#[from] RegistryError),
    #[error(transparent)]
    Worker(#[from] worker::Error),
    #[error("failed to set up the process")]
    System(#[from] io::Error),
}

impl Error {
    fn exit_code(&self) -> ExitCode {
        match self {
            Self::Config(_) | Self::Filter(_) => ExitCode::from(2),
            Self::Worker(error) if error.is_connection() => ExitCode::from(3),
            Self::Pidfile(_) | Self::Registry(_) | Self::Worker(_) | Self::System(_) => {
                ExitCode::FAILURE
            }
        }
    }
}

fn run(mut app: App, args: &Args) -> Result<ExitCode, Error> {
    args.apply(app.config_mut())?;
    logging::start(args.loglevel, LogLevel::Info, args.log_format)?;
    #[cfg(unix)]
    let app = worker::serve_isolated(app);
    let hostname = hostname::node_name(args.hostname.as_deref());
    #[cfg(unix)]
    if let Some(child) = ChildOf::parent()? {
        return run_child(app, args, child, &hostname);
    }
    let pidfile = args.pidfile.as_deref().map(Pidfile::create).transpose()?;
    introduce(&app, args, &hostname)?;
    let code = match app.config().worker_processes {
        Some(places) => run_parent(places, app.config().worker_soft_shutdown_timeout)?,
        None => {
            let mut worker = worker(app, args, hostname);
            if let Some(path) = &args.health_file {
                worker = worker.health_file(path);
            }
            exit_code(run_worker(worker, args, Listener::default())?.stopped)
        }
    };
    drop(pidfile);
    Ok(code)
}

fn exit_code(stopped: Stopped) -> ExitCode {
    if stopped == Stopped::Warm { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// One of several workers under a parent, which has said what there is to say.
#[cfg(unix)]
fn run_child(app: App, args: &Args, child: ChildOf, node: &str) -> Result<ExitCode, Error> {
    let config = app.config();
    let (tasks, kib) = (config.worker_max_tasks_per_child, config.worker_max_memory_per_child);
    let mut worker = worker(app, args, child.hostname(node)).recycle_after(tasks, kib);
    if let Some(path) = &args.health_file {
        worker = worker.health_file(child.path(path));
    }
    let ended = run_worker(worker, args, Listener { is_child: true, has_soft: false })?;
    Ok(ExitCode::from(ChildOf::exit_code(ended.stopped, ended.by_signal, ended.recycled)))
}

#[cfg(unix)]
fn run_parent(places: usize, soft: Duration) -> Result<ExitCode, Error> {
    if places == 0 {
        let message = "worker_processes must be 1 or more; leave it out for one process".to_owned();
        return Err(Error::Worker(worker::Error::Settings(message)));
    }
    let report = processes::run(places, soft)?;
    if let Some(code) = report.given_up {
        return Ok(u8::try_from(code).map_or(ExitCode::FAILURE, ExitCode::from));
    }
    Ok(exit_code(if report.unclean == 0 { Stopped::Warm } else { Stopped::Cold }))
}

#[cfg(not(unix))]
fn run_parent(_: usize, _: Duration) -> Result<ExitCode, Error> {
    let message = "worker_processes (--processes) needs a Unix system".to_owned();
    Err(Error::Worker(worker::Error::Settings(message)))
}

fn worker(app: App, args: &Args, hostname: String) -> Worker {
    let mut worker = Worker::new(app).hostname(hostname);
    if let Some((max, min)) = args.autoscale {
        worker = worker.autoscale(max, min);
    }
    if args.queues.is_empty() { worker } else { worker.queues(args.queues.clone()) }
}

/// Runs a worker in this process until it has stopped.
fn run_worker(worker: Worker, args: &Args, listener: Listener) -> Result<Ended, Error> {
    let (slots, soft) = {
        let config = worker.config();
        (config.worker_blocking_slots, config.worker_soft_shutdown_timeout)
    };
    let listener = Listener { has_soft: !soft.is_zero(), ..listener };
    let runtime = runtime(slots.max(args.autoscale.map_or(0, |(max, _)| max)))?;
    let ended = runtime.block_on(work(worker, listener, soft));
    // A blocking task that was left behind must not keep the process alive.
    runtime.shutdown_background();
    ended
}

fn runtime(blocking_slots: usize) -> io::Result<Runtime> {
    // Threads are made when they are needed, and those that are given up are replaced.
    let threads = blocking_slots.saturating_mul(1 + worker::REPLACED_PER_SLOT);
    Builder::new_multi_thread()
        .enable_all()
        .thread_name("celeriac")
        .max_blocking_threads(threads.saturating_add(SPARE_BLOCKING_THREADS))
        .build()
}

/// Shows the banner; in a log for machines it is an event like any other.
fn introduce(app: &App, args: &Args, hostname: &str) -> Result<(), Error> {
    let config = app.config();
    let default_queue = [config.task_default_queue.clone()];
    let registry = app.registry()?;
    let tasks: Vec<&'static str> = registry.names();
    let banner = Banner {
        hostname,
        brokers: config.broker_url.iter().map(ToString::to_string).collect(),
        processes: config.worker_processes,
        concurrency: config.worker_concurrency,
        blocking_slots: config.worker_blocking_slots,
        prefetch_multiplier: config.worker_prefetch_multiplier,
        task_events: config.worker_send_task_events,
        queues: if args.queues.is_empty() { &default_queue } else { &args.queues },
        tasks: &tasks,
    };
    match args.log_format {
        // Nobody may be reading it, which is no reason to stop.
        LogFormat::Human => drop(write!(io::stdout().lock(), "{banner}")),
        LogFormat::Json => banner.log(),
    }
    Ok(())
}

async fn work(worker: Worker, listener: Listener, soft: Duration) -> Result<Ended, Error> {
    let mut signals = Signals::listen()?;
    let running = tokio::select! {
        running = worker.start() => running?,
        signal = signals.next() => {
            info!("{signal}: stopped before the broker answered");
            return Ok(Ended { stopped: Stopped::Warm, by_signal: true, recycled: false });
        }
    };
    stop_when_told(running, &mut signals, listener, soft).await
}

async fn stop_when_told(
    running: RunningWorker,
    signals: &mut Signals,
    listener: Listener,
    soft: Duration,
) -> Result<Ended, Error> {
    info!("{} ready.", running.info().hostname);
    let handle = running.handle();
    let mut ended = std::pin::pin!(running.wait());
    let mut deadline = std::pin::pin!(tokio::time::sleep(Duration::MAX));
    let mut asked: Option<Step> = None;
    let end = |stopped, asked: Option<Step>, recycled| Ended {
        stopped,
        by_signal: asked.is_some(),
        recycled,
    };
    loop {
        let signal = tokio::select! {
            outcome = &mut ended => return Ok(end(outcome?, asked, handle.is_recycled())),
            () = &mut deadline, if asked == Some(Step::Soft) => {
                warn!("worker: Cold shutdown (time is up): what runs will be delivered again");
                asked = Some(Step::Cold);
                handle.terminate();
                continue;
            }
            signal = signals.next() => signal,
        };
        let Some(step) = listener.next(asked, signal) else { continue };
        asked = Some(step);
        match step {
            Step::Warm => {
                info!(
                    "worker: Warm shutdown ({signal}): finishing what runs; again to stop at once"
                );
                handle.shutdown();
            }
            Step::Soft => {
                let soft_s = soft.as_secs_f64();
                warn!("worker: Soft shutdown ({signal}): what runs has {soft_s} s to finish");
                deadline.set(tokio::time::sleep(soft));
                handle.shutdown();
            }
            Step::Cold => {
                warn!("worker: Cold shutdown ({signal}): what runs will be delivered again");
                handle.terminate();
            }
            // Somebody who asks three times does not want to wait for the connection to close.
            Step::Leave => return Ok(end(Stopped::Cold, asked, false)),
        }
    }
}
