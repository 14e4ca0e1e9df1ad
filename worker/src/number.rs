//! Numbers as Python callers send them: whole ones stay whole, and a float makes the rest floats.

use std::fmt;

use celeriac::TaskError;
use serde::de::{Deserialize, Deserializer, Error, Visitor};
use serde::ser::{Serialize, Serializer};

/// An integer or a float.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Number {
    Int(i64),
    Float(f64),
}

impl Number {
    pub(crate) fn add(self, other: Self) -> Result<Self, TaskError> {
        self.combine(other, i64::checked_add, |x, y| x + y)
    }

    pub(crate) fn multiply(self, other: Self) -> Result<Self, TaskError> {
        self.combine(other, i64::checked_mul, |x, y| x * y)
    }

    /// As in Python, a negative exponent of an integer makes a float.
    pub(crate) fn power(self, exponent: Self) -> Result<Self, TaskError> {
        match (self, exponent) {
            (Self::Int(0), Self::Int(..0)) => {
                Err(arithmetic("ZeroDivisionError", "0.0 cannot be raised to a negative power"))
            }
            (Self::Int(base), Self::Int(exponent @ 0..)) => u32::try_from(exponent)
                .ok()
                .and_then(|exponent| base.checked_pow(exponent))
                .or(match base {
                    0 | 1 => Some(base),
                    -1 => Some(if exponent % 2 == 0 { 1 } else { -1 }),
                    _ => None,
                })
                .map(Self::Int)
                .ok_or_else(overflow),
            (base, exponent) => Ok(Self::Float(base.to_f64().powf(exponent.to_f64()))),
        }
    }

    pub(crate) fn to_f64(self) -> f64 {
        match self {
            Self::Int(number) => number as f64,
            Self::Float(number) => number,
        }
    }

    fn combine(
        self,
        other: Self,
        ints: impl FnOnce(i64, i64) -> Option<i64>,
        floats: impl FnOnce(f64, f64) -> f64,
    ) -> Result<Self, TaskError> {
        match (self, other) {
            (Self::Int(x), Self::Int(y)) => ints(x, y).map(Self::Int).ok_or_else(overflow),
            (x, y) => Ok(Self::Float(floats(x.to_f64(), y.to_f64()))),
        }
    }
}

fn overflow() -> TaskError {
    arithmetic("OverflowError", "the result does not fit 64 bits")
}

fn arithmetic(class: &str, message: &str) -> TaskError {
    TaskError::python(class, "builtins", [message])
}

impl Serialize for Number {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Int(number) => serializer.serialize_i64(*number),
            Self::Float(number) => serializer.serialize_f64(*number),
        }
    }
}

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NumberVisitor)
    }
}

struct NumberVisitor;

impl Visitor<'_> for NumberVisitor {
    type Value = Number;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number")
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Number, E> {
        Ok(Number::Int(number))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Number, E> {
        i64::try_from(number).map(Number::Int).map_err(|_| too_long())
    }

    fn visit_i128<E: Error>(self, _: i128) -> Result<Number, E> {
        Err(too_long())
    }

    fn visit_u128<E: Error>(self, _: u128) -> Result<Number, E> {
        Err(too_long())
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Number, E> {
        Ok(Number::Float(number))
    }
}

fn too_long<E: Error>() -> E {
    E::custom("the integer does not fit 64 bits")
}

#[cfg(test)]
mod tests {
    use super::*;
    use Number::{Float, Int};

    #[test]
    fn whole_numbers_stay_whole_until_a_float_joins() {
        assert_eq!(Int(2).add(Int(3)).unwrap(), Int(5));
        assert_eq!(Int(2).add(Float(0.5)).unwrap(), Float(2.5));
        assert_eq!(Float(1.5).multiply(Int(2)).unwrap(), Float(3.0));
        assert_eq!(Int(2).power(Int(10)).unwrap(), Int(1024));
        assert_eq!(Int(2).power(Int(-1)).unwrap(), Float(0.5));
        assert_eq!(Int(-1).power(Int(i64::MAX)).unwrap(), Int(-1));
    }

    #[test]
    fn what_does_not_fit_is_an_error_and_never_wraps() {
        assert!(Int(i64::MAX).add(Int(1)).is_err());
        assert!(Int(i64::MAX).multiply(Int(2)).is_err());
        assert!(Int(2).power(Int(64)).is_err());
        assert!(Int(0).power(Int(-1)).is_err());
    }
}
