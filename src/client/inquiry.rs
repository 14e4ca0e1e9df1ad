//! Questions to the joiner of one chord, and its answers, which come to a queue of their own.
//!
//! Does not say when to ask (see `chords` and `chord_progress`). **Invariant:** the queue goes away
//! with who asks: it is deleted, or expires, and is not declared again.

use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use super::{ChordError, Client};
use crate::amqp::{
    self, Consumer, ConsumerHandle, ConsumerOptions, Deliveries, QueueSpec, topology,
};
use crate::protocol::Limits;
use crate::protocol::join::{Inspection, Record};

/// How long an answer waits for somebody who may have gone.
const ANSWER_EXPIRES: Duration = Duration::from_secs(60);

/// Answers on their way to this program.
const PREFETCH: u32 = 8;

/// Who asks about one chord, and where the answers come.
#[derive(Debug)]
pub(super) struct Inquiry {
    client: Client,
    chord: String,
    id: String,
    deliveries: Deliveries,
    handle: ConsumerHandle,
}

impl Inquiry {
    /// Listens for answers.
    pub(super) async fn open(client: &Client, chord: &str) -> Result<Self, ChordError> {
        let id = Uuid::new_v4().to_string();
        let mut queue = QueueSpec::classic(topology::reply_queue(&id));
        queue.expires = Some(ANSWER_EXPIRES);
        let options =
            ConsumerOptions::new([queue]).prefetch(PREFETCH).tag_prefix("celeriac-inspect");
        let (deliveries, handle) = Consumer::start(client.connection(), options)
            .await
            .map_err(|error| ChordError::Listen(Arc::new(error)))?;
        Ok(Self { client: client.clone(), chord: chord.to_owned(), id, deliveries, handle })
    }

    /// Asks once more.
    pub(super) async fn ask(&self) -> Result<(), ChordError> {
        let question = Record::Inspect {
            chord: self.chord.clone(),
            reply_to: topology::reply_queue(&self.id),
            correlation: self.id.clone(),
        };
        self.client.log(&self.chord, &question).await
    }

    /// The latest answer. Dropping the future loses nothing.
    pub(super) async fn answer(&mut self) -> Result<Inspection, ChordError> {
        let mut burst = Vec::new();
        self.deliveries.next_burst(&mut burst).await;
        let mut answers = burst.into_iter();
        let Some(latest) = answers.next_back() else {
            return Err(ChordError::Listen(Arc::new(amqp::Error::Closed)));
        };
        answers.for_each(|older| older.token.ack());
        let inspection = Inspection::decode(&latest.message, &Limits::default());
        latest.token.ack();
        inspection.map_err(ChordError::Answer)
    }

    /// Listens no more.
    pub(super) async fn close(self) {
        self.handle.close().await;
        // What cannot be deleted expires.
        let _ = self.client.connection().delete_queue(&topology::reply_queue(&self.id)).await;
    }
}

impl Drop for Inquiry {
    fn drop(&mut self) {
        self.client.connection().forget_queue(&topology::reply_queue(&self.id));
    }
}
