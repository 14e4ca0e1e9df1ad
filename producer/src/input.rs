//! From what people write to what is sent: arguments and call options of one call.

use std::borrow::Cow;

use celeriac::client::config::parse_duration;
use celeriac::protocol::{CallOptions, Limits, Map, Value, date, json};
use celeriac::{Config, Signature, cli};

use crate::args::{CallArgs, OptionArgs};
use crate::output::to_json;
use crate::unique::{self, Unique};

/// One call, as the command line or a line of a file says it.
#[derive(Debug, PartialEq)]
pub(crate) struct Call {
    pub(crate) task: String,
    pub(crate) args: Vec<Value>,
    pub(crate) kwargs: Map,
    /// Celery's call options by their names, and those of [`unique`].
    pub(crate) options: Map,
}

/// The keys of a line.
const LINE_KEYS: &[&str] = &["task", "args", "kwargs", "options"];

/// The call options that a line, or a task of a workflow, may give.
pub(crate) const OPTION_KEYS: &[&str] = &[
    "queue",
    "exchange",
    "routing_key",
    "countdown",
    "eta",
    "expires",
    "priority",
    "task_id",
    "serializer",
    "compression",
    "ignore_result",
    "shadow",
    "time_limit",
    "soft_time_limit",
    "headers",
];

impl Call {
    /// The call of the command line, or one sentence about what is wrong with it.
    pub(crate) fn from_args(name: &str, args: &CallArgs) -> Result<Self, String> {
        let given = |option: &str, text: &Option<String>| {
            text.as_deref().map(|text| parse(text.as_bytes(), option)).transpose()
        };
        Ok(Self {
            task: name.to_owned(),
            args: positional(given("--args", &args.args)?, "--args")?,
            kwargs: keyword(given("--kwargs", &args.kwargs)?, "--kwargs")?,
            options: options(&args.options),
        })
    }

    /// The call of a line; options that the line does not give are those of `defaults`.
    pub(crate) fn from_line(line: &[u8], defaults: &Map) -> Result<Self, String> {
        let value = parse(line, "the line")?;
        let Value::Map(mut map) = value else {
            return Err(format!("the line must be a JSON object, not {}", in_json(&value)));
        };
        check_keys(&map, LINE_KEYS, "key")?;
        let task = match map.remove("task") {
            Some(Value::String(task)) if !task.is_empty() => task,
            Some(other) => return Err(format!("\"task\" must be a name, not {}", in_json(&other))),
            None => return Err("\"task\" is missing".to_owned()),
        };
        let mut options = defaults.clone();
        for (key, value) in keyword(map.remove("options"), "\"options\"")? {
            options.insert(key, value);
        }
        check_keys(&options, &[OPTION_KEYS, unique::KEYS].concat(), "option")?;
        Ok(Self {
            task,
            args: positional(map.remove("args"), "\"args\"")?,
            kwargs: keyword(map.remove("kwargs"), "\"kwargs\"")?,
            options,
        })
    }

    /// The call for the library, or one sentence about an option that cannot be read.
    pub(crate) fn into_signature(self, config: &Config) -> Result<Signature<Value>, String> {
        let Self { task, args, kwargs, mut options } = self;
        for key in ["eta", "expires"] {
            if let Some(text) = options.get(key).and_then(Value::as_str) {
                let at = date::parse(text, &config.timezone)
                    .map_err(|error| format!("{key}: {}", cli::sentence(&error)))?;
                options.insert(key, date::format(at));
            }
        }
        let priority = options.get("priority").unwrap_or(&Value::Null);
        if !priority.is_null() && !priority.as_i64().is_some_and(|it| (0..=255).contains(&it)) {
            let found = to_json(priority);
            return Err(format!("priority must be a whole number from 0 to 255, not {found}"));
        }
        let unique = Unique::take(&mut options)?;
        let options = CallOptions::from_map(options).map_err(|error| cli::sentence(&error))?;
        // The library keeps the names of serializers that it does not speak; here they are slips.
        if let Some((key, value)) = options.extra.iter().next() {
            return Err(format!("unknown {key} {}", to_json(value)));
        }
        let mut signature = Signature::<Value>::new(task).with_options(options);
        for arg in args {
            signature = signature.arg(arg);
        }
        for (name, value) in kwargs {
            signature = signature.kwarg(name, value);
        }
        Ok(unique.apply(signature))
    }
}

