//! One shard, subscribed to again and again.
//!
//! Keeps nothing from one subscription to the next but what it learnt about the broker.
//! **Invariant:** a subscription that ends for whatever reason is followed by another one, after
//! a delay that grows while they end early.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;
use tracing::{debug, error, warn};

use super::balance::Seat;
use super::careful::Refusals;
use super::session::{self, End};
use crate::amqp::topology::join_queue;
use crate::amqp::{self, Connection, layout};
use crate::backoff::Backoff;
use crate::client::Config;
use crate::protocol::join::shard_route;
use crate::results::join::JoinSettings;
use crate::worker::running::Crew;

/// The delay before the next subscription.
const RETRY: Backoff =
    Backoff { base: Duration::from_millis(100), cap: Duration::from_secs(5), jitter: true };

/// The place of this worker at one shard.
#[derive(Debug)]
pub(super) struct Shard {
    pub(super) number: u32,
    pub(super) queue: String,
    pub(super) route: String,
    pub(super) connection: Connection,
    pub(super) crew: Arc<Crew>,
    pub(super) stop: CancellationToken,
    settings: JoinSettings,
    /// Whether the queue was gone.
    gone: bool,
    pub(super) refusals: Refusals,
    pub(super) seat: Arc<Seat>,
}

impl Shard {
    pub(super) fn new(
        number: u32,
        connection: Connection,
        crew: Arc<Crew>,
        stop: CancellationToken,
    ) -> Self {
        Self {
            number,
            queue: join_queue(number),
            route: shard_route(number),
            settings: settings(crew.client.config()),
            connection,
            crew,
            stop,
            gone: false,
            refusals: Refusals::default(),
            seat: Arc::default(),
        }
    }

    /// Joins until it is stopped, or no other subscription can help: then it says why.
    pub(super) async fn run(mut self) -> Result<(), amqp::Error> {
        let mut failures: u32 = 0;
        while !self.stop.is_cancelled() {
            let since = Instant::now();
            let wait = match self.subscribe().await {
                End::Stopped => return Ok(()),
                // Long enough for the broker to hand it on.
                End::GivenAway => RETRY.base,
                End::Lost(error) if error.is_permanent() => return Err(error),
                End::StandBack { text, wait } => {
                    error!(shard = self.number, reason = text, "shard is left to newer workers");
                    wait
                }
                end => {
                    failures =
                        if since.elapsed() > RETRY.cap { 0 } else { failures.saturating_add(1) };
                    self.judge(&end);
                    RETRY.delay(failures.saturating_sub(1))
                }
            };
            let waiting = tokio::time::sleep(wait);
            if self.stop.run_until_cancelled(waiting).await.is_none() {
                break;
            }
        }
        Ok(())
    }

    /// Joins until that ends.
    async fn subscribe(&mut self) -> End {
        if std::mem::take(&mut self.gone) {
            let kind = self.crew.client.config().join_queue_type;
            let shard = layout::joining([self.number], kind);
            match self.stop.run_until_cancelled(self.connection.declare(&shard)).await {
                None => return End::Stopped,
                Some(Err(error)) => return End::Lost(error),
                Some(Ok(())) => {}
            }
        }
        let mut under_way = Vec::new();
        let since = Instant::now();
        let end = session::join(self, self.settings.clone(), &mut under_way).await;
        self.seat.set_reads(false);
        // Its steps were no longer alone.
        self.refusals.is_careful &= since.elapsed() < session::CAREFUL_FOR;
        if let End::Lost(error) = &end {
            self.refusals.learn(error, &under_way);
        }
        end
    }

    /// Learns from an end.
    fn judge(&mut self, end: &End) {
        let shard = self.number;
        match end {
            End::Stopped | End::GivenAway | End::StandBack { .. } => {}
            End::Broken(text) => {
                error!(shard, reason = text, "subscription is started anew");
                // Whatever a record was returned from may be missing.
                self.gone = true;
            }
            End::Lost(error) if error.is_connection() => {
                debug!(shard, %error, "joiner lost its connection");
            }
            End::Lost(error) => {
                warn!(shard, %error, "joiner lost its channel");
                self.gone = true;
                if let Some(refresh) = refresh_for(&error.to_string()) {
                    warn!(shard, ?refresh, "records are refreshed more often from now on");
                    self.settings = self.settings.clone().refresh(refresh);
                }
            }
        }
    }
}

/// A third of the limit that a broker names when it closes a channel over a late ack.
fn refresh_for(text: &str) -> Option<Duration> {
    const LIMIT: &str = "Timeout value used: ";
    let (_, rest) = text.split_once("acknowledgement")?.1.split_once(LIMIT)?;
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    let limit_ms: u64 = digits.parse().ok()?;
    Some(Duration::from_millis(limit_ms / 3))
}

fn settings(config: &Config) -> JoinSettings {
    let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let settings = JoinSettings {
        raws_max: config.join_u_max,
        pack_max: config.join_pack_max,
        body_max: config.join_max_body,
        done_batch_ms: millis(config.join_done_batch),
        tomb_ms: millis(config.join_t_tomb),
        orphan_grace_ms: millis(config.join_orphan_grace),
        write_ahead: config.join_write_ahead,
        ..JoinSettings::default()
    };
    settings.refresh(config.join_t_refresh)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_broker_s_limit_is_read_from_its_words() {
        let text = "406 PRECONDITION_FAILED - delivery acknowledgement on channel 1 timed out. \
                    Timeout value used: 60000 ms. This timeout value can be configured";
        assert_eq!(refresh_for(text), Some(Duration::from_secs(20)));
        assert_eq!(refresh_for("406 PRECONDITION_FAILED - unknown delivery tag 7"), None);
    }
}
