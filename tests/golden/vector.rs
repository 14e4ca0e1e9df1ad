//! One captured message: a file of `tests/vectors`.

use celeriac::protocol::{Compression, Map, Message, Properties, Serializer, Tag, Value, date};
use serde_json::Value as Json;

/// What a vector shows, which decides the tests that it takes part in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Task,
    /// A task in the old protocol, which is read but never written.
    Protocol1,
    /// A task whose body is not what it says, because Celery wrote it so.
    Malformed,
    Result,
    /// A task that is refused on purpose.
    Refused,
    Unknown,
}

/// A message and its meaning.
#[derive(Clone, Debug)]
pub(crate) struct Vector {
    pub(crate) name: String,
    pub(crate) kind: Kind,
    pub(crate) message: Message,
    /// The AMQP type letters of the headers.
    pub(crate) header_types: Json,
    /// The decoded body.
    pub(crate) body: Value,
}

/// All vectors, sorted by name.
pub(crate) fn vectors() -> Vec<Vector> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors");
    let mut vectors: Vec<_> = std::fs::read_dir(folder)
        .expect("tests/vectors is there")
        .map(|entry| entry.expect("the folder is readable").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .map(|path| {
            let text = std::fs::read_to_string(&path).expect("the file is readable");
            Vector::parse(&serde_json::from_str(&text).expect("the file is JSON"))
        })
        .collect();
    vectors.sort_by(|left, right| left.name.cmp(&right.name));
    vectors
}

fn classify(name: &str) -> Kind {
    match name {
        "task-protocol-1-json" => return Kind::Protocol1,
        "task-serializer-pickle-json" | "task-compression-bzip2-msgpack" => return Kind::Refused,
        _ if name.ends_with("-MALFORMED") => return Kind::Malformed,
        _ => {}
    }
    match name.split('-').next() {
        Some("result") => Kind::Result,
        Some(
            "task" | "chain" | "chord" | "group" | "map" | "starmap" | "chunks" | "stamped"
            | "delayed" | "broadcast",
        ) => Kind::Task,
        _ => Kind::Unknown,
    }
}

impl Vector {
    fn parse(file: &Json) -> Self {
        let name = file["name"].as_str().expect("a name").to_owned();
        let properties = &file["properties"];
        let text = |key: &str| properties[key].as_str().map(str::to_owned);
        let small = |key: &str| properties[key].as_u64().map(|it| u8::try_from(it).expect(key));
        let headers = properties.get("headers").map(|headers| {
            let typed = header(headers, &serde_json::json!({ "F": file["header_types"] }));
            typed.as_map().expect("a table").clone()
        });
        let properties = Properties {
            content_type: text("content_type"),
            content_encoding: text("content_encoding"),
            headers,
            delivery_mode: small("delivery_mode"),
            priority: small("priority"),
            correlation_id: text("correlation_id"),
            reply_to: text("reply_to"),
            expiration: text("expiration"),
            message_id: text("message_id"),
            timestamp: properties["timestamp"].as_u64(),
            kind: text("type"),
            user_id: text("user_id"),
            app_id: text("app_id"),
        };
        let body = bytes(file["body_hex"].as_str().expect("a body"));
        Self {
            kind: classify(&name),
            name,
            message: Message { properties, body },
            header_types: file["header_types"].clone(),
            body: meaning(&file["body"]),
        }
    }

    pub(crate) fn serializer(&self) -> Serializer {
        let content_type = self.message.properties.content_type.as_deref().expect("a type");
        Serializer::from_content_type(content_type).expect("a spoken type")
    }

    /// The body, unpacked if it is compressed.
    pub(crate) fn plain_body(&self) -> Result<Vec<u8>, String> {
        let Some(method) = self.message.header("compression") else {
            return Ok(self.message.body.clone());
        };
        let method = method.as_str().and_then(Compression::from_name).ok_or("unknown method")?;
        method.decompress(&self.message.body, 1 << 20).map_err(|error| error.to_string())
    }
}

/// A header value from its number or text and its type letter.
fn header(value: &Json, kind: &Json) -> Value {
    if let Some(kinds) = kind.get("A") {
        let (items, kinds) = (value.as_array().expect("A"), kinds.as_array().expect("letters"));
        return Value::Array(items.iter().zip(kinds).map(|(it, kind)| header(it, kind)).collect());
    }
    if let Some(kinds) = kind.get("F") {
        let entries = value.as_object().expect("F");
        return Value::Map(
            entries.iter().map(|(key, it)| (key.clone(), header(it, &kinds[key]))).collect(),
        );
    }
    match kind.as_str().expect("a letter") {
        "V" => Value::Null,
        "t" => Value::Bool(value.as_bool().expect("t")),
        "I" | "l" | "L" => Value::Int(value.as_i64().expect("an integer")),
        "d" => Value::Float(value.as_f64().expect("d")),
        "T" => {
            let second = value.as_i64().expect("T");
            let at = jiff::Timestamp::from_second(second).expect("a time");
            Value::Tagged(Tag::DateTime, date::format(at))
        }
        "S" => match value.get("hex") {
            Some(hex) => Value::Bytes(bytes(hex.as_str().expect("hex"))),
            None => Value::from(value.as_str().expect("S")),
        },
        letter => panic!("type letter {letter}"),
    }
}

