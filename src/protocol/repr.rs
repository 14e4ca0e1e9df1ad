//! Values as Python's `repr` shows them, for people: in `argsrepr`, `kwargsrepr` and logs.
//!
//! ```text
//! (2, 'it\'s', b'\xff', 1e+16, None)      {'x': 1, 'when': [True, False]}
//! ```
//!
//! **Invariant:** the cost is bounded by [`LENGTH_MAX`], not by the size of the value.

use std::fmt::{self, Write};

use super::{Exception, Map, Value, float};

/// The longest text that is produced, in characters, including the dots that show a cut.
pub const LENGTH_MAX: usize = 1024;

/// The arguments of a call as a tuple.
///
/// ```
/// use celeriac::protocol::repr;
///
/// assert_eq!(repr::args(&["a".into()]), "('a',)");
/// assert_eq!(repr::args(&[2.into(), 3.into()]), "(2, 3)");
/// ```
pub fn args(args: &[Value]) -> String {
    cut(|out| {
        out.write_char('(')?;
        items(args, out)?;
        out.write_str(if args.len() == 1 { ",)" } else { ")" })
    })
}

/// The keyword arguments of a call as a dict.
pub fn kwargs(kwargs: &Map) -> String {
    cut(|out| entries(kwargs, out))
}

/// Any value.
pub fn value(value: &Value) -> String {
    cut(|out| write(value, out))
}

/// An exception as Python shows it: `ValueError('kaboom')`.
pub fn exception(exception: &Exception) -> String {
    cut(|out| {
        out.write_str(&exception.exc_type)?;
        out.write_char('(')?;
        items(&exception.exc_message, out)?;
        out.write_char(')')
    })
}

/// Collects what `show` writes, and stops it when there is enough.
fn cut(show: impl FnOnce(&mut Out) -> fmt::Result) -> String {
    const DOTS: &str = "...";
    let mut out = Out { text: String::new(), left: LENGTH_MAX };
    // The only way to fail is to be full.
    if show(&mut out).is_ok() {
        return out.text;
    }
    let kept = LENGTH_MAX - DOTS.len();
    let end = out.text.char_indices().nth(kept).map_or(out.text.len(), |(end, _)| end);
    out.text.truncate(end);
    out.text + DOTS
}

struct Out {
    text: String,
    /// Characters until the limit.
    left: usize,
}

impl Write for Out {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        // As many bytes fit as characters are left, or more.
        if text.len() <= self.left {
            self.left -= text.chars().count();
            self.text.push_str(text);
            return Ok(());
        }
        text.chars().try_for_each(|character| self.write_char(character))
    }

    fn write_char(&mut self, character: char) -> fmt::Result {
        self.left = self.left.checked_sub(1).ok_or(fmt::Error)?;
        self.text.push(character);
        Ok(())
    }
}

fn write(value: &Value, out: &mut Out) -> fmt::Result {
    match value {
        Value::Null => out.write_str("None"),
        Value::Bool(true) => out.write_str("True"),
        Value::Bool(false) => out.write_str("False"),
        Value::Int(number) => write!(out, "{number}"),
        Value::UInt(number) => write!(out, "{number}"),
        Value::BigInt(digits) => out.write_str(digits),
        Value::Float(number) => write!(out, "{}", float::Python(*number)),
        Value::String(text) => quoted(text, out),
        Value::Bytes(content) => bytes(content, out),
        Value::Array(list) => {
            out.write_char('[')?;
            items(list, out)?;
            out.write_char(']')
        }
        Value::Map(map) => entries(map, out),
        Value::Tagged(_, text) => {
            write!(out, "{}(", value.kind())?;
            quoted(text, out)?;
            out.write_char(')')
        }
    }
}

fn items(items: &[Value], out: &mut Out) -> fmt::Result {
    for (at, item) in items.iter().enumerate() {
        if at > 0 {
            out.write_str(", ")?;
        }
        write(item, out)?;
    }
    Ok(())
}

