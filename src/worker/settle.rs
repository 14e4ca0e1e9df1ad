//! Settling: publishes what follows from the end of a request, in the order that loses nothing.
//!
//! Works in bursts: the effects of all requests that ended meanwhile are published together,
//! their confirms are awaited together, and then their deliveries are settled. A request whose
//! effects must follow one another takes part in several rounds; most take one. One that has to
//! wait for a single queue, which has no room or does not confirm, leaves its burst and holds up
//! nobody.
//!
//! **Invariant:** a delivery is acked only after every effect of its request was confirmed. What
//! could not be confirmed leaves the delivery to be redelivered.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::sync::mpsc;
use tracing::{debug, error, warn};

use super::active::{Call, Entry};
use super::effect::{Effect, Kind, Verdict};
use super::plan::{self, Open, Trail};
use super::report::report;
use super::running::Crew;
use super::scribe::Scribe;
use super::unsent;
use super::unsettled::Finished;
use crate::amqp::{self, Burst, Publish, PublishError, SettleToken, Topology, layout};
use crate::client::parked;
use crate::protocol::{Exception, ResultMeta};
use crate::task::Request;

/// Requests that are settled together at most.
const BURST_MAX: usize = 256;
/// Bursts whose confirms may be under way at once.
const BURSTS_UNDER_WAY_MAX: usize = 8;
/// Requests that may wait for one queue, or for a deletion, before no more are taken, and bytes of
/// what they publish.
const RESTING_MAX: usize = 8192;
const RESTING_BYTES_MAX: usize = 64 << 20;

/// How long a burst waits for all its confirms.
const CONFIRMS_WITHIN: Duration = Duration::from_millis(500);

/// How long declaring the queue of a chord may take, and how many are declared at once.
const DECLARE_WITHIN: Duration = Duration::from_secs(10);
const DECLARES_MAX: usize = 8;

/// Before what a queue had no room for is published again.
const NACK_PAUSE: Duration = Duration::from_millis(500);

/// Settles requests until the last sender of `finished` is gone and all is settled.
pub(super) async fn run(mut finished: mpsc::Receiver<Finished>, crew: Arc<Crew>) {
    let mut burst = Vec::with_capacity(BURST_MAX);
    let (mut under_way, mut resting) = (FuturesUnordered::new(), FuturesUnordered::new());
    let mut over = FuturesUnordered::new();
    let (mut is_open, mut at_rest) = (true, AtRest::default());
    while is_open || !under_way.is_empty() || !resting.is_empty() || !over.is_empty() {
        let has_room = under_way.len() < BURSTS_UNDER_WAY_MAX;
        tokio::select! {
            taken = finished.recv_many(&mut burst, BURST_MAX),
                if is_open && has_room && at_rest.has_room() && over.len() < RESTING_MAX =>
            {
                is_open = taken > 0;
                under_way.push(settle(Group::Due(begin(&mut burst, &crew)), &crew));
            }
            Some(settled) = under_way.next(), if !under_way.is_empty() => {
                over.extend(settled.over.into_iter().map(|it| it.conclude(&crew)));
                for group in settled.resting {
                    at_rest.add(group.size());
                    resting.push(group.rest());
                }
            }
            Some(group) = resting.next(), if !resting.is_empty() && has_room => {
                at_rest.remove(group.size());
                under_way.push(settle(group, &crew));
            }
            Some(()) = over.next(), if !over.is_empty() => {}
        }
    }
}

/// What waits for a queue: how many requests, and how many bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct AtRest {
    requests: usize,
    bytes: usize,
}

impl AtRest {
    fn has_room(self) -> bool {
        self.requests < RESTING_MAX && self.bytes < RESTING_BYTES_MAX
    }

    fn add(&mut self, more: Self) {
        self.requests = self.requests.saturating_add(more.requests);
        self.bytes = self.bytes.saturating_add(more.bytes);
    }

