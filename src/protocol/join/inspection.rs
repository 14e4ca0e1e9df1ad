//! The answer to `inspect`: how far a chord is.
//!
//! ```text
//! {"chord": "...", "state": "collecting", "size": 10, "missing": [[3, 3], [7, 9]],
//!  "missing_count": 4, "failed": 0, "age": 1250}
//! ```

use super::link::{chord_id, index, text};
use crate::protocol::{
    Error, Limits, Map, Message, Properties, Serializer, Value, fields, msgpack,
};

/// Where a chord is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChordState {
    /// The joiner knows no such chord: it is over, or never began.
    Unknown,
    /// Parts are missing.
    Collecting,
    /// The outcome is decided and is being published.
    Decided,
    /// The outcome is published.
    Finished,
}

/// What the joiner knows of a chord.
#[derive(Clone, Debug, PartialEq)]
pub struct Inspection {
    /// Id of the chord.
    pub chord: String,
    /// Where it is.
    pub state: ChordState,
    /// Number of parts; 0 when unknown.
    pub size: u32,
    /// First and last position of the runs of parts that are missing; at most
    /// [`Inspection::RANGES_MAX`] of them.
    pub missing: Vec<(u32, u32)>,
    /// Number of parts that are missing.
    pub missing_count: u32,
    /// Number of parts that have failed.
    pub failed: u32,
    /// Milliseconds since the chord was made.
    pub age_ms: u64,
}

impl ChordState {
    /// The word on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Collecting => "collecting",
            Self::Decided => "decided",
            Self::Finished => "finished",
        }
    }

    fn from_name(name: &str) -> Result<Self, Error> {
        [Self::Unknown, Self::Collecting, Self::Decided, Self::Finished]
            .into_iter()
            .find(|state| state.as_str() == name)
            .ok_or_else(|| Error::malformed("the state of a chord", name))
    }
}

impl Inspection {
    /// Runs of missing parts that an answer lists, at most.
    pub const RANGES_MAX: usize = 256;

    /// The answer for a chord that the joiner does not know.
    pub fn unknown(chord: impl Into<String>) -> Self {
        Self {
            chord: chord.into(),
            state: ChordState::Unknown,
            size: 0,
            missing: Vec::new(),
            missing_count: 0,
            failed: 0,
            age_ms: 0,
        }
    }

    /// Number of parts that have ended, those that have failed included, while parts are missing.
    pub fn ended(&self) -> u32 {
        self.size.saturating_sub(self.missing_count)
    }

    /// The answer as a message.
    pub fn encode(&self, correlation_id: &str) -> Result<Message, Error> {
        fields::short("correlation_id", correlation_id)?;
        let range = |(first, last): &(u32, u32)| vec![Value::from(*first), Value::from(*last)];
        let missing = self.missing.iter().map(|it| Value::Array(range(it))).collect::<Vec<_>>();
        let mut map = Map::with_capacity(7);
        map.push("chord", &*self.chord);
        map.push("state", self.state.as_str());
        map.push("size", self.size);
        map.push("missing", missing);
        map.push("missing_count", self.missing_count);
        map.push("failed", self.failed);
        map.push("age", self.age_ms);
        let mut body = Vec::with_capacity(128);
        msgpack::encode(&Value::Map(map), &mut body)?;
        let properties = Properties {
            content_type: Some(Serializer::Msgpack.content_type().to_owned()),
            content_encoding: Some(Serializer::Msgpack.content_encoding().to_owned()),
            headers: Some(Map::new()),
            delivery_mode: Some(Properties::TRANSIENT),
            correlation_id: Some(correlation_id.to_owned()),
            kind: Some("inspection".to_owned()),
            ..Properties::default()
        };
        Ok(Message { properties, body })
    }

    /// Reads an answer.
    pub fn decode(message: &Message, limits: &Limits) -> Result<Self, Error> {
        let map = fields::map("inspection", msgpack::decode(&message.body, limits)?)?;
        let state = text("state", &map)?.ok_or(Error::Missing { field: "state" })?;
        let missing = match map.get("missing") {
            Some(Value::Array(items)) if items.len() <= Self::RANGES_MAX => {
                items.iter().map(range).collect::<Result<_, _>>()?
            }
            Some(Value::Array(_)) => {
                return Err(Error::Limit { what: "ranges", max: Self::RANGES_MAX });
            }
            _ => Vec::new(),
        };
        let age = fields::integer("age", map.get("age").unwrap_or(&Value::Null))?.unwrap_or(0);
        Ok(Self {
            chord: chord_id("chord", &map)?,
            state: ChordState::from_name(&state)?,
            size: index("size", &map)?,
            missing,
            missing_count: index("missing_count", &map)?,
            failed: index("failed", &map)?,
            age_ms: u64::try_from(age).unwrap_or(0),
        })
    }
}

fn range(item: &Value) -> Result<(u32, u32), Error> {
    let wrong = || fields::wrong("missing", "a list of pairs", item);
    let Some([first, last]) = item.as_array() else { return Err(wrong()) };
    let number = |value: &Value| value.as_i64().and_then(|number| u32::try_from(number).ok());
    number(first).zip(number(last)).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_reads_as_it_was_written() {
        let some = Inspection {
            chord: "c".to_owned(),
            state: ChordState::Collecting,
            size: 10,
            missing: vec![(3, 3), (7, 9)],
            missing_count: 4,
            failed: 1,
            age_ms: 1250,
        };
        for inspection in [some, Inspection::unknown("x")] {
            assert_eq!(inspection.ended(), if inspection.size == 10 { 6 } else { 0 });
            let message = inspection.encode("q").unwrap();
            assert_eq!(Inspection::decode(&message, &Limits::default()), Ok(inspection));
        }
    }
}
