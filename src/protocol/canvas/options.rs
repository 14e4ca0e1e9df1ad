//! The options of signatures as maps: what merging, linking and freezing do to single keys.
//!
//! **Invariant:** an option that is not named here goes through unchanged.

use super::CanvasError;
use crate::protocol::join::{ERRBACKS_MAX, Link};
use crate::protocol::{Map, Signature, Value, fields};

pub(super) const TASK_ID: &str = "task_id";
pub(super) const GROUP_ID: &str = "group_id";
pub(super) const GROUP_INDEX: &str = "group_index";
pub(super) const REPLY_TO: &str = "reply_to";
pub(super) const ROOT_ID: &str = "root_id";
pub(super) const PARENT_ID: &str = "parent_id";
pub(super) const LINK: &str = "link";
pub(super) const LINK_ERROR: &str = "link_error";
pub(super) const CHAIN: &str = "chain";
pub(super) const CHORD: &str = "chord";
pub(super) const HEADERS: &str = "headers";
pub(super) const STAMPED_HEADERS: &str = "stamped_headers";
/// Our own, of groups and chords: how they are joined.
pub(super) const JOIN: &str = "join";
/// Our own, of chains that were frozen: the errbacks that their steps were given. They are called
/// if the chain is the body of a chord and cannot run; what follows the chain must not get them.
pub(super) const BODY_ERRBACKS: &str = "body_link_error";
/// Our own, of errbacks that were given the id of what fails as their first argument, when the body
/// of their chord was frozen.
pub(super) const BOUND: &str = "bound_to_id";

/// A text option. Null and what is no text are absent.
pub(super) fn text<'a>(map: &'a Map, key: &str) -> Option<&'a str> {
    map.get(key).and_then(Value::as_str)
}

/// Sets an option that is not set.
pub(super) fn set_if_absent(map: &mut Map, key: &'static str, value: impl Into<Value>) {
    if map.get(key).is_none_or(Value::is_null) {
        map.insert(key, value);
    }
}

/// Adds to an option that is a list or a single value, unless it has that already.
pub(super) fn append(map: &mut Map, key: &'static str, value: Value) {
    match map.get_mut(key) {
        Some(Value::Array(items)) if items.contains(&value) => {}
        Some(Value::Array(items)) => items.push(value),
        Some(single @ Value::Map(_)) if *single == value => {}
        Some(single @ Value::Map(_)) => {
            let first = std::mem::take(single);
            *single = Value::Array(vec![first, value]);
        }
        _ => map.insert(key, vec![value]),
    }
}

/// Adds to an option that is a list or a single value those of `values` that it does not have.
/// There are no two alike among `values`.
pub(super) fn append_all(map: &mut Map, key: &'static str, values: &[Value]) {
    let mut all = take_list(map, key);
    let own = all.len();
    for value in values {
        if !all.iter().take(own).any(|it| it == value) {
            all.push(value.clone());
        }
    }
    map.insert(key, all);
}

/// Takes an option that is a list or a single value.
pub(super) fn take_list(map: &mut Map, key: &str) -> Vec<Value> {
    match map.remove(key) {
        Some(Value::Array(items)) => items,
        Some(single @ Value::Map(_)) => vec![single],
        _ => Vec::new(),
    }
}

/// Takes an option that is a list of signatures or a single one.
pub(super) fn take_signatures(
    map: &mut Map,
    key: &'static str,
) -> Result<Vec<Signature>, CanvasError> {
    let read = take_list(map, key).into_iter().map(Signature::from_value);
    read.collect::<Result<_, _>>().map_err(CanvasError::malformed(key))
}

/// Refuses too many errbacks.
pub(super) fn check_errbacks(map: &Map) -> Result<(), CanvasError> {
    let size = map.get(LINK_ERROR).and_then(Value::as_array).map_or(0, <[_]>::len);
    if size > ERRBACKS_MAX {
        let (what, max) = ("list of errbacks", ERRBACKS_MAX);
        return Err(CanvasError::TooLarge { what, size, max });
    }
    Ok(())
}

