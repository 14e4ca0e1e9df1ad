//! The life of a worker process, from its settings to its exit code.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;
use tokio::runtime::{Builder, Runtime};
use tracing::{info, warn};

use super::args::Args;
use super::banner::Banner;
use super::logging::{self, LogFormat, LogLevel};
use super::pidfile::{Pidfile, PidfileError};
use super::signals::{Signal, Signals};
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
        Ok(Stopped::Warm) => ExitCode::SUCCESS,
        Ok(Stopped::Cold) => ExitCode::FAILURE,
        Err(error) => {
            report::complain(&error);
            error.exit_code()
        }
    }
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

fn run(mut app: App, args: &Args) -> Result<Stopped, Error> {
    args.apply(app.config_mut())?;
    logging::start(args.loglevel, LogLevel::Info, args.log_format)?;
    let pidfile = args.pidfile.as_deref().map(Pidfile::create).transpose()?;
    let hostname = hostname::node_name(args.hostname.as_deref());
    introduce(&app, args, &hostname)?;

    let runtime = runtime(app.config().worker_blocking_slots)?;
    let mut worker = Worker::new(app).hostname(hostname);
    if !args.queues.is_empty() {
        worker = worker.queues(args.queues.clone());
    }
    let ending = runtime.block_on(work(worker));
    // A blocking task that was left behind must not keep the process alive.
    runtime.shutdown_background();
    drop(pidfile);
    ending
}

fn runtime(blocking_slots: usize) -> io::Result<Runtime> {
    Builder::new_multi_thread()
        .enable_all()
        .thread_name("celeriac")
        .max_blocking_threads(blocking_slots.saturating_add(SPARE_BLOCKING_THREADS))
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
        concurrency: config.worker_concurrency,
        blocking_slots: config.worker_blocking_slots,
        prefetch_multiplier: config.worker_prefetch_multiplier,
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

async fn work(worker: Worker) -> Result<Stopped, Error> {
    let mut signals = Signals::listen()?;
    let running = tokio::select! {
        running = worker.start() => running?,
        signal = signals.next() => {
            info!("{signal}: stopped before the broker answered");
            return Ok(Stopped::Warm);
        }
    };
    stop_when_told(running, &mut signals).await
}

async fn stop_when_told(running: RunningWorker, signals: &mut Signals) -> Result<Stopped, Error> {
    info!("{} ready.", running.info().hostname);
    let handle = running.handle();
    let mut ended = std::pin::pin!(running.wait());
    let mut asked: Option<Stopped> = None;
    loop {
        let signal = tokio::select! {
            outcome = &mut ended => {
                return Ok(outcome?);
            }
            signal = signals.next() => signal,
        };
        asked = match asked {
            None if signal != Signal::Quit => {
                info!(
                    "worker: Warm shutdown ({signal}): finishing what runs; again to stop at once"
                );
                handle.shutdown();
                Some(Stopped::Warm)
            }
            None | Some(Stopped::Warm) => {
                warn!("worker: Cold shutdown ({signal}): what runs will be delivered again");
                handle.terminate();
                Some(Stopped::Cold)
            }
            // Somebody who asks three times does not want to wait for the connection to close.
            Some(Stopped::Cold) => return Ok(Stopped::Cold),
        };
    }
}
