//! Why a Rust value and a dynamic value did not fit, and where inside them.
//!
//! Kinds are named in Python's words, because the text reaches Python callers as a `TypeError`.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Expected, Unexpected};

/// The longest excerpt of an offending text that an error quotes, in characters.
const QUOTE_MAX: usize = 60;

/// A failed conversion between a Rust type and a [`Value`](super::Value).
///
/// ```
/// let prices = celeriac::protocol::to_value(&[("a", "x")]).unwrap();
/// let error = celeriac::protocol::from_value::<Vec<(String, i64)>>(prices).unwrap_err();
/// assert_eq!(error.to_string(), "[0][1]: expected i64, got str");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValueError(Box<Inner>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Inner {
    /// Innermost step first: steps are added while the error travels outwards.
    path: Vec<Step>,
    problem: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Key(Cow<'static, str>),
    Index(usize),
}

impl ValueError {
    pub(crate) fn new(problem: impl Into<String>) -> Self {
        Self(Box::new(Inner { path: Vec::new(), problem: problem.into() }))
    }

    /// Adds the map key or field in which the error happened.
    pub(crate) fn in_key(mut self, key: impl Into<Cow<'static, str>>) -> Self {
        self.0.path.push(Step::Key(key.into()));
        self
    }

    /// Adds the element in which the error happened.
    pub(crate) fn in_item(mut self, at: usize) -> Self {
        self.0.path.push(Step::Index(at));
        self
    }

    /// What does not fit, without its place: `expected i64, got str`.
    pub fn problem(&self) -> &str {
        &self.0.problem
    }

    /// Where inside the value it is: `items[3].price`; empty for the value itself.
    pub fn path(&self) -> String {
        let mut path = String::new();
        for step in self.0.path.iter().rev() {
            match step {
                Step::Key(key) => {
                    if !path.is_empty() {
                        path.push('.');
                    }
                    path.push_str(key);
                }
                Step::Index(at) => path.push_str(&format!("[{at}]")),
            }
        }
        path
    }
}

impl fmt::Display for ValueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.0.path.is_empty() {
            write!(f, "{}: ", self.path())?;
        }
        f.write_str(&self.0.problem)
    }
}

impl std::error::Error for ValueError {}

impl serde::ser::Error for ValueError {
    fn custom<T: fmt::Display>(problem: T) -> Self {
        Self::new(problem.to_string())
    }
}

impl serde::de::Error for ValueError {
    fn custom<T: fmt::Display>(problem: T) -> Self {
        Self::new(problem.to_string())
    }

    fn invalid_type(got: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::new(format!("expected {expected}, got {}", kind(got)))
    }

    fn invalid_value(got: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::new(format!("expected {expected}, got {}", quote(got)))
    }

    fn invalid_length(length: usize, expected: &dyn Expected) -> Self {
        Self::new(format!("expected {expected}, got {length} elements"))
    }
}

/// Python's word for the kind of a value, as [`Value::kind`](super::Value::kind).
fn kind(got: Unexpected<'_>) -> &str {
    match got {
        Unexpected::Bool(_) => "bool",
        Unexpected::Unsigned(_) | Unexpected::Signed(_) => "int",
        Unexpected::Float(_) => "float",
        Unexpected::Char(_) | Unexpected::Str(_) => "str",
        Unexpected::Bytes(_) => "bytes",
        Unexpected::Unit | Unexpected::Option => "None",
        Unexpected::Seq => "list",
        Unexpected::Map => "dict",
        Unexpected::NewtypeStruct => "a newtype struct",
        Unexpected::Enum | Unexpected::UnitVariant => "an enum",
        Unexpected::NewtypeVariant => "an enum variant with a value",
        Unexpected::TupleVariant => "an enum variant with a tuple",
        Unexpected::StructVariant => "an enum variant with fields",
        Unexpected::Other(other) => other,
    }
}

/// The value itself where it is short, else its kind.
fn quote(got: Unexpected<'_>) -> String {
    match got {
        Unexpected::Bool(flag) => flag.to_string(),
        Unexpected::Unsigned(number) => number.to_string(),
        Unexpected::Signed(number) => number.to_string(),
        Unexpected::Float(number) => format!("{number:?}"),
        Unexpected::Char(letter) => format!("'{letter}'"),
        Unexpected::Str(text) if text.chars().count() > QUOTE_MAX => {
            format!("'{}…'", text.chars().take(QUOTE_MAX).collect::<String>())
        }
        Unexpected::Str(text) => format!("'{text}'"),
        other => kind(other).to_owned(),
    }
}
