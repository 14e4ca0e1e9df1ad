//! Any map as the header table of a task.

#![no_main]

use celeriac::protocol::{Limits, TaskHeaders, json, msgpack};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let limits = Limits::default();
    for value in [msgpack::decode(bytes, &limits), json::decode(bytes, &limits)] {
        let Ok(value) = value else { continue };
        let Some(Ok(headers)) = value.as_map().map(TaskHeaders::decode) else { continue };
        TaskHeaders::decode(&headers.encode()).expect("what was written is read");
    }
});
