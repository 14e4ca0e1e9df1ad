//! The life of one connection: connect, declare, watch, and start over.
//!
//! Does not know who uses the connection. **Invariant:** every change of state is published and
//! logged exactly once, and a link is handed out only after everything remembered is declared.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use futures::{FutureExt, Stream, StreamExt};
use lapin::Event;
use tokio::sync::oneshot;
use tracing::{debug, info, warn};

use super::connection::{ConnectionState, Link, Shared, lock};
use super::declare;
use super::dial::{CLOSE_TIMEOUT, Socket, dial};
use super::error::Error;
use super::live::Live;

/// A look at the connection without an event, in case that an event was missed.
const CHECK_INTERVAL: Duration = Duration::from_secs(5);

type Opened = oneshot::Sender<Result<(), Error>>;

/// Keeps a connection until it is closed or given up; `first` hears of the first success.
pub(super) async fn run(shared: Arc<Shared>, first: Opened) {
    let mut socket = None;
    let keeping = keep(&shared, first, &mut socket);
    let end = match shared.close.run_until_cancelled(keeping).await {
        Some(error) => error,
        None => Error::Closed,
    };
    if let Link::Up(live) = shared.link.send_replace(Link::Down) {
        let close = live.connection.close(200, "bye".into());
        // A peer that is gone does not answer, and nobody should wait for it.
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, close).await;
    }
    drop(socket);
    let error = Arc::new(end);
    shared.state.send_replace(match &*error {
        Error::Closed => ConnectionState::Closed,
        _ => ConnectionState::Failed { error: error.clone() },
    });
    shared.link.send_replace(Link::Ended(error));
    shared.ended.cancel();
}

/// Runs until the connection has to be given up, and says why.
async fn keep(shared: &Shared, first: Opened, held: &mut Option<Socket>) -> Error {
    let mut first = Some(first);
    let mut epoch = 0;
    let mut attempt = 0;
    let mut begin = 0;
    loop {
        let established = establish(shared, &mut attempt, begin, first.is_some()).await;
        let (url, connection, socket) = match established {
            Ok(connected) => connected,
            Err(error) => {
                warn!(%error, "gave up connecting");
                if let Some(first) = first.take() {
                    // The opener may have lost interest.
                    let _ = first.send(Err(error.clone()));
                }
                return error;
            }
        };
        *held = Some(socket);
        epoch += 1;
        shared.url.store(url, Ordering::Relaxed);
        let live = Live::new(epoch, connection, shared.options.answer_timeout);
        shared.frame_max.store(live.frame_max(), Ordering::Relaxed);
        let mut events = Box::pin(live.connection.events_listener());
        if let Err(error) = redeclare(shared, &live).await {
            debug!(%error, "connection lost while declaring");
            live.give_up();
            *held = None;
            begin = url + 1;
            lost(shared, error, &mut attempt, Duration::ZERO).await;
            continue;
        }
        let broker = shared.options.urls.get(url).map(ToString::to_string);
        info!(broker, epoch, name = shared.options.name, "connected");
        let since = Instant::now();
        shared.state.send_replace(ConnectionState::Connected { epoch });
        shared.link.send_replace(Link::Up(live.clone()));
        if let Some(first) = first.take() {
            // The opener may have lost interest.
            let _ = first.send(Ok(()));
        }
        let error = watch(shared, &live, &mut events).await;
        shared.link.send_replace(Link::Down);
        live.give_up();
        begin = 0;
        if matches!(error, Error::Silent { .. }) {
            // It may look sound for long, and another broker may be better.
            *held = None;
            begin = url + 1;
        }
        lost(shared, error, &mut attempt, since.elapsed()).await;
    }
}

/// Tries until a broker answers, or until the policy or a permanent error ends it. Each attempt
/// tries every URL once, from the one at `begin` on.
async fn establish(
    shared: &Shared,
    attempt: &mut u32,
    begin: usize,
    starting: bool,
) -> Result<(usize, lapin::Connection, Socket), Error> {
    let retry = shared.options.retry;
    let mut tried: u32 = 0;
    loop {
        shared.state.send_replace(ConnectionState::Connecting { attempt: *attempt });
        let mut last = Error::NoUrl;
        let mut hopeless = true;
        let urls = shared.options.urls.iter().enumerate();
        let count = urls.len();
        for (at, url) in urls.cycle().skip(begin % count.max(1)).take(count) {
            match dial(url, &shared.options).await {
                Ok((connection, socket)) => return Ok((at, connection, socket)),
                Err(error) => {
                    hopeless &= error.is_permanent();
                    warn!(%error, attempt = *attempt, "no connection");
                    last = error;
                }
            }
        }
        tried += 1;
        let spent = retry.attempts_max.is_some_and(|max| tried >= max);
        // Once it worked, a refusal is more likely a broker that is still starting.
        if spent || (starting && (hopeless || !retry.at_startup)) {
            return Err(last);
        }
        tokio::time::sleep(retry.backoff.delay(*attempt)).await;
        *attempt = attempt.saturating_add(1);
    }
}

/// Declares everything that is remembered; a refusal is told, and only a lost connection is an
/// error: whoever needs what was refused will hear it again, with its own context.
async fn redeclare(shared: &Shared, live: &Live) -> Result<(), Error> {
    let topology = lock(&shared.topology).clone();
    match declare::declare(live, &topology, &shared.differences).await {
        Err(error) if error.is_refused() && live.is_up() => {
            warn!(%error, "failed to declare everything again after a reconnect");
            Ok(())
        }
        result => result,
    }
}

/// Follows the connection's events until it is lost.
async fn watch(
    shared: &Shared,
    live: &Live,
    events: &mut (impl Stream<Item = Event> + Unpin),
) -> Error {
    loop {
        let event = tokio::select! {
            event = events.next() => event,
            () = live.given_up() => return live.silent(),
            () = tokio::time::sleep(CHECK_INTERVAL) => None,
        };
        match event {
            Some(Event::ConnectionBlocked(reason)) => {
                warn!(%reason, "the broker has blocked this connection");
                shared.state.send_replace(ConnectionState::Blocked { reason });
            }
            Some(Event::ConnectionUnblocked) => {
                info!("the broker has unblocked this connection");
                shared.state.send_replace(ConnectionState::Connected { epoch: live.epoch });
            }
            // Errors of single channels come here too, and are not the connection's business.
            Some(Event::Error(error)) if !live.is_up() => return error.into(),
            _ if !live.is_up() => {
                let pending = std::iter::from_fn(|| events.next().now_or_never().flatten());
                let error = pending.filter_map(|event| match event {
                    Event::Error(error) => Some(error),
                    _ => None,
                });
                return error.last().map_or_else(Error::lost, Error::from);
            }
            _ => {}
        }
    }
}

/// Reports the loss and waits before the next attempt; longer if connections keep dying young.
async fn lost(shared: &Shared, error: Error, attempt: &mut u32, lived: Duration) {
    let backoff = shared.options.retry.backoff;
    *attempt = if lived >= backoff.cap { 0 } else { attempt.saturating_add(1) };
    let source = std::error::Error::source(&error).map(ToString::to_string);
    warn!(%error, source, "connection lost");
    shared.state.send_replace(ConnectionState::Lost { error: Arc::new(error) });
    tokio::time::sleep(backoff.delay(attempt.saturating_sub(1))).await;
}
