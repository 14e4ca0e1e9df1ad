//! What Celery's workers have published, and what this worker publishes in their place: the same in
//! every field but those that are listed, each with its reason.
//!
//! The captures are those of `tests/vectors`; what clients publish is compared in `tests/canvas`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::Value as Json;

use super::effect::{Effect, Kind};
use super::events::Facts;
use super::join::following;
use super::original::Original;
use super::plan::begin;
use super::scribe::Scribe;
use super::sequel::Sequel;
use super::unsettled::{Ending, Finished, Unsettled};
use crate::TaskError;
use crate::amqp::Publish;
use crate::client::{Composer, Config};
use crate::protocol::canvas::{Call, Canvas, lower};
use crate::protocol::join::{Failure, Open};
use crate::protocol::{
    CallOptions, Exception, Limits, Map, Message, Properties, Serializer, Signature, Value, json,
};
use crate::results::join::{Outcome as Joined, Part};
use crate::task::{DeliveryInfo, Outcome, Registry, Request, Run, StateMap, TaskDef, TaskOptions};

/// A worker has tasks, but none of the captured ones.
static OTHER: TaskDef = TaskDef {
    name: "other",
    file: "",
    line: 1,
    options: TaskOptions::DEFAULT,
    params: &[],
    bound: false,
    states: &[],
    run: Run::Blocking(|_| Ok(Value::Null)),
};

/// Field and reason.
type Differences = &'static [(&'static str, &'static str)];

const NOBODY_WAITS: (&str, &str) =
    ("reply_to", "Celery names the queue of its worker, where nobody waits for this result");
const OUR_LANGUAGE: (&str, &str) = ("headers.lang", "the language of the sender");
const DATED: (&str, &str) = ("headers.eta", "the time of the capture");

struct Capture {
    name: &'static str,
    file: Json,
}

fn capture(name: &'static str) -> Capture {
    let path = format!("{}/tests/vectors/{name}.json", env!("CARGO_MANIFEST_DIR"));
    Capture { name, file: serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap() }
}

type Fields = BTreeMap<String, String>;

impl Capture {
    fn property(&self, key: &str) -> Option<String> {
        self.file["properties"][key].as_str().map(str::to_owned)
    }

    fn header(&self, key: &str) -> Option<String> {
        self.file["properties"]["headers"][key].as_str().map(str::to_owned)
    }

    /// The arguments, the keyword arguments or what is embedded.
    fn body(&self, at: usize) -> Value {
        value(&self.file["body"][at])
    }

    /// The signatures that are embedded under a key.
    fn embedded(&self, key: &str) -> Vec<Signature> {
        let embed = self.body(2);
        let found = embed.as_map().unwrap().get(key).unwrap().as_array().unwrap();
        found.iter().map(|it| Signature::from_value(it.clone()).unwrap()).collect()
    }

    fn serializer(&self) -> Serializer {
        Serializer::from_content_type(&self.property("content_type").unwrap()).unwrap()
    }

    /// The task that has this id, before whatever was captured follows from it.
    fn request(&self, id: &str) -> Request {
        Request {
            id: id.to_owned(),
            task: "proj.add".to_owned(),
            root_id: self.header("root_id"),
            reply_to: Some("caller".to_owned()),
            serializer: self.serializer(),
            delivery_info: DeliveryInfo {
                queue: "celery".to_owned(),
                priority: Some(0),
                ..DeliveryInfo::default()
            },
            ..Request::default()
        }
    }

    fn fields(&self) -> Fields {
        let mut fields = Fields::new();
        for key in ["exchange", "routing_key"] {
            fields.insert(key.to_owned(), self.file["args"][key].to_string());
        }
        for (key, property) in self.file["properties"].as_object().unwrap() {
            if key != "headers" {
                fields.insert(key.clone(), property.to_string());
            }
        }
        flatten("headers", &self.file["properties"]["headers"], &mut fields);
        flatten("body", &self.file["body"], &mut fields);
        named(fields)
    }

