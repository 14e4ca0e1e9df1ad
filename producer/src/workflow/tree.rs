//! Workflows as a tree in JSON or TOML, of the same words as on the command line.
//!
//! ```text
//! "add(2, 2)"                                             an expression
//! {"task": "add", "args": [2, 2], "kwargs": {}, "options": {"queue": "sums"}}
//! {"chain": [..]}   {"group": [..]}   {"chord": [..], "body": ..}
//! {"map": "square", "items": [..]}    {"starmap": ..}   {"chunks": .., "items": [..], "size": 10}
//! ```
//!
//! Every object may have `options`, `immutable`, `link` and `link_error`. The options of a group or
//! chord may say how it is joined: `{"join": {"mode": "collect", "expires": 60}}`, `revoke_rest`
//! and `header_results`. The maps that Celery itself writes for signatures are understood as well:
//! they have `task` and `subtask_type`.

use celeriac::protocol::{Limits, Map, Signature, Tag, Value, json};

use super::{expression, words};
use crate::input::{OPTION_KEYS, check_keys, in_json};

/// The language of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Language {
    Json,
    Toml,
}

/// Reads a tree; the error is one sentence with the path to the place.
pub(crate) fn parse(text: &str, language: Language) -> Result<Signature, String> {
    node(decode(text, language)?, &Path::Root)
}

/// The same; what a run with `--json --graph json` has shown stands for its workflow.
pub(crate) fn parse_shown(text: &str, language: Language) -> Result<Signature, String> {
    let mut tree = decode(text, language)?;
    if let Value::Map(shown) = &mut tree
        && let Some(Value::Map(workflow)) = shown.remove("graph")
    {
        return node(Value::Map(workflow), &Path::Root);
    }
    node(tree, &Path::Root)
}

fn decode(text: &str, language: Language) -> Result<Value, String> {
    Ok(match language {
        Language::Json => {
            let decoded = json::decode(text.as_bytes(), &Limits::default());
            decoded
                .map_err(|error| format!("not valid JSON: {}", celeriac::cli::sentence(&error)))?
        }
        Language::Toml => {
            let table: toml::Table = text.parse().map_err(|error: toml::de::Error| {
                format!("not valid TOML: {}", error.message().trim())
            })?;
            from_toml(toml::Value::Table(table))
        }
    })
}

/// Where a node is, for errors; borrowed, because most trees have none.
enum Path<'a> {
    Root,
    Key(&'a Path<'a>, &'a str),
    Item(&'a Path<'a>, usize),
}

impl std::fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Root => f.write_str("the workflow"),
            Self::Key(Self::Root, key) => write!(f, "{key}"),
            Self::Key(parent, key) => write!(f, "{parent}.{key}"),
            Self::Item(parent, at) => write!(f, "{parent}[{at}]"),
        }
    }
}

/// The words of which a node has exactly one, with the keys that belong to each.
const WORDS: &[(&str, &[&str])] = &[
    ("task", &["args", "kwargs", "subtask_type"]),
    ("chain", &[]),
    ("group", &[]),
    ("chord", &["body"]),
    ("map", &["items"]),
    ("starmap", &["items"]),
    ("chunks", &["items", "size"]),
];

/// Keys that every node may have.
const COMMON_KEYS: &[&str] = &["options", "immutable", "link", "link_error"];

/// How a group or chord is joined.
const JOIN_KEYS: &[&str] = &["mode", "expires", "revoke_rest", "header_results", "park_above"];

fn node(value: Value, path: &Path<'_>) -> Result<Signature, String> {
    match value {
        Value::String(text) => expression::parse(&text).map_err(|error| format!("{path}: {error}")),
        Value::Map(map) => object(map, path),
        other => Err(format!(
            "{path} must be an expression such as \"add(2, 2)\" or an object, not {}",
            in_json(&other)
        )),
    }
}

fn object(mut map: Map, path: &Path<'_>) -> Result<Signature, String> {
    let mut found = WORDS.iter().filter(|(word, _)| map.get(word).is_some());
    let (Some((word, keys)), None) = (found.next(), found.next()) else {
        let all: Vec<_> = WORDS.iter().map(|(word, _)| *word).collect();
        return Err(format!("{path} must have exactly one of {}", all.join(", ")));
    };
    let known: Vec<_> = [*word].into_iter().chain(keys.iter().copied()).collect();
    let known = [known.as_slice(), COMMON_KEYS].concat();
    check_keys(&map, &known, "key").map_err(|error| format!("{path}: {error}"))?;
    let common = Common::take(&mut map, path)?;
    let main = map.remove(word).unwrap_or_default();
    let here = Path::Key(path, word);
    let signature = match *word {
        "task" => task(main, map, path)?,
        "chain" => words::chain(nodes(main, &here)?),
        "group" => words::group(nodes(main, &here)?),
        "chord" => {
            let body = map.remove("body").ok_or_else(|| format!("{path} has no body"))?;
            words::chord(nodes(main, &here)?, node(body, &Path::Key(path, "body"))?)
        }
        word => {
            let task = node(main, &here)?;
            let items = array(map.remove("items"), &Path::Key(path, "items"))?;
            match (word, map.remove("size").as_ref().and_then(Value::as_i64)) {
                ("chunks", Some(size)) if size > 0 => words::chunks(task, items, size),
                ("chunks", _) => return Err(format!("{path}.size must be a number above 0")),
                (word, _) => words::over(word, task, items),
            }
        }
    };
    Ok(common.apply(signature))
}

