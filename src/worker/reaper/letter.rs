//! Which end a dead letter has come to, and what is to become of it.
//!
//! Publishes nothing. **Invariant:** every dead letter comes back as something to be settled; what
//! is no task that died in a queue is parked without anybody being told.

use std::sync::Arc;

use jiff::Timestamp;
use tracing::{error, warn};

use crate::amqp::{Delivery, SettleToken, topology};
use crate::protocol::dead::{self, Death};
use crate::protocol::join::{Open, Record};
use crate::protocol::{Exception, Map, TaskMessage, Value};
use crate::task::{DeliveryInfo, Outcome, Request};
use crate::worker::dead_letter::Reason;
use crate::worker::events::Facts;
use crate::worker::gather;
use crate::worker::intake;
use crate::worker::join;
use crate::worker::journal;
use crate::worker::original::Original;
use crate::worker::running::Crew;
use crate::worker::sequel::Sequel;
use crate::worker::unsettled::{Ending, Finished, Unsettled};

/// How often a dead letter may come back before nobody tries to understand it any more. Below
/// the delivery limit of its queue, after which the broker moves it on.
const TRIES_MAX: u64 = 10;

/// Reads one dead letter.
pub(super) fn read(delivery: Delivery, crew: &Crew) -> Box<Finished> {
    let none = Map::new();
    let headers = delivery.message.properties.headers.as_ref().unwrap_or(&none);
    let tries = headers.get(dead::DELIVERY_COUNT).and_then(Value::as_i64);
    if tries.is_some_and(|tries| u64::try_from(tries).is_ok_and(|tries| tries >= TRIES_MAX)) {
        let error = format!("could not be reaped in {TRIES_MAX} attempts");
        return unread(delivery, topology::dead_queue(), "unreapable", error, crew);
    }
    let Some(death) = Death::last(headers) else {
        // Put here by a program, such as a joiner, which may have said where it comes from.
        let text = |name| headers.get(name).and_then(Value::as_str);
        let queue = text(dead::QUEUE).map_or_else(|| topology::dead_queue().into(), str::to_owned);
        let error = text(dead::ERROR).unwrap_or("has not died in a queue").to_owned();
        if text(dead::REASON) == Some(dead::JOIN_OPEN) {
            return opened(delivery, &queue, error, crew);
        }
        let is_record = text(dead::REASON) == Some(dead::JOIN_RECORD);
        let word = if is_record { dead::JOIN_RECORD } else { "no-death" };
        return unread(delivery, &queue, word, error, crew);
    };
    if topology::is_join_queue(&death.queue) {
        let Death { queue, reason, .. } = &death;
        error!(queue, reason, "a record of a chord is lost: look for policies of its queue");
        let error = format!("a record of a chord died in queue '{queue}' ({reason})");
        let queue = queue.clone();
        return opened(delivery, &queue, error, crew);
    }
    task(delivery, &death, crew)
}

/// A message of a shard. Those who wait for the chord that an `open` was to begin are told, as far
/// as it says who they are; anything else is only parked.
fn opened(delivery: Delivery, queue: &str, error: String, crew: &Crew) -> Box<Finished> {
    let contradicts = Record::decode(&delivery.message, &crew.limits).is_ok();
    let Some(open) = Open::salvage(&delivery.message, &crew.limits) else {
        return unread(delivery, queue, dead::JOIN_RECORD, error, crew);
    };
    let text = format!("chord {} could not be opened: {error}", open.chord);
    let exception = Exception::new("celery.exceptions", "ChordError", Value::from(text));
    let (request, mut sequel) = join::bereaved(&open);
    if contradicts {
        // The first one's have been called.
        sequel.errbacks.clear();
    }
    let Delivery { message, exchange, routing_key, redelivered, token, .. } = delivery;
    let queue = queue.to_owned();
    let delivery_info = DeliveryInfo { exchange, routing_key, queue, priority: None, redelivered };
    let hostname = crew.info.hostname.clone();
    let request = Request { delivery_info, hostname, ..request };
    let reason = Reason { word: dead::JOIN_RECORD, error };
    let ending = Ending::Refused { reason, exception };
    finished(request, Original::untouched(message), Some(Box::new(sequel)), token, ending)
}

/// A message that is parked as it is.
fn unread(
    delivery: Delivery,
    queue: &str,
    word: &'static str,
    error: String,
    crew: &Crew,
) -> Box<Finished> {
    let Delivery { message, exchange, routing_key, redelivered, token, .. } = delivery;
    let queue = queue.to_owned();
    let delivery_info = DeliveryInfo { exchange, routing_key, queue, priority: None, redelivered };
    let hostname = crew.info.hostname.clone();
    let request = Request { delivery_info, hostname, ..Request::default() };
    let reason = Reason { word, error };
    let ending = Ending::Parked { reason, outcome: Outcome::Ignore };
    finished(request, Original::untouched(message), None, token, ending)
}

