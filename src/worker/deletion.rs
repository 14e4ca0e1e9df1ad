//! Deleting parked values of chords that are over, a few at a time.
//!
//! Does not know when a chord is over. **Invariant:** that a body has ended is written down before
//! its values are deleted, and nothing is deleted if it could not be; what is not deleted expires.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tracing::{debug, warn};

use crate::amqp::{Connection, Error, QueueKind, layout, topology};

/// How long one deletion may take once it is its turn.
const DELETE_WITHIN: Duration = Duration::from_secs(10);

/// Before it is tried again over a connection that was lost.
const DELETE_PAUSE: Duration = Duration::from_millis(200);

/// Deletions at once: each needs a channel, of which a connection has 2,047.
const BODIES_MAX: usize = 32;
const UNUSED_MAX: usize = 8;

/// Chords without a body that may wait for theirs. Thousands expire together if one cause fails
/// them all.
const WAITING_MAX: usize = 8192;

/// The deletions of one worker.
#[derive(Debug)]
pub(super) struct Deletions {
    /// Of the queues that say that a body has ended.
    kind: QueueKind,
    bodies: Semaphore,
    unused: Semaphore,
    waiting: Arc<Semaphore>,
}

impl Deletions {
    pub(super) fn new(kind: QueueKind) -> Arc<Self> {
        Arc::new(Self {
            kind,
            bodies: Semaphore::new(BODIES_MAX),
            unused: Semaphore::new(UNUSED_MAX),
            waiting: Arc::new(Semaphore::new(WAITING_MAX)),
        })
    }

    /// Deletes the values of a chord whose body has ended. What is left for want of a broker
    /// expires.
    pub(super) async fn of_body(&self, connection: &Connection, chord: &str) {
        let _turn = self.bodies.acquire().await;
        let end = layout::park_end(chord, self.kind);
        within(chord, async {
            // First, so that a second call of the body finds the one or the other.
            connection.declare_for_now(&end).await?;
            delete(connection, chord).await
        })
        .await;
    }

    /// Deletes the values of a chord that has ended without a body, when it is its turn. Waits for
    /// nothing.
    pub(super) fn of_unused(self: &Arc<Self>, connection: Connection, chord: String) {
        let Ok(waiting) = Arc::clone(&self.waiting).try_acquire_owned() else {
            warn!(chord, "too much is deleted, parked results are left to expire");
            return;
        };
        let this = Arc::clone(self);
        tokio::spawn(async move {
            let _waiting = waiting;
            let _turn = this.unused.acquire().await;
            within(&chord, delete(&connection, &chord)).await;
        });
    }
}

async fn delete(connection: &Connection, chord: &str) -> Result<(), Error> {
    loop {
        match connection.delete_queue(&topology::park_queue(chord)).await {
            Err(error) if error.is_connection() => tokio::time::sleep(DELETE_PAUSE).await,
            result => return result,
        }
    }
}

async fn within(chord: &str, deleting: impl Future<Output = Result<(), Error>>) {
    match tokio::time::timeout(DELETE_WITHIN, deleting).await {
        Ok(Ok(())) => debug!(chord, "parked results deleted"),
        Ok(Err(error)) => warn!(chord, %error, "parked results are left to expire"),
        Err(_) => warn!(chord, "parked results are left to expire"),
    }
}
