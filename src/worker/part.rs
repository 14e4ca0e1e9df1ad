//! The records with which a part of a chord tells the joiner how it ended.
//!
//! **Invariant:** every part that ends for good makes one record, whatever its value or failure. A
//! record that refers to a parked value comes after that was stored.

use super::effect::{Effect, Kind};
use crate::amqp::{Publish, topology};
use crate::protocol::join::{Failure, Link, ParkedValue, Record, Reference};
use crate::protocol::{Error, Exception, Limits, Message, Value};

/// What a part that has succeeded publishes.
#[derive(Debug)]
pub(super) struct Success {
    /// Its value, if that is large: stored before anything else is published.
    pub(super) parked: Option<Effect>,
    /// The record.
    pub(super) record: Effect,
}

/// The part has succeeded, and has added so many others to the chord. An error if its value has no
/// form in a record: then it has failed.
pub(super) fn ok(link: &Link, task_id: &str, value: &Value, adds: u32) -> Result<Success, Error> {
    let record = Record::ok(&link.chord, link.index.clone(), &execution(), task_id, value)?;
    let (parked, record) = match (record, link.park_above) {
        (Record::Ok { chord, index, execution, task_id, value, .. }, Some(above))
            if value.len() as u64 > above =>
        {
            let reference = Reference { execution: execution.clone(), bytes: value.len() as u64 };
            let queue = topology::park_queue(&chord);
            let record = Record::Ref { chord: chord.clone(), index, adds: 0, task_id, reference };
            let message = ParkedValue { chord, execution, value }.encode()?;
            (Some(Effect::new(Kind::Value, Publish::new("", queue, message))), record)
        }
        (record, _) => (None, record),
    };
    let record = effect(&link.route, record.adding(adds).encode()?);
    // Who has added nothing need not wait for it.
    Ok(Success { parked, record: Effect { is_last: adds > 0, ..record } })
}

/// The part has failed. `None` only for an exception that no encoding takes.
pub(super) fn err(link: &Link, failure: Failure) -> Option<Effect> {
    let (chord, index) = (link.chord.clone(), link.index.clone());
    let record = Record::Err { chord, index, execution: execution(), failure };
    record.encode().ok().map(|message| effect(&link.route, message))
}

/// What is recorded instead of a record that can never be sent, because of `exception`.
pub(super) fn instead(unsent: &Publish, exception: &Exception) -> Option<Effect> {
    let (chord, index, execution, task_id) =
        match Record::decode(&unsent.message, &Limits::default()).ok()? {
            Record::Ok { chord, index, execution, task_id, .. } => {
                (chord, index, execution, task_id)
            }
            Record::Ref { chord, index, task_id, reference, .. } => {
                (chord, index, reference.execution, task_id)
            }
            _ => return None,
        };
    let failure = Failure::new(exception.clone(), "", task_id);
    let record = Record::Err { chord, index, execution, failure };
    record.encode().ok().map(|message| effect(&unsent.routing_key, message))
}

/// A value cannot be parked, because of `exception`: the record that was to refer to it, and was to
/// come later, says that the part has failed.
pub(super) fn not_parked(unsent: &Publish, exception: &Exception, later: &mut [Effect]) {
    let Some(execution) = ParkedValue::execution(&unsent.message) else { return };
    for effect in later.iter_mut().filter(|effect| effect.kind == Kind::Record) {
        let refers = matches!(
            Record::decode(&effect.publish.message, &Limits::default()),
            Ok(Record::Ref { reference, .. }) if reference.execution == execution
        );
        if refers && let Some(instead) = instead(&effect.publish, exception) {
            *effect = Effect { is_last: effect.is_last, ..instead };
        }
    }
}

/// Addresses a record to a joiner.
pub(super) fn effect(route: &str, message: Message) -> Effect {
    Effect::new(Kind::Record, Publish::new(topology::results_exchange(), route, message))
}

/// The id of one run of a task.
fn execution() -> String {
    uuid::Uuid::new_v4().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(park_above: Option<u64>) -> Link {
        let (chord, route) = ("c".to_owned(), "join.1".to_owned());
        Link { chord, route, is_final: true, park_above, ..Link::default() }
    }

    fn record(effect: &Effect) -> Record {
        Record::decode(&effect.publish.message, &Limits::default()).unwrap()
    }

    #[test]
    fn a_large_value_is_parked_under_the_run_that_its_record_names() {
        let value = Value::from("x".repeat(100));
        let Success { parked, record: sent } = ok(&link(Some(101)), "t", &value, 0).unwrap();
        let Record::Ref { reference, task_id, .. } = record(&sent) else { panic!("{sent:?}") };
        let parked = parked.unwrap();
        assert_eq!(parked.publish.routing_key, topology::park_queue("c"));
        let message = &parked.publish.message;
        assert_eq!(ParkedValue::execution(message), Some(&*reference.execution));
        assert_eq!(ParkedValue::value(message, &Limits::default()), Ok(value.clone()));
        assert_eq!((reference.bytes, &*task_id), (102, "t"));
        for above in [None, Some(102)] {
            let Success { parked, record: sent } = ok(&link(above), "t", &value, 0).unwrap();
            assert!(parked.is_none() && matches!(record(&sent), Record::Ok { .. }));
        }
    }

    #[test]
    fn a_part_whose_value_cannot_be_parked_has_failed() {
        let success = |adds| ok(&link(Some(0)), "t", &Value::Int(5), adds).unwrap();
        let (first, other) = (success(2), success(0));
        let mut later = [other.record, first.record];
        let exception = Exception::encode_error("no room");
        not_parked(&first.parked.unwrap().publish, &exception, &mut later);
        assert!(matches!(record(&later[0]), Record::Ref { .. }), "it is another run's");
        let Record::Err { failure, .. } = record(&later[1]) else { panic!("{later:?}") };
        assert_eq!((failure.exc, failure.task_id), (exception, "t".to_owned()));
        assert!(later[1].is_last, "what it has added is sent before");
    }
}
