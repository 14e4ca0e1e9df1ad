//! `#[task]` functions through their definitions, as a worker runs them.

use std::sync::Arc;
use std::time::Duration;

use celeriac::client::canvas::Step;
use celeriac::protocol::{Map, Serializer, Value};
use celeriac::task::{
    Acks, Environment, ErrorClass, Invocation, Registry, Request, Run, StateMap, TaskDef,
    TaskErrorKind, TaskOptions,
};
use celeriac::{Context, State, TaskError, TaskResult, task};
use serde::{Deserialize, Serialize};

mod shop {
    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    pub(super) struct Item {
        pub(super) name: String,
        pub(super) cents: i64,
    }

    #[task]
    pub(super) async fn add(x: i64, y: i64) -> i64 {
        x + y
    }

    #[task(name = "shop.pay", queue = "payments", max_retries = 8, time_limit = "1.5s")]
    pub(super) async fn charge(
        cx: Context,
        items: Vec<Item>,
        prices: State<Prices>,
        #[default] note: Option<String>,
        #[default(100 + 1)] fee: i64,
    ) -> TaskResult<String> {
        let sum: i64 = items.iter().map(|item| item.cents).sum();
        Ok(format!("{} {} {note:?}", cx.id(), sum + fee + prices.0))
    }

    #[task]
    fn divide(mut dividend: i64, r#type: i64) -> Result<i64, std::num::TryFromIntError> {
        dividend -= i64::from(u8::try_from(r#type)?);
        Ok(dividend)
    }
}

struct Prices(i64);

#[task(
    priority = 9,
    serializer = json,
    ignore_result,
    acks = early,
    time_limit = 60,
    soft_time_limit = "500ms",
    retry_backoff = 2.5,
    retry_backoff_max = "1m",
    retry_jitter = false,
    retry_for(std::io::Error, "ValueError"),
    dont_retry_for("shop.errors.Declined"),
    track_started = false,
    blocking
)]
fn tuned() {}

#[task]
async fn declines() -> TaskResult {
    Err(TaskError::permanent("declined"))
}

#[task]
async fn says() -> Result<(), String> {
    Err("no".into())
}

#[task]
async fn formats() -> std::fmt::Result {
    Ok(())
}

#[task]
async fn unwritable() -> std::collections::HashMap<(i64, i64), i64> {
    [((1, 2), 3)].into()
}

fn context() -> Context {
    let mut states = StateMap::new();
    states.insert(Prices(1000));
    let environment = Environment { states, ..Environment::default() };
    let request = Request { id: "id-1".into(), ..Request::default() };
    Context::new(Arc::new(request), Arc::new(environment), Default::default())
}

async fn run_with(def: &TaskDef, context: Context, args: Vec<Value>, kwargs: Map) -> TaskResult {
    let invocation = Invocation { args, kwargs, context };
    match def.run {
        Run::Async(run) => run(invocation).await,
        Run::Blocking(run) => run(invocation),
    }
}

async fn run(def: &TaskDef, args: Vec<Value>, kwargs: Map) -> TaskResult {
    run_with(def, context(), args, kwargs).await
}

fn ints<const N: usize>(numbers: [i64; N]) -> Vec<Value> {
    numbers.into_iter().map(Value::Int).collect()
}

fn items() -> Value {
    let item = Map::from_iter([("name", Value::from("pen")), ("cents", Value::Int(20))]);
    Value::Array(vec![Value::Map(item)])
}

#[tokio::test]
async fn the_function_stays_a_function() {
    assert_eq!(shop::add(1, 2).await, 3);
    let pens = vec![shop::Item { name: "pen".into(), cents: 1 }];
    let charged = shop::charge(context(), pens, State::new(Prices(5)), None, 4).await;
    assert_eq!(charged.unwrap(), "id-1 10 None");
}

