//! Outcomes that are being published: what of each is under way, and what is done about failures.
//!
//! Does not talk to the broker itself but to look for what is missing; `session.rs` sends and
//! hears of the confirms. **Invariant:** an outcome counts as published only when everything that
//! follows from it was confirmed, was replaced by something that was, or is with the dead letters.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::{BoxFuture, FutureExt, ready};
use futures::stream::{FuturesUnordered, StreamExt};
use tracing::{debug, error, warn};

use super::careful::StepName;
use super::outcome;
use super::poison;
use super::shard::Shard;
use crate::amqp::{
    Declare, ExchangeKind, ExchangeSpec, Publish, PublishError, Topology, WhenUnroutable, topology,
};
use crate::client::{Config, parked};
use crate::protocol::join::Open;
use crate::protocol::{Exception, ResultMeta, Serializer};
use crate::results::join::Outcome;
use crate::task::Request;
use crate::worker::effect::{Effect, Kind, Verdict};
use crate::worker::gather;
use crate::worker::report::report;
use crate::worker::scribe::Scribe;
use crate::worker::settle;

/// Exchanges of others that are known to exist, at most.
const EXCHANGES_MAX: usize = 1024;

/// Before a step goes again to a queue that did not take it: a full one has room some day, and to
/// end the session over it would only publish other outcomes twice.
const NACK_PAUSE: Duration = Duration::from_secs(1);

/// After so many refusals, a step goes over the publisher of the worker instead. The channel of the
/// session may be what refuses it (see `amqp/renewal.rs`), and to end the session would publish the
/// other steps of this outcome twice.
const NACKS_MAX: u32 = 10;

/// After so many, the session ends if the step is a record for a shard. It must not go another way:
/// an `open` that comes when its chord is over, and is forgotten, begins it once more.
const RECORD_NACKS_MAX: u32 = 60;

/// How long the confirms of an outcome usually take, and much longer.
const USUAL: Duration = Duration::from_secs(1);

/// One message of an outcome.
#[derive(Debug)]
pub(super) struct Step {
    chord: Arc<str>,
    effect: Effect,
    /// Whether its exchange is known to exist.
    checked: bool,
    /// Whether it is confirmed, on another channel than the session's.
    stored: bool,
}

impl Step {
    fn new(chord: &Arc<str>, effect: Effect) -> Self {
        Self { chord: Arc::clone(chord), effect, checked: false, stored: false }
    }

    pub(super) fn publish(&self) -> Arc<Publish> {
        Arc::clone(&self.effect.publish)
    }

    pub(super) fn name(&self) -> StepName {
        let publish = &self.effect.publish;
        StepName {
            chord: self.chord.to_string(),
            exchange: publish.exchange.to_string(),
            routing_key: publish.routing_key.clone(),
            correlation_id: publish.message.properties.correlation_id.clone(),
            is_repaired: self.effect.repaired,
        }
    }

    /// The same, straight to the queue that has the routing key as its name; `None` if its sender
    /// does not want that, or it was tried.
    fn to_queue(&self) -> Option<Self> {
        let publish = &self.effect.publish;
        if publish.when_unroutable != WhenUnroutable::ToQueue || publish.exchange.is_empty() {
            return None;
        }
        let publish = Publish { exchange: "".into(), ..Publish::clone(publish) };
        let effect = Effect { publish: Arc::new(publish), ..self.effect.clone() };
        Some(Self { chord: Arc::clone(&self.chord), effect, checked: true, stored: false })
    }
}

/// How far an outcome is.
#[derive(Debug)]
pub(super) enum Progress {
    /// Something is still under way.
    Under,
    /// This is to be published now.
    Next(Vec<Step>),
    /// All of it is published.
    Complete(Arc<str>),
}

/// An outcome under way.
#[derive(Debug)]
struct Firing {
    since: Instant,
    /// Steps without a confirm.
    under_way: usize,
    /// What is published once those are confirmed.
    later: Vec<Effect>,
}