    fn remove(&mut self, less: Self) {
        self.requests = self.requests.saturating_sub(less.requests);
        self.bytes = self.bytes.saturating_sub(less.bytes);
    }
}

/// Lists what follows from requests that have ended.
fn begin(ended: &mut Vec<Finished>, crew: &Crew) -> Due {
    let (open, round) = (Vec::with_capacity(ended.len()), Vec::with_capacity(ended.len()));
    let (mut due, scribe) = (Due { open, round }, Scribe::of(crew));
    for ended in ended.drain(..).filter(|ended| !ended.is_void()) {
        crew.events.ended(&ended);
        let before = due.round.len();
        let it = plan::begin(ended, &scribe, &mut due.round);
        if it.trail == Trail::GoesOn && !goes_on(&it, crew) {
            due.round.truncate(before);
            continue;
        }
        due.open.push(it);
    }
    due
}

/// Lets the delivery of a message that goes on be known when it comes again before the other one
/// is confirmed. False if it was lost before, and is not known: then it must not go on.
fn goes_on(open: &Open, crew: &Crew) -> bool {
    let Some(token) = &open.token else { return true };
    if let Some(entry) = &open.entry {
        entry.set_call(Call { key: crew.recent.key_on(&open.request), channel: token.channel() });
    }
    token.is_live()
}

/// Requests that are settled together.
enum Group {
    Due(Due),
    Sent(Sent),
}

/// Requests whose next effects are to be published.
#[derive(Default)]
struct Due {
    open: Vec<Open>,
    /// In the order of the requests.
    round: Vec<Effect>,
}

/// Requests whose effects were published.
struct Sent {
    open: Vec<Open>,
    /// In the order of the requests, with their places in the burst.
    round: Vec<(usize, Effect)>,
    burst: Burst,
    /// What could not be published at all. Its places are behind those of the burst, which counts
    /// as ended what it does not have.
    unsent: BTreeMap<usize, PublishError>,
}

impl Group {
    fn open(&self) -> &[Open] {
        match self {
            Self::Due(Due { open, .. }) | Self::Sent(Sent { open, .. }) => open,
        }
    }

    fn size(&self) -> AtRest {
        let bytes = |effect: &Effect| effect.publish.message.body.len();
        let bytes = match self {
            Self::Due(due) => due.round.iter().map(bytes).sum(),
            Self::Sent(sent) => sent.round.iter().map(|(_, effect)| bytes(effect)).sum(),
        };
        AtRest { requests: self.open().len(), bytes }
    }

    /// Waits until there may be room, or until something more was confirmed. Nobody else waits
    /// with them.
    async fn rest(self) -> Self {
        match &self {
            Self::Due(_) => tokio::time::sleep(NACK_PAUSE).await,
            Self::Sent(sent) => {
                while !sent.has_news() {
                    let _ = tokio::time::timeout(NACK_PAUSE, sent.burst.ended()).await;
                }
            }
        }
        self
    }
}

impl Sent {
    /// Whether all effects of some request have ended.
    fn has_news(&self) -> bool {
        let mut round = &*self.round;
        self.open.iter().any(|it| {
            let (own, rest) = round.split_at(it.effects.min(round.len()));
            round = rest;
            self.has_ended(own)
        })
    }

    fn has_ended(&self, own: &[(usize, Effect)]) -> bool {
        own.iter().all(|(at, _)| self.burst.has_ended_at(*at))
    }

    /// Parts the requests of which all effects have ended from the others.
    fn part(self) -> (Self, Option<Self>) {
        if self.burst.has_ended() {
            return (self, None);
        }
        let part = |unsent| Self {
            open: Vec::new(),
            round: Vec::new(),
            burst: self.burst.clone(),
            unsent,
        };
        let (mut ended, mut waiting) = (part(self.unsent.clone()), part(self.unsent.clone()));
        let mut round = self.round.into_iter();
        for it in self.open {
            let own: Vec<_> = round.by_ref().take(it.effects).collect();
            let part = if ended.has_ended(&own) { &mut ended } else { &mut waiting };
            part.round.extend(own);
            part.open.push(it);
        }
        (ended, Some(waiting).filter(|it| !it.open.is_empty()))
    }
}

