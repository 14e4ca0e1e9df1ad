//! Any bytes as MessagePack, and what was read written and read again.

#![no_main]

use celeriac::protocol::{Limits, msgpack};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(value) = msgpack::decode(bytes, &Limits::default()) else { return };
    let mut written = Vec::new();
    msgpack::encode(&value, &mut written).expect("what was read can be written");
    let again = msgpack::decode(&written, &Limits::default()).expect("and read again");
    let mut twice = Vec::new();
    msgpack::encode(&again, &mut twice).expect("and written again");
    assert_eq!(written, twice);
});