/// All outcomes of a session that are being published.
pub(super) struct Firings<'a> {
    shard: &'a Shard,
    firings: HashMap<Arc<str>, Firing>,
    /// Exchanges that were found to exist.
    known: HashSet<String>,
    /// Steps that wait until something was declared or looked for.
    mending: FuturesUnordered<BoxFuture<'static, (Step, Result<(), PublishError>)>>,
}

impl<'a> Firings<'a> {
    pub(super) fn new(shard: &'a Shard) -> Self {
        let ours = [String::new(), topology::results_exchange().to_owned()];
        let known = ours.into_iter().chain([topology::dead_exchange().to_owned()]).collect();
        Self { shard, firings: HashMap::new(), known, mending: FuturesUnordered::new() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.firings.is_empty()
    }

    /// Whether a queue takes its time with something.
    pub(super) fn are_stuck(&self) -> bool {
        self.firings.values().any(|firing| firing.since.elapsed() > USUAL)
    }

    /// Begins an outcome: the steps to publish, or `None` if nothing follows from it.
    pub(super) fn fire(&mut self, chord: &Arc<str>, outcome: &Outcome) -> Option<Vec<Step>> {
        let scribe = Scribe::of(&self.shard.crew);
        let mut following = outcome::following(outcome, &scribe);
        // The list of a complete chord may be one that cannot be sent.
        if !following.calls.iter().any(|call| gather::refers(&call.publish.message)) {
            self.delete_parked(outcome.open());
        }
        let mut now = std::mem::take(&mut following.opens);
        let mut later: Vec<_> = following.into_effects().collect();
        if now.is_empty() {
            now = std::mem::take(&mut later);
        }
        if now.is_empty() {
            return None;
        }
        let firing = Firing { since: Instant::now(), under_way: now.len(), later };
        self.firings.insert(Arc::clone(chord), firing);
        Some(now.into_iter().map(|effect| Step::new(chord, effect)).collect())
    }

    /// Deletes what nobody will gather. The outcome is in the log for good; so whoever publishes it
    /// again deletes nothing else, and what is left for want of a broker expires.
    fn delete_parked(&self, open: &Open) {
        if open.park_ms.is_none() {
            return;
        }
        let (connection, chord) = (self.shard.connection.clone(), open.chord.clone());
        self.shard.crew.deletions.of_unused(connection, chord);
    }

    /// Lets a step pass, unless it is too large, or its exchange has to be looked for: to publish
    /// what the broker does not take, or to an exchange that does not exist, would end the session,
    /// again and again.
    pub(super) fn checked(&mut self, step: Step) -> Option<Step> {
        let size = step.effect.publish.message.body.len();
        let config = self.shard.crew.client.config();
        let max = config.joined_message_max();
        let failed = match size > max {
            true => Some(PublishError::TooLarge { size, max }),
            false => self.shard.refusals.of(&step.name()),
        };
        if let Some(failed) = failed {
            self.mending.push(ready((step, Err(failed))).boxed());
            return None;
        }
        if let Some(topology) = parked::needed_by(&step.effect.publish, config.join_queue_type)
            && !step.checked
        {
            self.look(step, topology);
            return None;
        }
        let exchange = &*step.effect.publish.exchange;
        if step.checked || self.known.contains(exchange) {
            return Some(step);
        }
        let mut spec = ExchangeSpec::durable(exchange, ExchangeKind::Direct);
        spec.declare = Declare::UseExisting;
        self.look(step, Topology { exchanges: vec![spec], ..Topology::default() });
        None
    }

    /// Tells monitors of a call that is sent, if they want to know.
    pub(super) fn tell(&self, step: &Step) {
        if step.effect.kind == Kind::Step {
            let client = &self.shard.crew.client;
            client.tell_sent(client.sent_event(&step.effect.publish));
        }
    }

    /// A step is confirmed.
    pub(super) fn confirmed(&mut self, step: Step) -> Progress {
        let Some(firing) = self.firings.get_mut(&step.chord) else { return Progress::Under };
        firing.under_way = firing.under_way.saturating_sub(1);
        if firing.under_way > 0 {
            return Progress::Under;
        }
        let later = std::mem::take(&mut firing.later);
        firing.under_way = later.len();
        if later.is_empty() {
            self.firings.remove(&step.chord);
            return Progress::Complete(step.chord);
        }
        Progress::Next(later.into_iter().map(|effect| Step::new(&step.chord, effect)).collect())
    }

    /// A step was not stored. An error if the session must not go on.
    pub(super) fn failed(&mut self, step: Step, failed: &PublishError) -> Result<Progress, String> {
        if matches!(failed, PublishError::Nacked) {
            let is_record = step.effect.kind == Kind::Record;
            if is_record && step.effect.nacks >= RECORD_NACKS_MAX {
                return Err(format!("an outcome is not stored: {failed}"));
            }
            warn!(chord = &*step.chord, error = %failed, "an outcome is published again");
            self.wait(step);
            return Ok(Progress::Under);
        }
        if failed.is_returned()
            && let Some(step) = step.to_queue()
        {
            return Ok(Progress::Next(vec![step]));
        }
        let key = &step.effect.publish.routing_key;
        match step.effect.judge(failed) {
            Verdict::Done => {
                debug!(chord = &*step.chord, routing_key = key, "nobody takes it");
                Ok(self.confirmed(step))
            }
            Verdict::Declare => {
                warn!(chord = &*step.chord, error = %failed, "queue is declared for an outcome");
                let topology = settle::address(&step.effect, &self.shard.crew);
                let effect = Effect { repaired: true, ..step.effect };
                self.look(Step { effect, ..step }, topology);
                Ok(Progress::Under)
            }
            Verdict::Unsendable if !step.effect.repaired => Ok(self.report_instead(step, failed)),
            Verdict::Doomed => Ok(self.replace(step, failed)),
            Verdict::Straight => {
                let effect = step.effect.straight();
                Ok(Progress::Next(vec![Step { effect, ..step }]))
            }
            Verdict::Missing | Verdict::Unknown | Verdict::Unsendable => {
                let nowhere = failed.is_returned() || failed.is_permanent();
                if !nowhere || step.effect.publish.exchange == topology::dead_exchange() {
                    return Err(format!("an outcome is not stored: {failed}"));
                }
                Ok(self.give_up(&step, failed))
            }
        }
    }

    /// Tells the caller that the report itself can never be sent.
    fn report_instead(&mut self, step: Step, failed: &PublishError) -> Progress {
        error!(chord = &*step.chord, error = %failed, "a report of an outcome cannot be sent");
        let instead = smaller(&step, failed, self.shard.crew.client.config());
        match instead {
            Some(effect) => Progress::Next(vec![Step::new(&step.chord, effect)]),
            None => self.confirmed(step),
        }
    }

    /// Publishes instead what tells everybody that this step can never be.
    fn replace(&mut self, step: Step, failed: &PublishError) -> Progress {
        error!(chord = &*step.chord, error = %failed, "a message of an outcome cannot be sent");
        let Some(firing) = self.firings.get_mut(&step.chord) else { return Progress::Under };
        let crew = &self.shard.crew;
        if gather::refers(&step.effect.publish.message) {
            let (connection, chord) = (self.shard.connection.clone(), step.chord.to_string());
            crew.deletions.of_unused(connection, chord);
        }
        let instead = settle::instead(&step.effect, failed, &mut firing.later, crew);
        if instead.is_empty() {
            return self.confirmed(step);
        }
        firing.under_way += instead.len() - 1;
        Progress::Next(instead.into_iter().map(|effect| Step::new(&step.chord, effect)).collect())
    }

    /// Puts the message with the dead letters, where people find it.
    fn give_up(&self, step: &Step, failed: &PublishError) -> Progress {
        error!(chord = &*step.chord, error = %failed, "an outcome goes to the dead letters");
        let message = step.effect.publish.message.clone();
        let publish = poison::dead(message, (&failed.to_string(), false), self.shard);
        let effect = Effect { publish: Arc::new(publish), ..step.effect.clone() };
        Progress::Next(vec![Step::new(&step.chord, effect)])
    }

    /// Lets a step pass again after a while, or sends it another way: calls and reports may come
    /// late, as they may come twice.
    fn wait(&mut self, mut step: Step) {
        step.effect.nacks = step.effect.nacks.saturating_add(1);
        let client = &self.shard.crew.client;
        let is_free = step.effect.kind != Kind::Record && step.effect.nacks > NACKS_MAX;
        let way = is_free.then(|| client.publisher().relaying());
        let waiting = async move {
            tokio::time::sleep(NACK_PAUSE).await;
            let Some(publisher) = way else { return (step, Ok(())) };
            let sent = publisher.hand_over(vec![step.publish()]).await.outcomes().await;
            step.stored = true;
            (step, sent.into_iter().collect())
        };
        self.mending.push(waiting.boxed());
    }

    fn look(&mut self, step: Step, topology: Topology) {
        let connection = self.shard.connection.clone();
        let looking = async move {
            let looked = connection.declare_for_now(&topology).await.map_err(PublishError::from);
            (step, looked)
        };
        self.mending.push(looking.boxed());
    }

    pub(super) fn are_mending(&self) -> bool {
        !self.mending.is_empty()
    }

    /// Waits for a step whose wait is over, or which went another way; see
    /// [`looked`](Self::looked).
    pub(super) async fn mended(&mut self) -> Option<(Step, Result<(), PublishError>)> {
        self.mending.next().await
    }

    /// What becomes of a step after something was declared or looked for.
    pub(super) fn looked(
        &mut self,
        step: Step,
        result: Result<(), PublishError>,
    ) -> Result<Progress, String> {
        let exchange = step.effect.publish.exchange.to_string();
        match result {
            Ok(()) if step.stored => {
                self.tell(&step);
                Ok(self.confirmed(step))
            }
            Ok(()) => {
                if self.known.len() < EXCHANGES_MAX {
                    self.known.insert(exchange);
                }
                Ok(Progress::Next(vec![Step { checked: true, ..step }]))
            }
            Err(PublishError::Failed(error)) => Err(error.to_string()),
            Err(error) => self.failed(Step { stored: false, ..step }, &error),
        }
    }
}

/// The report of a failure to whoever was to get the report that cannot be sent.
fn smaller(step: &Step, failed: &PublishError, config: &Config) -> Option<Effect> {
    let Publish { routing_key, message, .. } = &*step.effect.publish;
    let properties = &message.properties;
    let id = properties.correlation_id.clone().unwrap_or_else(|| step.chord.to_string());
    let written = properties.content_type.as_deref().and_then(Serializer::from_content_type);
    let request = Request {
        id,
        reply_to: Some(routing_key.clone()),
        serializer: written.unwrap_or_default(),
        ..Request::default()
    };
    let exception = Exception::encode_error(format!("the result cannot be sent: {failed}"));
    let publish = report(&request, ResultMeta::failure(&*request.id, exception), config)?;
    Some(Effect { repaired: true, ..Effect::new(Kind::Report, publish) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Message;
    use crate::results::reply;

    #[test]
    fn a_report_that_no_binding_takes_goes_straight_to_its_queue_once() {
        let report = reply::publish("celeriac.reply.x", Message::default());
        let step = Step::new(&"c".into(), Effect::new(Kind::Report, report));
        assert_eq!(step.publish().exchange, topology::results_exchange());
        let again = step.to_queue().unwrap();
        assert_eq!(
            (&*again.publish().exchange, &*again.publish().routing_key),
            ("", "celeriac.reply.x")
        );
        assert!(again.to_queue().is_none());
        let call = Publish::new("theirs", "caller", Message::default());
        let call = Step::new(&"c".into(), Effect::new(Kind::Step, call));
        assert!(call.to_queue().is_none());
    }
}
