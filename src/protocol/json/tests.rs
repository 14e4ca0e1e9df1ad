//! JSON in its corners: Python's dialect, Celery's markers, and every limit.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::protocol::{Tag, arbitrary};

fn read(text: &str) -> Result<Value, Error> {
    decode(text.as_bytes(), &Limits::default())
}

fn written(value: &Value) -> String {
    let mut out = Vec::new();
    encode(value, &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

/// Both directions of one value.
fn check(value: impl Into<Value>, text: &str) {
    let value = value.into();
    assert_eq!(written(&value), text);
    assert_eq!(read(text), Ok(value), "{text}");
}

fn tagged(tag: Tag, text: &str) -> Value {
    Value::Tagged(tag, text.to_owned())
}

#[test]
fn values_are_written_as_python_writes_them() {
    check(Value::Null, "null");
    check(true, "true");
    check(i64::MIN, "-9223372036854775808");
    check(u64::MAX, "18446744073709551615");
    check(Value::BigInt("-18446744073709551616".to_owned()), "-18446744073709551616");
    check(1.0, "1.0");
    check(1e16, "1e+16");
    check(f64::INFINITY, "Infinity");
    check(f64::NEG_INFINITY, "-Infinity");
    check(vec![Value::Int(1), Value::Int(2)], "[1, 2]");
    check(Map::from_iter([("a", 1), ("b", 2)]), r#"{"a": 1, "b": 2}"#);
    check(Vec::<Value>::new(), "[]");
    check(Map::new(), "{}");
    check("a\"\\/\n\r\t\u{8}\u{c}\u{0}\u{7f}", r#""a\"\\/\n\r\t\b\f\u0000\u007f""#);
    check("é€😀", r#""\u00e9\u20ac\ud83d\ude00""#);
    assert_eq!(written(&Value::Float(f64::NAN)), "NaN");
    assert!(matches!(read("NaN"), Ok(Value::Float(number)) if number.is_nan()));
}

#[test]
fn types_without_json_are_marked_as_celery_marks_them() {
    check(
        tagged(Tag::DateTime, "2030-01-02T03:04:05+00:00"),
        r#"{"__type__": "datetime", "__value__": "2030-01-02T03:04:05+00:00"}"#,
    );
    check(tagged(Tag::Date, "2030-01-02"), r#"{"__type__": "date", "__value__": "2030-01-02"}"#);
    check(tagged(Tag::Time, "03:04:05"), r#"{"__type__": "time", "__value__": "03:04:05"}"#);
    check(tagged(Tag::Decimal, "1.10"), r#"{"__type__": "decimal", "__value__": "1.10"}"#);
    check(
        tagged(Tag::Uuid, "4d3dc434630241049a5b8a151abe18c3"),
        r#"{"__type__": "uuid", "__value__": {"hex": "4d3dc434630241049a5b8a151abe18c3"}}"#,
    );
    check(b"ascii".to_vec(), r#"{"__type__": "bytes", "__value__": "ascii"}"#);
    check(vec![0xff_u8], r#"{"__type__": "base64", "__value__": "/w=="}"#);
}

#[test]
fn forms_that_only_others_write_are_read() {
    let rows = [
        (" [ 1 ,\r\n\t2 ] ", Value::from(vec![Value::Int(1), Value::Int(2)])),
        ("\"é😀\"", Value::from("é😀")),
        (r#""\u00E9\/""#, Value::from("é/")),
        ("-0", Value::Int(0)),
        ("1E2", Value::Float(100.0)),
        ("1e400", Value::Float(f64::INFINITY)),
        ("-1.5e-3", Value::Float(-0.0015)),
        (r#"{"a": 1, "b": 2, "a": 3}"#, Value::Map(Map::from_iter([("a", 3), ("b", 2)]))),
        (r#"{"__value__": "a", "__type__": "bytes"}"#, Value::from(b"a".to_vec())),
        (r#"{"__type__": "base64", "__value__": "/w"}"#, Value::from(vec![0xff_u8])),
        (
            r#"{"__type__": "uuid", "__value__": {"hex": "4D3DC434-6302-4104-9A5B-8A151ABE18C3"}}"#,
            tagged(Tag::Uuid, "4d3dc434630241049a5b8a151abe18c3"),
        ),
        // Only a map of exactly two keys is a mark.
        (r#"{"__type__": 1}"#, Value::Map(Map::from_iter([("__type__", 1)]))),
    ];
    for (text, value) in rows {
        assert_eq!(read(text), Ok(value), "{text}");
    }
}

#[test]
fn what_is_no_json_is_an_error() {
    let rows = [
        ("", "unexpected end of json"),
        ("[1", "unexpected end of json"),
        ("[1,", "unexpected end of json"),
        (r#""abc"#, "unexpected end of json"),
        (r#""\"#, "unexpected end of json"),
        ("[1,]", "invalid json at byte 3: no value"),
        ("[,]", "invalid json at byte 1: no value"),
        ("{,}", "invalid json at byte 1: no map key"),
        (r#"{"a": 1,}"#, "invalid json at byte 8: no map key"),
        ("{1: 2}", "invalid json at byte 1: no map key"),
        (r#"{"a" 1}"#, "invalid json at byte 5: no colon after a map key"),
        ("[1 2]", "invalid json at byte 3: neither a comma nor an end"),
        ("[1}", "invalid json at byte 2: neither a comma nor an end"),
        ("1 2", "invalid json at byte 2: text after the value"),
        ("nul", "invalid json at byte 0: no value"),
        ("'a'", "invalid json at byte 0: no value"),
        ("01", "invalid json at byte 0: a broken number"),
        ("-", "invalid json at byte 0: a broken number"),
        ("1.", "invalid json at byte 1: text after the value"),
        ("1e", "invalid json at byte 1: text after the value"),
        ("+1", "invalid json at byte 0: no value"),
        ("\"a\nb\"", "invalid json at byte 2: a control character in a string"),
        (r#""\x""#, "invalid json at byte 2: an unknown escape"),
        (r#""\u12g4""#, "invalid json at byte 2: a broken \\u escape"),
        (r#""\u+123""#, "invalid json at byte 2: a broken \\u escape"),
        (r#""\ud800""#, "invalid json at byte 7: half a surrogate pair"),
        (r#""\ud800\ud800""#, "invalid json at byte 13: half a surrogate pair"),
        (r#""\udc00""#, "invalid json at byte 7: half a surrogate pair"),
        (r#""\ud800A""#, "invalid json at byte 7: half a surrogate pair"),
        (r#"{"__type__": "set", "__value__": "a"}"#, "unknown __type__ 'set'"),
        (r#"{"__type__": 5, "__value__": "a"}"#, "unknown __type__ 'int'"),
        (r#"{"__type__": "date", "__value__": 5}"#, "'__value__' must be text, not int"),
        (r#"{"__type__": "uuid", "__value__": {}}"#, "'__value__' must be text, not None"),
        (r#"{"__type__": "uuid", "__value__": "abc"}"#, "'abc' is not a UUID"),
        (r#"{"__type__": "base64", "__value__": "?"}"#, "'?' is not base64"),
        ("\u{feff}1", "invalid json at byte 0: no value"),
    ];
    for (text, expected) in rows {
        assert_eq!(read(text).unwrap_err().to_string(), expected, "{text}");
    }
    let error = decode(b"\"a\xff\"", &Limits::default()).unwrap_err();
    assert_eq!(error.to_string(), "invalid json at byte 2: text that is not UTF-8");
}

#[test]
fn limits_hold() {
    let limits = Limits { bytes_max: 20, depth_max: 3, items_max: 6 };
    let check = |text: &str, expected: Option<(&'static str, usize)>| {
        let error = expected.map(|(what, max)| Error::Limit { what, max });
        assert_eq!(decode(text.as_bytes(), &limits).err(), error, "{text}");
    };
    check("[[[1]]]", None);
    check("[[[[1]]]]", Some(("levels of nesting", 3)));
    check(r#"{"":{"":{"":{"":1"#, Some(("levels of nesting", 3)));
    check("[1,2,3,4,5]", None);
    check("[1,2,3,4,5,6]", Some(("values", 6)));
    check("                   1", None);
    check("                    1", Some(("bytes", 20)));
}

#[test]
fn nesting_is_bounded_in_both_directions() {
    let deep = |levels| (0..levels).fold(Value::Null, |value, _| Value::Array(vec![value]));
    assert_eq!(read(&written(&deep(256))), Ok(deep(256)));
    let limit = Error::Limit { what: "levels of nesting", max: 256 };
    assert_eq!(encode(&deep(257), &mut Vec::new()), Err(limit.clone()));
    assert_eq!(read(&"[".repeat(100_000)), Err(limit));
}

#[test]
fn an_integer_of_too_many_digits_is_refused_as_in_python() {
    let longest = "9".repeat(4300);
    assert_eq!(read(&longest), Ok(Value::BigInt(longest.clone())));
    assert!(read(&(longest + "9")).is_err());
}

#[test]
fn digits_that_are_no_integer_cannot_be_written() {
    for digits in ["", "-", "1.5", "1]", "--1"] {
        let error = encode(&Value::BigInt(digits.to_owned()), &mut Vec::new()).unwrap_err();
        assert_eq!(error.to_string(), format!("'{digits}' is not an integer"));
    }
}

#[test]
fn a_body_written_from_its_parts_is_the_same_as_the_whole() {
    let args = vec![Value::from(1), Value::from("x")];
    let (kwargs, embed) = (Map::from_iter([("k", 1)]), Map::from_iter([("chain", 2)]));
    let mut parts = Vec::new();
    encode_body(&args, &kwargs, &embed, &mut parts).unwrap();
    let whole = Value::Array(vec![args.into(), kwargs.into(), embed.into()]);
    assert_eq!(String::from_utf8(parts).unwrap(), written(&whole));
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

/// Text of the characters and escapes that JSON is made of.
const JSON_LIKE: &str = r#"([\[\]{}",:0-9eE.+\- \\untrfasl]|\\u[0-9a-fA-F]{4}){0,60}"#;

proptest! {
    #[test]
    fn what_was_written_is_read(value in arbitrary::rich()) {
        prop_assert_eq!(read(&written(&value)), Ok(value));
    }

    #[test]
    fn everything_is_written_in_ascii(value in arbitrary::rich()) {
        prop_assert!(written(&value).bytes().all(|byte| matches!(byte, b' '..=b'~')));
    }

    #[test]
    fn random_bytes_never_panic(bytes in vec(any::<u8>(), 0..200)) {
        let _ = decode(&bytes, &Limits::default());
    }

    #[test]
    fn random_json_never_panics(text in JSON_LIKE) {
        let _ = read(&text);
    }

    #[test]
    fn changed_values_never_panic(
        value in arbitrary::rich(),
        at: prop::sample::Index,
        byte: u8,
    ) {
        let mut bytes = written(&value).into_bytes();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let _ = decode(&bytes, &Limits::default());
    }

    #[test]
    fn floats_keep_every_bit(number: f64) {
        let Ok(Value::Float(again)) = read(&written(&Value::Float(number))) else {
            return Err(TestCaseError::fail("not a float"));
        };
        prop_assert!(again.to_bits() == number.to_bits() || number.is_nan() && again.is_nan());
    }
}