    /// Checks that `found` differs from the capture in these fields and in no others.
    #[track_caller]
    fn differs(&self, found: &Publish, differences: Differences) {
        let (theirs, ours) = (self.fields(), fields(found));
        let keys: BTreeSet<_> = theirs.keys().chain(ours.keys()).map(String::as_str).collect();
        let differing: BTreeSet<_> =
            keys.into_iter().filter(|key| theirs.get(*key) != ours.get(*key)).collect();
        let expected: BTreeSet<_> = differences.iter().map(|(field, _)| *field).collect();
        let shown = |key: &&str| format!("{key}: {:?}, {:?}", theirs.get(*key), ours.get(*key));
        let all: Vec<_> = differing.symmetric_difference(&expected).map(shown).collect();
        assert!(all.is_empty(), "{}, theirs and ours:\n{}", self.name, all.join("\n"));
    }
}

fn fields(publish: &Publish) -> Fields {
    let Publish { exchange, routing_key, message, .. } = publish;
    let Properties {
        content_type,
        content_encoding,
        headers,
        delivery_mode,
        priority,
        correlation_id,
        reply_to,
        expiration,
        message_id,
        timestamp,
        kind,
        user_id,
        app_id,
    } = message.properties.clone();
    let (number, text) =
        (|it: Option<u8>| it.map(Json::from), |it: Option<String>| it.map(Json::from));
    let mut fields: Fields = [
        ("exchange", Some(Json::from(exchange.as_ref()))),
        ("routing_key", Some(Json::from(routing_key.as_str()))),
        ("content_type", text(content_type.clone())),
        ("content_encoding", text(content_encoding)),
        ("delivery_mode", number(delivery_mode)),
        ("priority", number(priority)),
        ("correlation_id", text(correlation_id)),
        ("reply_to", text(reply_to)),
        ("expiration", text(expiration)),
        ("message_id", text(message_id)),
        ("timestamp", timestamp.map(Json::from)),
        ("type", text(kind)),
        ("user_id", text(user_id)),
        ("app_id", text(app_id)),
    ]
    .into_iter()
    .filter_map(|(key, it)| Some((key.to_owned(), it?.to_string())))
    .collect();
    let serializer = Serializer::from_content_type(&content_type.unwrap()).unwrap();
    let body = serializer.decode(&message.body, &Limits::default()).unwrap();
    flatten("headers", &shown(&headers.unwrap_or_default().into()), &mut fields);
    flatten("body", &shown(&body), &mut fields);
    named(fields)
}

/// A field for each member, and for each element of a task's body.
fn flatten(name: &str, found: &Json, into: &mut Fields) {
    match found {
        Json::Object(members) if name.matches('.').count() < 2 && !members.is_empty() => {
            for (key, member) in members {
                flatten(&format!("{name}.{key}"), member, into);
            }
        }
        Json::Array(items) if name == "body" => {
            for (key, item) in ["args", "kwargs", "embed"].into_iter().zip(items) {
                flatten(&format!("{name}.{key}"), item, into);
            }
        }
        other => {
            into.insert(name.to_owned(), other.to_string());
        }
    }
}

/// The fields with names in the place of the message's own id and of that of its group.
fn named(fields: Fields) -> Fields {
    let id = |key: &str| {
        let text = fields.get(key)?.trim_matches('"').to_owned();
        (text.len() == 36).then_some(text)
    };
    let ids = [(id("headers.id"), "<own>"), (id("headers.group"), "<group>")];
    let rename = |mut text: String| {
        for (id, name) in &ids {
            if let Some(id) = id {
                text = text.replace(id, name);
            }
        }
        text
    };
    fields.into_iter().map(|(key, text)| (key, rename(text))).collect()
}

fn value(json: &Json) -> Value {
    json::decode(&serde_json::to_vec(json).unwrap(), &Limits::default()).unwrap()
}

fn shown(value: &Value) -> Json {
    let mut text = Vec::new();
    json::encode(value, &mut text).unwrap();
    serde_json::from_slice(&text).unwrap()
}

