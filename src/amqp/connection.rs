//! One supervised connection: opened once, and kept open behind its handle.
//!
//! Does not publish or consume; publishers and consumers ask for the live link and come back for
//! the next one when theirs is lost. **Invariant:** each successful connect has a new epoch, and
//! everything declared before exists again before anybody gets the link.

use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::convert::to_properties;
use super::declare::{self, Differences};
use super::dial::CLOSE_TIMEOUT;
use super::error::Error;
use super::live::Live;
use super::supervisor;
use super::topology::{QueueSpec, Topology};
use super::url::BrokerUrl;
use crate::backoff::Backoff;
use crate::protocol::Properties;

/// How to connect, and how stubbornly.
#[derive(Clone, Debug)]
pub struct ConnectionOptions {
    /// Brokers of one cluster, tried in turn. Celery: `broker_url`.
    pub urls: Vec<BrokerUrl>,
    /// The connection's name in the management interface.
    pub name: String,
    /// Heartbeat interval in seconds that is asked for; a silent broker is given up after twice
    /// that. The broker may lower it. Celery: `broker_heartbeat`.
    pub heartbeat_s: u16,
    /// The time for one broker to answer. Celery: `broker_connection_timeout`.
    pub connect_timeout: Duration,
    /// The time for the broker to answer one request on a connection: to open a channel, to
    /// declare, to consume. After that the connection counts as lost, unless the broker has
    /// blocked it. Queues that are just being recovered take their time, so it is a long one.
    pub answer_timeout: Duration,
    /// What to do when that fails.
    pub retry: RetryPolicy,
    /// Certificates, for `amqps` URLs.
    pub tls: TlsOptions,
}

impl Default for ConnectionOptions {
    fn default() -> Self {
        Self {
            urls: vec![BrokerUrl::default()],
            name: "celeriac".to_owned(),
            heartbeat_s: 60,
            connect_timeout: Duration::from_secs(4),
            answer_timeout: Duration::from_secs(20),
            retry: RetryPolicy::default(),
            tls: TlsOptions::default(),
        }
    }
}

/// When to try again, and when to give up. One attempt is one pass over all URLs.
#[derive(Clone, Copy, Debug)]
pub struct RetryPolicy {
    /// Whether [`Connection::open`] keeps trying too. Celery: `broker_connection_retry_on_startup`.
    pub at_startup: bool,
    /// Attempts in a row until the connection is given up; `None` never gives up.
    /// Celery: `broker_connection_max_retries`, but unlimited by default.
    pub attempts_max: Option<u32>,
    /// The delay between attempts.
    pub backoff: Backoff,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        let backoff = Backoff {
            base: Duration::from_millis(500),
            cap: Duration::from_secs(30),
            jitter: true,
        };
        Self { at_startup: true, attempts_max: None, backoff }
    }
}

/// Certificates as PEM files. The system's authorities are always trusted as well.
#[derive(Clone, Debug, Default)]
pub struct TlsOptions {
    /// Further authorities to trust.
    pub ca: Option<PathBuf>,
    /// The client's certificate chain.
    pub cert: Option<PathBuf>,
    /// The client's private key.
    pub key: Option<PathBuf>,
}

/// What a connection is doing, as seen by [`Connection::state`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum ConnectionState {
    /// Trying to connect.
    Connecting {
        /// How many attempts in a row have failed.
        attempt: u32,
    },
    /// Usable.
    Connected {
        /// Counts the successful connects, from 1.
        epoch: u64,
    },
    /// Connected, but the broker takes no messages for now (memory or disk alarm).
    Blocked {
        /// The broker's words.
        reason: String,
    },
    /// Lost; the next attempt follows.
    Lost {
        /// Why.
        error: Arc<Error>,
    },
    /// Given up for good.
    Failed {
        /// The last error.
        error: Arc<Error>,
    },
    /// Closed by this program.
    Closed,
}

impl ConnectionState {
    /// Whether messages can travel now.
    pub fn is_connected(&self) -> bool {
        matches!(self, Self::Connected { .. })
    }
}

/// A handle to one supervised connection. Clones share it; the last one to go closes it.
#[derive(Clone)]
pub struct Connection {
    handle: Arc<Handle>,
}

struct Handle {
    shared: Arc<Shared>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.close.cancel();
    }
}

/// What the handle and the supervisor share.
pub(super) struct Shared {
    pub(super) options: ConnectionOptions,
    pub(super) state: watch::Sender<ConnectionState>,
    pub(super) link: watch::Sender<Link>,
    /// Which of the URLs was connected last.
    pub(super) url: AtomicUsize,
    /// The largest frame on that connection, in bytes.
    pub(super) frame_max: AtomicUsize,
    pub(super) topology: Mutex<Topology>,
    pub(super) differences: Differences,
    /// Asks the supervisor to end.
    pub(super) close: CancellationToken,
    /// Set by the supervisor when it has ended.
    pub(super) ended: CancellationToken,
}

