//! Which workers a pattern means.
//!
//! Both languages end as one regular expression of bounded size. **Invariant:** compiling and
//! matching take bounded time and memory, whatever the pattern is.

use std::fmt::Write;
use std::str::FromStr;

use regex::{Regex, RegexBuilder};

use crate::protocol::Error;
use crate::protocol::error::excerpt;

/// Bytes of a pattern.
const PATTERN_MAX: usize = 1024;
/// Bytes of the compiled pattern; what is repeated too often exceeds it.
const COMPILED_MAX: usize = 1 << 20;
/// Parentheses inside one another.
const NESTING_MAX: u32 = 32;

/// The language of a pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Matcher {
    /// A shell pattern for the whole name: `worker?@*`, `w[1-3]@host`.
    Glob,
    /// A regular expression for the beginning of the name.
    Pcre,
}

impl Matcher {
    /// Celery's name of it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Glob => "glob",
            Self::Pcre => "pcre",
        }
    }

    /// Whether `pattern` matches `hostname`.
    ///
    /// # Errors
    /// When the pattern is malformed, longer than 1024 bytes, or too large when compiled.
    pub fn matches(self, pattern: &str, hostname: &str) -> Result<bool, Error> {
        if pattern.len() > PATTERN_MAX {
            return Err(Error::TooLong {
                field: "pattern",
                length: pattern.len(),
                max: PATTERN_MAX,
            });
        }
        let anchored = match self {
            Self::Glob => from_glob(pattern),
            Self::Pcre => format!("^(?:{pattern})"),
        };
        Ok(compile(&anchored, pattern)?.is_match(hostname))
    }
}

impl FromStr for Matcher {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        match name {
            "glob" => Ok(Self::Glob),
            "pcre" => Ok(Self::Pcre),
            other => Err(Error::malformed("a matcher: glob or pcre", other)),
        }
    }
}

fn compile(expression: &str, pattern: &str) -> Result<Regex, Error> {
    RegexBuilder::new(expression)
        .size_limit(COMPILED_MAX)
        .nest_limit(NESTING_MAX)
        .build()
        .map_err(|_| Error::Malformed { expected: "a pattern", text: excerpt(pattern) })
}

/// The shell pattern as a regular expression, by the rules of Python's `fnmatch`: `*`, `?`,
/// `[set]`, `[!set]`; a bracket that is never closed stands for itself.
fn from_glob(pattern: &str) -> String {
    let mut expression = String::from("(?s)^");
    let mut rest = pattern.chars();
    while let Some(letter) = rest.next() {
        match letter {
            // Several in a row mean the same as one.
            '*' if expression.ends_with(".*") => {}
            '*' => expression.push_str(".*"),
            '?' => expression.push('.'),
            '[' => match set(rest.as_str()) {
                Some((set, length)) => {
                    expression.push_str(&set);
                    rest = rest.as_str().get(length..).unwrap_or_default().chars();
                }
                None => expression.push_str("\\["),
            },
            other => push_literal(&mut expression, other),
        }
    }
    expression.push('$');
    expression
}

/// The set that begins after the bracket, and its length with the closing bracket.
fn set(rest: &str) -> Option<(String, usize)> {
    let negated = rest.starts_with('!');
    let start = usize::from(negated);
    // A closing bracket at the first place is a member.
    let first = rest.get(start..)?.chars().next()?;
    let end = start + first.len_utf8() + rest.get(start + first.len_utf8()..)?.find(']')?;
    let letters: Vec<char> = rest.get(start..end)?.chars().collect();
    let mut members = String::new();
    let mut left = letters.as_slice();
    loop {
        match *left {
            [from, '-', to, ..] => {
                // A range that is the wrong way round has no members.
                if from <= to {
                    push_literal(&mut members, from);
                    members.push('-');
                    push_literal(&mut members, to);
                }
                left = left.get(3..).unwrap_or_default();
            }
            [letter, ..] => {
                push_literal(&mut members, letter);
                left = left.get(1..).unwrap_or_default();
            }
            [] => break,
        }
    }
    let set = match (negated, members.is_empty()) {
        (true, true) => ".".to_owned(),
        (false, true) => "[^\\s\\S]".to_owned(),
        (true, false) => format!("[^{members}]"),
        (false, false) => format!("[{members}]"),
    };
    Some((set, end + 1))
}

fn push_literal(expression: &mut String, letter: char) {
    if letter.is_ascii_alphanumeric() || letter == '@' {
        expression.push(letter);
    } else {
        // Writing to a String cannot fail.
        let _ = write!(expression, "\\x{{{:x}}}", u32::from(letter));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(matcher: Matcher, pattern: &str, hostname: &str) -> bool {
        matcher.matches(pattern, hostname).unwrap()
    }

    #[test]
    fn a_shell_pattern_means_the_whole_name() {
        for (pattern, hostname, expected) in [
            ("w1@*", "w1@worker", true),
            ("w1", "w1@worker", false),
            ("*@worker", "w1@worker", true),
            ("w?@worker", "w1@worker", true),
            ("w[12]@*", "w3@worker", false),
            ("w[1-3]@*", "w3@worker", true),
            ("w[!1]@*", "w1@worker", false),
            ("w[!1]@*", "w2@worker", true),
            ("w[@h", "w[@h", true),
            ("a]b", "a]b", true),
            ("[]]", "]", true),
            ("w.@h", "w1@h", false),
            ("w[a--b]@h", "wb@h", true),
            ("w[a--b]@h", "wa@h", false),
            ("w[%--]@h", "w&@h", true),
            ("w[-x]@h", "w-@h", true),
            ("w[x-]@h", "w-@h", true),
            ("w[3-1]@h", "w2@h", false),
            ("w[!3-1]@h", "w2@h", true),
            ("w[a&&b]@h", "w&@h", true),
            ("***", "anything", true),
            ("", "x", false),
        ] {
            assert_eq!(matches(Matcher::Glob, pattern, hostname), expected, "{pattern}");
        }
    }

    #[test]
    fn a_regular_expression_means_the_beginning() {
        for (pattern, hostname, expected) in [
            ("w[2]@.*", "w2@worker", true),
            ("w", "w2@worker", true),
            ("worker", "w2@worker", false),
            ("w1|w2", "w2@worker", true),
            (r"\w+@\w+$", "w2@worker", true),
        ] {
            assert_eq!(matches(Matcher::Pcre, pattern, hostname), expected, "{pattern}");
        }
    }

    #[test]
    fn a_hostile_pattern_is_refused_or_harmless() {
        let host = "a".repeat(255);
        assert!(!matches(Matcher::Pcre, "(a*)*b", &host));
        assert!(!matches(Matcher::Glob, &format!("{}b", "*a".repeat(500)), &host));
        let long = "a".repeat(PATTERN_MAX + 1);
        let nested = format!("{}a{}", "(".repeat(400), ")".repeat(400));
        for pattern in ["(", "a{9999999}", "((a{99}){99}){99}", "(?=a)", &*long, &*nested] {
            assert!(Matcher::Pcre.matches(pattern, &host).is_err(), "{pattern}");
        }
        assert!(!matches(Matcher::Glob, "[z-a]", "b"), "a set without members");
        assert!(Matcher::Glob.matches(&long, &host).is_err());
        assert!(Matcher::from_str("regex").is_err());
    }
}
