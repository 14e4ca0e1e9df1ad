//! Settling: publishes what follows from the end of a request, in the order that loses nothing.
//!
//! Works in bursts: the effects of all requests that ended meanwhile are published together,
//! their confirms are awaited together, and then their deliveries are settled. A request whose
//! effects must follow one another takes part in several rounds; most take one.
//!
//! **Invariant:** a delivery is acked only after every effect of its request was confirmed. What
//! could not be confirmed leaves the delivery to be redelivered.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::sync::mpsc;
use tracing::{debug, error, warn};

use super::active::Entry;
use super::effect::{Effect, Kind, Verdict};
use super::plan::{self, Open, Trail};
use super::report::report;
use super::running::Crew;
use super::scribe::Scribe;
use super::unsent;
use super::unsettled::Finished;
use crate::amqp::{Publish, PublishError, SettleToken, Topology, layout};
use crate::protocol::{Exception, ResultMeta};
use crate::task::Request;

/// Requests that are settled together at most.
const BURST_MAX: usize = 256;
/// Bursts whose confirms may be under way at once.
const BURSTS_UNDER_WAY_MAX: usize = 8;
/// Requests that may wait for room in a queue before no more are taken.
const RESTING_MAX: usize = 8192;

/// Before what a queue had no room for is published again.
const NACK_PAUSE: Duration = Duration::from_millis(500);

/// Settles requests until the last sender of `finished` is gone and all is settled.
pub(super) async fn run(mut finished: mpsc::Receiver<Finished>, crew: Arc<Crew>) {
    let mut burst = Vec::with_capacity(BURST_MAX);
    let (mut under_way, mut resting) = (FuturesUnordered::new(), FuturesUnordered::new());
    let (mut is_open, mut at_rest) = (true, 0);
    while is_open || !under_way.is_empty() || !resting.is_empty() {
        let has_room = under_way.len() < BURSTS_UNDER_WAY_MAX;
        tokio::select! {
            taken = finished.recv_many(&mut burst, BURST_MAX),
                if is_open && has_room && at_rest < RESTING_MAX =>
            {
                is_open = taken > 0;
                let (mut round, scribe) = (Vec::with_capacity(taken), Scribe::of(&crew));
                let ended = burst.drain(..).filter(|ended| !ended.is_void());
                let ended = ended.map(|ended| plan::begin(ended, &scribe, &mut round));
                let open = ended.collect();
                under_way.push(settle(open, round, &crew));
            }
            Some(refused) = under_way.next(), if !under_way.is_empty() => {
                if !refused.open.is_empty() {
                    at_rest += refused.open.len();
                    resting.push(refused.rest());
                }
            }
            Some(Refused { open, round }) = resting.next(), if !resting.is_empty() && has_room => {
                at_rest = at_rest.saturating_sub(open.len());
                under_way.push(settle(open, round, &crew));
            }
        }
    }
}

/// Requests of which something found no room in a queue.
#[derive(Default)]
struct Refused {
    open: Vec<Open>,
    round: Vec<Effect>,
}

impl Refused {
    /// Waits until there may be room. Nobody else waits with them.
    async fn rest(self) -> Self {
        tokio::time::sleep(NACK_PAUSE).await;
        self
    }
}

/// Publishes the effects of a burst, and settles each delivery when its own are confirmed. Gives
/// back the requests of which a queue had no room for something.
async fn settle(mut open: Vec<Open>, mut round: Vec<Effect>, crew: &Crew) -> Refused {
    let mut refused = Refused::default();
    while !open.is_empty() {
        for effect in round.iter_mut().filter(|effect| effect.is_delayed()) {
            crew.client.delays().prepare(Arc::make_mut(&mut effect.publish)).await;
        }
        let publishes = round.iter().map(|effect: &Effect| Arc::clone(&effect.publish)).collect();
        let outcomes = crew.client.publisher().publish_all::<Arc<Publish>>(publishes).await;
        let mut published = std::mem::take(&mut round).into_iter().zip(outcomes);
        let (mut unfinished, mut lost, mut missing) = (Vec::new(), Vec::new(), None);
        for mut it in open {
            let own = published.by_ref().take(it.effects);
            let failed = own.filter_map(|(effect, outcome)| Some((effect, outcome.err()?)));
            let mut again = match mend(&mut it, failed, &mut missing, crew) {
                Mended::Lost => {
                    lost.push((it.token, it.entry));
                    continue;
                }
                Mended::Again(effects) => effects,
                Mended::Confirmed => it.next_round(),
            };
            if again.is_empty() {
                if !it.requeue {
                    remember(&it, crew);
                }
                spend(it.token, it.entry, !it.requeue);
                continue;
            }
            it.effects = again.len();
            let to = match again.iter().any(|effect| effect.nacks > 0) {
                true => (&mut refused.open, &mut refused.round),
                false => (&mut unfinished, &mut round),
            };
            to.1.append(&mut again);
            to.0.push(it);
        }
        if let Some(missing) = missing {
            // Before anything goes back, so that it finds what it needs.
            declare(&missing, crew).await;
        }
        lost.into_iter().for_each(|(token, entry)| spend(token, entry, false));
        open = unfinished;
    }
    refused
}

