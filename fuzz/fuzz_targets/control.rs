//! Control requests, replies and revocations: reading them, and matching hostile patterns.

#![no_main]

use celeriac::protocol::control::{Record, Reply, Request};
use celeriac::protocol::{Message, Properties};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((kind, body)) = data.split_first() else { return };
    let text = |text: &str| Some(text.to_owned());
    let content_type =
        if kind % 2 == 0 { text("application/json") } else { text("application/x-msgpack") };
    let properties = Properties { content_type, kind: text("revoke"), ..Properties::default() };
    let message = Message { properties, body: body.to_vec() };
    if let Ok((request, serializer)) = Request::decode(&message) {
        let _ = request.concerns("celeriac@host");
        let _ = request.encode(serializer, 0, 0.0);
    }
    let _ = Reply::decode(&message);
    if let Ok(record) = Record::decode(&message) {
        let _ = record.encode();
    }
});