#[test]
fn the_name_is_the_path_with_dots_unless_it_is_given() {
    assert_eq!(shop::add::NAME, "task_macro.shop.add");
    assert_eq!(shop::charge::NAME, "shop.pay");
    assert_eq!(shop::add::def().name, shop::add::NAME);
    assert!(shop::add::def().file.ends_with("tests/task_macro.rs"));
    assert!(shop::charge::def().line > shop::add::def().line);
}

#[tokio::test]
async fn arguments_are_positional_or_named_or_both() {
    let add = shop::add::def();
    let y = || Map::from_iter([("y", 2_i64)]);
    assert_eq!(run(add, ints([1, 2]), Map::new()).await.unwrap(), Value::Int(3));
    assert_eq!(run(add, ints([1]), y()).await.unwrap(), Value::Int(3));
    let both = Map::from_iter([("y", 2_i64), ("x", 5)]);
    assert_eq!(run(add, vec![], both).await.unwrap(), Value::Int(7));
    let raw = Map::from_iter([("type", 2_i64), ("dividend", 9)]);
    let raw = Invocation { args: vec![], kwargs: raw, context: Context::for_test() };
    let divide = Registry::new([], &states()).unwrap().task("task_macro.shop.divide").unwrap();
    let Run::Blocking(divide) = divide.run else { panic!("a plain fn is blocking") };
    assert_eq!(divide(raw).unwrap(), Value::Int(7));
}

#[tokio::test]
async fn defaults_context_and_state_are_filled_in() {
    let charge = shop::charge::def();
    let bare = run(charge, vec![items()], Map::new()).await.unwrap();
    assert_eq!(bare, Value::from("id-1 1121 None"));
    let full = Map::from_iter([("fee", Value::Int(1)), ("note", Value::from("x"))]);
    let full = run(charge, vec![items()], full).await.unwrap();
    assert_eq!(full, Value::from("id-1 1021 Some(\"x\")"));
}

#[tokio::test]
async fn wrong_arguments_are_a_permanent_type_error() {
    let error = run(shop::add::def(), ints([1]), Map::new()).await.unwrap_err();
    assert_eq!(error.kind(), TaskErrorKind::Permanent);
    let text = "TypeError: add() missing 1 required positional argument: 'y'";
    assert_eq!(error.to_string(), text);

    let item = Map::from_iter([("name", Value::from("pen")), ("cents", Value::from("x"))]);
    let items = Value::Array(vec![Value::Map(item)]);
    let error = run(shop::charge::def(), vec![items], Map::new()).await.unwrap_err();
    let text = "TypeError: charge() argument 'items[0].cents': expected i64, got str";
    assert_eq!(error.to_string(), text);
}

#[tokio::test]
async fn a_context_without_the_state_is_an_error() {
    let charge = shop::charge::def();
    let run = run_with(charge, Context::for_test(), vec![items()], Map::new());
    let text = "Exception: the worker has no state of type task_macro::Prices";
    assert_eq!(run.await.unwrap_err().to_string(), text);
}

#[tokio::test]
async fn errors_keep_their_class_and_verdict() {
    let error = run(declines::def(), vec![], Map::new()).await.unwrap_err();
    assert_eq!(error.kind(), TaskErrorKind::Permanent);
    let error = run(says::def(), vec![], Map::new()).await.unwrap_err();
    assert_eq!(error.to_string(), "Exception: no");
    let divide = Registry::new([], &states()).unwrap().task("task_macro.shop.divide").unwrap();
    let error = run(divide, ints([9, 999]), Map::new()).await.unwrap_err();
    assert_eq!(error.exception().exc_type, "TryFromIntError");
    assert_eq!(error.exception().exc_module.as_deref(), Some("core.num.error"));
    assert_eq!(error.kind(), TaskErrorKind::Retryable);
}

#[tokio::test]
async fn results_are_values() {
    assert_eq!(run(tuned::def(), vec![], Map::new()).await.unwrap(), Value::Null);
    assert_eq!(run(formats::def(), vec![], Map::new()).await.unwrap(), Value::Null);
    let error = run(unwritable::def(), vec![], Map::new()).await.unwrap_err();
    let text = "EncodeError: failed to serialize the result: map keys must be text, got list";
    assert_eq!(error.to_string(), text);
}

