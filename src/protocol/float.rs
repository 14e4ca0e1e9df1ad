//! Floats as Python's `repr` writes them, in JSON and in the display texts of headers.

use std::fmt;

/// Displays a float as Python does: `1.0`, `1e+16`, `1.5e-07`, `inf`, `nan`.
#[derive(Debug)]
pub(super) struct Python(pub(super) f64);

impl fmt::Display for Python {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = self.0;
        if number.is_nan() {
            return f.write_str("nan");
        }
        let magnitude = number.abs();
        // Python's bounds for the plain form, so that both print the same digits.
        if magnitude == 0.0 || magnitude.is_infinite() || (1e-4..1e16).contains(&magnitude) {
            return write!(f, "{number:?}");
        }
        let shortest = format!("{number:e}");
        let (digits, exponent) = shortest.split_once('e').unwrap_or((&shortest, "0"));
        match exponent.strip_prefix('-') {
            Some(negative) => write!(f, "{digits}e-{negative:0>2}"),
            None => write!(f, "{digits}e+{exponent:0>2}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_are_written_as_python_writes_them() {
        let rows = [
            (0.0, "0.0"),
            (-0.0, "-0.0"),
            (1.0, "1.0"),
            (0.1, "0.1"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (1.5e-7, "1.5e-07"),
            (123_456_789_012_345.0, "123456789012345.0"),
            (1e15, "1000000000000000.0"),
            (1e16, "1e+16"),
            (-1.25e22, "-1.25e+22"),
            (1.7976931348623157e308, "1.7976931348623157e+308"),
            (5e-324, "5e-324"),
            (f64::INFINITY, "inf"),
            (f64::NEG_INFINITY, "-inf"),
            (f64::NAN, "nan"),
        ];
        for (number, expected) in rows {
            assert_eq!(Python(number).to_string(), expected);
        }
    }
}
