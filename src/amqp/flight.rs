//! The publishes that wait for their confirm, in the order in which they were sent.
//!
//! Pure. **Invariant:** a returned message is laid to the publish that it is, even if the client
//! library hands it out with the confirm of another one.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::publisher::{Parcel, Publish};

/// Publishes in flight, found by their number. Holds nothing of those that have ended, however
/// long the oldest one takes.
#[derive(Debug)]
pub(super) struct Flight<T> {
    entries: BTreeMap<u64, Entry<T>>,
    /// The number of the next one.
    next: u64,
    bytes: usize,
}

#[derive(Debug)]
struct Entry<T> {
    parcel: T,
    returned: Option<Returned>,
}

/// What holds one publish.
pub(super) trait Holds {
    fn publish(&self) -> &Publish;
}

impl Holds for Parcel {
    fn publish(&self) -> &Publish {
        &self.publish
    }
}

impl Holds for Arc<Publish> {
    fn publish(&self) -> &Publish {
        self
    }
}

impl<T> Default for Flight<T> {
    fn default() -> Self {
        Self { entries: BTreeMap::new(), next: 0, bytes: 0 }
    }
}

/// What the broker said about a message that no queue took.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Returned {
    pub(super) code: u16,
    pub(super) text: String,
}

/// The parts of a returned message by which its publish is recognised.
#[derive(Clone, Copy, Debug)]
pub(super) struct Likeness<'a> {
    pub(super) exchange: &'a str,
    pub(super) routing_key: &'a str,
    pub(super) correlation_id: Option<&'a str>,
    pub(super) message_id: Option<&'a str>,
    pub(super) body: &'a [u8],
}

impl<T: Holds> Flight<T> {
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Bytes of all bodies in flight.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds a publish and tells its number.
    pub(super) fn push(&mut self, parcel: T) -> u64 {
        self.bytes += parcel.publish().message.body.len();
        let number = self.next;
        self.next += 1;
        self.entries.insert(number, Entry { parcel, returned: None });
        number
    }

    /// Takes a publish out that has ended, with what was returned for it.
    pub(super) fn take(&mut self, number: u64) -> Option<(T, Option<Returned>)> {
        let entry = self.entries.remove(&number)?;
        self.bytes -= entry.parcel.publish().message.body.len();
        Some((entry.parcel, entry.returned))
    }

    /// Lays a returned message to the first publish that looks the same; false if none does.
    ///
    /// Messages that look the same are routed the same, so it does not matter which one it is.
    pub(super) fn mark_returned(&mut self, like: Likeness<'_>, returned: Returned) -> bool {
        let found = self.entries.values_mut().find(|entry| {
            let publish = entry.parcel.publish();
            let properties = &publish.message.properties;
            entry.returned.is_none()
                && publish.routing_key == like.routing_key
                && publish.exchange == like.exchange
                && properties.correlation_id.as_deref() == like.correlation_id
                && properties.message_id.as_deref() == like.message_id
                && publish.message.body == like.body
        });
        match found {
            Some(entry) => {
                entry.returned = Some(returned);
                true
            }
            None => false,
        }
    }

    /// Empties the flight, oldest first.
    pub(super) fn drain(&mut self) -> Vec<T> {
        self.bytes = 0;
        std::mem::take(&mut self.entries).into_values().map(|entry| entry.parcel).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::amqp::publisher::Reply;
    use crate::protocol::Message;

    fn parcel(routing_key: &str, body: &[u8]) -> Parcel {
        let message = Message { body: body.to_vec(), ..Message::default() };
        Parcel::new(Publish::new("", routing_key, message), Reply::nobody())
    }

    fn like<'a>(routing_key: &'a str, body: &'a [u8]) -> Likeness<'a> {
        Likeness { exchange: "", routing_key, correlation_id: None, message_id: None, body }
    }

    fn returned() -> Returned {
        Returned { code: 312, text: "NO_ROUTE".to_owned() }
    }

    #[test]
    fn publishes_may_end_in_any_order() {
        let mut flight = Flight::default();
        let numbers: Vec<u64> = (0..3).map(|_| flight.push(parcel("q", b"ab"))).collect();
        assert_eq!((flight.len(), flight.bytes()), (3, 6));
        assert!(flight.take(numbers[1]).is_some());
        assert!(flight.take(numbers[1]).is_none(), "it has ended already");
        assert!(flight.take(numbers[0]).is_some());
        assert!(flight.take(numbers[2]).is_some());
        assert!(flight.is_empty());
        assert_eq!(flight.push(parcel("q", b"")), 3, "numbers are never used again");
    }

    #[test]
    fn what_has_ended_takes_no_room_behind_one_that_has_not() {
        let mut flight = Flight::default();
        let slow = flight.push(parcel("q", b"slow"));
        for _ in 0..10_000 {
            let number = flight.push(parcel("q", b""));
            assert!(flight.take(number).is_some());
        }
        assert_eq!(flight.entries.len(), 1);
        assert!(flight.take(slow).is_some() && flight.bytes() == 0);
    }

    #[test]
    fn a_returned_message_is_laid_to_the_publish_it_is() {
        let mut flight = Flight::default();
        let good = flight.push(parcel("here", b"x"));
        let bad = flight.push(parcel("nowhere", b"x"));
        assert!(flight.mark_returned(like("nowhere", b"x"), returned()));
        assert_eq!(flight.take(good).unwrap().1, None);
        assert_eq!(flight.take(bad).unwrap().1, Some(returned()));
    }

    #[test]
    fn equal_messages_are_returned_one_by_one() {
        let mut flight = Flight::default();
        let numbers = [flight.push(parcel("q", b"x")), flight.push(parcel("q", b"x"))];
        assert!(flight.mark_returned(like("q", b"x"), returned()));
        assert!(flight.mark_returned(like("q", b"x"), returned()));
        assert!(!flight.mark_returned(like("q", b"x"), returned()));
        assert!(numbers.iter().all(|number| flight.take(*number).unwrap().1.is_some()));
    }

    #[test]
    fn what_is_left_is_handed_back_in_order() {
        let mut flight = Flight::default();
        let numbers: Vec<u64> = (0..4).map(|n| flight.push(parcel("q", &[n]))).collect();
        assert!(flight.take(numbers[1]).is_some());
        flight.push(parcel("q", &[4]));
        let bodies: Vec<u8> =
            flight.drain().iter().map(|parcel| parcel.publish.message.body[0]).collect();
        assert_eq!(bodies, [0, 2, 3, 4]);
        assert!(flight.is_empty());
    }
}
