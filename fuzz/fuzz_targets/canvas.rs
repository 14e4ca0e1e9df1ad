//! Any value as a workflow: it is lowered or refused, and what is left of one that fails is known.

#![no_main]

use celeriac::protocol::canvas::{Call, Canvas, Ids, failed_with, lower};
use celeriac::protocol::{Limits, Signature, json, msgpack};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let limits = Limits::default();
    for value in [msgpack::decode(bytes, &limits), json::decode(bytes, &limits)] {
        let Some(signature) = value.ok().and_then(|value| Signature::from_value(value).ok()) else {
            continue;
        };
        failed_with(&[signature.clone()]);
        let Ok(canvas) = Canvas::from_signature(signature) else { continue };
        let again = Canvas::from_signature(canvas.clone().into_signature());
        assert_eq!(again.expect("what was written is read"), canvas);
        let call = Call { ids: Ids::derived("task"), ..Call::default() };
        let _ = lower(canvas, call);
    }
});
