//! Publishing what may be lost: neither mandatory nor confirmed, on a channel of its own.
//!
//! For events, of which nobody relies on. There is no task behind it: whoever emits waits until
//! the frames are written. **Invariant:** a message that the broker refuses costs this channel
//! and nothing else.

use futures::FutureExt;

use super::connection::Connection;
use super::envelope::Envelope;
use super::error::Error;
use super::live::Live;
use super::publisher::{Publish, PublishError};
use super::topology::Topology;

/// A channel without confirms, opened again when it is lost.
pub(crate) struct Emitter {
    connection: Connection,
    /// What must exist; declared before each channel is opened.
    topology: Topology,
    open: Option<Open>,
}

struct Open {
    live: Live,
    channel: lapin::Channel,
}

impl Emitter {
    /// For messages to what `topology` declares. Opens nothing yet.
    pub(crate) fn new(connection: Connection, topology: Topology) -> Self {
        Self { connection, topology, open: None }
    }

    /// Publishes one message, and waits until it is written; before that, for a connection that is
    /// lost or blocked.
    ///
    /// # Errors
    /// [`PublishError::TooLarge`] and [`PublishError::Invalid`] for a message that can never be
    /// sent; [`PublishError::Failed`] when the channel cannot be opened, or was lost. With
    /// [`Error::ChannelClosed`] in it, the broker has refused a message before this one.
    pub(crate) async fn emit(&mut self, publish: &Publish) -> Result<(), PublishError> {
        let failed = |error: Error| PublishError::Failed(error.into());
        let Open { live, channel } = self.open().await.map_err(failed)?;
        let envelope = Envelope::of(publish, live.frame_max())?;
        let sent = tokio::select! {
            biased;
            sent = envelope.cast(channel, &publish.message.body) => sent.map_err(Error::from),
            () = live.gone() => Err(Error::lost()),
        };
        if sent.is_err() {
            self.open = None;
        }
        sent.map_err(failed)
    }

    async fn open(&mut self) -> Result<&Open, Error> {
        let is_usable = |open: &Open| open.live.is_up() && open.channel.status().connected();
        if !self.open.as_ref().is_some_and(is_usable) {
            if self.open.take().is_some_and(|open| open.live.is_up()) {
                return Err(Error::ChannelClosed);
            }
            self.connection.declare_for_now(&self.topology).await?;
            let live = self.connection.live(0).await?;
            let channel = live.answer(live.connection.create_channel()).await?;
            self.open = Some(Open { live, channel });
        }
        self.open.as_ref().ok_or_else(Error::lost)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        // The first poll sends the close; nobody waits for its answer.
        let _ = self.channel.close(200, "bye".into()).now_or_never();
    }
}

impl std::fmt::Debug for Emitter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Emitter").field("is_open", &self.open.is_some()).finish_non_exhaustive()
    }
}