/// What is left of a group that was settled.
struct Settled {
    /// They have to wait for a queue.
    resting: Vec<Group>,
    /// They let go of parked values.
    over: Vec<Over>,
}

/// The body of a chord with parked values, all of whose effects are confirmed.
struct Over {
    chord: String,
    token: Option<SettleToken>,
    entry: Option<Entry>,
}

impl Over {
    /// Settles it when its values are deleted, or are left to expire. Nobody waits with it.
    async fn conclude(self, crew: &Crew) {
        crew.deletions.of_body(crew.client.connection(), &self.chord).await;
        spend(self.token, self.entry, true);
    }
}

/// Publishes the effects of a group, and settles each delivery when its own are confirmed.
async fn settle(group: Group, crew: &Crew) -> Settled {
    let (mut resting, mut over, mut next) = (Vec::new(), Vec::new(), Some(group));
    while let Some(group) = next.take().filter(|group| !group.open().is_empty()) {
        let sent = match group {
            Group::Due(due) => publish(due, crew).await,
            Group::Sent(sent) => sent,
        };
        let (ended, waiting) = sent.part();
        let (due, refused) = conclude(ended, &mut over, crew).await;
        resting.extend(waiting.map(Group::Sent));
        resting.extend(Some(Group::Due(refused)).filter(|group| !group.open().is_empty()));
        next = Some(Group::Due(due));
    }
    Settled { resting, over }
}

/// Publishes what is due, and waits a while for its confirms.
async fn publish(due: Due, crew: &Crew) -> Sent {
    let Due { open, mut round } = due;
    for effect in round.iter_mut().filter(|effect| effect.is_delayed()) {
        crew.client.delays().prepare(Arc::make_mut(&mut effect.publish)).await;
    }
    let mut unopened = declare_parks(&round, crew).await;
    let sent = |at: &usize| !unopened.contains_key(at);
    let publishes: Vec<_> = (0..round.len())
        .filter(sent)
        .filter_map(|at| Some(Arc::clone(&round.get(at)?.publish)))
        .collect();
    let (mut next, mut behind) = (0.., publishes.len()..);
    let burst = crew.client.publisher().relaying().hand_over::<Arc<Publish>>(publishes).await;
    // Who has to wait longer waits for a queue that is out of order, or with everybody else.
    let _ = tokio::time::timeout(CONFIRMS_WITHIN, burst.ended()).await;
    let mut unsent = BTreeMap::new();
    let mut places = Vec::with_capacity(round.len());
    for (at, effect) in round.into_iter().enumerate() {
        let failed = unopened.remove(&at);
        let place = if failed.is_some() { behind.next() } else { next.next() };
        let place = place.unwrap_or(usize::MAX);
        unsent.extend(failed.map(|failed| (place, failed)));
        places.push((place, effect));
    }
    Sent { open, round: places, burst, unsent }
}

/// Declares the queues of the chords that `round` opens, each once and for now: nobody declares
/// it again. Gives the places of those that must not be opened, for want of one.
async fn declare_parks(round: &[Effect], crew: &Crew) -> BTreeMap<usize, PublishError> {
    let kind = crew.client.config().join_queue_type;
    let mut declared = Vec::new();
    for (at, effect) in round.iter().enumerate().filter(|(_, it)| it.kind == Kind::Record) {
        if let Some(topology) = parked::needed_by(&effect.publish, kind) {
            declared.push(declare_park(at, topology, crew));
        }
    }
    if declared.is_empty() {
        return BTreeMap::new();
    }
    let declared = futures::stream::iter(declared).buffer_unordered(DECLARES_MAX);
    declared.filter_map(std::future::ready).collect().await
}

