//! Messages that come again although this worker runs their task, or has run it: after the loss
//! of a connection, the broker delivers what it had no ack for.
//!
//! Only messages that are flagged as redelivered are looked up. One whose task runs takes the
//! place of the delivery that was lost, and is acked at the end; one whose task has ended, with
//! all its effects confirmed, is acked at once. One that goes on as another message is acked when
//! that is confirmed.
//!
//! **Invariant:** a message is known again only if the channel that its delivery came on is gone,
//! and only while the task runs in this worker, or for a few minutes after it was settled: what
//! went back to the broker, or was parked, is run again.

use std::collections::VecDeque;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hash};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tracing::info;

use super::active::Active;
use super::unsettled::Unsettled;
use crate::amqp::SettleToken;
use crate::protocol::{Value, dead};
use crate::task::Request;

/// How many settled deliveries are remembered: those whose acks may be on their way when a
/// connection is lost.
const RECENT_MAX: usize = 16_384;

/// How long one is remembered: longer than it takes to see that a connection is gone, and to make
/// another one. After that, who sends the same call again means it.
const RECENT_FOR: Duration = Duration::from_secs(300);

/// How much of a text tells calls apart.
const TEXT_MAX: usize = 64;

/// The calls whose deliveries were settled last. Old ones make room for new ones.
#[derive(Debug)]
pub(super) struct Recent {
    settled: Mutex<VecDeque<Settled>>,
    hasher: RandomState,
}

/// One call, by its key, and the channel that its delivery came on.
#[derive(Clone, Copy, Debug)]
struct Settled {
    key: u64,
    channel: u64,
    since: Instant,
}

impl Recent {
    pub(super) fn new() -> Self {
        Self { settled: Mutex::default(), hasher: RandomState::new() }
    }

    /// The key of a call. A retry is another call, and so is a replacement; nobody from outside
    /// can make two calls have the same.
    pub(super) fn key(&self, request: &Request) -> u64 {
        self.hasher.hash_one(Self::call(request))
    }

    /// The key of a message that goes on as another one, which has another key.
    pub(super) fn key_on(&self, request: &Request) -> u64 {
        self.hasher.hash_one((Self::call(request), hand_ons(request)))
    }

