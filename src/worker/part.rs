//! The records with which a part of a chord tells the joiner how it ended.
//!
//! **Invariant:** every part that ends for good makes one record, whatever its value or failure.

use super::effect::{Effect, Kind};
use crate::amqp::{Publish, topology};
use crate::protocol::join::{Failure, Link, Record};
use crate::protocol::{Error, Exception, Limits, Message, Value};

/// The part has succeeded, and has added so many others to the chord. An error if its value has no
/// form in a record: then it has failed.
pub(super) fn ok(link: &Link, task_id: &str, value: &Value, adds: u32) -> Result<Effect, Error> {
    let record = Record::ok(&link.chord, link.index.clone(), &execution(), task_id, value)?;
    let record = effect(&link.route, record.adding(adds).encode()?);
    // Who has added nothing need not wait for it.
    Ok(Effect { is_last: adds > 0, ..record })
}

/// The part has failed. `None` only for an exception that no encoding takes.
pub(super) fn err(link: &Link, failure: Failure) -> Option<Effect> {
    let (chord, index) = (link.chord.clone(), link.index.clone());
    let record = Record::Err { chord, index, execution: execution(), failure };
    record.encode().ok().map(|message| effect(&link.route, message))
}

/// What is recorded instead of a record that can never be sent, because of `exception`.
pub(super) fn instead(unsent: &Publish, exception: &Exception) -> Option<Effect> {
    match Record::decode(&unsent.message, &Limits::default()).ok()? {
        Record::Ok { chord, index, execution, task_id, .. } => {
            let failure = Failure::new(exception.clone(), "", task_id);
            let record = Record::Err { chord, index, execution, failure };
            record.encode().ok().map(|message| effect(&unsent.routing_key, message))
        }
        _ => None,
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
