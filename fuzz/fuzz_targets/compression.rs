//! Any bytes unpacked, within the limit.

#![no_main]

use celeriac::protocol::Compression;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    const LIMIT: usize = 1 << 20;
    for method in [Compression::Zlib, Compression::Zstd] {
        if let Ok(plain) = method.decompress(bytes, LIMIT) {
            assert!(plain.len() <= LIMIT);
        }
        let packed = method.compress(bytes).expect("everything can be packed");
        let plain = method.decompress(&packed, bytes.len()).expect("and unpacked");
        assert_eq!(plain, bytes);
    }
});
