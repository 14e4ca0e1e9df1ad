//! Any body as a result, in both encodings.

#![no_main]

use celeriac::protocol::{Limits, Message, Properties, ResultMeta, Serializer};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    for serializer in [Serializer::Msgpack, Serializer::Json] {
        let properties = Properties {
            content_type: Some(serializer.content_type().to_owned()),
            ..Properties::default()
        };
        let message = Message { properties, body: bytes.to_vec() };
        if let Ok(result) = ResultMeta::decode(&message, &Limits::default()) {
            let written = result.encode(serializer, "1", false).expect("what was read is written");
            ResultMeta::decode(&written, &Limits::default()).expect("and read again");
        }
    }
});