/// A plain call, or a signature as Celery writes it.
fn task(name: Value, mut map: Map, path: &Path<'_>) -> Result<Signature, String> {
    map.insert("task", name);
    let signature = Signature::from_value(Value::Map(map))
        .map_err(|error| format!("{path}: {}", celeriac::cli::sentence(&error)))?;
    if signature.task.is_empty() {
        return Err(format!("{path}: \"task\" must be a name"));
    }
    Ok(signature)
}

/// Whether a node is one that can be joined.
fn is_joined(map: &Map) -> bool {
    ["group", "chord"].iter().any(|word| map.get(word).is_some())
}

fn check_options(options: &Map, is_joined: bool, path: &Path<'_>) -> Result<(), String> {
    let own: &[&str] = if is_joined { &["join"] } else { &[] };
    check_keys(options, &[OPTION_KEYS, own].concat(), "option")
        .map_err(|error| format!("{path}.options: {error}"))?;
    let Some(join) = options.get("join") else { return Ok(()) };
    let path = Path::Key(path, "options.join");
    let Value::Map(join) = join else {
        return Err(format!("{path} must be an object, not {}", in_json(join)));
    };
    check_keys(join, JOIN_KEYS, "key").map_err(|error| format!("{path}: {error}"))?;
    for (key, value) in join.iter() {
        let (is_right, wanted) = match key {
            "mode" => (
                matches!(value.as_str(), Some("fail_fast" | "collect")),
                "\"fail_fast\" or \"collect\"",
            ),
            "expires" => (is_time(value), "a number of seconds above 0"),
            "park_above" => (is_size(value), "a number of bytes"),
            _ => (value.as_bool().is_some(), "true or false"),
        };
        if !is_right {
            return Err(format!("{path}.{key} must be {wanted}, not {}", in_json(value)));
        }
    }
    Ok(())
}

fn is_time(value: &Value) -> bool {
    match value {
        Value::Float(seconds) => *seconds > 0.0 && seconds.is_finite(),
        other => other.as_i64().is_some_and(|seconds| seconds > 0),
    }
}

fn is_size(value: &Value) -> bool {
    value.as_i64().is_some_and(|bytes| u32::try_from(bytes).is_ok())
}

/// What every node may have.
struct Common {
    options: Map,
    immutable: Option<bool>,
}

impl Common {
    fn take(map: &mut Map, path: &Path<'_>) -> Result<Self, String> {
        let mut options = match map.remove("options") {
            None | Some(Value::Null) => Map::new(),
            Some(Value::Map(options)) => options,
            Some(other) => {
                return Err(format!("{path}.options must be an object, not {}", in_json(&other)));
            }
        };
        if map.get("subtask_type").is_none() {
            check_options(&options, is_joined(map), path)?;
        }
        for key in ["link", "link_error"] {
            let Some(links) = map.remove(key) else { continue };
            let links = if matches!(links, Value::Array(_)) { links } else { vec![links].into() };
            let links = nodes(links, &Path::Key(path, key))?;
            options.insert(key, links.into_iter().map(Signature::into_value).collect::<Vec<_>>());
        }
        let immutable = match map.remove("immutable") {
            None | Some(Value::Null) => None,
            Some(Value::Bool(immutable)) => Some(immutable),
            Some(other) => {
                let found = in_json(&other);
                return Err(format!("{path}.immutable must be true or false, not {found}"));
            }
        };
        Ok(Self { options, immutable })
    }

    fn apply(self, mut signature: Signature) -> Signature {
        for (key, value) in self.options {
            signature.options.insert(key, value);
        }
        signature.immutable = self.immutable.unwrap_or(signature.immutable);
        signature
    }
}

fn nodes(value: Value, path: &Path<'_>) -> Result<Vec<Signature>, String> {
    let items = array(Some(value), path)?.into_iter().enumerate();
    items.map(|(at, item)| node(item, &Path::Item(path, at))).collect()
}

fn array(value: Option<Value>, path: &Path<'_>) -> Result<Vec<Value>, String> {
    match value {
        Some(Value::Array(items)) => Ok(items),
        Some(other) => Err(format!("{path} must be an array, not {}", in_json(&other))),
        None => Err(format!("{path} is missing")),
    }
}

