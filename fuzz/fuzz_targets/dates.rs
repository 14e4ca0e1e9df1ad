//! Any text as a date.

#![no_main]

use celeriac::protocol::{Date, date};
use jiff::tz::{TimeZone, offset};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let Ok(read) = Date::parse(text) else { return };
    assert_eq!(read.as_str(), text);
    for zone in [TimeZone::UTC, TimeZone::fixed(offset(-25)), TimeZone::fixed(offset(25))] {
        let _ = date::format(read.timestamp(&zone));
    }
});
