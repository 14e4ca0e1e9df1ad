//! The worker's loop: bursts of deliveries in, jobs out; and the order of stopping.

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::task::JoinError;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

use super::control::Control;
use super::events::Heart;
use super::executor::Executor;
use super::health_file::HealthFile;
use super::join::Joining;
use super::reaper::Reaper;
use super::running::{Crew, Stopped, WorkerHandle};
use super::{Error, comeback, intake, settle};
use crate::amqp::{self, Connection, ConnectionState, ConsumerHandle, Deliveries, Delivery};

/// Requests that wait to be settled; when it is full, tasks wait with their slot held, and so the
/// broker's prefetch bounds the rest.
const FINISHED_MAX: usize = 1024;

/// The consuming side of a worker.
#[derive(Debug)]
pub(super) struct Consuming {
    pub(super) connection: Connection,
    pub(super) deliveries: Deliveries,
    pub(super) handle: ConsumerHandle,
    /// `None` if this worker does not join.
    pub(super) joining: Option<Joining>,
    pub(super) control: Control,
    /// Looks after the broker's dead letters.
    pub(super) reaper: Reaper,
    /// Tells that the worker is there.
    pub(super) heart: Heart,
    /// Where others on this machine see that it is well.
    pub(super) health_file: Option<HealthFile>,
    pub(super) crew: Arc<Crew>,
}

impl Consuming {
    /// Consumes until told to stop, or until the connection is lost for good.
    pub(super) async fn run(self) -> Result<Stopped, Error> {
        let Self { connection, mut deliveries, handle, mut joining, reaper, .. } = self;
        let (control, heart, crew) = (self.control, self.heart, self.crew);
        let mut health_file = self.health_file;
        let cold = crew.stop.cold.clone();
        // Jobs wait for it, however this ends.
        let _away = crew.stop.away.clone().drop_guard();
        let (finished, settling) = mpsc::channel(FINISHED_MAX);
        let mut settling = tokio::spawn(settle::run(settling, Arc::clone(&crew)));
        let executor = Executor::new(Arc::clone(&crew), finished);
        let working = async {
            take_in(&mut deliveries, &handle, &executor, &crew).await;
            crew.stop.away.cancel();
            // The last sender goes with the last job, and ends the settling.
            drop(executor);
            let settled = (&mut settling).await;
            handle.close().await;
            settled
        };
        let ended = tokio::select! {
            biased;
            () = cold.cancelled() => Ok(Stopped::Cold),
            // Nothing can be published any more, so every task would run and go back.
            error = given_up(crew.client.connection()) => Err(Ok(Error::Lost(error))),
            // Chords would wait for this worker's share, and nobody would know.
            given_up = no_more_joining(joining.as_mut()) => Err(given_up.map(Error::Lost)),
            unhealthy = crew.pulse.watch(&crew, &mut health_file) => Err(Ok(unhealthy)),
            settled = working => {
                if let Err(failed) = settled {
                    std::panic::resume_unwind(failed.into_panic());
                }
                Ok(Stopped::Warm)
            }
        };
        let stopped = match ended {
            Ok(stopped) => stopped,
            Err(failure) => {
                terminate(&crew);
                settling.abort();
                handle.close().await;
                connection.close().await;
                return match failure {
                    Ok(error) => Err(error),
                    Err(failed) => std::panic::resume_unwind(failed.into_panic()),
                };
            }
        };
        if let ConnectionState::Failed { error } = &*connection.state().borrow() {
            return Err(Error::Lost(Arc::clone(error)));
        }
        if stopped == Stopped::Cold {
            // Nothing more may be settled: a task that is left now must be redelivered.
            settling.abort();
            // The verdicts that were given before, above all those of tasks that ack early, must
            // not be lost with the connection.
            handle.close().await;
        }
        let rest = Rest { connection, reaper, joining, control, heart };
        // What is reaped, or joined, may have to be published as well.
        tokio::select! {
            biased;
            stopped = rest.end(stopped, &crew) => Ok(stopped),
            unhealthy = crew.pulse.watch(&crew, &mut health_file) => {
                terminate(&crew);
                Err(unhealthy)
            }
        }
    }
}

