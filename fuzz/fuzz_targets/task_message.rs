//! Any body as a task, in both encodings and both versions of the protocol.

#![no_main]

use celeriac::protocol::{Limits, Map, Message, Properties, Serializer, TaskMessage};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Some((choice, body)) = bytes.split_first() else { return };
    let serializer = if choice & 1 == 0 { Serializer::Msgpack } else { Serializer::Json };
    let mut headers = Map::new();
    if choice & 2 == 0 {
        headers.push("task", "proj.add");
        headers.push("id", "1");
    }
    match choice >> 2 & 3 {
        1 => headers.push("compression", "gzip"),
        2 => headers.push("compression", "zstd"),
        _ => {}
    }
    let properties = Properties {
        content_type: Some(serializer.content_type().to_owned()),
        headers: Some(headers),
        ..Properties::default()
    };
    let message = Message { properties, body: body.to_vec() };
    if let Ok(task) = TaskMessage::decode(&message, &Limits::default()) {
        // Ids of protocol version 1 can be longer than AMQP allows; everything else is written.
        if let Ok(written) = task.encode() {
            TaskMessage::decode(&written, &Limits::default()).expect("what was written is read");
        }
    }
});