    fn call(request: &Request) -> impl Hash + '_ {
        let Request { id, retries, replaced_task_nesting, delivery_info, .. } = request;
        // One who sends an id once more often sends something else.
        let text = |text: &str| {
            text.bytes().take(TEXT_MAX).fold(0_u64, |sum, byte| {
                (sum.rotate_left(5) ^ u64::from(byte)).wrapping_mul(0x9E37_79B9_7F4A_7C15)
            })
        };
        let sent = (request.eta, text(&request.argsrepr), text(&request.kwargsrepr));
        (id, retries, replaced_task_nesting, &delivery_info.queue, sent)
    }

    /// A call's effects were confirmed, and its delivery is acked, if it can be.
    pub(super) fn add(&self, key: u64, channel: u64) {
        self.add_at(key, channel, Instant::now());
    }

    fn add_at(&self, key: u64, channel: u64, since: Instant) {
        let mut settled = self.lock();
        if settled.len() >= RECENT_MAX {
            settled.pop_front();
        }
        settled.push_back(Settled { key, channel, since });
    }

    /// Whether that delivery was settled, and was lost before it was acked.
    fn knows(&self, key: u64, token: &SettleToken) -> bool {
        let mut settled = self.lock();
        forget(&mut settled, Instant::now());
        let known = settled.iter_mut().find(|it| it.key == key && token.outlived(it.channel));
        // Should it come again, it is this delivery that was lost.
        known.map(|known| known.channel = token.channel()).is_some()
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Settled>> {
        self.settled.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Drops what was settled too long ago.
fn forget(settled: &mut VecDeque<Settled>, now: Instant) {
    while settled
        .front()
        .is_some_and(|oldest| now.saturating_duration_since(oldest.since) > RECENT_FOR)
    {
        settled.pop_front();
    }
}

/// How often the message of a request was sent on.
pub(super) fn hand_ons(request: &Request) -> i64 {
    request.headers.get(dead::HAND_ONS).and_then(Value::as_i64).unwrap_or(0).max(0)
}

/// What is known of a message that was delivered before.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Known {
    /// Nothing: it is to be run.
    No,
    /// Its task runs here, and this delivery is settled with it.
    Runs,
    /// Its task has run here, and this delivery was acked.
    Ended,
    /// It goes on as another message, and this delivery is settled with the one before.
    GoesOn,
}

/// Looks a redelivered message up; if it is known, its token is taken. What `runs_again` is known
/// only if it was sent on.
pub(super) fn recognise(
    unsettled: &mut Unsettled,
    active: &Active,
    recent: &Recent,
    runs_again: bool,
) -> Known {
    let request = &*unsettled.request;
    let Some(token) = unsettled.token.take() else { return Known::No };
    if request.id.is_empty() {
        unsettled.token = Some(token);
        return Known::No;
    }
    let (task_id, task_name) = (request.id.as_str(), request.task.as_str());
    let key_on = recent.key_on(request);
    // What leaves the register is in `recent` by then.
    let token = match active.take_over(request, key_on, token) {
        Ok(()) => {
            info!(task_id, task_name, "delivered again while it is sent on: acked when it was");
            return Known::GoesOn;
        }
        Err(token) => token,
    };
    if recent.knows(key_on, &token) {
        info!(task_id, task_name, "delivered again after it was sent on: acked");
        token.ack();
        return Known::GoesOn;
    }
    if runs_again {
        unsettled.token = Some(token);
        return Known::No;
    }
    let key = recent.key(request);
    let token = match active.take_over(request, key, token) {
        Ok(()) => {
            info!(task_id, task_name, "delivered again while its task runs: acked at its end");
            return Known::Runs;
        }
        Err(token) => token,
    };
    if recent.knows(key, &token) {
        info!(task_id, task_name, "delivered again after its task was done: acked");
        token.ack();
        return Known::Ended;
    }
    unsettled.token = Some(token);
    Known::No
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::active::Call;
    use super::super::events::Facts;
    use super::super::original::Original;
    use super::*;
    use crate::protocol::{Map, Message};

    fn request(id: &str) -> Request {
        Request { id: id.to_owned(), ..Request::default() }
    }

    #[test]
    fn calls_differ_by_id_retry_replacement_queue_and_arguments() {
        let recent = Recent::new();
        let first = request("1");
        assert_eq!(recent.key(&first), recent.key(&first.clone()));
        let mut elsewhere = first.clone();
        elsewhere.delivery_info.queue = "other".to_owned();
        for other in [
            request("2"),
            Request { retries: 1, ..first.clone() },
            Request { replaced_task_nesting: 1, ..first.clone() },
            Request { argsrepr: "(1,)".to_owned(), ..first.clone() },
            Request { kwargsrepr: "{'a': 1}".to_owned(), ..first.clone() },
            elsewhere,
        ] {
            assert_ne!(recent.key(&first), recent.key(&other));
        }
    }

    #[test]
    fn a_message_that_goes_on_has_another_key_each_time() {
        let recent = Recent::new();
        let sent_on = |count: i64| Request {
            headers: Map::from_iter([(dead::HAND_ONS, count)]),
            ..request("1")
        };
        let mut keys = vec![recent.key(&request("1")), recent.key_on(&request("1"))];
        keys.extend((1..4).map(|count| recent.key_on(&sent_on(count))));
        let count = keys.len();
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), count);
        assert_eq!(recent.key(&sent_on(1)), recent.key(&request("1")), "it is the same call");
    }

    fn delivered(request: &Arc<Request>, token: SettleToken) -> Unsettled {
        Unsettled {
            request: Arc::clone(request),
            original: Original::untouched(Message::default()),
            token: Some(token),
            sequel: None,
            children: Vec::new(),
            entry: None,
            facts: Facts::default(),
        }
    }

    #[test]
    fn a_message_that_comes_again_while_it_is_sent_on_is_settled_with_the_one_before() {
        let (active, recent) = (Active::default(), Recent::new());
        let request = Arc::new(request("1"));
        let (first, second) = (SettleToken::of_epoch(1), SettleToken::of_epoch(2));
        let entry = active.enter(&request);
        entry.set_call(Call { key: recent.key_on(&request), channel: first.channel() });
        let mut again = delivered(&request, second);
        for runs_again in [true, false] {
            assert_eq!(recognise(&mut again, &active, &recent, runs_again), Known::GoesOn);
            assert!(again.token.is_none());
            again.token = Some(SettleToken::of_epoch(3));
        }
        assert_eq!(entry.call().channel, SettleToken::of_epoch(3).channel());
        assert!(entry.leave().is_some(), "it waits for the end of the first");
        let mut unknown = delivered(&request, SettleToken::of_epoch(4));
        assert_eq!(recognise(&mut unknown, &active, &recent, false), Known::No);
        assert!(unknown.token.is_some());
    }

    #[test]
    fn memory_is_bounded() {
        let recent = Recent::new();
        (0..100_000).for_each(|key| recent.add(key, 1));
        let settled = recent.lock();
        assert_eq!((settled.len(), settled.front().unwrap().key), (16_384, 100_000 - 16_384));
    }

    #[test]
    fn what_has_ended_long_ago_is_not_remembered() {
        let recent = Recent::new();
        let start = Instant::now();
        (0..10).for_each(|key| recent.add_at(key, 1, start + RECENT_FOR / 10 * key as u32));
        let mut settled = recent.lock();
        forget(&mut settled, start + RECENT_FOR);
        assert_eq!(settled.len(), 10);
        forget(&mut settled, start + RECENT_FOR * 3 / 2 + Duration::from_secs(1));
        assert_eq!(settled.front().map(|it| it.key), Some(6), "{settled:?}");
    }
}