/// What ends after the tasks.
struct Rest {
    connection: Connection,
    reaper: Reaper,
    joining: Option<Joining>,
    control: Control,
    heart: Heart,
}

impl Rest {
    /// Ends it in its order; tells how, because it may take longer than somebody likes.
    async fn end(self, stopped: Stopped, crew: &Crew) -> Stopped {
        let Self { connection, reaper, joining, control, heart } = self;
        let stopped = match stopped {
            Stopped::Cold => {
                drop(reaper);
                Stopped::Cold
            }
            Stopped::Warm => finish_reaping(reaper, &crew.stop.cold).await,
        };
        // Last, so that a worker which finishes what runs can still be asked and told.
        control.stop(stopped).await;
        connection.close().await;
        // The last parts that this worker has run may have completed chords. A cold stop leaves
        // that to the next joiner.
        if let Some(joining) = joining.filter(|_| stopped == Stopped::Warm) {
            joining.stop().await;
        }
        leave(heart, crew).await;
        stopped
    }
}

/// Tells those who look on that the worker stops, and closes its last connection.
async fn leave(heart: Heart, crew: &Crew) {
    // At once, so that a broker which takes no events is waited for only once.
    tokio::join!(heart.stop(crew), crew.client.stop_telling());
    crew.client.close().await;
}

/// Stops warmly, unless it is to be cold after all: a dead letter takes as long as its errbacks and
/// its confirms do.
async fn finish_reaping(reaper: Reaper, cold: &CancellationToken) -> Stopped {
    match cold.run_until_cancelled(reaper.stop()).await {
        Some(()) => Stopped::Warm,
        None => Stopped::Cold,
    }
}

/// Ends all that runs beside the tasks as well.
fn terminate(crew: &Crew) {
    WorkerHandle(crew.stop.clone()).terminate();
}

/// Completes when the connection is lost for good.
async fn given_up(connection: &Connection) -> Arc<amqp::Error> {
    let mut states = connection.state();
    loop {
        if let ConnectionState::Failed { error } = &*states.borrow_and_update() {
            return Arc::clone(error);
        }
        if states.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// Completes when the joiners have given up.
async fn no_more_joining(joining: Option<&mut Joining>) -> Result<Arc<amqp::Error>, JoinError> {
    match joining {
        Some(joining) => joining.given_up().await,
        None => std::future::pending().await,
    }
}

/// Takes in deliveries until the consumer ends; a warm shutdown ends it.
async fn take_in(
    deliveries: &mut Deliveries,
    handle: &ConsumerHandle,
    executor: &Executor,
    crew: &Crew,
) {
    let mut burst = Vec::new();
    let mut cancelled = false;
    loop {
        tokio::select! {
            biased;
            () = crew.stop.warm.cancelled(), if !cancelled => {
                cancelled = true;
                info!("consuming stopped, prefetched messages go back to the broker");
                handle.cancel().await;
                crew.stop.away.cancel();
            }
            more = deliveries.next_burst(&mut burst) => {
                if !more {
                    break;
                }
                distribute(&mut burst, cancelled, executor, crew).await;
            }
        }
    }
    debug!("consumer ended");
}

async fn distribute(burst: &mut Vec<Delivery>, cancelled: bool, executor: &Executor, crew: &Crew) {
    for delivery in burst.drain(..) {
        if cancelled {
            delivery.token.requeue();
            continue;
        }
        let limit = crew.client.config().worker_delivery_limit;
        let came_back = comeback::judge(&delivery, limit);
        match intake::read(delivery, crew) {
            Ok(job) => executor.submit(job, came_back).await,
            Err(refused) => executor.finish(*refused).await,
        }
    }
}
