//! Where a part is in a chord: in its header, or among the parts that other parts have added.
//!
//! ```text
//! 3          the part at index 3 of the header
//! [3, 1]     the first one that this part has added
//! [3, 1, 2]  the second one that the added one has added
//! ```
//!
//! **Invariant:** the header comes before everything that was added, in the order of places; an
//! added part comes before those that it has added itself.

use std::cmp::Ordering;
use std::fmt;

use crate::protocol::{Error, Value, fields};

/// The place of a part in its chord.
///
/// ```
/// use celeriac::protocol::join::Place;
///
/// let first = Place::from(0);
/// let added = first.added(2).expect("not too deep");
/// assert_eq!(added.to_string(), "0.2");
/// assert!(Place::from(7) < added);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Place {
    index: u32,
    /// From 1 on: which of the parts that were added by the place so far.
    path: Vec<u32>,
}

/// Parts that have added one another, at most.
pub(crate) const PATH_MAX: usize = 8;

/// Parts that one part may add.
pub(crate) const ADDED_MAX: u32 = 65_535;

impl Place {
    /// Position in the header of the part with which it began.
    pub const fn index(&self) -> u32 {
        self.index
    }

    /// Whether it was added by another part.
    pub const fn is_added(&self) -> bool {
        !self.path.is_empty()
    }

    /// The place of the part that this one adds as its `ordinal`th, from 1 on; `None` beyond
    /// eight levels or 65,535 parts.
    pub fn added(&self, ordinal: u32) -> Option<Self> {
        if self.path.len() >= PATH_MAX || !(1..=ADDED_MAX).contains(&ordinal) {
            return None;
        }
        let path = self.path.iter().copied().chain([ordinal]).collect();
        Some(Self { index: self.index, path })
    }

    /// The part that has added this one, and as its how manieth.
    pub(crate) fn adder(&self) -> Option<(Self, u32)> {
        let (ordinal, path) = self.path.split_last()?;
        Some((Self { index: self.index, path: path.to_vec() }, *ordinal))
    }

    /// How many parts have added one another up to this one.
    pub(crate) const fn depth(&self) -> usize {
        self.path.len()
    }

    /// Reads what [`to_value`](Self::to_value) has written.
    pub(super) fn from_value(field: &'static str, value: &Value) -> Result<Self, Error> {
        let Value::Array(items) = value else { return Ok(number(field, value)?.into()) };
        let Some((index, path)) = items.split_first() else {
            return Err(Error::Missing { field });
        };
        if path.is_empty() || path.len() > PATH_MAX {
            return Err(Error::Limit { what: "parts that added one another", max: PATH_MAX });
        }
        let ordinal = |item: &Value| match number(field, item)? {
            ordinal @ 1..=ADDED_MAX => Ok(ordinal),
            _ => Err(fields::wrong(field, "a place in a chord", value)),
        };
        let path = path.iter().map(ordinal).collect::<Result<_, _>>()?;
        Ok(Self { index: number(field, index)?, path })
    }

    /// A number, or a list of them.
    pub(super) fn to_value(&self) -> Value {
        if self.path.is_empty() {
            return self.index.into();
        }
        let numbers = std::iter::once(self.index).chain(self.path.iter().copied());
        Value::Array(numbers.map(Value::from).collect())
    }

    /// The same in MessagePack, every number in five bytes.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        if let Ok(length @ 1..) = u8::try_from(self.path.len()) {
            // At most nine.
            out.push(0x90 | (length + 1));
        }
        for number in std::iter::once(&self.index).chain(&self.path) {
            out.push(0xce);
            out.extend_from_slice(&number.to_be_bytes());
        }
    }

    /// Bytes that [`write`](Self::write) takes.
    pub(super) fn written_len(&self) -> usize {
        5 * (1 + self.path.len()) + usize::from(self.is_added())
    }
}

fn number(field: &'static str, value: &Value) -> Result<u32, Error> {
    let number = fields::integer(field, value)?.ok_or(Error::Missing { field })?;
    u32::try_from(number).map_err(|_| fields::wrong(field, "a number from 0 to 2^32-1", value))
}

impl From<u32> for Place {
    fn from(index: u32) -> Self {
        Self { index, path: Vec::new() }
    }
}

impl Ord for Place {
    fn cmp(&self, other: &Self) -> Ordering {
        let key = |it: &Self| (it.is_added(), it.index);
        key(self).cmp(&key(other)).then_with(|| self.path.cmp(&other.path))
    }
}

impl PartialOrd for Place {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.index)?;
        self.path.iter().try_for_each(|ordinal| write!(f, ".{ordinal}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(numbers: &[u32]) -> Place {
        let (index, path) = numbers.split_first().unwrap();
        path.iter().fold(Place::from(*index), |place, ordinal| place.added(*ordinal).unwrap())
    }

    #[test]
    fn a_place_reads_as_it_was_written() {
        for numbers in [&[0][..], &[u32::MAX], &[3, 1], &[3, 1, ADDED_MAX]] {
            let (place, mut bytes) = (place(numbers), Vec::new());
            assert_eq!(Place::from_value("i", &place.to_value()), Ok(place.clone()));
            place.write(&mut bytes);
            assert_eq!(bytes.len(), place.written_len());
            let read = crate::protocol::msgpack::decode(&bytes, &Default::default()).unwrap();
            assert_eq!(read, place.to_value());
        }
    }

    #[test]
    fn what_is_no_place_is_refused() {
        for items in [&[][..], &[3], &[3, 0], &[3, -1], &[-1, 1], &[3, 65_536], &[1; 10]] {
            let value = Value::Array(items.iter().copied().map(Value::Int).collect());
            assert!(Place::from_value("i", &value).is_err(), "{items:?}");
        }
        assert_eq!(place(&[0, 1, 1, 1, 1, 1, 1, 1, 1]).added(1), None);
        assert_eq!(place(&[0]).added(0), None);
    }

    #[test]
    fn the_header_comes_first_and_then_what_was_added_in_its_order() {
        let ordered = [&[0][..], &[9], &[0, 1], &[0, 1, 1], &[0, 2], &[9, 1]];
        assert!(ordered.windows(2).all(|pair| place(pair[0]) < place(pair[1])));
        assert_eq!(place(&[9, 1, 2]).adder(), Some((place(&[9, 1]), 2)));
        assert_eq!(place(&[9]).adder(), None);
    }
}
