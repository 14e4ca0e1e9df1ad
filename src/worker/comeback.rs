//! How often a message may come back.
//!
//! A quorum queue counts deliveries, and tells the count with each. Those that celeriac makes give
//! a message up by themselves; others may have no limit (before RabbitMQ 4.0), or one that drops
//! messages, and nobody is told. So a worker gives up what has been delivered as often as its own
//! limit allows, before RabbitMQ 4 would by its default of 20.
//!
//! A classic queue only marks what comes back. A worker that gets a marked message, and knows
//! nothing of it, sends it to the same queue once more, with a count in its headers and after a
//! second in the delay queues, and acks the one it has; what is sent again is run by whoever gets
//! it. Only messages that come back pay for this, also those that were given back unstarted. Pure.
//!
//! **Invariant:** between two starts of a task of a classic queue its count has grown and was
//! confirmed, so that a message which kills its workers is given up after a known number of them.
//! Where the delay queues do not serve the queue there is no second in between: then both messages
//! can come back if their worker dies at once, and each is counted for itself.

use super::dead_letter::Reason;
use super::unsettled::Ending;
use crate::amqp::Delivery;
use crate::protocol::{Value, dead};
use crate::task::Outcome;

/// What is to be done with a message that nothing is known of, instead of running it; `None` for
/// nearly all. `limit` is the setting `worker_delivery_limit`.
pub(super) fn judge(delivery: &Delivery, limit: u32) -> Option<Ending> {
    if !delivery.redelivered || limit == 0 {
        return None;
    }
    let (headers, limit) = (delivery.message.properties.headers.as_ref(), i64::from(limit));
    let count = |name| headers.and_then(|headers| headers.get(name)).and_then(Value::as_i64);
    // RabbitMQ 4 tells two counts, one of which may leave out what consumers gave back.
    if let Some(before) = count(dead::DELIVERY_COUNT).max(count(dead::ACQUIRED_COUNT)) {
        // The last delivery that a limit of this number allows: after it nobody could be told.
        return (before >= limit).then(|| given_up(delivery, before));
    }
    let before = count(dead::DELIVERIES).unwrap_or(0);
    let deliveries = before.max(0).saturating_add(1);
    if deliveries <= limit {
        return Some(Ending::Counted { deliveries });
    }
    Some(given_up(delivery, deliveries))
}

fn given_up(delivery: &Delivery, deliveries: i64) -> Ending {
    let queue = &delivery.queue;
    let error = format!(
        "the task's worker was lost again and again: delivered {deliveries} times from queue \
         '{queue}', and never settled"
    );
    let outcome = Outcome::Lost { reason: error.clone() };
    Ending::Parked { reason: Reason { word: dead::DELIVERY_LIMIT, error }, outcome }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::amqp::SettleToken;
    use crate::protocol::{Map, Message};

    fn delivery(redelivered: bool, headers: &[(&'static str, i64)]) -> Delivery {
        let headers: Map = headers.iter().copied().collect();
        let mut message = Message::default();
        message.properties.headers = Some(headers);
        let (exchange, routing_key, queue) = (String::new(), "q".to_owned(), "q".into());
        let token = SettleToken::inert();
        Delivery { message, exchange, routing_key, queue, redelivered, token }
    }

    /// How often a message was delivered, or that it was delivered too often.
    fn judged(redelivered: bool, headers: &[(&'static str, i64)]) -> Option<Result<i64, String>> {
        Some(match judge(&delivery(redelivered, headers), 3)? {
            Ending::Counted { deliveries } => Ok(deliveries),
            Ending::Parked { outcome, .. } => Err(outcome.into_exception()?.0.to_string()),
            other => panic!("{other:?}"),
        })
    }

    #[test]
    fn only_what_comes_back_to_a_classic_queue_is_counted() {
        assert_eq!(judged(false, &[]), None);
        assert_eq!(judged(false, &[(dead::DELIVERIES, 2)]), None, "that is the one sent again");
        assert_eq!(judged(true, &[(dead::DELIVERY_COUNT, 1)]), None);
        assert_eq!(judged(true, &[(dead::ACQUIRED_COUNT, 1)]), None);
        assert_eq!(judged(true, &[]), Some(Ok(1)));
        assert_eq!(judged(true, &[(dead::DELIVERIES, 2)]), Some(Ok(3)));
        assert_eq!(judged(true, &[(dead::DELIVERIES, -9)]), Some(Ok(1)));
        assert!(judge(&delivery(true, &[]), 0).is_none(), "no limit");
    }

    #[test]
    fn what_came_back_too_often_is_given_up() {
        for count in [3, i64::MAX] {
            let error = judged(true, &[(dead::DELIVERIES, count)]).unwrap().unwrap_err();
            assert!(error.starts_with("WorkerLostError: "), "{error}");
        }
    }

    #[test]
    fn what_a_quorum_queue_has_delivered_as_often_as_may_be_is_not_run_again() {
        let counts = |theirs, acquired| {
            judged(true, &[(dead::DELIVERY_COUNT, theirs), (dead::ACQUIRED_COUNT, acquired)])
        };
        assert_eq!(counts(2, 2), None);
        for (theirs, acquired) in [(3, 3), (3, 0), (0, 3), (i64::MAX, -1)] {
            let error = counts(theirs, acquired).unwrap().unwrap_err();
            assert!(error.starts_with("WorkerLostError: "), "{error}");
        }
        assert_eq!(judged(false, &[(dead::DELIVERY_COUNT, 9)]), None, "that is of another queue");
        assert!(judge(&delivery(true, &[(dead::DELIVERY_COUNT, 9)]), 0).is_none(), "no limit");
    }
}