/// Notes what is about to be acked, in case that its ack is lost. Before the job leaves the
/// register, so that it is always known to one of the two.
fn remember(open: &Open, crew: &Crew) {
    let Some(token) = &open.token else { return };
    match open.trail {
        Trail::None => {}
        Trail::GoesOn => crew.recent.add(crew.recent.key_on(&open.request), token.channel()),
        Trail::Ended => {
            let call = open.entry.as_ref().map(Entry::call).unwrap_or_default();
            if call.channel != 0 {
                crew.recent.add(call.key, call.channel);
            }
        }
    }
}

/// Settles a delivery, and the one that has taken its place if it was lost. A request that was
/// acked early has no token left.
fn spend(token: Option<SettleToken>, entry: Option<Entry>, ack: bool) {
    let Some(token) = token else { return };
    if let Some(successor) = entry.and_then(Entry::leave) {
        settle_token(successor, ack);
    }
    settle_token(token, ack);
}

fn settle_token(token: SettleToken, ack: bool) {
    if ack { token.ack() } else { token.requeue() }
}

/// What became of a request's effects in one round.
enum Mended {
    /// All are confirmed, or need not be.
    Confirmed,
    /// These are to be published instead of those that failed.
    Again(Vec<Effect>),
    /// The task goes back.
    Lost,
}

/// Looks after the effects that were not confirmed. What has to be declared is added to `missing`.
fn mend(
    open: &mut Open,
    failed: impl Iterator<Item = (Effect, PublishError)>,
    missing: &mut Option<Topology>,
    crew: &Crew,
) -> Mended {
    let (mut again, mut lost) = (Vec::new(), false);
    let mut declare = |topology: &Topology| missing.get_or_insert_default().merge(topology);
    for (effect, failed) in failed {
        let is_first = effect.nacks == 0;
        let effect = match effect.after_nack(&failed, crew.stop.is_asked()) {
            Ok(effect) => {
                let (task_id, key) = (&*open.request.id, &*effect.publish.routing_key);
                if is_first {
                    warn!(task_id, routing_key = key, "a queue has no room, it is tried again");
                }
                again.push(effect);
                continue;
            }
            Err(effect) => effect,
        };
        let Open { request, later, token, .. } = open;
        let fate = match token {
            Some(_) => "task goes back",
            None => "its message was acked early, so that it is lost",
        };
        let error: &dyn std::error::Error = &failed;
        let (task_id, key) = (request.id.as_str(), effect.publish.routing_key.as_str());
        match effect.judge(&failed) {
            Verdict::Done => debug!(task_id, reply_to = key, "caller is gone"),
            Verdict::Unsendable => {
                error!(task_id, error, "result cannot be sent");
                again.extend(smaller_report(request, &failed, crew));
            }
            Verdict::Missing => {
                error!(task_id, error, fate, "nowhere to publish to");
                declare(&needed(crew));
                lost = true;
            }
            Verdict::Declare if effect.is_delayed() => {
                // The next round finds out what is missing.
                crew.client.delays().forget();
                again.push(Effect { repaired: true, ..effect });
            }
            Verdict::Straight => {
                error!(task_id, error, "the delay queues do not take it, it waits in a worker");
                crew.client.delays().pause();
                again.push(effect.straight());
            }
            Verdict::Declare => {
                declare(&address(&effect, crew));
                again.push(Effect { repaired: true, ..effect });
            }
            Verdict::Doomed => {
                error!(task_id, error, "what follows cannot be sent");
                again.extend(instead(&effect, &failed, later, crew));
            }
            Verdict::Unknown => {
                error!(task_id, error, fate, "effect not confirmed");
                lost = true;
            }
        }
    }
    match (lost, again.is_empty()) {
        (true, _) => Mended::Lost,
        (false, true) => Mended::Confirmed,
        (false, false) => Mended::Again(again),
    }
}

/// Fails a task whose own result can never reach the caller: running it again would end the same
/// way, again and again.
fn smaller_report(request: &Request, failed: &PublishError, crew: &Crew) -> Option<Effect> {
    let exception = Exception::encode_error(format!("the result cannot be sent: {failed}"));
    let meta = ResultMeta::failure(&*request.id, exception);
    let report = report(request, meta, crew.client.config())?;
    // It can be as little use as the first one; then the task goes back.
    Some(Effect { repaired: true, ..Effect::new(Kind::Report, report) })
}

/// What is published instead of a call or a record that can never be sent; see [`unsent`].
pub(super) fn instead(
    effect: &Effect,
    failed: &PublishError,
    later: &mut Vec<Effect>,
    crew: &Crew,
) -> Vec<Effect> {
    unsent::instead(effect, failed, later, &Scribe::of(crew))
}

/// The queue of a task that this worker does not consume, or those of the joiners.
pub(super) fn address(effect: &Effect, crew: &Crew) -> Topology {
    match effect.kind {
        Kind::Record => {
            let config = crew.client.config();
            layout::joining(0..config.join_shards, config.join_queue_type)
        }
        Kind::Park => layout::parking(&effect.publish.routing_key),
        Kind::Step | Kind::Report | Kind::HandOn => {
            layout::sending(vec![crew.client.config().queue(&effect.publish.routing_key)])
        }
    }
}

/// What the worker itself needs.
fn needed(crew: &Crew) -> Topology {
    let config = crew.client.config();
    let specs: Vec<_> = crew.info.queues.iter().map(|name| config.queue(name)).collect();
    layout::working(&specs)
}

async fn declare(topology: &Topology, crew: &Crew) {
    if let Err(failed) = crew.client.connection().declare(topology).await {
        let failed: &dyn std::error::Error = &failed;
        error!(error = failed, "failed to declare queues and exchanges");
    }
}
