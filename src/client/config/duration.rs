//! Durations as people write them.

use std::time::Duration;

/// A text that is not a duration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a duration: write seconds, or text such as '30s', '500ms' or '1h 30m'")]
pub struct InvalidDuration(String);

/// Reads a duration: a plain number is seconds, as everywhere in Celery; otherwise numbers with
/// units from nanoseconds to days.
///
/// ```
/// # use std::time::Duration;
/// # use celeriac::client::config::parse_duration;
/// assert_eq!(parse_duration("30"), Ok(Duration::from_secs(30)));
/// assert_eq!(parse_duration("1h 30m"), Ok(Duration::from_secs(5400)));
/// assert_eq!(parse_duration("0.25"), Ok(Duration::from_millis(250)));
/// assert!(parse_duration("soon").is_err());
/// ```
///
/// # Errors
/// If the text is something else, or the duration is negative or beyond what can be told.
pub fn parse_duration(text: &str) -> Result<Duration, InvalidDuration> {
    let invalid = || InvalidDuration(text.to_owned());
    let text = text.trim();
    if let Ok(seconds) = text.parse::<f64>() {
        return Duration::try_from_secs_f64(seconds).map_err(|_| invalid());
    }
    let span: jiff::Span = text.parse().map_err(|_| invalid())?;
    let days = jiff::SpanRelativeTo::days_are_24_hours();
    let duration = span.to_duration(days).map_err(|_| invalid())?;
    Duration::try_from(duration).map_err(|_| invalid())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_write_durations_in_many_ways() {
        for (text, millis) in [
            ("0", 0),
            ("3", 3_000),
            ("1.5", 1_500),
            ("30s", 30_000),
            ("500ms", 500),
            ("5 minutes", 300_000),
            ("1h30m", 5_400_000),
            ("1 day", 86_400_000),
            ("2w", 1_209_600_000),
        ] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
    }

    #[test]
    fn what_is_not_a_duration_from_zero_on_is_refused() {
        for text in ["", "soon", "-1", "-5s", "inf", "nan", "1e300", "30 bananas"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }
}
