//! MessagePack in its corners: every form, every limit, and what Python gets wrong.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::protocol::{Tag, arbitrary};

fn read(bytes: &[u8]) -> Result<Value, Error> {
    decode(bytes, &Limits::default())
}

fn written(value: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    encode(value, &mut out).unwrap();
    out
}

/// Both directions of one value.
fn check(value: impl Into<Value>, bytes: &[u8]) {
    let value = value.into();
    assert_eq!(written(&value), bytes, "{value:?}");
    assert_eq!(read(bytes), Ok(value));
}

#[test]
fn every_value_takes_its_shortest_form() {
    check(Value::Null, b"\xc0");
    check(true, b"\xc3");
    check(0, b"\x00");
    check(127, b"\x7f");
    check(128, b"\xcc\x80");
    check(256, b"\xcd\x01\x00");
    check(65_536, b"\xce\x00\x01\x00\x00");
    check(1_i64 << 32, b"\xcf\x00\x00\x00\x01\x00\x00\x00\x00");
    check(u64::MAX, b"\xcf\xff\xff\xff\xff\xff\xff\xff\xff");
    check(-1, b"\xff");
    check(-32, b"\xe0");
    check(-33, b"\xd0\xdf");
    check(-129, b"\xd1\xff\x7f");
    check(-32_769, b"\xd2\xff\xff\x7f\xff");
    check(i64::MIN, b"\xd3\x80\x00\x00\x00\x00\x00\x00\x00");
    check(1.5, b"\xcb\x3f\xf8\x00\x00\x00\x00\x00\x00");
    check("", b"\xa0");
    check("hi", b"\xa2hi");
    check(b"\xff".to_vec(), b"\xc4\x01\xff");
    check(Vec::<Value>::new(), b"\x90");
    check(Map::from_iter([("k", 1)]), b"\x81\xa1k\x01");
}

#[test]
fn lengths_change_their_form_at_their_bounds() {
    for length in [15, 16, 31, 32, 255, 256, 65_535, 65_536] {
        let text = Value::from("x".repeat(length));
        assert_eq!(read(&written(&text)), Ok(text));
        let bytes = Value::from(vec![0xff_u8; length]);
        assert_eq!(read(&written(&bytes)), Ok(bytes));
        let array = Value::from(vec![Value::Null; length]);
        assert_eq!(read(&written(&array)), Ok(array));
        let map: Map = (0..length).map(|key| (key.to_string(), Value::Null)).collect();
        assert_eq!(read(&written(&Value::Map(map.clone()))), Ok(Value::Map(map)));
    }
}

#[test]
fn forms_that_only_others_write_are_read() {
    let rows: [(&[u8], Value); 9] = [
        (b"\xd0\x05", Value::Int(5)),
        (b"\xd3\x00\x00\x00\x00\x00\x00\x00\x05", Value::Int(5)),
        (b"\xca\x3f\xc0\x00\x00", Value::Float(1.5)),
        // The format before byte strings had a form of their own.
        (b"\xa2\xff\xfe", Value::Bytes(vec![0xff, 0xfe])),
        (b"\xda\x00\x01a", Value::from("a")),
        (b"\x81\xc4\x01k\x01", Value::Map(Map::from_iter([("k", 1)]))),
        (b"\xd6\xff\x00\x00\x00\x01", datetime("1970-01-01T00:00:01+00:00")),
        (b"\xd7\xff\x77\x35\x94\x00\x00\x00\x00\x02", datetime("1970-01-01T00:00:02.500000+00:00")),
        (
            b"\xc7\x0c\xff\x00\x00\x00\x00\xff\xff\xff\xff\xff\xff\xff\xff",
            datetime("1969-12-31T23:59:59+00:00"),
        ),
    ];
    for (bytes, value) in rows {
        assert_eq!(read(bytes), Ok(value), "{}", bytes.escape_ascii());
    }
}

fn datetime(text: &str) -> Value {
    Value::Tagged(Tag::DateTime, text.to_owned())
}

