//! Dates as Celery writes them: ISO 8601 text, often with an offset, sometimes without.
//!
//! ```text
//! 2030-01-02T03:04:05.678901+00:00     Python's isoformat()
//! 2030-01-02T03:04:05+05:30            as the caller gave it, no fraction when it is zero
//! 2030-01-02T03:04:05                  naive: the reader's configured time zone
//! ```
//!
//! **Invariant:** a date that was read is written again as the same text, so a message which is
//! passed on says what its first sender said.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use super::Error;

/// A point in time from a header, with the text in which it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Date {
    text: String,
    moment: Moment,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moment {
    Absolute(Timestamp),
    Naive(DateTime),
}

impl Date {
    /// Reads ISO 8601: `Z` or an offset or neither, a fraction of any length, `T` or a space.
    ///
    /// ```
    /// use celeriac::protocol::Date;
    /// use jiff::tz::TimeZone;
    ///
    /// let date = Date::parse("2030-01-02T08:34:05+05:30")?;
    /// assert_eq!(date.timestamp(&TimeZone::UTC).to_string(), "2030-01-02T03:04:05Z");
    /// assert_eq!(date.as_str(), "2030-01-02T08:34:05+05:30");
    /// # Ok::<(), celeriac::protocol::Error>(())
    /// ```
    pub fn parse(text: &str) -> Result<Self, Error> {
        let moment =
            parse_moment(text).ok_or_else(|| Error::malformed("a date in ISO 8601", text))?;
        Ok(Self { text: text.to_owned(), moment })
    }

    /// The point in time; a date without an offset is read in `zone`.
    ///
    /// A time that a clock change skips or repeats is resolved as most clocks do: the skipped one
    /// moves forward, of the repeated ones the first counts.
    pub fn timestamp(&self, zone: &TimeZone) -> Timestamp {
        match self.moment {
            Moment::Absolute(timestamp) => timestamp,
            Moment::Naive(local) => {
                let limit = if local.year() < 0 { Timestamp::MIN } else { Timestamp::MAX };
                zone.to_ambiguous_timestamp(local).compatible().unwrap_or(limit)
            }
        }
    }

    /// The text, as it was read or as Python would write it.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The text as it came.
    pub(super) fn into_text(self) -> String {
        self.text
    }

    /// The same date, read in UTC if it has no offset.
    pub(super) fn or_utc(self) -> Self {
        match self.moment {
            Moment::Absolute(_) => self,
            Moment::Naive(_) => Self::from(self.timestamp(&TimeZone::UTC)),
        }
    }
}

impl From<Timestamp> for Date {
    fn from(timestamp: Timestamp) -> Self {
        Self { text: format(timestamp), moment: Moment::Absolute(timestamp) }
    }
}

/// Writes a point in time as Python's `isoformat()` does in UTC: microseconds, or no fraction.
///
/// ```
/// use celeriac::protocol::date;
///
/// let at = "2030-01-02T03:04:05.5Z".parse()?;
/// assert_eq!(date::format(at), "2030-01-02T03:04:05.500000+00:00");
/// # Ok::<(), jiff::Error>(())
/// ```
pub fn format(timestamp: Timestamp) -> String {
    let local = TimeZone::UTC.to_datetime(timestamp);
    let (date, time) = (local.date(), local.time());
    let mut text = String::with_capacity("2030-01-02T03:04:05.678901+00:00".len());
    match u32::try_from(date.year()) {
        Ok(year) => digits(&mut text, year, 4),
        Err(_) => text = format!("{:04}", date.year()),
    }
    // Written out, because the formatting machinery costs more than all the rest of a result.
    for (before, number) in [
        ('-', date.month()),
        ('-', date.day()),
        ('T', time.hour()),
        (':', time.minute()),
        (':', time.second()),
    ] {
        text.push(before);
        digits(&mut text, number.unsigned_abs().into(), 2);
    }
    let microsecond = time.subsec_nanosecond() / 1000;
    if microsecond != 0 {
        text.push('.');
        digits(&mut text, microsecond.unsigned_abs(), 6);
    }
    text.push_str("+00:00");
    text
}

/// Appends the last `count` decimal digits of a number.
fn digits(text: &mut String, number: u32, count: u32) {
    for place in (0..count).rev() {
        let digit = number / 10_u32.pow(place) % 10;
        text.push(char::from_digit(digit, 10).unwrap_or('0'));
    }
}

/// Reads a date in one step; a date without an offset is read in `zone`.
pub fn parse(text: &str, zone: &TimeZone) -> Result<Timestamp, Error> {
    Date::parse(text).map(|date| date.timestamp(zone))
}

fn parse_moment(text: &str) -> Option<Moment> {
    /// Nothing that is a date is longer, but for digits of a fraction.
    const LENGTH_MAX: usize = 256;
    if text.len() > LENGTH_MAX {
        return None;
    }
    let shortened = shorten_fraction(text);
    let text = shortened.as_deref().unwrap_or(text);
    if let Ok(timestamp) = text.parse() {
        return Some(Moment::Absolute(timestamp));
    }
    text.parse().ok().map(Moment::Naive)
}

/// Cuts a fraction of a second to the nanoseconds that a timestamp holds.
fn shorten_fraction(text: &str) -> Option<String> {
    const DIGITS_MAX: usize = 9;
    let (whole, fraction) = text.split_once('.')?;
    let digits = fraction.bytes().take_while(u8::is_ascii_digit).count();
    if digits <= DIGITS_MAX {
        return None;
    }
    let (kept, zone) = (fraction.get(..DIGITS_MAX)?, fraction.get(digits..)?);
    Some(format!("{whole}.{kept}{zone}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &str) {
        let zone = TimeZone::fixed(jiff::tz::offset(2));
        let read = parse(text, &zone).map(format);
        assert_eq!(read.as_deref(), Ok(expected), "{text}");
    }

    #[test]
    fn every_form_that_python_writes_is_read() {
        check("2030-01-02T03:04:05.678901+00:00", "2030-01-02T03:04:05.678901+00:00");
        check("2030-01-02T03:04:05Z", "2030-01-02T03:04:05+00:00");
        check("2030-01-02T03:04:05+05:30", "2030-01-01T21:34:05+00:00");
        check("2030-01-02T03:04:05-0030", "2030-01-02T03:34:05+00:00");
        check("2030-01-02T03:04:05.5", "2030-01-02T01:04:05.500000+00:00");
        check("2030-01-02T03:04", "2030-01-02T01:04:00+00:00");
    }

    #[test]
    fn a_space_and_long_fractions_are_read_and_not_misread() {
        check("2030-01-02 03:04:05+00:00", "2030-01-02T03:04:05+00:00");
        check("2030-01-02T03:04:05.1234567891234Z", "2030-01-02T03:04:05.123456+00:00");
        check("2030-01-02T03:04:05.123456789123456", "2030-01-02T01:04:05.123456+00:00");
    }

    #[test]
    fn garbage_is_an_error() {
        let long = "2030-01-02T03:04:05.".to_owned() + &"1".repeat(300);
        for text in ["", "soon", "2030-13-01T00:00:00", "12", "2030-01-02T25:00:00Z", &long] {
            assert!(Date::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_edges_of_time_do_not_overflow() {
        let zone = TimeZone::fixed(jiff::tz::offset(-25));
        for text in ["9999-12-31T23:59:59.999999999", "-009999-01-01T00:00:00"] {
            let date = Date::parse(text).unwrap();
            format(date.timestamp(&zone));
            format(date.timestamp(&TimeZone::fixed(jiff::tz::offset(25))));
        }
    }
}
