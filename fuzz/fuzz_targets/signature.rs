//! Any value as a signature, and its options as call options.

#![no_main]

use celeriac::protocol::{CallOptions, Limits, Signature, json, msgpack};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let limits = Limits::default();
    for value in [msgpack::decode(bytes, &limits), json::decode(bytes, &limits)] {
        let Some(signature) = value.ok().and_then(|value| Signature::from_value(value).ok()) else {
            continue;
        };
        if let Ok(options) = CallOptions::from_map(signature.options.clone()) {
            CallOptions::from_map(options.into_map()).expect("what was written is read");
        }
        Signature::from_value(signature.into_value()).expect("what was written is read");
    }
});