/// The call options from the command line, by their names.
pub(crate) fn options(args: &OptionArgs) -> Map {
    let mut options = Map::new();
    let mut text = |key: &'static str, value: &Option<String>| {
        if let Some(value) = value {
            options.insert(key, value.as_str());
        }
    };
    text("queue", &args.queue);
    text("exchange", &args.exchange);
    text("routing_key", &args.routing_key);
    text("eta", &args.eta);
    text("task_id", &args.task_id);
    text("serializer", &args.serializer);
    text("compression", &args.compression);
    text("shadow", &args.shadow);
    text("unique_key", &args.unique_key);
    for (key, duration) in [
        ("countdown", args.countdown),
        ("time_limit", args.time_limit),
        ("soft_time_limit", args.soft_time_limit),
        ("unique", args.unique),
    ] {
        if let Some(duration) = duration {
            options.insert(key, duration.as_secs_f64());
        }
    }
    if let Some(expires) = &args.expires {
        // Seconds from now, or else a time, which the library reads.
        let expires = parse_duration(expires)
            .map_or_else(|_| Value::from(expires.as_str()), |it| it.as_secs_f64().into());
        options.insert("expires", expires);
    }
    if let Some(priority) = args.priority {
        options.insert("priority", i64::from(priority));
    }
    if args.ignore_result {
        options.insert("ignore_result", true);
    }
    if !args.headers.is_empty() {
        let headers: Map = args.headers.iter().cloned().collect();
        options.insert("headers", headers);
    }
    options
}

fn parse(bytes: &[u8], what: &str) -> Result<Value, String> {
    json::decode(bytes, &Limits::default())
        .map_err(|error| format!("{what} is not valid JSON: {}", cli::sentence(&error)))
}

fn positional(value: Option<Value>, what: &str) -> Result<Vec<Value>, String> {
    match value {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Array(items)) => Ok(items),
        Some(other) => {
            Err(format!("{what} must be a JSON array such as [2, 2], not {}", in_json(&other)))
        }
    }
}

fn keyword(value: Option<Value>, what: &str) -> Result<Map, String> {
    match value {
        None | Some(Value::Null) => Ok(Map::new()),
        Some(Value::Map(map)) => Ok(map),
        Some(other) => Err(format!(
            "{what} must be a JSON object such as {{\"x\": 2}}, not {}",
            in_json(&other)
        )),
    }
}

pub(crate) fn check_keys(map: &Map, known: &[&str], what: &str) -> Result<(), String> {
    match map.iter().map(|(key, _)| key).find(|key| !known.contains(key)) {
        Some(key) => Err(format!("unknown {what} \"{key}\"; there are {}", known.join(", "))),
        None => Ok(()),
    }
}

/// The kind of a value in the words of JSON.
pub(crate) fn in_json(value: &Value) -> Cow<'static, str> {
    match value {
        Value::Null => "null".into(),
        Value::Bool(_) => "a boolean".into(),
        Value::Int(_) | Value::UInt(_) | Value::BigInt(_) | Value::Float(_) => "a number".into(),
        Value::String(_) => "a string".into(),
        Value::Array(_) => "an array".into(),
        Value::Map(_) => "an object".into(),
        Value::Bytes(_) | Value::Tagged(..) => format!("a {}", value.kind()).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_gives_task_arguments_and_options() {
        let line = br#"{"task": "t", "args": [1], "kwargs": {"a": 2}, "options": {"queue": "q"}}"#;
        let defaults: Map = [("priority", 3_i64)].into_iter().collect();
        let call = Call::from_line(line, &defaults).unwrap();
        assert_eq!(call.task, "t");
        assert_eq!(call.args, [Value::Int(1)]);
        assert_eq!(call.kwargs.get("a"), Some(&Value::Int(2)));
        assert_eq!(call.options.get("queue"), Some(&"q".into()));
        assert_eq!(call.options.get("priority"), Some(&Value::Int(3)));
    }

    #[test]
    fn an_option_of_the_line_wins() {
        let defaults: Map = [("queue", "other")].into_iter().collect();
        let line = br#"{"task": "t", "options": {"queue": "mine"}}"#;
        let call = Call::from_line(line, &defaults).unwrap();
        assert_eq!(call.options.get("queue"), Some(&"mine".into()));
    }

    #[test]
    fn what_is_wrong_with_a_line_is_one_sentence() {
        for (line, expected) in [
            (r#"{"task": "#, "the line is not valid JSON"),
            ("[1]", "the line must be a JSON object, not an array"),
            ("{}", "\"task\" is missing"),
            (r#"{"task": 3}"#, "\"task\" must be a name, not a number"),
            (r#"{"task": "t", "args": {}}"#, "\"args\" must be a JSON array"),
            (r#"{"task": "t", "kwargs": []}"#, "\"kwargs\" must be a JSON object"),
            (r#"{"task": "t", "arg": []}"#, "unknown key \"arg\"; there are task, args"),
            (r#"{"task": "t", "options": {"que": 1}}"#, "unknown option \"que\""),
        ] {
            let error = Call::from_line(line.as_bytes(), &Map::new()).unwrap_err();
            assert!(error.starts_with(expected), "{error}");
        }
    }
}