/// A message that was in a queue of tasks.
fn task(delivery: Delivery, death: &Death, crew: &Crew) -> Box<Finished> {
    let Delivery { mut message, token, .. } = delivery;
    let Death { queue, exchange, routing_key, .. } = death.clone();
    let priority = message.properties.priority;
    let delivery_info = DeliveryInfo { exchange, routing_key, queue, priority, redelivered: false };
    let hostname = crew.info.hostname.clone();
    let decoded = TaskMessage::take(&mut message.properties, &message.body, &crew.limits);
    let (request, original, sequel) = match decoded {
        Ok((task_message, remains)) => {
            let TaskMessage { mut headers, body, serializer, reply_to, correlation_id, .. } =
                task_message;
            gather::name_task(&mut headers);
            let (sequel, _) = Sequel::read(body.embed, &headers.extra);
            let known = crew.registry.task(&headers.task);
            let ignore_result = known.and_then(|task| task.options.ignore_result);
            let zone = &crew.client.config().timezone;
            let addressed = Request {
                delivery_info,
                hostname,
                serializer,
                reply_to,
                correlation_id,
                ..Request::default()
            };
            let request =
                intake::facts(&mut headers, ignore_result.unwrap_or(false), zone, addressed);
            (request, Original::without(message, headers, remains), sequel)
        }
        Err(failed) => {
            let request = Request { delivery_info, hostname, ..intake::unreadable(&failed) };
            let sequel = failed.headers().and_then(|headers| Sequel::of_headers(&headers.extra));
            (request, Original::untouched(message), sequel)
        }
    };
    let ending = ending(death, request.expires, Timestamp::now());
    match &ending {
        Ending::Ended(_) => journal::expired(&request),
        _ => warn!(
            task_id = request.id,
            task_name = request.task,
            queue = death.queue,
            reason = death.reason,
            "task was given up by the broker"
        ),
    }
    finished(request, original, sequel, token, ending)
}

fn finished(
    request: Request,
    original: Original,
    sequel: Option<Box<Sequel>>,
    token: SettleToken,
    ending: Ending,
) -> Box<Finished> {
    let (request, token, children) = (Arc::new(request), Some(token), Vec::new());
    let (entry, facts) = (None, Facts::default());
    let unsettled = Unsettled { request, original, token, sequel, children, entry, facts };
    Box::new(Finished { unsettled: Box::new(unsettled), ending })
}

/// How a task has ended that died in a queue.
///
/// A task with a date of its own has simply expired, as if a worker had found it too late. One
/// that fell to a limit of its queue is worth looking at, and is parked.
fn ending(death: &Death, expires: Option<Timestamp>, now: Timestamp) -> Ending {
    let Death { queue, reason, expiration, .. } = death;
    match reason.as_str() {
        "expired" => {
            let outcome = Outcome::Revoked { reason: "expired".into() };
            // The broker's clock need not be ours.
            if expires.is_some_and(|date| date <= now || expiration.is_some()) {
                return Ending::Ended(outcome);
            }
            let error = match expiration {
                Some(_) => format!("the message's time to live in queue '{queue}' has passed"),
                None => format!("the time to live of queue '{queue}' has passed"),
            };
            Ending::Parked { reason: Reason { word: "expired", error }, outcome }
        }
        "delivery_limit" => {
            let error = format!(
                "the task's worker was lost again and again: queue '{queue}' has delivered it as \
                 often as its delivery limit allows, and nobody has settled it"
            );
            let outcome = Outcome::Lost { reason: error.clone() };
            Ending::Parked { reason: Reason { word: dead::DELIVERY_LIMIT, error }, outcome }
        }
        "rejected" => {
            let error = format!("a consumer of queue '{queue}' has rejected it");
            let exception = Exception::reject(error.as_str());
            Ending::Refused { reason: Reason { word: "rejected", error }, exception }
        }
        "maxlen" => dropped("maxlen", format!("queue '{queue}' was full and has dropped it")),
        other => dropped("dead-lettered", format!("queue '{queue}' has dead-lettered it: {other}")),
    }
}

fn dropped(word: &'static str, error: String) -> Ending {
    let exception = Exception::new("celeriac", "DeadLettered", error.as_str());
    Ending::Refused { reason: Reason { word, error }, exception }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What becomes of a task with this death, one second after the epoch.
    fn end(reason: &str, expiration: Option<&str>, expires: Option<i64>) -> (String, String) {
        let expiration = expiration.map(str::to_owned);
        let (queue, reason) = ("q".to_owned(), reason.to_owned());
        let death = Death { queue, reason, expiration, ..Death::default() };
        let at = |second| Timestamp::from_second(second).unwrap();
        match ending(&death, expires.map(at), at(1)) {
            Ending::Ended(outcome) => (String::new(), outcome.name().to_owned()),
            Ending::Parked { reason, outcome } => (reason.word.into(), outcome.name().to_owned()),
            Ending::Refused { reason, exception } => (reason.word.into(), exception.exc_type),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn each_death_has_its_end() {
        #[track_caller]
        fn check(found: &(String, String), word: &str, end: &str) {
            assert_eq!((&*found.0, &*found.1), (word, end));
        }
        check(&end("delivery_limit", None, None), "delivery-limit", "lost");
        check(&end("rejected", None, None), "rejected", "Reject");
        check(&end("maxlen", None, Some(0)), "maxlen", "DeadLettered");
        check(&end("of the future", None, None), "dead-lettered", "DeadLettered");
        check(&end("expired", None, Some(0)), "", "revoked");
        check(&end("expired", Some("500"), Some(2)), "", "revoked");
        check(&end("expired", None, Some(2)), "expired", "revoked");
        check(&end("expired", Some("500"), None), "expired", "revoked");
        check(&end("expired", None, None), "expired", "revoked");
    }
}
