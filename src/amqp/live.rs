//! One established connection, for as long as it lasts.
//!
//! Does not connect and does not come back (see `supervisor.rs`). **Invariant:** nobody waits for
//! ever on a broker: a request that is not answered in time loses the connection for everybody.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::error::Error;

/// What lapin gets to fail its own futures with the broker's words, once a connection is over.
const GRACE: Duration = Duration::from_secs(1);

/// A handle to one established connection. Clones share it.
#[derive(Clone)]
pub(super) struct Live {
    /// Counts the successful connects, from 1.
    pub(super) epoch: u64,
    pub(super) connection: Arc<lapin::Connection>,
    /// Set when it is lost, by whoever notices first.
    over: CancellationToken,
    /// How long the broker may take to answer one request.
    patience: Duration,
}

impl Live {
    pub(super) fn new(epoch: u64, connection: lapin::Connection, patience: Duration) -> Self {
        let connection = Arc::new(connection);
        Self { epoch, connection, over: CancellationToken::new(), patience }
    }

    /// Whether it still looks usable; it may be lost at any time.
    pub(super) fn is_up(&self) -> bool {
        !self.over.is_cancelled() && self.connection.status().connected()
    }

    /// The largest frame that both sides take, in bytes.
    pub(super) fn frame_max(&self) -> usize {
        self.connection.configuration().frame_max() as usize
    }

    /// Waits for the broker's answer to `request`, and gives the connection up if none comes.
    ///
    /// lapin has no limit of its own: a broker that stalls after the handshake would be waited
    /// for until heartbeats miss, or for ever without them.
    pub(super) async fn answer<T>(
        &self,
        request: impl Future<Output = Result<T, lapin::Error>>,
    ) -> Result<T, Error> {
        let mut request = pin!(request);
        loop {
            tokio::select! {
                biased;
                answer = &mut request => return Ok(answer?),
                () = self.gone() => return Err(Error::lost()),
                () = tokio::time::sleep(self.patience) => {}
            }
            // A broker that has blocked a connection does not read what it is asked.
            if !self.connection.status().blocked() {
                self.give_up();
                return Err(self.silent());
            }
        }
    }

    /// Declares the connection lost. The supervisor ends it and makes another one.
    pub(super) fn give_up(&self) {
        self.over.cancel();
    }

    /// Completes when somebody has given the connection up.
    pub(super) async fn given_up(&self) {
        self.over.cancelled().await;
    }

    /// Completes when the connection is lost, and lapin has had its time to say so itself.
    pub(super) async fn gone(&self) {
        self.over.cancelled().await;
        tokio::time::sleep(GRACE).await;
    }

    /// The error for a connection that was given up because of its silence.
    pub(super) fn silent(&self) -> Error {
        Error::Silent { after: self.patience }
    }
}