#[test]
fn what_is_no_message_pack_is_an_error() {
    let rows: [(&[u8], &str); 12] = [
        (b"", "unexpected end of msgpack"),
        (b"\xa2h", "unexpected end of msgpack"),
        (b"\xcd\x00", "unexpected end of msgpack"),
        (b"\x92\x01", "unexpected end of msgpack"),
        (b"\x01\x02", "invalid msgpack at byte 1: bytes after the value"),
        (b"\xc1", "invalid msgpack at byte 1: reserved marker"),
        (b"\x81\x01\x02", "invalid msgpack at byte 2: a map key that is not text"),
        (b"\x81\xa1\xff\x02", "invalid msgpack at byte 3: a map key that is not UTF-8"),
        (b"\xd4\x01\x00", "invalid msgpack at byte 1: unknown extension type"),
        (b"\xd6\x01\x00\x00\x00\x00", "invalid msgpack at byte 2: unknown extension type"),
        (
            b"\xd7\xff\xff\xff\xff\xff\x00\x00\x00\x00",
            "invalid msgpack at byte 10: a timestamp beyond its range",
        ),
        (b"\xc7\x03\xff\x00\x00\x00", "invalid msgpack at byte 3: a timestamp of unknown size"),
    ];
    for (bytes, expected) in rows {
        let error = read(bytes).unwrap_err();
        assert_eq!(error.to_string(), expected, "{}", bytes.escape_ascii());
    }
}

#[test]
fn an_announced_length_reserves_nothing() {
    // Each level claims four billion elements; reserving for any of them would end the process.
    for marker in [0xdd, 0xdf] {
        let bytes = [marker, 0xff, 0xff, 0xff, 0xff].repeat(50);
        assert_eq!(read(&bytes), Err(Error::Truncated { format: "msgpack" }));
    }
    // Each level claims what is left: only the first claim can be true.
    let mut bytes = vec![0xdc, 0x03, 0xe5];
    bytes.extend([0xdc, 0x03, 0xe0].repeat(10));
    bytes.resize(1000, 0);
    assert_eq!(read(&bytes), Err(Error::Truncated { format: "msgpack" }));
}

#[test]
fn limits_hold() {
    let limits = Limits { bytes_max: 20, depth_max: 3, items_max: 6 };
    let check = |bytes: &[u8], expected: Option<(&'static str, usize)>| {
        let error = expected.map(|(what, max)| Error::Limit { what, max });
        assert_eq!(decode(bytes, &limits).err(), error, "{}", bytes.escape_ascii());
    };
    check(b"\x91\x91\x91\x01", None);
    check(b"\x91\x91\x91\x91\x01", Some(("levels of nesting", 3)));
    check(b"\x81\xa0\x81\xa0\x81\xa0\x81\xa0\x01", Some(("levels of nesting", 3)));
    check(b"\x95\x01\x02\x03\x04\x05", None);
    check(b"\x96\x01\x02\x03\x04\x05\x06", Some(("values", 6)));
    check(b"\x83\xa1a\x01\xa1b\x02\xa1c\x03", None);
    check(&[0xb3; 20], None);
    check(&[0xb4; 21], Some(("bytes", 20)));
}

#[test]
fn nesting_is_bounded_in_both_directions() {
    let deep = |levels| (0..levels).fold(Value::Null, |value, _| Value::Array(vec![value]));
    let mut out = Vec::new();
    assert_eq!(read(&written(&deep(256))), Ok(deep(256)));
    let limit = Error::Limit { what: "levels of nesting", max: 256 };
    assert_eq!(encode(&deep(257), &mut out), Err(limit.clone()));
    assert_eq!(read(&[0x91; 100_000]), Err(limit));
}

#[test]
fn integers_beyond_64_bits_cannot_be_written() {
    let error = encode(&Value::BigInt("18446744073709551616".to_owned()), &mut Vec::new());
    assert_eq!(error.unwrap_err().to_string(), "msgpack cannot carry an integer beyond 64 bits");
}

#[test]
fn a_repeated_key_keeps_its_last_value() {
    let few = read(b"\x83\xa1a\x01\xa1b\x02\xa1a\x03").unwrap();
    assert_eq!(few, Value::Map(Map::from_iter([("a", 3), ("b", 2)])));
    let mut bytes = vec![0xde, 0x00, 0x64];
    for key in 0..100 {
        bytes.extend([0xa1, b'a' + key % 20, key]);
    }
    let many = read(&bytes).unwrap();
    let expected: Map = (0..20_u8)
        .map(|key| (char::from(b'a' + key).to_string(), Value::Int((80 + key).into())))
        .collect();
    assert_eq!(many, Value::Map(expected));
}

/// A group signature as Python writes it: with the number of its tasks as the map's length.
fn broken_group(tasks: usize) -> Vec<u8> {
    let mut bytes = written(&group(tasks));
    let header = u8::try_from(0x80 + tasks).unwrap();
    *bytes.first_mut().unwrap() = header;
    bytes
}

fn group(tasks: usize) -> Value {
    let mut map = Map::new();
    map.push("task", "celery.group");
    map.push("args", Vec::<Value>::new());
    map.push("kwargs", Map::from_iter([("tasks", vec![Value::from("a task"); tasks])]));
    map.push("options", Map::from_iter([("task_id", "1")]));
    map.push("subtask_type", "group");
    map.push("immutable", false);
    Value::Map(map)
}

