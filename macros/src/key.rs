//! Keys of limits: texts with places for arguments and headers, `"bank {account}"`.

use syn::{Error, LitStr, Result};

/// The longest text, in bytes.
const LEN_MAX: usize = 200;

/// Before the name of a header.
const HEADER: &str = "header:";

/// A key that was read; whether there are such parameters is not known here.
pub(crate) struct Key {
    pub(crate) text: LitStr,
    pub(crate) parts: Vec<Part>,
}

/// A part of it.
#[derive(Debug, PartialEq)]
pub(crate) enum Part {
    Text(String),
    /// The argument of a parameter.
    Param(String),
    Header(String),
}

impl Key {
    pub(crate) fn parse(text: LitStr) -> Result<Self> {
        match parts(&text.value()) {
            Ok(parts) => Ok(Self { text, parts }),
            Err(problem) => Err(Error::new(text.span(), problem)),
        }
    }

    /// Names the parameter that it asks for and that is not among `params`.
    pub(crate) fn check(&self, params: &[String]) -> Result<()> {
        for part in &self.parts {
            if let Part::Param(name) = part
                && !params.contains(name)
            {
                let there_are = match params {
                    [] => "there are none on the wire".to_owned(),
                    params => format!("there are: {}", params.join(", ")),
                };
                let text =
                    format!("no parameter `{name}`: {there_are}; a header is `{{{HEADER}{name}}}`");
                return Err(Error::new(self.text.span(), text));
            }
        }
        Ok(())
    }
}

fn parts(text: &str) -> std::result::Result<Vec<Part>, String> {
    const LONELY: &str = "a brace without its other one: write `{{` or `}}` for the sign itself";
    if text.len() > LEN_MAX {
        return Err(format!("a key has at most {LEN_MAX} bytes"));
    }
    let (mut parts, mut literal) = (Vec::new(), String::new());
    let mut rest = text;
    while let Some(at) = rest.find(['{', '}']) {
        let (before, from) = rest.split_at(at);
        literal.push_str(before);
        if let Some(after) = from.strip_prefix("{{").or_else(|| from.strip_prefix("}}")) {
            literal.extend(from.chars().next());
            rest = after;
            continue;
        }
        let place = from.strip_prefix('{').and_then(|from| from.split_once('}'));
        let (name, after) = place.ok_or_else(|| LONELY.to_owned())?;
        if !literal.is_empty() {
            parts.push(Part::Text(std::mem::take(&mut literal)));
        }
        parts.push(part(name)?);
        rest = after;
    }
    literal.push_str(rest);
    if !literal.is_empty() {
        parts.push(Part::Text(literal));
    }
    if parts.windows(3).any(|parts| matches!(parts, [_, Part::Text(text), _] if is_escape(text))) {
        return Err(ESCAPES.to_owned());
    }
    Ok(parts)
}

/// In a value, the first sign of the text behind it is escaped; `%` would be by what begins alike.
const ESCAPES: &str =
    "a text between two places must not begin with `%`, which escapes signs in their values";

fn is_escape(text: &str) -> bool {
    text.starts_with('%')
}

fn part(name: &str) -> std::result::Result<Part, String> {
    let wrong = || {
        let examples = "name a parameter, `{account}`, or a header, `{header:tenant}`";
        format!("`{{{name}}}`: {examples}")
    };
    if let Some(header) = name.strip_prefix(HEADER) {
        let is_wrong = |letter: char| letter == '{' || letter.is_whitespace();
        let is_name = !header.is_empty() && !header.contains(is_wrong);
        return is_name.then(|| Part::Header(header.to_owned())).ok_or_else(wrong);
    }
    let is_name = |letter: char| letter.is_alphanumeric() || letter == '_';
    match name.starts_with(|first: char| !first.is_numeric()) && name.chars().all(is_name) {
        true => Ok(Part::Param(name.to_owned())),
        false => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Part {
        Part::Text(text.to_owned())
    }

    #[test]
    fn a_key_is_text_with_places() {
        let param = |name: &str| Part::Param(name.to_owned());
        assert_eq!(parts("bank"), Ok(vec![text("bank")]));
        assert_eq!(parts("{a}{b_2}"), Ok(vec![param("a"), param("b_2")]));
        let header = Part::Header("x-tenant".to_owned());
        let expected = vec![text("bank "), param("account"), text("/"), header, text("!")];
        assert_eq!(parts("bank {account}/{header:x-tenant}!"), Ok(expected));
        assert_eq!(parts("{{a}} {{"), Ok(vec![text("{a} {")]));
    }

    #[test]
    fn what_follows_a_value_cannot_be_taken_for_a_part_of_it() {
        for wrong in ["{a}%25{b}", "{a}%{b}", "x {a}% {header:b}"] {
            assert!(parts(wrong).unwrap_err().contains("must not begin with `%`"), "{wrong}");
        }
        for fine in ["%{a}", "{a}%", "{a} %25{b}", "50% {a}/{b}%"] {
            assert!(parts(fine).is_ok(), "{fine}");
        }
    }

    #[test]
    fn what_is_wrong_is_told() {
        for wrong in ["{", "}", "a{b", "a}b", "{a"] {
            assert!(parts(wrong).unwrap_err().starts_with("a brace without"), "{wrong}");
        }
        for wrong in ["{}", "{a.b}", "{1}", "{header:}", "{header:a b}", "{a b}", "{headers:x}"] {
            assert!(parts(wrong).unwrap_err().contains("name a parameter"), "{wrong}");
        }
        assert!(parts(&"x".repeat(201)).unwrap_err().contains("at most 200 bytes"));
    }
}
