//! Workflows in one line: `add(2, 2) | multiply(3)`, `group(square(2), square(3))`.
//!
//! ```text
//! workflow  = step { "|" step }
//! step      = name [ "(" arguments ")" ] | "(" workflow ")"
//! arguments = JSON or name=JSON, with commas
//! ```
//!
//! The words of Celery's canvas take workflows instead: `chain(a, b)`, `group(a, b)`,
//! `chord(a, b, body)`, and `map(task, [..])`, `starmap(task, [..])`, `chunks(task, [..], n)`.
//! A name may end in `.s` or, for a call that ignores the result before it, in `.si`.
//!
//! Only reads; what the steps mean together is the library's business.

use celeriac::protocol::{Limits, Signature, Value, json};

use super::words;

/// How deep parentheses may be nested.
const DEPTH_MAX: usize = 200;

/// Reads one workflow; the error is one sentence.
pub(crate) fn parse(text: &str) -> Result<Signature, String> {
    let mut reader = Reader { text, at: 0, depth: 0 };
    let workflow = reader.workflow().and_then(|workflow| {
        reader.skip_space();
        if reader.at == text.len() { Ok(workflow) } else { Err(reader.expected("the end")) }
    });
    workflow.map_err(|reason| format!("'{}' is not a workflow: {reason}", words::shown(text)))
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
}

/// One argument of a call.
enum Argument {
    Positional(Value),
    Keyword(String, Value),
}

impl<'a> Reader<'a> {
    fn workflow(&mut self) -> Result<Signature, String> {
        let mut steps = vec![self.step()?];
        while self.take('|') {
            steps.push(self.step()?);
        }
        Ok(match steps.len() {
            1 => steps.remove(0),
            _ => words::chain(steps),
        })
    }

    fn step(&mut self) -> Result<Signature, String> {
        if self.take('(') {
            let inner = self.nested(Self::workflow)?;
            return self.close().map(|()| inner);
        }
        let name = self.name()?;
        match name {
            "chain" | "group" | "chord" => self.composite(name),
            "map" | "starmap" | "chunks" => self.over_items(name),
            _ => self.call(name),
        }
    }

    fn call(&mut self, name: &str) -> Result<Signature, String> {
        let (task, immutable) = match (name.strip_suffix(".si"), name.strip_suffix(".s")) {
            (Some(task), _) => (task, true),
            (None, Some(task)) => (task, false),
            (None, None) => (name, false),
        };
        let mut call = Signature { immutable, ..Signature::new(task) };
        if !self.take('(') {
            return Ok(call);
        }
        while !self.take(')') {
            match self.argument()? {
                Argument::Positional(_) if !call.kwargs.is_empty() => {
                    return Err(self.expected("name=value after the first name=value"));
                }
                Argument::Positional(value) => call.args.push(value),
                Argument::Keyword(name, value) => call.kwargs.insert(name, value),
            }
            self.comma_or_close()?;
        }
        Ok(call)
    }

    fn composite(&mut self, word: &str) -> Result<Signature, String> {
        self.open(word)?;
        let mut members = Vec::new();
        while !self.take(')') {
            members.push(self.nested(Self::workflow)?);
            self.comma_or_close()?;
        }
        match word {
            "chain" if members.is_empty() => Err("chain() has no steps".to_owned()),
            "chain" => Ok(words::chain(members)),
            "group" => Ok(words::group(members)),
            _ => match members.pop() {
                Some(body) => Ok(words::chord(members, body)),
                None => Err("chord() has no body".to_owned()),
            },
        }
    }

    /// `map(task, items)` and its like.
    fn over_items(&mut self, word: &str) -> Result<Signature, String> {
        self.open(word)?;
        let task = self.nested(Self::step)?;
        self.comma()?;
        let Value::Array(items) = self.json()? else {
            return Err(format!("{word} takes a task and an array"));
        };
        let signature = if word == "chunks" {
            self.comma()?;
            match self.json()?.as_i64() {
                Some(size) if size > 0 => words::chunks(task, items, size),
                _ => return Err("chunks takes a task, an array, and how many go together".into()),
            }
        } else {
            words::over(word, task, items)
        };
        self.close().map(|()| signature)
    }

    fn argument(&mut self) -> Result<Argument, String> {
        self.skip_space();
        let before = self.at;
        if let Ok(name) = self.name()
            && self.take('=')
        {
            return Ok(Argument::Keyword(name.to_owned(), self.json()?));
        }
        self.at = before;
        self.json().map(Argument::Positional)
    }

    /// The JSON value that begins here.
    fn json(&mut self) -> Result<Value, String> {
        self.skip_space();
        let rest = self.rest();
        let length = json_length(rest);
        let (value, _) = rest.split_at(length);
        if value.trim().is_empty() {
            return Err(self.expected("a JSON value"));
        }
        let read = json::decode(value.as_bytes(), &Limits::default()).map_err(|error| {
            let hint = if value.starts_with('\'') { "; text stands in double quotes" } else { "" };
            let error = celeriac::cli::sentence(&error);
            format!("{} is not JSON: {error}{hint}", words::shown(value.trim()))
        })?;
        self.at += length;
        Ok(read)
    }

