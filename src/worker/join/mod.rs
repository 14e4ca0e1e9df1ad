//! Joining: the worker's share of what turns the parts of chords into outcomes.
//!
//! Each shard of the join protocol is a queue, of which the broker lets one consumer read. Every
//! worker stands by on every shard, over a connection of its own, so that another one goes on when
//! the one that reads is gone.
//!
//! | file | duty |
//! |---|---|
//! | `shard` | subscribes to one shard, again and again |
//! | `balance` | which shards are given to other workers |
//! | `session` | one subscription: feeds the machine of `results::join`, carries out what it says |
//! | `firing` | outcomes that are being published |
//! | `careful` | outcomes that the broker refuses |
//! | `outcome` | the messages that follow from an outcome |
//! | `poison` | what is put with the dead letters |
//! | `refused` | records that a queue would not store |
//!
//! Does not decide anything (see `results::join`). **Invariant:** whatever is done for a shard goes
//! over the channel that reads it, so that all of it ends together.

mod balance;
mod careful;
mod firing;
mod outcome;
mod poison;
mod refused;
mod session;
mod shard;

use std::sync::Arc;

use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use super::Error;
use super::running::Crew;
use crate::amqp::{self, Connection, layout};
use crate::client::connection_options;
use balance::balance;
#[cfg(test)]
pub(super) use outcome::following;
pub(super) use outcome::{bereaved, failed as chord_failed};
use shard::Shard;

/// Heartbeat of the connection, in seconds: how long a joiner that vanished from the network may
/// hold its shards.
const HEARTBEAT_S: u16 = 10;

/// The joiners of this worker.
#[derive(Debug)]
pub(super) struct Joining {
    connection: Connection,
    stop: CancellationToken,
    shards: JoinSet<Result<(), amqp::Error>>,
}

impl Joining {
    /// Subscribes to all shards; `None` if the settings say that this worker does not join.
    pub(super) async fn start(crew: &Arc<Crew>) -> Result<Option<Self>, Error> {
        let config = crew.client.config();
        if !config.join_enabled {
            return Ok(None);
        }
        let mut options = connection_options(config, format!("{} join", crew.info.hostname));
        options.heartbeat_s = match options.heartbeat_s {
            // Without one, a joiner that vanished would hold its shards for ever.
            0 => HEARTBEAT_S,
            asked => asked.min(HEARTBEAT_S),
        };
        let connection = Connection::open(options).await.map_err(Error::Consume)?;
        let shards = layout::joining(0..config.join_shards, config.join_queue_type);
        connection.declare(&shards).await.map_err(Error::Consume)?;
        let stop = CancellationToken::new();
        let mut shards = JoinSet::new();
        let mut seats = Vec::new();
        for number in 0..config.join_shards {
            let shard = Shard::new(number, connection.clone(), Arc::clone(crew), stop.clone());
            seats.push(Arc::clone(&shard.seat));
            shards.spawn(shard.run());
        }
        let interval = config.join_rebalance;
        if !interval.is_zero() {
            let balancing = balance(seats, connection.clone(), interval, stop.clone());
            shards.spawn(async move {
                balancing.await;
                Ok(())
            });
        }
        Ok(Some(Self { connection, stop, shards }))
    }

    /// Completes when a shard is given up though nobody asked for that: with the reason, or with
    /// the panic that ended it.
    pub(super) async fn given_up(&mut self) -> Result<Arc<amqp::Error>, JoinError> {
        while let Some(ended) = self.shards.join_next().await {
            match ended {
                Ok(Ok(())) => {}
                Ok(Err(amqp::Error::GivenUp { source })) => return Ok(source),
                Ok(Err(error)) => return Ok(Arc::new(error)),
                Err(failed) => return Err(failed),
            }
        }
        std::future::pending().await
    }

    /// Finishes what is being published and gives all shards to others.
    pub(super) async fn stop(mut self) {
        self.stop.cancel();
        while let Some(ended) = self.shards.join_next().await {
            if let Err(failed) = ended
                && failed.is_panic()
            {
                std::panic::resume_unwind(failed.into_panic());
            }
        }
        self.connection.close().await;
    }
}