#[test]
fn broken_groups_of_any_size_are_repaired() {
    for tasks in 0..=15 {
        let mut bytes = vec![0x93, 0x01];
        bytes.extend(broken_group(tasks));
        bytes.push(0x02);
        let expected = vec![Value::Int(1), group(tasks), Value::Int(2)];
        assert_eq!(read(&bytes), Ok(Value::Array(expected)), "{tasks} tasks");
    }
}

#[test]
fn broken_groups_whose_lengths_add_up_are_repaired() {
    // Read with the announced lengths, this decodes as well: into something else.
    let mut bytes = b"\x83\xa6header".to_vec();
    bytes.extend(broken_group(5));
    bytes.extend(b"\xa4body");
    bytes.extend(broken_group(7));
    bytes.extend(b"\xa6kwargs\x80");
    let mut expected = Map::new();
    expected.push("header", group(5));
    expected.push("body", group(7));
    expected.push("kwargs", Map::new());
    assert_eq!(read(&bytes), Ok(Value::Map(expected)));
}

#[test]
fn well_formed_maps_that_look_like_groups_stay_as_they_are() {
    let mut short = Map::new();
    short.push("task", "celery.group");
    let mut other = short.clone();
    other.push("args", 1);
    other.push("nothing", 2);
    let mut reordered = short.clone();
    for key in ["immutable", "subtask_type", "options", "kwargs", "args", "a", "b"] {
        reordered.push(key, 3);
    }
    for map in [short, other, reordered] {
        let value = Value::Array(vec![Value::Map(map), Value::from("end")]);
        assert_eq!(read(&written(&value)), Ok(value));
    }
}

#[test]
fn a_body_written_from_its_parts_is_the_same_as_the_whole() {
    let args = vec![Value::from(1), Value::from("x")];
    let (kwargs, embed) = (Map::from_iter([("k", 1)]), Map::from_iter([("chain", 2)]));
    let mut parts = Vec::new();
    encode_body(&args, &kwargs, &embed, &mut parts).unwrap();
    let whole = Value::Array(vec![args.into(), kwargs.into(), embed.into()]);
    assert_eq!(parts, written(&whole));
}

#[test]
fn the_deepest_value_fits_half_a_threads_stack() {
    let deepest = || {
        let deep = (0..256).fold(Value::Null, |inner, _| {
            Value::Map(Map::from_iter([("k", Value::Array(vec![inner]))]))
        });
        // Twice the allowed nesting is refused, and the way there was as deep as it gets.
        assert!(encode(&deep, &mut Vec::new()).is_err());
        let deep = (0..128).fold(Value::Null, |inner, _| {
            Value::Map(Map::from_iter([("k", Value::Array(vec![inner]))]))
        });
        assert_eq!(read(&written(&deep)), Ok(deep));
    };
    // The threads of tests and of tokio have two MiB.
    let thread = std::thread::Builder::new().stack_size(1 << 20).spawn(deepest);
    thread.unwrap().join().unwrap();
}

proptest! {
    #[test]
    fn what_was_written_is_read(value in arbitrary::plain()) {
        prop_assert_eq!(read(&written(&value)), Ok(value));
    }

    #[test]
    fn random_bytes_never_panic(bytes in vec(any::<u8>(), 0..2000)) {
        let _ = read(&bytes);
    }

    #[test]
    fn random_markers_never_panic(bytes in vec(0x80_u8.., 0..200)) {
        let _ = read(&bytes);
    }

    #[test]
    fn what_was_read_is_written_and_read_again(bytes in vec(any::<u8>(), 0..200)) {
        if let Ok(value) = read(&bytes) {
            // Debug texts, since a float that is no number differs from itself.
            let again = read(&written(&value)).map(|again| format!("{again:?}"));
            let text = match value {
                Value::Tagged(_, text) => Value::String(text),
                other => other,
            };
            prop_assert_eq!(again, Ok(format!("{text:?}")));
        }
    }

    #[test]
    fn changed_values_never_panic(
        value in arbitrary::plain(),
        at: prop::sample::Index,
        byte: u8,
    ) {
        let mut bytes = written(&value);
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let _ = read(&bytes);
    }

    #[test]
    fn cut_values_are_errors(value in arbitrary::plain(), at: prop::sample::Index) {
        let bytes = written(&value);
        prop_assert!(read(&bytes[..at.index(bytes.len())]).is_err());
    }
}