/// The type letters of a header table, as they would be sent.
pub(crate) fn letters(value: &Value) -> Json {
    let table = |map: &Map| -> Json {
        map.iter().map(|(key, value)| (key.to_owned(), letter(value))).collect()
    };
    fn letter(value: &Value) -> Json {
        match value {
            Value::Array(items) => {
                serde_json::json!({ "A": items.iter().map(letter).collect::<Vec<_>>() })
            }
            Value::Map(_) => serde_json::json!({ "F": letters(value) }),
            Value::Null => "V".into(),
            Value::Bool(_) => "t".into(),
            Value::Int(number) if i32::try_from(*number).is_ok() => "I".into(),
            Value::Int(_) => "L".into(),
            Value::Float(_) => "d".into(),
            Value::String(_) => "S".into(),
            Value::Bytes(_) => "x".into(),
            Value::Tagged(Tag::DateTime, _) => "T".into(),
            Value::UInt(_) | Value::BigInt(_) | Value::Tagged(..) => "none".into(),
        }
    }
    value.as_map().map(table).unwrap_or_default()
}

pub(crate) fn remove(table: &mut Json, name: &str) {
    table.as_object_mut().expect("a table").remove(name);
}

pub(crate) fn replace(table: &mut Json, name: &str, letter: &str) {
    if let Some(entry) = table.get_mut(name) {
        *entry = letter.into();
    }
}

/// The meaning of a decoded body, with the markers of the file and those of Celery's JSON.
fn meaning(json: &Json) -> Value {
    match json {
        Json::Null => Value::Null,
        Json::Bool(flag) => Value::Bool(*flag),
        Json::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(number), _) => Value::Int(number),
            (None, Some(number)) => Value::UInt(number),
            (None, None) => Value::Float(number.as_f64().expect("a number")),
        },
        Json::String(text) => Value::from(&**text),
        Json::Array(items) => Value::Array(items.iter().map(meaning).collect()),
        Json::Object(entries) => {
            if let Some(hex) = entries.get("$bytes_hex") {
                return Value::Bytes(bytes(hex.as_str().expect("hex")));
            }
            if let Some(float) = entries.get("$float") {
                return Value::Float(float.as_str().expect("text").parse().expect("a float"));
            }
            if let Some(kind) = entries.get("__type__") {
                return marked(kind.as_str().expect("a type"), &entries["__value__"]);
            }
            entries.iter().map(|(key, value)| (key.clone(), meaning(value))).collect::<Map>().into()
        }
    }
}

fn marked(kind: &str, value: &Json) -> Value {
    let text = value.as_str().or_else(|| value["hex"].as_str()).expect("text").to_owned();
    match kind {
        "datetime" => Value::Tagged(Tag::DateTime, text),
        "date" => Value::Tagged(Tag::Date, text),
        "time" => Value::Tagged(Tag::Time, text),
        "decimal" => Value::Tagged(Tag::Decimal, text),
        "uuid" => Value::Tagged(Tag::Uuid, text),
        "bytes" => Value::Bytes(text.into_bytes()),
        // The only two that the captures hold, so that the test decodes nothing itself.
        "base64" if text == "/w==" => Value::Bytes(vec![0xff]),
        "base64" if text == "AAH/" => Value::Bytes(vec![0x00, 0x01, 0xff]),
        other => panic!("type {other} of {text}"),
    }
}

/// The value with the entries of all maps in one order, for comparisons that ignore it.
pub(crate) fn sorted(value: Value) -> Value {
    match value {
        Value::Array(items) => Value::Array(items.into_iter().map(sorted).collect()),
        Value::Map(map) => {
            let mut entries: Vec<_> = map.into_iter().map(|(key, it)| (key, sorted(it))).collect();
            entries.sort_by(|left, right| left.0.cmp(&right.0));
            Value::Map(entries.into_iter().collect())
        }
        other => other,
    }
}

/// The value as MessagePack carries it: without types that it has no form for.
pub(crate) fn untagged(value: Value) -> Value {
    match value {
        Value::Array(items) => Value::Array(items.into_iter().map(untagged).collect()),
        Value::Map(map) => {
            Value::Map(map.into_iter().map(|(key, value)| (key, untagged(value))).collect())
        }
        Value::Tagged(_, text) => Value::String(text),
        other => other,
    }
}

/// The text of a JSON body with a mark in the place of each UUID.
pub(crate) fn without_ids(body: &[u8]) -> String {
    const LENGTH: usize = 36;
    let mut text = String::from_utf8(body.to_vec()).expect("JSON is text");
    let mut at = 0;
    while let Some(part) = text.get(at..at + LENGTH) {
        if uuid::Uuid::try_parse(part).is_ok() {
            text.replace_range(at..at + LENGTH, "<id>");
        }
        at += 1;
    }
    text
}

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<_> = hex.chars().map(|it| it.to_digit(16).expect("a hex digit")).collect();
    digits.chunks(2).map(|pair| u8::try_from(pair[0] * 16 + pair[1]).expect("a byte")).collect()
}
