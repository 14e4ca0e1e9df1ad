//! Times in attributes: `"500ms"`, `"30s"`, `"10m"`, `"2h"`, or a number of seconds.

use std::time::Duration;

/// What a time may look like, for messages.
pub(crate) const EXPECTED: &str =
    "expected a time such as \"500ms\", \"30s\", \"10m\" or \"2h\", or a number of seconds";

/// Reads a number with a unit.
pub(crate) fn parse(text: &str) -> Option<Duration> {
    let unit_at = text.find(|c: char| c.is_ascii_alphabetic())?;
    let (number, unit) = text.split_at(unit_at);
    let factor = match unit {
        "ms" => 0.001,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return None,
    };
    let digits = |c: char| c.is_ascii_digit() || c == '.';
    if !number.chars().all(digits) {
        return None;
    }
    seconds(number.parse::<f64>().ok()? * factor)
}

/// Seconds, with a fraction down to milliseconds.
pub(crate) fn seconds(number: f64) -> Option<Duration> {
    let milliseconds = (number * 1000.0).round();
    Duration::try_from_secs_f64(milliseconds / 1000.0).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_a_number_with_a_unit() {
        for (text, milliseconds) in
            [("500ms", 500), ("30s", 30_000), ("1.5s", 1500), ("10m", 600_000), ("2h", 7_200_000)]
        {
            assert_eq!(parse(text), Some(Duration::from_millis(milliseconds)), "{text}");
        }
        for text in ["", "30", "s", "-1s", "1 s", "1d", "1e3s", "1s1", "1..2s"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
