//! Any bytes as JSON, and what was read written and read again.

#![no_main]

use celeriac::protocol::{Limits, json};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(value) = json::decode(bytes, &Limits::default()) else { return };
    let mut written = Vec::new();
    json::encode(&value, &mut written).expect("what was read can be written");
    let again = json::decode(&written, &Limits::default()).expect("and read again");
    let mut twice = Vec::new();
    json::encode(&again, &mut twice).expect("and written again");
    assert_eq!(written, twice);
});