async fn declare_park(at: usize, park: Topology, crew: &Crew) -> Option<(usize, PublishError)> {
    let declaring = crew.client.connection().declare_for_now(&park);
    let declared = tokio::time::timeout(DECLARE_WITHIN, declaring).await;
    let declared = declared.unwrap_or(Err(amqp::Error::Silent { after: DECLARE_WITHIN }));
    Some((at, declared.err()?.into()))
}

/// Settles requests of which all effects have ended; gives those of which more is to be published,
/// and those of which a queue had no room for something.
async fn conclude(sent: Sent, over: &mut Vec<Over>, crew: &Crew) -> (Due, Due) {
    let Sent { open, round, burst, unsent: mut failures } = sent;
    failures.extend(burst.failed());
    let mut round = round.into_iter();
    let (mut due, mut refused) = (Due::default(), Due::default());
    let (mut lost, mut missing) = (Vec::new(), None);
    for mut it in open {
        let own = round.by_ref().take(it.effects);
        let failed = own.filter_map(|(at, effect)| match failures.remove(&at) {
            Some(failure) => Some((effect, failure)),
            None => {
                tell(&effect, crew);
                None
            }
        });
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
            match it.let_go.filter(|_| !it.requeue) {
                Some(chord) => over.push(Over { chord, token: it.token, entry: it.entry }),
                None => spend(it.token, it.entry, !it.requeue),
            }
            continue;
        }
        it.effects = again.len();
        let to = if again.iter().any(|effect| effect.nacks > 0) { &mut refused } else { &mut due };
        to.round.append(&mut again);
        to.open.push(it);
    }
    if let Some(missing) = missing {
        // Before anything goes back, so that it finds what it needs.
        declare(&missing, crew).await;
    }
    lost.into_iter().for_each(|(token, entry)| spend(token, entry, false));
    (due, refused)
}

/// Tells of a call that was confirmed.
fn tell(effect: &Effect, crew: &Crew) {
    if effect.kind == Kind::Step {
        crew.client.tell_sent(crew.client.sent_event(&effect.publish));
    }
}

/// Notes what is about to be acked, in case that its ack is lost. Before the job leaves the
/// register, so that it is always known to one of the two.
fn remember(open: &Open, crew: &Crew) {
    if open.token.is_none() || open.trail == Trail::None {
        return;
    }
    // The channel is that of the delivery that came last.
    let call = open.entry.as_ref().map(Entry::call).unwrap_or_default();
    if call.channel != 0 {
        crew.recent.add(call.key, call.channel);
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
                match effect.kind {
                    // It comes late to a chord that is over, most of the time.
                    Kind::Value => debug!(task_id, error, "a large result is not parked"),
                    _ => error!(task_id, error, "what follows cannot be sent"),
                }
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
        // Nobody but who opens the chord declares its queue.
        Kind::Value => Topology::default(),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Message;

    #[test]
    fn what_waits_for_a_queue_is_bounded_by_its_bytes_too() {
        let group = |size: usize| {
            let message = Message { body: vec![0; size], ..Message::default() };
            let effect = Effect::new(Kind::Step, Publish::new("", "full", message));
            Group::Due(Due { open: Vec::new(), round: vec![effect] })
        };
        let mut at_rest = AtRest::default();
        at_rest.add(group(RESTING_BYTES_MAX - 1).size());
        assert!(at_rest.has_room());
        at_rest.add(group(1).size());
        assert!(!at_rest.has_room());
        at_rest.remove(group(1).size());
        at_rest.add(AtRest { requests: RESTING_MAX, bytes: 0 });
        assert!(!at_rest.has_room());
        at_rest.remove(AtRest { requests: RESTING_MAX, bytes: RESTING_BYTES_MAX - 1 });
        assert_eq!(at_rest, AtRest::default());
    }
}