    fn name(&mut self) -> Result<&'a str, String> {
        self.skip_space();
        let rest = self.rest();
        let is_part = |c: char| c.is_alphanumeric() || matches!(c, '_' | '.' | ':' | '-');
        let length = rest.find(|c| !is_part(c)).unwrap_or(rest.len());
        let (name, _) = rest.split_at(length);
        if name.starts_with(|c: char| c.is_alphabetic() || c == '_') {
            self.at += length;
            return Ok(name);
        }
        Err(self.expected("the name of a task"))
    }

    /// Reads what is nested in parentheses, as deep as is sensible.
    fn nested<T>(&mut self, read: fn(&mut Self) -> Result<T, String>) -> Result<T, String> {
        if self.depth == DEPTH_MAX {
            return Err(format!("it is nested deeper than {DEPTH_MAX} levels"));
        }
        self.depth += 1;
        let inner = read(self);
        self.depth -= 1;
        inner
    }

    fn open(&mut self, word: &str) -> Result<(), String> {
        if self.take('(') { Ok(()) } else { Err(self.expected(&format!("'(' after {word}"))) }
    }

    fn close(&mut self) -> Result<(), String> {
        if self.take(')') { Ok(()) } else { Err(self.expected("')'")) }
    }

    fn comma(&mut self) -> Result<(), String> {
        if self.take(',') { Ok(()) } else { Err(self.expected("','")) }
    }

    /// Takes a comma, or leaves the closing parenthesis.
    fn comma_or_close(&mut self) -> Result<(), String> {
        if self.take(',') || self.peek() == Some(')') {
            return Ok(());
        }
        Err(self.expected("',' or ')'"))
    }

    fn take(&mut self, wanted: char) -> bool {
        let is_there = self.peek() == Some(wanted);
        if is_there {
            self.at += wanted.len_utf8();
        }
        is_there
    }

    fn peek(&mut self) -> Option<char> {
        self.skip_space();
        self.rest().chars().next()
    }

    fn skip_space(&mut self) {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start().len();
    }

    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn expected(&self, what: &str) -> String {
        let rest = self.rest().trim_start();
        if rest.is_empty() {
            return format!("{what} is missing at its end");
        }
        format!("expected {what} at '{}'", words::shown(rest))
    }
}

/// How many bytes belong to the JSON value at the beginning: up to a comma or parenthesis that is
/// neither inside of text nor of brackets.
fn json_length(text: &str) -> usize {
    let (mut open, mut in_text, mut escaped) = (0_usize, false, false);
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if in_text => escaped = true,
            '"' => in_text = !in_text,
            _ if in_text => {}
            '[' | '{' => open += 1,
            ']' | '}' => open = open.saturating_sub(1),
            ',' | ')' if open == 0 => return at,
            _ => {}
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The workflow in JSON without what is empty.
    fn read(text: &str) -> String {
        words::brief(&parse(text).unwrap_or_else(|error| panic!("{error}")))
    }

    #[test]
    fn calls_have_positional_and_keyword_arguments() {
        assert_eq!(read("add(2, 2)"), "add(2, 2)");
        assert_eq!(read(" proj.add "), "proj.add()");
        assert_eq!(read("sum_task"), "sum_task()");
        assert_eq!(
            read(r#"send_email("a,b)\"", subject="Hi", to={"x": [1, 2]})"#),
            r#"send_email("a,b)\"", subject="Hi", to={"x": [1, 2]})"#
        );
    }

    #[test]
    fn the_suffixes_of_celery_are_understood() {
        assert_eq!(read("proj.add.s(2)"), "proj.add(2)");
        assert_eq!(read("proj.add.si(2)"), "proj.add.si(2)");
    }

    #[test]
    fn steps_are_joined_by_bars_and_grouped_by_parentheses() {
        assert_eq!(read("a(1) | b(2)|c"), "chain(a(1), b(2), c())");
        assert_eq!(read("(a | b) | c"), "chain(chain(a(), b()), c())");
        assert_eq!(read("group(a, b(1)) | c"), "chain(group(a(), b(1)), c())");
        assert_eq!(read("chord(a, b, c)"), "chord(a(), b(), c())");
        assert_eq!(read("chain(a, group(b, c | d))"), "chain(a(), group(b(), chain(c(), d())))");
    }

    #[test]
    fn tasks_run_over_items() {
        assert_eq!(read("map(square, [1, 2])"), "map(square(), [1, 2])");
        assert_eq!(read("starmap(add, [[1, 2]])"), "starmap(add(), [[1, 2]])");
        assert_eq!(read("chunks(add, [[1, 2]], 10)"), "chunks(add(), [[1, 2]], 10)");
    }

    #[test]
    fn what_is_wrong_is_one_sentence_with_the_place() {
        for (text, expected) in [
            ("", "the name of a task is missing at its end"),
            ("add(2,, 2)", "expected a JSON value at ', 2)'"),
            ("add(2 2)", "2 2 is not JSON"),
            ("add(2", "',' or ')' is missing at its end"),
            ("add('a')", "'a' is not JSON"),
            ("add(x=1, 2)", "expected name=value after the first name=value"),
            ("add(2) 3", "expected the end at '3'"),
            ("add(2) |", "the name of a task is missing at its end"),
            ("chain", "'(' after chain is missing at its end"),
            ("chain()", "chain() has no steps"),
            ("chord()", "chord() has no body"),
            ("chunks(add, [], 0)", "chunks takes a task, an array, and how many go together"),
            ("map(add, 3)", "map takes a task and an array"),
            ("7(2)", "expected the name of a task at '7(2)'"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn deep_nesting_is_refused() {
        let deep = format!("{}a{}", "(".repeat(100_000), ")".repeat(100_000));
        assert!(parse(&deep).unwrap_err().contains("nested deeper than 200 levels"));
    }
}
