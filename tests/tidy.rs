//! The rules of the house that no compiler checks: floors, names and sizes.
//!
//! It reads text, not syntax, so it can be fooled; it is there for mistakes, not for tricks.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

/// The floors of `docs/architecture.md`: a module may use itself and the floors below its own.
const FLOORS: [(&str, u8); 15] = [
    ("protocol", 0),
    ("schedule", 0),
    ("backoff", 0),
    ("clock", 0),
    ("amqp", 1),
    ("process", 1),
    ("results", 2),
    ("client", 3),
    ("task", 4),
    ("app", 4),
    ("worker", 5),
    ("beat", 5),
    ("monitor", 5),
    ("supervisor", 6),
    ("cli", 7),
];

/// Neighbours on one floor, of which the first may use the second.
const NEIGHBOURS: [(&str, &str); 1] = [("app", "task")];

const COLUMNS_MAX: usize = 100;
const LINES_MAX: usize = 700;

// In pieces, so that this file keeps its own rules.
const FORBIDDEN: [&str; 5] = [
    concat!("#[al", "low("),
    concat!("#![al", "low("),
    concat!("to", "do!("),
    concat!("db", "g!("),
    concat!("FIX", "ME"),
];

struct Source {
    /// Relative to the root of the repository.
    path: PathBuf,
    text: String,
}

impl Source {
    /// The text without comments; what is left keeps its line.
    fn code(&self) -> String {
        let lines = self.text.lines().map(|line| line.split("//").next().unwrap_or_default());
        // `//` within a literal ends the line early, which hides at most a literal.
        lines.collect::<Vec<_>>().join("\n")
    }

    /// The module of the library that the file belongs to; `None` for `lib.rs` and other crates.
    fn module(&self) -> Option<&str> {
        let first = self.path.strip_prefix("src").ok()?.components().next()?;
        let name = first.as_os_str().to_str()?;
        let name = name.strip_suffix(".rs").unwrap_or(name);
        (name != "lib").then_some(name)
    }

    fn line_of(&self, offset: usize) -> usize {
        self.code().get(..offset).map_or(0, |before| before.lines().count().max(1))
    }
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    for part in ["src", "macros", "worker", "producer", "xtask", "tests", "benches", "examples"] {
        collect(root, &root.join(part), &mut found);
    }
    collect(root, &root.join("fuzz/fuzz_targets"), &mut found);
    found
}

fn collect(root: &Path, directory: &Path, found: &mut Vec<Source>) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    for path in entries.flatten().map(|entry| entry.path()) {
        // Programs that are meant not to compile have their own looks.
        if path.is_dir() && path.file_name().is_none_or(|name| name != "ui" && name != "target") {
            collect(root, &path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap_or_default();
            let path = path.strip_prefix(root).unwrap_or(&path).to_owned();
            found.push(Source { path, text });
        }
    }
}

/// The first names after each `crate::`, with where they stand.
fn names_after_crate(code: &str) -> Vec<(usize, &str)> {
    let mut names = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        let before = code.get(..at).and_then(|before| before.chars().next_back());
        if before.is_some_and(|letter| letter.is_alphanumeric() || letter == '_') {
            continue;
        }
        let rest = code.get(at + "crate::".len()..).unwrap_or_default();
        match rest.strip_prefix('{') {
            Some(group) => names.extend(group_names(group).into_iter().map(|name| (at, name))),
            None => names.push((at, first_name(rest))),
        }
    }
    names
}

/// The first names of `a::b, c::{d, e}}`.
fn group_names(group: &str) -> Vec<&str> {
    let mut names = Vec::new();
    let (mut depth, mut start) = (0_u32, 0);
    for (at, letter) in group.char_indices() {
        match (letter, depth) {
            ('{', _) => depth += 1,
            ('}' | ',', 0) => {
                names.push(first_name(group.get(start..at).unwrap_or_default()));
                start = at + 1;
                if letter == '}' {
                    break;
                }
            }
            ('}', _) => depth -= 1,
            _ => {}
        }
    }
    names.retain(|name| !name.is_empty());
    names
}

fn first_name(text: &str) -> &str {
    let text = text.trim_start();
    let end = text.find(|letter: char| !letter.is_alphanumeric() && letter != '_');
    text.get(..end.unwrap_or(text.len())).unwrap_or_default()
}

/// The module that each name comes from which `lib.rs` re-exports at the root.
fn root_names(library: &str) -> HashMap<String, String> {
    let mut names = HashMap::new();
    for statement in library.split(';') {
        let Some((_, path)) = statement.split_once("pub use ") else { continue };
        let module = first_name(path).to_owned();
        let exported: Vec<&str> = match path.split_once('{') {
            Some((_, group)) => group.trim_end().trim_end_matches('}').split(',').collect(),
            None => vec![path],
        };
        for name in exported {
            let name = name.rsplit([':', ' ']).find(|part| !part.trim().is_empty());
            names.insert(name.unwrap_or_default().trim().to_owned(), module.clone());
        }
    }
    names
}