/// Whether there is a connection to use.
#[derive(Clone)]
pub(super) enum Link {
    Down,
    Up(Live),
    Ended(Arc<Error>),
}

impl Connection {
    /// Opens a connection and waits for the first success, as the retry policy says.
    ///
    /// # Errors
    /// When no broker could be reached and the policy allows no (further) attempt, or when
    /// trying again cannot help: wrong credentials, unknown virtual host, unreadable files.
    pub async fn open(options: ConnectionOptions) -> Result<Self, Error> {
        let shared = Arc::new(Shared {
            options,
            state: watch::Sender::new(ConnectionState::Connecting { attempt: 0 }),
            link: watch::Sender::new(Link::Down),
            url: AtomicUsize::new(0),
            frame_max: AtomicUsize::new(0),
            topology: Mutex::default(),
            differences: Differences::default(),
            close: CancellationToken::new(),
            ended: CancellationToken::new(),
        });
        let (first, opened) = oneshot::channel();
        let this = Self { handle: Arc::new(Handle { shared: shared.clone() }) };
        tokio::spawn(supervisor::run(shared, first));
        opened.await.map_err(|_| Error::Closed)??;
        Ok(this)
    }

    /// The state now, and its changes.
    pub fn state(&self) -> watch::Receiver<ConnectionState> {
        self.handle.shared.state.subscribe()
    }

    /// The broker that is connected, or was last.
    pub fn broker(&self) -> BrokerUrl {
        let urls = &self.handle.shared.options.urls;
        urls.get(self.handle.shared.url.load(Ordering::Relaxed)).cloned().unwrap_or_default()
    }

    /// Whether `properties` with their headers fit into the one frame in which they must travel,
    /// as it was agreed with the broker last.
    pub(crate) fn carries(&self, properties: &Properties) -> bool {
        fits_frame(properties, self.frame_max())
    }

    /// The largest frame, in bytes, as it was agreed with the broker last.
    pub(crate) fn frame_max(&self) -> usize {
        self.handle.shared.frame_max.load(Ordering::Relaxed)
    }

    /// Declares `topology` now and again after each reconnect. Waits while the connection is lost.
    ///
    /// What exists with other arguments is used as it is, with a warning that quotes the broker.
    ///
    /// # Errors
    /// When the broker refuses for another reason, or the connection has ended.
    pub async fn declare(&self, topology: &Topology) -> Result<(), Error> {
        let shared = &self.handle.shared;
        loop {
            let live = self.declare_once(topology).await?;
            lock(&shared.topology).merge(topology);
            // If it was lost before this was remembered, the next one does not have it.
            if live.is_up() {
                return Ok(());
            }
        }
    }

    /// Whether the queue `name` was found to have other arguments than it was declared with here.
    pub(crate) fn differs(&self, name: &str) -> bool {
        self.handle.shared.differences.has_queue(name)
    }

    /// Declares `topology` once, and forgets it. Waits while the connection is lost.
    ///
    /// # Errors
    /// When the broker refuses, or the connection has ended.
    pub(crate) async fn declare_for_now(&self, topology: &Topology) -> Result<(), Error> {
        self.declare_once(topology).await.map(|_| ())
    }

    /// Declares a queue that is not remembered, and is refused if it exists with other arguments;
    /// tells in which epoch. Waits while the connection is lost.
    ///
    /// # Errors
    /// [`Error::Refused`] with the broker's words, or the connection has ended.
    pub(crate) async fn declare_exactly(&self, spec: &QueueSpec) -> Result<u64, Error> {
        let mut epoch = 0;
        loop {
            let live = self.live(epoch).await?;
            match declare::declare_exactly(&live, spec).await {
                Err(error) if error.is_connection() => epoch = live.epoch,
                declared => return declared.map(|()| live.epoch),
            }
        }
    }

    /// Whether the connection of `epoch` is there, as far as can be seen: it may be lost.
    pub(crate) fn is_in(&self, epoch: u64) -> bool {
        self.live_in(epoch).is_some()
    }

    fn live_in(&self, epoch: u64) -> Option<Live> {
        match &*self.handle.shared.link.borrow() {
            Link::Up(live) if live.epoch == epoch && live.is_up() => Some(live.clone()),
            Link::Up(_) | Link::Down | Link::Ended(_) => None,
        }
    }

    /// Deletes the queue `name`, which is not remembered, over the connection of `epoch` and no
    /// other one.
    ///
    /// # Errors
    /// As [`delete_queue`](Self::delete_queue).
    pub(crate) async fn delete_queue_in(&self, epoch: u64, name: &str) -> Result<(), Error> {
        let live = self.live_in(epoch).ok_or_else(Error::lost)?;
        let deleting = declare::delete_queue(&live, name);
        tokio::time::timeout(CLOSE_TIMEOUT, deleting).await.unwrap_or_else(|_| Err(Error::lost()))
    }