/// Does something as a worker with the settings of the captured one.
fn as_worker<T>(act: impl FnOnce(&Scribe<'_>) -> T) -> T {
    let config = Config { task_default_queue: "celery".to_owned(), ..Config::default() };
    let registry = Registry::of([&OTHER], &StateMap::new()).unwrap();
    act(&Scribe::for_test(Composer::new(&config, "gen10@worker"), &registry))
}

/// What is published after `request`, of one kind.
fn after(request: Request, sequel: Sequel, outcome: Outcome, kind: Kind) -> Vec<Publish> {
    after_message(Message::default(), request, sequel, outcome, kind)
}

fn after_message(
    message: Message,
    request: Request,
    sequel: Sequel,
    outcome: Outcome,
    kind: Kind,
) -> Vec<Publish> {
    let unsettled = Box::new(Unsettled {
        request: Arc::new(request),
        original: Original::untouched(message),
        token: None,
        sequel: Some(Box::new(sequel)),
        children: Vec::new(),
        entry: None,
        facts: Facts::default(),
    });
    let finished = Finished { unsettled, ending: Ending::Ended(outcome) };
    as_worker(|scribe| {
        let mut round = Vec::new();
        let open = begin(finished, scribe, &mut round);
        let all = round.into_iter().chain(open.later);
        all.filter(|effect| effect.kind == kind).map(published).collect()
    })
}

fn published(effect: Effect) -> Publish {
    Arc::unwrap_or_clone(effect.publish)
}

fn task(name: &str, args: impl IntoIterator<Item = i64>) -> Signature {
    let args = args.into_iter().map(Value::Int).collect();
    Signature { args, ..Signature::new(name) }
}

fn success(value: i64) -> Outcome {
    Outcome::Success(Value::Int(value))
}

#[test]
fn a_callback() {
    let captured = capture("task-callback-msgpack");
    let request = captured.request(&captured.header("parent_id").unwrap());
    let sequel = Sequel { callbacks: vec![task("proj.mul", [10])], ..Sequel::default() };
    let calls = after(request, sequel, success(5), Kind::Step);
    let [callback] = &*calls else { panic!("{calls:?}") };
    captured.differs(callback, &[NOBODY_WAITS, OUR_LANGUAGE]);
}

#[test]
fn callbacks_of_one_task_are_a_group() {
    let (task, result) = (capture("task-link-two-json"), capture("result-link-two-json"));
    let request = task.request(&task.header("id").unwrap());
    let callbacks = task.embedded("callbacks");
    let sequel = Sequel { callbacks, ..Sequel::default() };
    let calls = after(request, sequel, success(5), Kind::Step);
    let places: Vec<_> = calls.iter().map(|it| header(it, "group_index")).collect();
    assert_eq!(places, [0.into(), 1.into()]);
    assert_eq!(header(&calls[0], "group"), header(&calls[1], "group"));
    let args: Vec<_> = calls.iter().map(|it| fields(it)["body.args"].clone()).collect();
    assert_eq!(args, ["[5,10]", "[\"fixed\"]"]);
    // The first one has ended.
    let body = |key: &str| result.file["body"][key].as_str().map(str::to_owned);
    let request = Request {
        group: body("group_id"),
        parent_id: body("parent_id"),
        reply_to: Some(result.file["args"]["routing_key"].as_str().unwrap().to_owned()),
        correlation_id: body("task_id"),
        ..result.request(&body("task_id").unwrap())
    };
    let reports = after(request, Sequel::default(), success(50), Kind::Report);
    let [report] = &*reports else { panic!("{reports:?}") };
    result.differs(
        report,
        &[
            ("delivery_mode", "a result is as durable as the task"),
            ("body.date_done", "the time of the capture"),
        ],
    );
}

fn header(publish: &Publish, name: &str) -> Value {
    publish.message.header(name).cloned().unwrap_or_default()
}

#[test]
fn stamps_of_a_callback_are_those_that_it_was_given() {
    let captured = capture("stamped-link-json");
    let request = captured.request(&captured.header("id").unwrap());
    let callbacks = captured.embedded("callbacks");
    let sequel = Sequel { callbacks, ..Sequel::default() };
    let calls = after(request, sequel, success(5), Kind::Step);
    let [callback] = &*calls else { panic!("{calls:?}") };
    let (theirs, ours) = (captured.fields(), fields(callback));
    // Celery's order of names is that of a set.
    for stamp in ["headers.stamps.batch", "headers.stamps.monitoring_id"] {
        assert_eq!(ours[stamp], theirs[stamp]);
    }
    let names = header(callback, "stamped_headers");
    assert_eq!(names.as_array().unwrap().len(), 2, "{names:?}");
    assert_eq!(ours["body.args"], "[5,4]");
}

#[test]
fn an_errback() {
    let captured = capture("task-errback-msgpack");
    let request = captured.request(&captured.header("parent_id").unwrap());
    let sequel = Sequel { errbacks: vec![task("proj.on_err_old", [])], ..Sequel::default() };
    let failure = Outcome::Failure(TaskError::permanent("no"));
    let calls = after(request, sequel, failure, Kind::Step);
    let [errback] = &*calls else { panic!("{calls:?}") };
    captured.differs(errback, &[NOBODY_WAITS, OUR_LANGUAGE]);
}

#[test]
fn what_replaces_a_task() {
    let captured = capture("task-replace-json");
    let request = captured.request(&captured.header("id").unwrap());
    let by = Outcome::Replaced { by: Box::new(task("proj.add", [1, 1000])) };
    let calls = after(request, Sequel::default(), by, Kind::Step);
    let [replacement] = &*calls else { panic!("{calls:?}") };
    assert_eq!(fields(replacement)["reply_to"], "\"caller\"");
    captured.differs(
        replacement,
        &[("reply_to", "the caller's: Celery's waits for ever"), OUR_LANGUAGE],
    );
}

#[test]
fn a_retry() {
    let captured = capture("task-retry-msgpack");
    let id = captured.header("id").unwrap();
    let mut headers = value(&captured.file["properties"]["headers"]).as_map().unwrap().clone();
    headers.insert("retries", 0);
    headers.insert("eta", Value::Null);
    headers.insert("parent_id", Value::Null);
    let mut body = Vec::new();
    let parts = Value::Array((0..3).map(|at| captured.body(at)).collect());
    captured.serializer().encode(&parts, &mut body).unwrap();
    let properties = Properties {
        content_type: captured.property("content_type"),
        content_encoding: captured.property("content_encoding"),
        headers: Some(headers),
        delivery_mode: Some(2),
        priority: Some(0),
        correlation_id: captured.property("correlation_id"),
        reply_to: captured.property("reply_to"),
        ..Properties::default()
    };
    let retry = Outcome::Retry {
        error: TaskError::retry().into(),
        after: std::time::Duration::ZERO,
        changed: None,
    };
    let request = Request {
        reply_to: captured.property("reply_to"),
        correlation_id: captured.property("correlation_id"),
        ..captured.request(&id)
    };
    let message = Message { properties, body };
    let calls = after_message(message, request, Sequel::default(), retry, Kind::Step);
    let [again] = &*calls else { panic!("{calls:?}") };
    captured.differs(again, &[DATED]);
}

#[test]
fn a_call_that_a_task_makes() {
    let captured = capture("task-subtask-msgpack");
    let (root_id, parent_id) = (captured.header("root_id"), captured.header("parent_id"));
    let options = CallOptions { root_id, parent_id, ..CallOptions::default() };
    let call = Signature { options: options.into_map(), ..task("proj.add", [0, 0]) };
    let written = as_worker(|scribe| scribe.compose(call, captured.serializer(), Some(0)));
    captured.differs(&written.unwrap(), &[NOBODY_WAITS, OUR_LANGUAGE]);
}

/// The chord that a body was captured of, as it was opened here.
fn opened(captured: &Capture, header: [Signature; 2], body: Value, rest: Option<Value>) -> Open {
    let tasks = Value::Array(header.into_iter().map(Signature::into_value).collect());
    let kwargs = Map::from_iter([("header", tasks), ("body", body)]);
    let group = captured.header("group").unwrap();
    let subtask_type = Some("chord".to_owned());
    let options = Map::from_iter([("task_id", group)]);
    let mut workflow =
        Signature { kwargs, subtask_type, options, ..Signature::new("celery.chord") };
    if let Some(rest) = rest {
        let tasks = Value::Array(vec![workflow.into_value(), rest]);
        workflow = Signature {
            kwargs: Map::from_iter([("tasks", tasks)]),
            subtask_type: Some("chain".to_owned()),
            ..Signature::new("celery.chain")
        };
    }
    let root_id = captured.header("root_id");
    let options = CallOptions { root_id, ..CallOptions::default() };
    let call = Call { options, ..Call::default() };
    let lowered = lower(Canvas::from_signature(workflow).unwrap(), call).unwrap();
    let mut open = lowered.opens.into_iter().next().unwrap();
    open.write_in(captured.serializer());
    open
}

/// The body's signature, with what identifies it in the capture.
fn body(captured: &Capture, id: String, link_error: Vec<Signature>) -> Value {
    let task_id = Some(id);
    let reply_to = captured.property("reply_to");
    let options = CallOptions { task_id, reply_to, link_error, ..CallOptions::default() };
    Signature { options: options.into_map(), ..task("proj.xsum", []) }.into_value()
}

fn joined(outcome: &Joined) -> Vec<Publish> {
    as_worker(|scribe| following(outcome, scribe).into_effects().map(published).collect())
}

fn complete(open: Open, values: [u8; 2]) -> Joined {
    // Small numbers are themselves in MessagePack.
    let parts = values.map(|value| Part::Ok(Arc::from([value])));
    Joined::Complete { open: Arc::new(open), parts: parts.into() }
}

const NO_PARENT: (&str, &str) =
    ("headers.parent_id", "Celery names the part that has ended last; a body follows all parts");

#[test]
fn the_body_of_a_chord() {
    let captured = capture("chord-body-json");
    let body = body(&captured, captured.header("id").unwrap(), Vec::new());
    let header = [task("proj.add", [1, 1]), task("proj.add", [2, 2])];
    let made = joined(&complete(opened(&captured, header, body, None), [2, 4]));
    let [call] = &*made else { panic!("{made:?}") };
    captured.differs(call, &[NO_PARENT, OUR_LANGUAGE]);
}

#[test]
fn the_body_of_a_chord_with_the_rest_of_a_chain() {
    let captured = capture("chord-body-of-chain-json");
    let body = body(&captured, captured.header("id").unwrap(), Vec::new());
    let header = [task("proj.add", [2, 2]), task("proj.add", [3, 3])];
    let rest = captured.embedded("chain").remove(0).into_value();
    let made = joined(&complete(opened(&captured, header, body, Some(rest)), [4, 6]));
    let [call] = &*made else { panic!("{made:?}") };
    captured.differs(call, &[NO_PARENT, OUR_LANGUAGE]);
}

#[test]
fn the_errback_of_a_chord_whose_part_has_failed() {
    let captured = capture("chord-errback-call-json");
    let errbacks = vec![task("proj.on_err_old", [])];
    let body = body(&captured, captured.header("parent_id").unwrap(), errbacks);
    let header = [task("proj.add", [1, 1]), task("proj.boom", [])];
    let open = Arc::new(opened(&captured, header, body, None));
    let exception = Exception::new("builtins", "ValueError", "no");
    let failure = Arc::new(Failure::new(exception, "proj.boom", "the part"));
    let outcome = Joined::Failed { open, index: 1.into(), failure, missing: 0 };
    let made = joined(&outcome);
    let errback = made.iter().find(|it| header_is(it, "task", "proj.on_err_old")).unwrap();
    captured.differs(errback, &[NOBODY_WAITS, OUR_LANGUAGE]);
}

fn header_is(publish: &Publish, name: &str, text: &str) -> bool {
    header(publish, name).as_str() == Some(text)
}
