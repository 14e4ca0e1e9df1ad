//! Events: reading messages of one and of many, and writing again what was read.

#![no_main]

use celeriac::protocol::event;
use celeriac::protocol::{Message, Properties};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((kind, body)) = data.split_first() else { return };
    let content_type = if kind % 2 == 0 { "application/json" } else { "application/x-msgpack" };
    let content_type = Some(content_type.to_owned());
    let properties = Properties { content_type, ..Properties::default() };
    let message = Message { properties, body: body.to_vec() };
    for event in event::decode(&message).into_iter().flatten().flatten() {
        let _ = event.routing_key();
        let _ = event::encode(event);
    }
});