#[test]
fn options_are_data() {
    let options = TaskOptions {
        priority: Some(9),
        serializer: Some(Serializer::Json),
        ignore_result: Some(true),
        acks: Some(Acks::Early),
        time_limit: Some(Duration::from_secs(60)),
        soft_time_limit: Some(Duration::from_millis(500)),
        retry_backoff: Some(Duration::from_millis(2500)),
        retry_backoff_max: Some(Duration::from_secs(60)),
        retry_jitter: Some(false),
        retry_for: const { &[ErrorClass::of::<std::io::Error>(), ErrorClass::named("ValueError")] },
        dont_retry_for: const { &[ErrorClass::named("shop.errors.Declined")] },
        track_started: Some(false),
        ..TaskOptions::DEFAULT
    };
    assert_eq!(tuned::def().options, options);
    let charge = shop::charge::def().options;
    assert_eq!((charge.queue, charge.max_retries), (Some("payments"), Some(8)));
    assert_eq!(shop::add::def().options, TaskOptions::DEFAULT);
}

#[test]
fn signatures_carry_the_options_of_the_task_until_the_call_sets_its_own() {
    let call = shop::charge::s(vec![], None, 3);
    assert_eq!(call.task(), "shop.pay");
    assert_eq!(call.options().queue.as_deref(), Some("payments"));
    assert_eq!(call.options().time_limit, Some(Duration::from_millis(1500)));
    assert_eq!(call.queue("other").options().queue.as_deref(), Some("other"));
}

fn states() -> StateMap {
    let mut states = StateMap::new();
    states.insert(Prices(1));
    states
}

#[test]
fn tasks_register_themselves_wherever_they_are_written() {
    #[task]
    async fn inner(item: shop::Item) -> shop::Item {
        item
    }

    let registry = Registry::new([shop::add::def(), inner::def()], &states()).unwrap();
    assert_eq!(registry.task("task_macro.shop.add").unwrap().params.len(), 2);
    assert_eq!(registry.task("task_macro.inner").unwrap().name, inner::NAME);
    assert!(registry.task("add").is_none());
}

#[test]
fn a_registry_without_the_state_names_task_place_and_type() {
    let error = Registry::new([], &StateMap::new()).unwrap_err().to_string();
    let line = shop::charge::def().line;
    assert_eq!(
        error,
        format!(
            "task 'shop.pay' ({}:{line}) needs State<task_macro::Prices>, \
             which the worker was not given",
            shop::charge::def().file,
        )
    );
}

#[test]
fn signatures_for_workflows_leave_the_first_argument_open_or_ignore_what_came_before() {
    let partial = shop::add::partial(2).into_data().unwrap();
    assert_eq!((partial.args, partial.immutable), (ints([2]), false));
    let fixed = shop::add::si(1, 2).into_data().unwrap();
    assert_eq!((fixed.args, fixed.immutable), (ints([1, 2]), true));
    // Options of the task stay.
    let pay = shop::charge::partial(None, 3);
    assert_eq!(pay.options().queue.as_deref(), Some("payments"));
}

#[test]
fn many_items_are_one_call_or_a_group_of_some() {
    let map = shop::add::starmap([(1, 2), (3, 4)]).into_data().unwrap();
    assert_eq!((&*map.task, map.immutable), ("celery.starmap", true));
    let items = Value::Array(vec![Value::Array(ints([1, 2])), Value::Array(ints([3, 4]))]);
    assert_eq!(map.kwargs.get("it"), Some(&items));
    let task = map.kwargs.get("task").and_then(Value::as_map).unwrap();
    assert_eq!(task.get("task"), Some(&Value::from(shop::add::NAME)));
    let chunks = shop::add::chunks((0..5).map(|x| (x, x)), 2).into_canvas().unwrap();
    assert_eq!(chunks.parts().len(), 3);
}
