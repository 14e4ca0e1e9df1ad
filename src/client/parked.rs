//! The queue that a chord needs whose large values are parked.
//!
//! Publishes nothing. **Invariant:** it is declared by whoever opens the chord, before that, and by
//! nobody else: so where it is gone, the chord is over.

use std::time::Duration;

use crate::amqp::{Publish, QueueKind, Topology, layout};
use crate::protocol::Value;
use crate::protocol::join::Record;

/// What has to be declared before `publish` is published: something only if it opens a chord whose
/// values are parked.
pub(crate) fn needed_by(publish: &Publish, kind: QueueKind) -> Option<Topology> {
    let message = &publish.message;
    if message.properties.kind.as_deref() != Some(Record::OPEN) {
        return None;
    }
    let lease_ms = message.header(Record::PARK).and_then(Value::as_i64)?;
    let chord = message.header("c").and_then(Value::as_str)?;
    let lease = Duration::from_millis(u64::try_from(lease_ms).unwrap_or_default());
    Some(layout::park(chord, kind, lease))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::amqp::topology;
    use crate::protocol::join::Open;

    #[test]
    fn only_the_opening_of_a_chord_that_parks_needs_a_queue() {
        let needed = |record: &Record| {
            let publish = Publish::new("", "join.0", record.encode().unwrap());
            needed_by(&publish, QueueKind::Quorum).map(|it| it.queues[0].clone())
        };
        let open = |park_ms| {
            let open = Open { chord: "c".to_owned(), park_ms, ..Open::default() };
            Record::Open(Box::new(open))
        };
        assert_eq!(needed(&open(None)), None);
        assert_eq!(needed(&Record::ok("c", 0, "x", "t", &Value::Null).unwrap()), None);
        let queue = needed(&open(Some(5_000))).unwrap();
        assert_eq!(
            (queue.name, queue.expires),
            (topology::park_queue("c"), Some(Duration::from_secs(5)))
        );
    }
}
