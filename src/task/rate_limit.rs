//! How often a task may start, in Celery's notation. Pure.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::protocol::Value;

/// How often a task may start in one worker: `10/s`, `100/m`, `1000/h`, or a number of starts a
/// second.
///
/// As in Celery, starts are spread evenly: `60/m` is one start a second, not sixty at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimit {
    interval: Duration,
}

impl RateLimit {
    /// The longest time between two starts: a year.
    const INTERVAL_MAX: Duration = Duration::from_secs(366 * 24 * 3600);

    /// One start every so often; at least a nanosecond, at most a year.
    pub const fn every(interval: Duration) -> Self {
        if interval.is_zero() {
            return Self { interval: Duration::from_nanos(1) };
        }
        if interval.as_nanos() > Self::INTERVAL_MAX.as_nanos() {
            return Self { interval: Self::INTERVAL_MAX };
        }
        Self { interval }
    }

    /// Reads `10/s`, `10/m`, `10/h` or `10`, where fractions are allowed. `0` in any of these is
    /// no limit, as in Celery.
    ///
    /// # Errors
    /// What is wrong with the text.
    pub fn parse(text: &str) -> Result<Option<Self>, RateLimitError> {
        let malformed = || RateLimitError { text: shown(text) };
        let (count, unit) = text.split_once('/').unwrap_or((text, "s"));
        let unit = match unit.trim() {
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return Err(malformed()),
        };
        let count: f64 = count.trim().parse().map_err(|_| malformed())?;
        Self::per(count, unit).ok_or_else(malformed)
    }

    /// Reads a limit as control commands carry it: a text as [`parse`](Self::parse) reads it, a
    /// number of starts a second, or null for no limit.
    ///
    /// # Errors
    /// What is wrong with the value.
    pub fn from_value(value: &Value) -> Result<Option<Self>, RateLimitError> {
        let read = match value {
            Value::Null => Some(None),
            Value::String(text) => return Self::parse(text),
            Value::Int(count) => Self::per(*count as f64, 1.0),
            Value::Float(count) => Self::per(*count, 1.0),
            _ => None,
        };
        read.ok_or_else(|| RateLimitError { text: shown(&format!("{value:?}")) })
    }

    /// The time between two starts.
    pub const fn interval(self) -> Duration {
        self.interval
    }

    /// The same as a number of starts within a time, which is a second where that is enough, and
    /// the time between two starts where it is not.
    pub(crate) fn window(self) -> Window {
        let per_second = (1.0 / self.interval.as_secs_f64()).round();
        // Saturates, and is at least 1.
        let count = (per_second.max(1.0) as u32).min(Window::COUNT_MAX);
        let period_ms = (self.interval.as_secs_f64() * f64::from(count) * 1000.0).round();
        let period = Duration::from_millis(period_ms.max(1.0) as u64).min(Window::PERIOD_MAX);
        Window { count, period }
    }

    /// `None` if that is no rate, and `Some(None)` if it is none.
    fn per(count: f64, seconds: f64) -> Option<Option<Self>> {
        if !count.is_finite() || count < 0.0 {
            return None;
        }
        if count == 0.0 {
            return Some(None);
        }
        let interval = seconds / count;
        let interval = Duration::try_from_secs_f64(interval).unwrap_or(Self::INTERVAL_MAX);
        Some(Some(Self::every(interval)))
    }
}

/// So many starts within a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Window {
    pub(crate) count: u32,
    /// In whole milliseconds.
    pub(crate) period: Duration,
}

impl Window {
    /// As many as a queue of the broker should hold.
    const COUNT_MAX: u32 = 10_000;
    /// As long as a message may live, and its queue twice; `#[task]` knows this, too.
    const PERIOD_MAX: Duration = Duration::from_secs(10 * 24 * 3600);
}

impl FromStr for RateLimit {
    type Err = RateLimitError;

    /// As [`parse`](Self::parse); no limit is an error.
    fn from_str(text: &str) -> Result<Self, RateLimitError> {
        Self::parse(text)?.ok_or_else(|| RateLimitError { text: shown(text) })
    }
}

