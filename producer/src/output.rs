//! What is shown: lines for people or JSON objects for programs, on standard output.

use std::io::{self, Write};

use celeriac::protocol::{Map, Value, json};

/// How results are shown.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Output {
    People,
    Programs,
}

impl Output {
    pub(crate) fn new(json: bool) -> Self {
        if json { Self::Programs } else { Self::People }
    }

    /// Shows `text` to people, or `object` to programs.
    pub(crate) fn show(self, text: impl FnOnce() -> String, object: impl FnOnce() -> Map) {
        let line = match self {
            Self::People => text(),
            Self::Programs => to_json(&Value::Map(object())),
        };
        // A reader that went away wants no more; what was sent is sent.
        let _ = writeln!(io::stdout().lock(), "{line}");
    }

    /// Shows `text` to people only.
    pub(crate) fn show_to_people(self, text: impl FnOnce() -> String) {
        if matches!(self, Self::People) {
            self.show(text, Map::new);
        }
    }

    /// Shows `object` to programs only.
    pub(crate) fn show_to_programs(self, object: impl FnOnce() -> Map) {
        if matches!(self, Self::Programs) {
            self.show(String::new, object);
        }
    }
}

/// JSON for programs: ASCII only.
pub(crate) fn to_json(value: &Value) -> String {
    let mut out = Vec::new();
    match json::encode(value, &mut out) {
        Ok(()) => String::from_utf8_lossy(&out).into_owned(),
        Err(error) => format!("\"{error}\""),
    }
}

/// JSON for people: letters as they are.
pub(crate) fn for_people(value: &Value) -> String {
    unescape(&to_json(value))
}

/// Puts characters in place of `\uXXXX`, except where JSON needs the escape.
fn unescape(json: &str) -> String {
    let mut units: Vec<u16> = Vec::new();
    let mut text = String::with_capacity(json.len());
    let mut rest = json;
    while let Some(at) = rest.find('\\') {
        let (before, escape) = rest.split_at(at);
        let unit = escape
            .strip_prefix("\\u")
            .and_then(|hex| hex.get(..4))
            .and_then(|hex| u16::from_str_radix(hex, 16).ok())
            .filter(|unit| *unit >= 0xa0);
        if !before.is_empty() || unit.is_none() {
            flush(&mut units, &mut text);
        }
        text.push_str(before);
        let taken = match unit {
            Some(unit) => {
                units.push(unit);
                6
            }
            None => {
                let taken = escape.char_indices().nth(2).map_or(escape.len(), |(end, _)| end);
                text.push_str(&escape[..taken]);
                taken
            }
        };
        rest = &escape[taken..];
    }
    flush(&mut units, &mut text);
    text + rest
}

fn flush(units: &mut Vec<u16>, text: &mut String) {
    text.extend(char::decode_utf16(units.drain(..)).map(|it| it.unwrap_or('\u{fffd}')));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_see_letters_and_programs_see_ascii() {
        let value = Value::from("café \u{1f980} \\u00e9 \u{7} \"");
        assert_eq!(to_json(&value), r#""caf\u00e9 \ud83e\udd80 \\u00e9 \u0007 \"""#);
        assert_eq!(for_people(&value), "\"café \u{1f980} \\\\u00e9 \\u0007 \\\"\"");
    }
}
