//! Delays: what is due later is handed on to the delay queues, or held for the last two seconds.
//!
//! Publishes nothing itself. **Invariant:** nothing is held for longer than that while the delay
//! queues can take it, and what is held leaves half of the prefetch to what is due now.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::effect::{Effect, Kind};
use super::running::Crew;
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
pub(super) struct Hold(Arc<Semaphore>);

impl Hold {
    /// Half of the prefetch, so that the rest is free for what is due now.
    pub(super) fn new(prefetch: u32) -> Self {
        let places = usize::try_from(prefetch / 2).unwrap_or(1).clamp(1, Semaphore::MAX_PERMITS);
        Self(Arc::new(Semaphore::new(places)))
    }

    fn place(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.0).try_acquire_owned().ok()
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