fn entries(map: &Map, out: &mut Out) -> fmt::Result {
    out.write_char('{')?;
    for (at, (key, value)) in map.iter().enumerate() {
        if at > 0 {
            out.write_str(", ")?;
        }
        quoted(key, out)?;
        out.write_str(": ")?;
        write(value, out)?;
    }
    out.write_char('}')
}

/// Text in single quotes, or in double ones if that saves the escaping.
fn quoted(text: &str, out: &mut Out) -> fmt::Result {
    // Enough of a long text to fill the limit decides, so that the rest is never looked at.
    let mut seen = text.chars().take(LENGTH_MAX);
    let quote = match seen.clone().any(|it| it == '\'') && !seen.any(|it| it == '"') {
        true => '"',
        false => '\'',
    };
    out.write_char(quote)?;
    for character in text.chars() {
        match character {
            '\\' => out.write_str("\\\\")?,
            '\n' => out.write_str("\\n")?,
            '\r' => out.write_str("\\r")?,
            '\t' => out.write_str("\\t")?,
            _ if character == quote => write!(out, "\\{character}")?,
            '\0'..='\x1f' | '\x7f'..='\u{a0}' | '\u{ad}' => {
                write!(out, "\\x{:02x}", u32::from(character))?;
            }
            _ => out.write_char(character)?,
        }
    }
    out.write_char(quote)
}

fn bytes(content: &[u8], out: &mut Out) -> fmt::Result {
    let seen = content.get(..LENGTH_MAX).unwrap_or(content);
    let quote = if seen.contains(&b'\'') && !seen.contains(&b'"') { '"' } else { '\'' };
    out.write_char('b')?;
    out.write_char(quote)?;
    for byte in content {
        match byte {
            b'\\' => out.write_str("\\\\")?,
            b'\n' => out.write_str("\\n")?,
            b'\r' => out.write_str("\\r")?,
            b'\t' => out.write_str("\\t")?,
            b' '..=b'~' if char::from(*byte) == quote => write!(out, "\\{quote}")?,
            b' '..=b'~' => out.write_char(char::from(*byte))?,
            _ => write!(out, "\\x{byte:02x}")?,
        }
    }
    out.write_char(quote)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(shown: impl Into<Value>, expected: &str) {
        assert_eq!(value(&shown.into()), expected);
    }

    #[test]
    fn values_are_shown_as_python_shows_them() {
        check(Value::Null, "None");
        check(true, "True");
        check(-5, "-5");
        check(1.0, "1.0");
        check("plain", "'plain'");
        check("it's", "\"it's\"");
        check("it's \"so\"", "'it\\'s \"so\"'");
        check("a\\b\n\t\u{1}é\u{7f}", "'a\\\\b\\n\\t\\x01é\\x7f'");
        check(b"a'\xff\n".to_vec(), "b\"a'\\xff\\n\"");
        check(vec![Value::Int(1), Value::Null], "[1, None]");
        check(Map::from_iter([("x", 1), ("y", 2)]), "{'x': 1, 'y': 2}");
    }

    #[test]
    fn arguments_are_a_tuple() {
        assert_eq!(args(&[]), "()");
        assert_eq!(args(&[1.into()]), "(1,)");
        assert_eq!(args(&[1.into(), 2.into()]), "(1, 2)");
        assert_eq!(kwargs(&Map::new()), "{}");
    }

    #[test]
    fn long_values_are_cut_at_the_limit() {
        let exact = value(&Value::from("é".repeat(LENGTH_MAX - 2)));
        assert_eq!(exact.chars().count(), LENGTH_MAX);
        assert!(exact.ends_with("é'"));
        let long = value(&Value::from("é".repeat(LENGTH_MAX - 1)));
        assert_eq!(long.chars().count(), LENGTH_MAX);
        assert!(long.ends_with("é..."));
        let many = args(&vec![Value::Int(7); 100_000]);
        assert_eq!(many.chars().count(), LENGTH_MAX);
    }
}
