//! Asking how far a chord is, and ending one: records for its joiner.
//!
//! Does not start chords (see `apply`). **Invariant:** a cancel is in the log of the chord's shard
//! when it returns, so that the body cannot be called any more unless it was decided before.

use std::sync::Arc;
use std::time::Duration;

use super::inquiry::Inquiry;
use super::{Client, ControlError};
use crate::amqp::{self, Publish, PublishError, topology};
use crate::protocol;
use crate::protocol::join::{self, Inspection, Record};

/// Why nothing is known about a chord, or why it was not cancelled.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChordError {
    /// The id is no chord's, or too long.
    #[error("'{chord}' cannot be the id of a chord")]
    Id {
        /// What was given.
        chord: String,
        /// What is wrong with it.
        source: protocol::Error,
    },
    /// The broker did not take the record. If it has no queue for the shard, no worker has ever
    /// joined with as many `join_shards` as this client has.
    #[error("failed to reach the joiner of chord {chord}")]
    Publish {
        /// Id of the chord.
        chord: String,
        /// What the broker said.
        source: Box<PublishError>,
    },
    /// The chord is cancelled, but its parts may still run.
    #[error("the chord is cancelled, but its parts could not be revoked")]
    Parts(#[source] ControlError),
    /// The queue for the answer could not be made or read.
    #[error("failed to listen for an answer")]
    Listen(#[source] Arc<amqp::Error>),
    /// No joiner has answered: no worker runs that joins, or it is busy taking over.
    #[error("no joiner has answered within {after:?}: does a worker run?")]
    NoAnswer {
        /// How long it was waited for.
        after: Duration,
    },
    /// The answer is none of the join protocol's.
    #[error("the joiner's answer is unreadable")]
    Answer(#[source] protocol::Error),
}

impl Client {
    /// Asks the joiner how far a chord is; `chord` is the id of the chord's header, which the
    /// parent of its result has.
    ///
    /// A chord that is over is [`Finished`](join::ChordState::Finished) for a moment and
    /// [`Unknown`](join::ChordState::Unknown) from then on.
    /// [`chord_progress`](Self::chord_progress) asks again and again.
    ///
    /// The chord must have been made with as many `join_shards` as this client has.
    ///
    /// # Errors
    /// [`ChordError::NoAnswer`] when nobody answers within `patience`; the others when the broker
    /// cannot be used.
    pub async fn inspect_chord(
        &self,
        chord: &str,
        patience: Duration,
    ) -> Result<Inspection, ChordError> {
        let mut inquiry = Inquiry::open(self, chord).await?;
        let asking = async {
            inquiry.ask().await?;
            inquiry.answer().await
        };
        let answered = tokio::time::timeout(patience, asking).await;
        inquiry.close().await;
        answered.unwrap_or(Err(ChordError::NoAnswer { after: patience }))
    }

    /// Cancels a chord: unless its outcome was decided before, its body is never called, whoever
    /// waits for it gets `REVOKED`, and its errbacks are called only if `errbacks` says so.
    ///
    /// Parts that have not started yet are revoked, and do not run; those that run go on, and
    /// their results are dropped. The chord must have been made with as many `join_shards` as this
    /// client has: with others, its body is called with what its parts give.
    ///
    /// # Errors
    /// When the broker does not take the record.
    pub async fn cancel_chord(
        &self,
        chord: &str,
        reason: &str,
        errbacks: bool,
    ) -> Result<(), ChordError> {
        let (chord_id, reason) = (chord.to_owned(), reason.to_owned());
        let cancel = Record::Cancel { chord: chord_id, reason, errbacks };
        self.log(chord, &cancel).await?;
        // Afterwards, so that the reason is the one given here, and not that of a revoked part.
        self.revoke_group(chord, false).await.map_err(ChordError::Parts)
    }

    /// Appends a record to the log of the chord's shard.
    pub(super) async fn log(&self, chord: &str, record: &Record) -> Result<(), ChordError> {
        let unwritable = |source| ChordError::Id { chord: chord.to_owned(), source };
        let message = record.encode().map_err(unwritable)?;
        let route = join::route(chord, self.config().join_shards);
        let publish = Publish::new(topology::results_exchange(), route, message);
        self.publisher().publish(publish).await.map_err(|source| ChordError::Publish {
            chord: chord.to_owned(),
            source: Box::new(source),
        })
    }
}