/// The beginning of what may be long.
fn shown(text: &str) -> String {
    text.chars().take(40).collect()
}

/// A rate limit that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid rate limit {text:?}: write \"10/s\", \"100/m\", \"1000/h\", or a number a second")]
pub struct RateLimitError {
    text: String,
}

impl fmt::Display for RateLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let second = self.interval.as_secs_f64();
        let counts = [(1.0 / second, 's'), (60.0 / second, 'm'), (3600.0 / second, 'h')];
        let is_whole = |count: f64| count >= 0.5 && (count - count.round()).abs() < 1e-6 * count;
        let [.., hourly] = counts;
        let (count, unit) =
            counts.into_iter().find(|(count, _)| is_whole(*count)).unwrap_or(hourly);
        // Not more digits than the interval has.
        let rounded = (count * 1e6).round() / 1e6;
        write!(f, "{rounded}/{unit}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_read_as_celery_reads_them() {
        let interval = |text| RateLimit::parse(text).unwrap().map(RateLimit::interval);
        assert_eq!(interval("10/s"), Some(Duration::from_millis(100)));
        assert_eq!(interval("60/m"), Some(Duration::from_secs(1)));
        assert_eq!(interval("1/h"), Some(Duration::from_secs(3600)));
        assert_eq!(interval("0.5"), Some(Duration::from_secs(2)));
        assert_eq!(interval(" 4 / s "), Some(Duration::from_millis(250)));
        assert_eq!((interval("0"), interval("0/m")), (None, None), "no limit");
        for text in ["10/s", "100/m", "7/h", "0.5/h"] {
            assert_eq!(RateLimit::parse(text).unwrap().unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_is_no_rate_is_refused() {
        for text in ["", "/", "x", "10/d", "10/", "-1/s", "nan", "inf/s", "1/s/s"] {
            let error = RateLimit::parse(text).unwrap_err().to_string();
            assert!(error.contains(&format!("{text:?}")), "{error}");
        }
        let long = "9".repeat(10_000) + "x";
        assert!(RateLimit::parse(&long).unwrap_err().to_string().len() < 200);
        assert!("0/s".parse::<RateLimit>().is_err());
    }

    #[test]
    fn commands_carry_texts_numbers_and_null() {
        let read = |value: Value| RateLimit::from_value(&value);
        let second = RateLimit::every(Duration::from_secs(1));
        assert_eq!(read(Value::Null), Ok(None));
        assert_eq!(read(Value::Int(1)), Ok(Some(second)));
        assert_eq!(read(Value::Float(0.0)), Ok(None));
        assert_eq!(read("60/m".into()), Ok(Some(second)));
        assert!(read(Value::Bool(true)).is_err());
        assert!(read(Value::Int(-1)).is_err());
    }

    #[test]
    fn a_rate_is_a_number_of_starts_within_a_time() {
        let of = |text| {
            let Window { count, period } = RateLimit::parse(text).unwrap().unwrap().window();
            (count, period.as_millis())
        };
        assert_eq!(of("10/s"), (10, 1000));
        assert_eq!(of("7/s"), (7, 1000));
        assert_eq!(of("3/s"), (3, 1000));
        assert_eq!(of("1/s"), (1, 1000));
        assert_eq!(of("100/m"), (2, 1200));
        assert_eq!(of("1000/h"), (1, 3600));
        assert_eq!(of("1/h"), (1, 3_600_000));
        assert_eq!(of("1e300/s"), (10_000, 1));
        assert_eq!(of("1e-300/s"), (1, 864_000_000));
    }

    #[test]
    fn no_rate_is_out_of_bounds() {
        let of = |text| RateLimit::parse(text).unwrap().unwrap().interval();
        assert_eq!(of("1e300/s"), Duration::from_nanos(1));
        assert_eq!(of("1e-300/h"), RateLimit::INTERVAL_MAX);
    }
}
