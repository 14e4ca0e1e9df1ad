//! Every record goes through its message unchanged, and nothing else is taken for one.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::protocol::arbitrary;
use crate::protocol::{Exception, Signature};

fn id() -> impl Strategy<Value = String> {
    "[a-z0-9ü-]{1,40}"
}

fn open() -> impl Strategy<Value = Open> {
    let route = "join\\.[0-9]{1,3}";
    let body = proptest::option::of(id().prop_map(Signature::new));
    let park = proptest::option::of(0..1_u64 << 62);
    (id(), route, any::<u32>(), body, vec(id(), 0..3), any::<bool>(), park).prop_map(
        |(chord, route, size, body, stack, revoke_rest, park_ms)| Open {
            chord,
            route,
            size,
            body,
            stack,
            revoke_rest,
            park_ms,
            expires_ms: 5,
            ..Open::default()
        },
    )
}

fn place() -> impl Strategy<Value = Place> {
    (any::<u32>(), vec(1..=ADDED_MAX, 0..4)).prop_map(|(index, path)| {
        path.into_iter().fold(index.into(), |place: Place, at| place.added(at).unwrap())
    })
}

fn ok() -> impl Strategy<Value = Record> {
    (id(), place(), 0..=ADDED_MAX, id(), id(), arbitrary::plain()).prop_map(
        |(chord, index, adds, execution, task_id, value)| {
            Record::ok(&chord, index, &execution, &task_id, &value).unwrap().adding(adds)
        },
    )
}

fn reference() -> impl Strategy<Value = Record> {
    (id(), place(), 0..=ADDED_MAX, id(), id(), 0..1_u64 << 62).prop_map(
        |(chord, index, adds, execution, task_id, bytes)| {
            let reference = Reference { execution, bytes };
            Record::Ref { chord, index, adds, task_id, reference }
        },
    )
}

fn err() -> impl Strategy<Value = Record> {
    (id(), place(), id(), id(), arbitrary::plain()).prop_map(
        |(chord, index, execution, task_id, value)| {
            let mut failure = Failure::new(Exception::type_error("x"), "t", task_id);
            failure.exc.exc_message.push(value);
            Record::Err { chord, index, execution, failure }
        },
    )
}

fn record() -> impl Strategy<Value = Record> {
    prop_oneof![
        open().prop_map(|open| Record::Open(Box::new(open))),
        ok(),
        reference(),
        err(),
        (id(), id()).prop_map(|(chord, reason)| Record::Expire { chord, reason }),
        (id(), id(), any::<bool>()).prop_map(|(chord, reason, errbacks)| Record::Cancel {
            chord,
            reason,
            errbacks
        }),
        (id(), 0..1_u64 << 62, any::<bool>(), vec(any::<u8>(), 0..9)).prop_map(
            |(epoch, pack, chosen, body)| Record::Pack(Pack { epoch, pack, chosen, body })
        ),
        (id(), 0..1_u64 << 62, vec(id(), 0..5)).prop_map(|(epoch, done, chords)| Record::Done {
            epoch,
            done,
            chords
        }),
        (id(), any::<bool>()).prop_map(|(epoch, is_renewal)| Record::Mark { epoch, is_renewal }),
        (id(), id(), id()).prop_map(|(chord, reply_to, correlation)| Record::Inspect {
            chord,
            reply_to,
            correlation
        }),
    ]
}

proptest! {
    #[test]
    fn a_record_reads_as_it_was_written(record in record()) {
        let message = record.encode().unwrap();
        prop_assert_eq!(message.properties.kind.as_deref(), Some(record.kind()));
        prop_assert_eq!(Record::decode(&message, &Limits::default()), Ok(record));
    }

    #[test]
    fn no_bytes_and_no_headers_make_the_reader_panic(
        record in record(),
        headers in arbitrary::map(arbitrary::plain()),
        body in vec(any::<u8>(), 0..40),
        keep in any::<bool>(),
    ) {
        let mut message = record.encode().unwrap();
        if keep {
            message.properties.headers.get_or_insert_default().extend(headers);
        } else {
            message.body = body;
        }
        if let Ok(Record::Pack(pack)) = Record::decode(&message, &Limits::default()) {
            let _ = pack.entries(&Limits::default());
        }
    }
}

fn message(kind: &str, headers: Map, body: &[u8]) -> Message {
    let properties = Properties {
        content_type: Some("application/msgpack".to_owned()),
        kind: Some(kind.to_owned()),
        headers: Some(headers),
        ..Properties::default()
    };
    Message { properties, body: body.to_vec() }
}

fn part(kind: &str, body: &[u8]) -> Message {
    message(kind, Map::from_iter([("c", Value::from("c")), ("i", Value::Int(0))]), body)
}

#[test]
fn what_is_no_record_is_refused_with_the_reason() {
    let check = |message: &Message, expected: &str| {
        let error = Record::decode(message, &Limits::default()).unwrap_err();
        assert_eq!(error.to_string(), expected);
    };
    check(&part("task", b"\xc0"), "'task' is not a record of a join shard");
    check(&message("ok", Map::new(), b"\xc0"), "'c' is missing");
    let negative = Map::from_iter([("c", Value::from("c")), ("i", Value::Int(-1))]);
    check(&message("ok", negative, b"\xc0"), "'i' must be a number from 0 to 2^32-1, not int");
    check(&part("ok", b""), "unexpected end of msgpack");
    check(&part("ok", b"\x01\x02"), "invalid msgpack at byte 1: bytes after the value");
    check(&part("err", b"\x80"), "'type' is missing");
    check(&part("ref", b"\x80"), "'x' is missing");
    check(&part("ref", b"\x81\xa1x\xa1y"), "'bytes' is missing");
    check(&part("inspect", b"\xc0"), "'reply_to' is missing");
    check(&part("mark", b"\xc0"), "'e' is missing");
    let json = Message {
        properties: Properties {
            content_type: Some("application/json".to_owned()),
            ..part("ok", b"").properties
        },
        body: b"1".to_vec(),
    };
    check(&json, "content type 'application/json' is not accepted");
}

#[test]
fn a_value_that_would_make_the_list_too_deep_is_refused() {
    let nested = |levels: usize| [vec![0x91; levels], vec![0xc0]].concat();
    let read = |levels| Record::decode(&part("ok", &nested(levels)), &Limits::default());
    assert!(read(Limits::DEPTH_MAX - LEVELS_AROUND).is_ok());
    let error = read(Limits::DEPTH_MAX - LEVELS_AROUND + 1).unwrap_err();
    assert!(matches!(error, Error::Limit { what: "levels of nesting", .. }), "{error}");
}

#[test]
fn a_foreign_part_needs_no_more_than_chord_and_index() {
    let record = Record::decode(&part("ok", b"\x2a"), &Limits::default()).unwrap();
    let Record::Ok { chord, index, adds, execution, task_id, value } = record else {
        panic!("an ok")
    };
    assert_eq!((chord.as_str(), index, adds), ("c", 0.into(), 0));
    assert_eq!(value, b"\x2a");
    assert!(execution.is_empty() && task_id.is_empty());
}