fn from_toml(value: toml::Value) -> Value {
    match value {
        toml::Value::String(text) => text.into(),
        toml::Value::Integer(number) => number.into(),
        toml::Value::Float(number) => number.into(),
        toml::Value::Boolean(flag) => flag.into(),
        toml::Value::Datetime(date) => Value::Tagged(Tag::DateTime, date.to_string()),
        toml::Value::Array(items) => Value::Array(items.into_iter().map(from_toml).collect()),
        toml::Value::Table(table) => {
            Value::Map(table.into_iter().map(|(key, value)| (key, from_toml(value))).collect())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<String, String> {
        parse(text, Language::Json).map(|signature| words::brief(&signature))
    }

    #[test]
    fn a_tree_says_the_same_as_an_expression() {
        for (tree, expression) in [
            (r#""add(2, 2)""#, "add(2, 2)"),
            (r#"{"task": "add", "args": [2], "kwargs": {"y": 2}}"#, "add(2, y=2)"),
            (r#"{"task": "add", "immutable": true}"#, "add.si()"),
            (r#"{"chain": ["add(2, 2)", {"task": "m"}]}"#, "chain(add(2, 2), m())"),
            (r#"{"chord": ["a", {"group": ["b"]}], "body": "c"}"#, "chord(a(), group(b()), c())"),
            (r#"{"map": "square", "items": [1, 2]}"#, "map(square(), [1, 2])"),
            (r#"{"chunks": "add", "items": [[1, 2]], "size": 5}"#, "chunks(add(), [[1, 2]], 5)"),
        ] {
            assert_eq!(read(tree).as_deref(), Ok(expression), "{tree}");
        }
    }

    #[test]
    fn signatures_that_celery_writes_are_understood() {
        let celery = r#"{"task": "celery.chain", "args": [], "kwargs": {"tasks": [
            {"task": "a", "args": [], "kwargs": {}, "options": {"task_id": "1", "reply_to": "r"},
             "subtask_type": null, "immutable": false}]},
            "options": {"root_id": "1"}, "subtask_type": "chain", "immutable": false}"#;
        assert_eq!(read(celery).as_deref(), Ok("chain(a())"));
    }

    #[test]
    fn toml_says_the_same() {
        let text = "chord = ['square(2)', { task = 'square', args = [3] }]\nbody = 'sum_task'";
        let signature = parse(text, Language::Toml).unwrap();
        assert_eq!(words::brief(&signature), "chord(square(2), square(3), sum_task())");
        let error = parse("chord = ", Language::Toml).unwrap_err();
        assert!(error.starts_with("not valid TOML: "), "{error}");
    }

    #[test]
    fn options_and_links_are_kept() {
        let text = r#"{"task": "a", "options": {"queue": "q"}, "link": "b", "link_error": ["c"]}"#;
        let options = parse(text, Language::Json).unwrap().options;
        assert_eq!(options.get("queue"), Some(&"q".into()));
        for key in ["link", "link_error"] {
            let Some(Value::Array(links)) = options.get(key) else { panic!("{key}") };
            assert_eq!(links.len(), 1);
        }
    }

    #[test]
    fn a_chord_says_how_it_is_joined() {
        let join = r#"{"mode": "collect", "expires": 2.5, "revoke_rest": true,
            "header_results": false, "park_above": 65536}"#;
        let text = format!(r#"{{"chord": ["a"], "body": "b", "options": {{"join": {join}}}}}"#);
        let signature = parse(&text, Language::Json).unwrap();
        let Some(Value::Map(join)) = signature.options.get("join") else { panic!("{text}") };
        assert_eq!(join.get("revoke_rest"), Some(&true.into()));
        assert_eq!(join.get("park_above"), Some(&65536.into()));
    }

    #[test]
    fn what_is_wrong_is_one_sentence_with_the_path() {
        for (text, expected) in [
            ("[1", "not valid JSON: "),
            ("7", "the workflow must be an expression such as \"add(2, 2)\" or an object"),
            ("{}", "the workflow must have exactly one of task, chain, group"),
            (r#"{"chain": [], "group": []}"#, "the workflow must have exactly one of"),
            (
                r#"{"task": "a", "options": {"join": {}}}"#,
                "the workflow.options: unknown option \"join\"",
            ),
            (
                r#"{"group": [], "options": {"join": {"mode": "fast"}}}"#,
                "options.join.mode must be \"fail_fast\" or \"collect\", not a string",
            ),
            (
                r#"{"group": [], "options": {"join": {"revoke": true}}}"#,
                "options.join: unknown key \"revoke\"; there are mode",
            ),
            (
                r#"{"group": [], "options": {"join": {"expires": 0}}}"#,
                "options.join.expires must be a number of seconds above 0",
            ),
            (
                r#"{"group": [], "options": {"join": {"park_above": -1}}}"#,
                "options.join.park_above must be a number of bytes, not a number",
            ),
            (r#"{"chain": 3}"#, "chain must be an array, not a number"),
            (r#"{"chain": ["a", 3]}"#, "chain[1] must be an expression"),
            (r#"{"chain": ["a", "b("]}"#, "chain[1]: 'b(' is not a workflow"),
            (r#"{"chord": ["a"]}"#, "the workflow has no body"),
            (r#"{"task": "a", "arg": []}"#, "the workflow: unknown key \"arg\""),
            (r#"{"task": 3}"#, "the workflow: 'task' must be text"),
            (r#"{"task": "a", "options": {"que": 1}}"#, "unknown option \"que\""),
            (r#"{"chunks": "a", "items": [], "size": 0}"#, "size must be a number above 0"),
            (r#"{"map": "a"}"#, "items is missing"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