    /// How many consumers the queue `name` has, those included that wait for their turn. Waits
    /// while the connection is lost.
    pub(crate) async fn consumers(&self, name: &str) -> Result<u32, Error> {
        declare::counts(&self.live(0).await?, name).await.map(|(_, consumers)| consumers)
    }

    /// How many messages wait in the queue `name`, not counting those that consumers hold; `None`
    /// if there is no such queue. Quorum queues may answer 0 when they are busy.
    ///
    /// # Errors
    /// When the broker refuses, or the connection is lost or has ended.
    pub async fn queue_depth(&self, name: &str) -> Result<Option<u32>, Error> {
        match declare::counts(&self.live(0).await?, name).await {
            Ok((depth, _)) => Ok(Some(depth)),
            Err(error) if error.is_no_queue() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// How many channels the broker allows on this connection.
    ///
    /// # Errors
    /// When the connection has ended. Waits while it is lost.
    pub(crate) async fn channels_max(&self) -> Result<u16, Error> {
        let max = self.live(0).await?.connection.configuration().channel_max();
        // No limit is the protocol's.
        Ok(if max == 0 { u16::MAX } else { max })
    }

    /// Deletes the queue `name` with all that it holds, and no longer declares it after a
    /// reconnect. Fine when it does not exist.
    ///
    /// Does not wait for a lost connection, because it is a part of closing.
    ///
    /// # Errors
    /// When the broker refuses or does not answer, or the connection is lost or has ended.
    pub async fn delete_queue(&self, name: &str) -> Result<(), Error> {
        lock(&self.handle.shared.topology).forget_queue(name);
        let deleting = async {
            let live = self.live(0).now_or_never().unwrap_or_else(|| Err(Error::lost()))?;
            declare::delete_queue(&live, name).await
        };
        tokio::time::timeout(CLOSE_TIMEOUT, deleting).await.unwrap_or_else(|_| Err(Error::lost()))
    }

    /// Declares the queue `name` no longer after a reconnect. It stays as it is.
    pub(crate) fn forget_queue(&self, name: &str) {
        lock(&self.handle.shared.topology).forget_queue(name);
    }

    /// Declares `topology` without remembering it, and tells on which link.
    async fn declare_once(&self, topology: &Topology) -> Result<Live, Error> {
        let mut epoch = 0;
        loop {
            let live = self.live(epoch).await?;
            let differences = &self.handle.shared.differences;
            match declare::declare(&live, topology, differences).await {
                Ok(()) => return Ok(live),
                Err(error) if error.is_connection() => epoch = live.epoch,
                Err(error) => return Err(error),
            }
        }
    }

    /// Declares the queue `name` and its bindings again, as they are remembered.
    pub(super) async fn redeclare_queue(&self, name: &str) -> Result<(), Error> {
        let topology = lock(&self.handle.shared.topology).of_queue(name);
        self.declare_once(&topology).await.map(|_| ())
    }

    /// Asks the broker something without consequence, and waits for its answer, however long a
    /// lost connection takes to come back.
    ///
    /// # Errors
    /// When the connection has ended, or ends meanwhile.
    pub async fn probe(&self) -> Result<(), Error> {
        let live = self.live(0).await?;
        let channel = live.answer(live.connection.create_channel()).await?;
        live.answer(channel.close(200, "alive".into())).await
    }

    /// Closes the connection; publishers and consumers on it end. Waits until that is done.
    pub async fn close(&self) {
        self.handle.shared.close.cancel();
        self.handle.shared.ended.cancelled().await;
    }

    /// The established connection, as soon as there is one later than epoch `after` that has not
    /// visibly failed.
    pub(super) async fn live(&self, after: u64) -> Result<Live, Error> {
        let mut link = self.handle.shared.link.subscribe();
        loop {
            match &*link.borrow_and_update() {
                Link::Up(live) if live.epoch > after && live.is_up() => return Ok(live.clone()),
                Link::Ended(error) => {
                    return Err(match &**error {
                        Error::Closed => Error::Closed,
                        _ => Error::GivenUp { source: error.clone() },
                    });
                }
                Link::Up(_) | Link::Down => {}
            }
            link.changed().await.map_err(|_| Error::Closed)?;
        }
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("name", &self.handle.shared.options.name)
            .field("broker", &self.broker())
            .field("state", &*self.handle.shared.state.borrow())
            .finish_non_exhaustive()
    }
}

/// Locks a mutex whose owners never leave it half-changed.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether `properties` with their headers fit into the one frame in which they must travel.
pub(crate) fn fits_frame(properties: &Properties, frame_max: usize) -> bool {
    to_properties(properties).is_ok_and(|(_, size)| size <= frame_max)
}
