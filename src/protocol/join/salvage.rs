//! What can still be read of an `open` that is none: enough to tell those who wait for the chord.

use super::link::text;
use super::open::{ERRBACKS_MAX, Open, Parent};
use super::{Record, body_id};
use crate::protocol::{Limits, Map, Message, Serializer, Signature, Value, json, msgpack};

impl Open {
    /// Reads of an `open` whatever can be read; `None` if nobody can be told anything.
    ///
    /// A body that is no signature becomes one that says who waits for it, under the id that
    /// bodies have.
    pub(crate) fn salvage(message: &Message, limits: &Limits) -> Option<Self> {
        let chord = Record::opens(message)?;
        let serializer = message.properties.content_type.as_deref();
        let decoded = match serializer.and_then(Serializer::from_content_type) {
            Some(Serializer::Json) => json::decode(&message.body, limits),
            _ => msgpack::decode(&message.body, limits),
        };
        let Ok(Value::Map(mut map)) = decoded else { return None };
        let reply_to = text("reply_to", &map).ok().flatten().filter(|it| it.len() <= 255);
        let body = map.remove("body").filter(|body| !body.is_null());
        let body = body.map(|body| salvage_body(&chord, body, reply_to.as_deref()));
        let errbacks = map.remove("errbacks").unwrap_or_default();
        let errbacks = Signature::list_from_value("errbacks", errbacks).ok().flatten();
        let parent = map.get("parent").and_then(|parent| Parent::from_value(parent).ok());
        let root = text("root", &map).ok().flatten();
        let mut errbacks = errbacks.unwrap_or_default();
        errbacks.truncate(ERRBACKS_MAX);
        Some(Self { chord, body, errbacks, parent, reply_to, root, ..Self::default() })
    }
}

fn salvage_body(chord: &str, body: Value, reply_to: Option<&str>) -> Signature {
    let option = |name: &str| body.as_map()?.get("options")?.as_map()?.get(name)?.as_str();
    let id = option("task_id").map_or_else(|| body_id(chord), str::to_owned);
    let reply_to = option("reply_to").or(reply_to).unwrap_or_default();
    let options = Map::from_iter([("task_id", &*id), ("reply_to", reply_to)]);
    let unread = Signature { options, ..Signature::new("") };
    match Signature::from_value(body) {
        Ok(body) if body.options.get("task_id").is_some() => body,
        _ => unread,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Properties;

    fn salvaged(body: &str) -> Option<Open> {
        let properties = Properties {
            headers: Some(Map::from_iter([("c", "c")])),
            kind: Some("open".to_owned()),
            content_type: Some("application/json".to_owned()),
            ..Properties::default()
        };
        let message = Message { properties, body: body.as_bytes().to_vec() };
        Open::salvage(&message, &Limits::default())
    }

    /// Id and address of the body's caller.
    fn waits(open: &Open) -> [&str; 2] {
        let options = &open.body.as_ref().unwrap().options;
        ["task_id", "reply_to"].map(|name| options.get(name).and_then(Value::as_str).unwrap())
    }

    #[test]
    fn who_waits_for_a_chord_is_known_though_its_body_is_no_signature() {
        let open = salvaged(r#"{"size": -1, "body": "proj.sum", "reply_to": "r"}"#).unwrap();
        assert_eq!(waits(&open), [&*body_id("c"), "r"]);
        let map = r#"{"body": {"options": {"task_id": "b", "reply_to": "q"}}, "reply_to": "r"}"#;
        assert_eq!(waits(&salvaged(map).unwrap()), ["b", "q"]);
        let parent = r#"{"parent": {"route": "join.1", "chord": "o", "index": 4}, "errbacks": 5}"#;
        let open = salvaged(parent).unwrap();
        assert_eq!(open.parent.map(|it| (it.chord, it.index)), Some(("o".to_owned(), 4.into())));
        assert!(open.body.is_none() && open.errbacks.is_empty());
        for nothing in ["[]", "5", "{", ""] {
            assert_eq!(salvaged(nothing), None, "{nothing}");
        }
    }
}
