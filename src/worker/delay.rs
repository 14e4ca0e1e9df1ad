//! Delays: what is due later is handed on to the delay queues, or held for the last two seconds.
//!
//! Publishes nothing itself. **Invariant:** nothing is held for longer than that while the delay
//! queues can take it, and what is held leaves half of the prefetch to what is due now.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::effect::{Effect, Kind};
use super::running::Crew;
use super::slots::{Slot, Slots};
use crate::client::delays;
use crate::protocol::delay;
use crate::protocol::{Message, Properties, is_added_by_the_broker};
use crate::task::Request;

/// How long is slept at once for a date far away, so that a clock that was set is noticed, and
/// delay queues that are back.
const NAP_MAX: Duration = Duration::from_secs(60);

/// The least that is slept, for a date that is all but reached.
const NAP_MIN: Duration = Duration::from_millis(1);

/// Places for jobs that are held until they are due.
#[derive(Debug)]
pub(super) struct Hold(Arc<Slots>);

impl Hold {
    /// For a worker with this prefetch.
    pub(super) fn new(prefetch: u32) -> Self {
        Self(Slots::new(Self::places(prefetch)))
    }

    /// For this prefetch from now on. What is held stays.
    pub(super) fn fit(&self, prefetch: u32) {
        self.0.set(Self::places(prefetch));
    }

    /// Half of the prefetch, so that the rest is free for what is due now.
    fn places(prefetch: u32) -> usize {
        usize::try_from(prefetch / 2).unwrap_or(1)
    }

    fn place(&self) -> Option<Slot> {
        Slots::try_take(&self.0)
    }
}

/// Waits for a job that is due later. Gives the date if it is not to wait here.
pub(super) async fn wait(request: &Request, crew: &Crew) -> Option<Timestamp> {
    let mut place = None;
    loop {
        let (eta, now) = (request.eta?, Timestamp::now());
        if eta <= now || request.expires.is_some_and(|expires| expires < now) {
            return None;
        }
        // What expires first is looked at when it has expired, so that its caller hears of it.
        let due = request.expires.map_or(eta, |expires| expires.min(eta));
        let served = crew.client.delays().serve(&request.delivery_info.queue);
        if served && delay::is_far(due, now) {
            return Some(due);
        }
        if place.is_none() {
            place = crew.hold.place();
            if place.is_none() && served {
                return Some(due);
            }
        }
        let rest = due.duration_since(now).unsigned_abs();
        tokio::time::sleep(rest.clamp(NAP_MIN, NAP_MAX)).await;
    }
}

/// What publishes `message`, as it arrived, to wait for `due` in the delay queues, for one second
/// at least.
pub(super) fn hand_on(mut message: Message, request: &Request, due: Timestamp) -> Effect {
    clean(&mut message);
    let seconds = delay::seconds_until(due, Timestamp::now()).max(1);
    let queue = &*request.delivery_info.queue;
    Effect::new(Kind::HandOn, delays::delayed(seconds, queue, message))
}

/// Takes off what belonged to one delivery, so that the message can be published again.
///
/// The broker drops what seems to go in circles, by the headers of its dead-lettering, and refuses
/// the name of another user than the one who publishes.
pub(super) fn clean(message: &mut Message) {
    let properties = &mut message.properties;
    if let Some(headers) = &mut properties.headers {
        headers.retain(|key| !is_added_by_the_broker(key));
    }
    properties.expiration = None;
    properties.user_id = None;
    properties.delivery_mode = Some(Properties::PERSISTENT);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_places_for_what_is_held_follow_the_prefetch() {
        let hold = Hold::new(4);
        let mut held: Vec<_> = std::iter::from_fn(|| hold.place()).collect();
        assert_eq!(held.len(), 2);
        hold.fit(40);
        held.extend(std::iter::from_fn(|| hold.place()));
        assert_eq!(held.len(), 20);
        hold.fit(8);
        held.truncate(4);
        assert!(hold.place().is_none(), "what is held stays, and counts");
        held.pop();
        assert!(hold.place().is_some());
        hold.fit(0);
        drop(held);
        assert!(hold.place().is_some(), "there is always one");
    }
}
