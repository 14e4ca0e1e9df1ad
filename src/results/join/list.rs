//! The list of results, spliced from the values that the parts have sent.
//!
//! ```text
//! fail_fast  [v0, v1, ...]
//! collect    [{"ok": v0}, {"err": {"type": ..., "message": ...}}, ...]
//! ```
//!
//! If a value is parked, each element is a list: of what it would be alone, or with a reference
//! (see `protocol::join::Reference`).

use super::event::Part;
use crate::protocol::join::Mode;
use crate::protocol::{Error, msgpack};

/// Whether the values of some parts are parked.
pub(crate) fn has_references(parts: &[Part]) -> bool {
    parts.iter().any(|part| matches!(part, Part::Parked(_)))
}

/// The list in MessagePack. No value is decoded.
pub(crate) fn list_of_results(mode: Mode, parts: &[Part]) -> Result<Vec<u8>, Error> {
    let bytes = parts.iter().map(|part| match part {
        Part::Ok(value) => value.len() + 5,
        Part::Parked(reference) => reference.execution.len() + 16,
        Part::Err(_) => 256,
    });
    let mut list = Vec::with_capacity(bytes.sum::<usize>() + 5);
    let length = u32::try_from(parts.len())
        .map_err(|_| Error::Limit { what: "results", max: u32::MAX as usize })?;
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(short @ 0..=15), _) => list.push(0x90 | short),
        (_, Ok(medium)) => {
            list.push(0xdc);
            list.extend_from_slice(&medium.to_be_bytes());
        }
        _ => {
            list.push(0xdd);
            list.extend_from_slice(&length.to_be_bytes());
        }
    }
    let is_wrapped = has_references(parts);
    for part in parts {
        if is_wrapped && !matches!(part, Part::Parked(_)) {
            list.push(0x91);
        }
        match part {
            Part::Ok(value) => {
                if mode == Mode::Collect {
                    list.extend_from_slice(b"\x81\xa2ok");
                }
                list.extend_from_slice(value);
            }
            Part::Parked(reference) => {
                msgpack::encode(&reference.to_element(mode == Mode::Collect), &mut list)?;
            }
            Part::Err(failure) => {
                list.extend_from_slice(b"\x81\xa3err");
                list.extend_from_slice(&failure.encode()?);
            }
        }
    }
    Ok(list)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::protocol::join::{Failure, Manifest, Reference};
    use crate::protocol::{Exception, Limits, Value};

    fn decoded(mode: Mode, parts: &[Part]) -> Vec<Value> {
        let list = list_of_results(mode, parts).unwrap();
        match msgpack::decode(&list, &Limits::default()).unwrap() {
            Value::Array(items) => items,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn values_are_spliced_in_order_whatever_their_number() {
        for count in [0_u32, 1, 15, 16, 65_535, 65_536] {
            let value = |number: u32| {
                let mut value = Vec::new();
                msgpack::encode(&Value::from(number), &mut value).unwrap();
                Part::Ok(value.into())
            };
            let parts: Vec<Part> = (0..count).map(value).collect();
            let expected: Vec<Value> = (0..count).map(Value::from).collect();
            assert_eq!(decoded(Mode::FailFast, &parts), expected);
        }
    }

    #[test]
    fn a_collected_list_tells_values_from_errors() {
        let failure = Failure::new(Exception::type_error("no"), "t", "1");
        let parts = [Part::Ok(vec![5].into()), Part::Err(Arc::new(failure))];
        let list = decoded(Mode::Collect, &parts);
        let entry = |at: usize, key: &str| list[at].as_map().unwrap().get(key).cloned();
        assert_eq!(entry(0, "ok"), Some(Value::Int(5)));
        let err = entry(1, "err").unwrap();
        assert_eq!(err.as_map().unwrap().get("message"), Some(&Value::from("no")));
    }

    #[test]
    fn a_list_with_references_tells_them_from_values() {
        let reference = Reference { execution: "x".to_owned(), bytes: 70_000 };
        let parts = [Part::Parked(Arc::new(reference.clone())), Part::Ok(vec![5].into())];
        for mode in [Mode::FailFast, Mode::Collect] {
            let list = Value::Array(decoded(mode, &parts));
            let manifest = Manifest::from_value(list).unwrap();
            assert_eq!(manifest.list[1], decoded(mode, &parts[1..])[0]);
            let [hole] = &*manifest.parked else { panic!("{manifest:?}") };
            assert_eq!((hole.at, &hole.reference), (0, &reference));
            assert_eq!(hole.is_entry, mode == Mode::Collect);
        }
    }
}