fn assert_none(rule: &str, offences: &[String]) {
    assert!(offences.is_empty(), "{rule}:\n  {}", offences.join("\n  "));
}

#[test]
fn a_module_uses_only_the_floors_below() {
    let floors: HashMap<&str, u8> = FLOORS.into_iter().collect();
    let sources = sources();
    let library = sources.iter().find(|source| source.path == Path::new("src/lib.rs")).unwrap();
    let root_names = root_names(&library.code());
    let mut offences = Vec::new();
    for source in &sources {
        let Some(own) = source.module() else { continue };
        let path = source.path.display();
        let Some(own_floor) = floors.get(own) else {
            offences.push(format!("{path}: the module {own} is on no floor"));
            continue;
        };
        let code = source.code();
        for (at, name) in names_after_crate(&code) {
            // A module wins over a macro of the same name.
            let exported = root_names.get(name).filter(|_| !floors.contains_key(name));
            let used = exported.map_or(name, String::as_str);
            let allowed = own == used
                || NEIGHBOURS.contains(&(own, used))
                || floors.get(used).is_some_and(|floor| floor < own_floor);
            if !allowed {
                let line = source.line_of(at);
                offences.push(format!("{path}:{line}: {own} uses crate::{name} ({used})"));
            }
        }
    }
    assert_none("a module may use itself and the floors below", &offences);
}

#[test]
fn lapin_is_named_only_in_amqp() {
    let mut offences = Vec::new();
    for source in sources() {
        let library = source.path.starts_with("src") && !source.path.starts_with("src/amqp");
        let program = ["worker/src", "producer/src", "macros/src"];
        let program = program.iter().any(|part| source.path.starts_with(part));
        if (library || program) && source.code().contains("lapin::") {
            offences.push(source.path.display().to_string());
        }
    }
    assert_none("lapin may be named only in src/amqp", &offences);
}

#[test]
fn names_of_queues_and_exchanges_are_made_only_in_topology() {
    let mut offences = Vec::new();
    for source in sources() {
        if source.path.ends_with("amqp/topology.rs") || !source.path.starts_with("src") {
            continue;
        }
        // What a test expects may be spelt out.
        let code = source.code();
        let code = code.split("#[cfg(test)]").next().unwrap_or_default();
        for (number, line) in code.lines().enumerate() {
            if line.contains("\"celeriac.") && !line.contains("target") {
                offences.push(format!("{}:{}: {}", source.path.display(), number + 1, line.trim()));
            }
        }
    }
    assert_none("names on the broker are functions of src/amqp/topology.rs", &offences);
}

#[test]
fn every_file_says_at_its_top_what_it_is_for() {
    let offences: Vec<String> = sources()
        .iter()
        .filter(|source| !source.text.starts_with("//!"))
        .map(|source| source.path.display().to_string())
        .collect();
    assert_none("a file begins with `//!`", &offences);
}

#[test]
fn files_and_lines_are_not_too_long() {
    let mut offences = Vec::new();
    for Source { path, text } in sources() {
        let lines = text.lines().count();
        if lines > LINES_MAX {
            offences.push(format!("{}: {lines} lines", path.display()));
        }
        for (number, line) in text.lines().enumerate() {
            let columns = line.chars().count();
            if columns > COLUMNS_MAX {
                offences.push(format!("{}:{}: {columns} columns", path.display(), number + 1));
            }
        }
    }
    assert_none("at most 700 lines and 100 columns", &offences);
}

#[test]
fn nothing_unfinished_and_no_silenced_lint_is_left() {
    let mut offences = Vec::new();
    for Source { path, text } in sources() {
        // What the macro writes into a user's crate has to be silent under the lints of that crate.
        if path == Path::new("macros/src/expand.rs") {
            continue;
        }
        for (number, line) in text.lines().enumerate() {
            for forbidden in FORBIDDEN.iter().filter(|word| line.contains(**word)) {
                offences.push(format!("{}:{}: {forbidden}", path.display(), number + 1));
            }
        }
    }
    assert_none("use `#[expect(…, reason)]`, and finish things", &offences);
}

#[test]
fn the_reader_of_paths_sees_groups_and_single_names() {
    let code =
        "use crate::{Error, amqp::{a, b}, task};\nlet x = crate::client::Client; mycrate::no";
    let names: Vec<&str> = names_after_crate(code).into_iter().map(|(_, name)| name).collect();
    assert_eq!(names, ["Error", "amqp", "task", "client"]);
    let root =
        root_names("pub use client::{Client, send::AsyncResult as Async};\npub use task::Context;");
    assert_eq!(root["Client"], "client");
    assert_eq!(root["Async"], "client");
    assert_eq!(root["Context"], "task");
}