/// The list that an option is.
pub(super) fn list(map: &Map, key: &str) -> Vec<Value> {
    match map.get(key) {
        Some(Value::Array(items)) => items.clone(),
        Some(single @ Value::Map(_)) => vec![single.clone()],
        _ => Vec::new(),
    }
}

/// Merges the options of a call into those of a signature. The call's win, except the group and
/// the stamps, which keep the signature's; links are added, headers merged, and the call's chain
/// comes after the signature's own, which the order on the wire (last first) turns around.
pub(super) fn merge(own: &mut Map, call: &Map) {
    for (key, value) in call.iter().filter(|(_, value)| !value.is_null()) {
        match key {
            LINK => merge_links(own, LINK, list(call, LINK)),
            LINK_ERROR => merge_links(own, LINK_ERROR, list(call, LINK_ERROR)),
            CHAIN => follow(own, list(call, CHAIN)),
            HEADERS => merge_headers(own, value),
            GROUP_ID => set_if_absent(own, GROUP_ID, value.clone()),
            _ => own.insert(key.to_owned(), value.clone()),
        }
    }
}

/// Puts `rest`, last first, behind what follows already.
pub(super) fn follow(own: &mut Map, mut rest: Vec<Value>) {
    rest.extend(take_list(own, CHAIN));
    own.insert(CHAIN, rest);
}

/// Compares only as many as a task may have errbacks; lists beyond that are just long.
fn merge_links(own: &mut Map, key: &'static str, links: Vec<Value>) {
    let held = own.get(key).and_then(Value::as_array).map_or(0, <[_]>::len);
    if held.max(links.len()) <= ERRBACKS_MAX {
        links.into_iter().for_each(|it| append(own, key, it));
    } else {
        let mut all = take_list(own, key);
        all.extend(links);
        own.insert(key, all);
    }
}

fn merge_headers(own: &mut Map, headers: &Value) {
    let Value::Map(headers) = headers else { return };
    if !matches!(own.get(HEADERS), Some(Value::Map(_))) {
        own.insert(HEADERS, Map::new());
    }
    let Some(Value::Map(merged)) = own.get_mut(HEADERS) else { return };
    for (key, value) in headers.iter() {
        merged.insert(key.to_owned(), value.clone());
    }
}

/// The names of the stamps.
pub(super) fn stamp_names(map: &Map) -> Vec<&str> {
    let names = map.get(STAMPED_HEADERS).and_then(Value::as_array).unwrap_or_default();
    names.iter().filter_map(Value::as_str).collect()
}

/// The link to the chord that the task or workflow is a part of.
pub(super) fn link(task: &str, map: &Map) -> Result<Option<Link>, CanvasError> {
    let headers = map.get(HEADERS).and_then(Value::as_map);
    match headers.and_then(|headers| headers.get(Link::HEADER)) {
        None | Some(Value::Null) => Ok(None),
        Some(link) => Link::from_value(link).map(Some).map_err(CanvasError::malformed(task)),
    }
}

/// Whether there is a link to a chord.
pub(super) fn has_link(map: &Map) -> bool {
    let headers = map.get(HEADERS).and_then(Value::as_map);
    headers.is_some_and(|headers| headers.contains_key(Link::HEADER))
}

/// Links to a chord.
pub(super) fn set_link(map: &mut Map, link: Link) {
    let header = Map::from_iter([(Link::HEADER, link.into_value())]);
    merge_headers(map, &Value::Map(header));
}

/// A positive number of seconds.
pub(super) fn seconds(map: &Map, key: &'static str) -> Option<f64> {
    let value = map.get(key).unwrap_or(&Value::Null);
    fields::number(key, value).ok().flatten().filter(|it| it.is_finite() && *it > 0.0)
}
