//! From signature to message: ids, dates, address and encoding. Pure.

use std::borrow::Cow;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use super::delays::{self, Due};
use super::unique::Lock;
use super::{Config, Lineage, Route, RouteRequest, SendError, Signature};
use crate::amqp::Publish;
use crate::protocol::canvas::JoinDefaults;
use crate::protocol::delay;
use crate::protocol::{
    self, CallOptions, Date, Embed, Expires, Map, Serializer, TaskBody, TaskHeaders, TaskMessage,
    TimeLimit, Value, repr,
};

/// What composing needs to know of its surroundings.
#[derive(Clone, Copy, Debug)]
pub(super) struct Surroundings<'a> {
    pub(super) config: &'a Config,
    /// `gen<pid>@<host>`.
    pub(super) origin: &'a str,
    /// Name of the reply queue, for calls that want a result.
    pub(super) reply_to: Option<&'a str>,
    /// The running task, for calls made inside one.
    pub(super) lineage: Option<&'a Lineage>,
    /// The priority of that task: for calls that have none of their own, and no route with one.
    pub(super) inherited_priority: Option<u8>,
    pub(super) now: Timestamp,
    /// Whether calls for later go to the delay queues.
    pub(super) delays: bool,
}

/// A call that is ready to be published.
#[derive(Debug)]
pub(super) struct Composed {
    pub(super) task: Cow<'static, str>,
    pub(super) task_id: Arc<str>,
    pub(super) wants_result: bool,
    /// What is to be claimed before it is published.
    pub(super) lock: Option<Lock>,
    pub(super) publish: Publish,
}

/// Writes calls whose options are complete: ids, lineage, and where the result goes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Composer<'a> {
    config: &'a Config,
    origin: &'a str,
    delays: bool,
}

impl<'a> Composer<'a> {
    /// For calls that are sent by `origin`, `gen<pid>@<host>`.
    pub(crate) fn new(config: &'a Config, origin: &'a str) -> Self {
        Self { config, origin, delays: false }
    }

    /// Addresses calls for later to the delay queues, for who makes sure that they exist; without
    /// this they go to their queue, whose worker hands them on.
    pub(super) fn with_delays(self) -> Self {
        Self { delays: true, ..self }
    }

    /// The settings.
    pub(crate) fn config(&self) -> &'a Config {
        self.config
    }

    /// How chords are joined that are made now.
    pub(crate) fn join(&self) -> JoinDefaults {
        JoinDefaults {
            shards: self.config.join_shards,
            expires: self.config.chord_expires,
            mode: self.config.chord_mode,
            ..JoinDefaults::default()
        }
    }

    /// The message of one call, and its address. `serializer` is how it is written unless the call
    /// says otherwise, `inherited_priority` its priority unless the call or its route has one.
    pub(crate) fn compose(
        &self,
        call: protocol::Signature,
        serializer: Serializer,
        inherited_priority: Option<u8>,
    ) -> Result<Publish, SendError> {
        let protocol::Signature { task, args, kwargs, options, .. } = call;
        let mut options = CallOptions::from_map(options)
            .map_err(|source| SendError::Encode { task: task.clone(), source })?;
        // Nobody waits for the value itself where it is empty.
        options.reply_to = options.reply_to.filter(|reply_to| !reply_to.is_empty());
        if embeds_group(&options) {
            options.serializer = Some(Serializer::Json);
        }
        options.serializer.get_or_insert(serializer);
        let call = Signature::<Value>::new(task).args(args).kwargs(kwargs).with_options(options);
        let around = Surroundings {
            config: self.config,
            origin: self.origin,
            reply_to: None,
            lineage: None,
            inherited_priority,
            now: Timestamp::now(),
            delays: self.delays,
        };
        compose(call, around).map(|composed| composed.publish)
    }
}

/// Whether a group travels with the call, which Python workers can pass on in JSON only.
fn embeds_group(options: &CallOptions) -> bool {
    let is_group = |signature: &protocol::Signature| {
        matches!(signature.subtask_type.as_deref(), Some("group" | "chord" | "chain"))
            || signature.options.contains_key("chord")
    };
    let lists = [Some(&options.link), Some(&options.link_error), options.chain.as_ref()];
    lists.into_iter().flatten().flatten().any(is_group)
}

/// Turns a signature into a message and its address.
pub(super) fn compose<T, In>(
    signature: Signature<T, In>,
    around: Surroundings<'_>,
) -> Result<Composed, SendError> {
    let Signature { task, args, kwargs, mut options, unique, error, .. } = signature;
    if let Some(source) = error {
        return Err(SendError::Arguments { task: task.into_owned(), source });
    }
    let lock = unique.map(|unique| unique.lock(&task, &args, &kwargs)).transpose();
    let lock = lock.map_err(|reason| SendError::Option { task: task.to_string(), reason })?;
    let task_id: Arc<str> = match options.task_id.take() {
        Some(id) => id.into(),
        None => match around.lineage {
            Some(lineage) => lineage.trail.id(&task, &args, &kwargs).into(),
            None => uuid::Uuid::new_v4().to_string().into(),
        },
    };
    let wants_result = !options.ignore_result.unwrap_or(around.config.task_ignore_result);
    let route = around.config.task_routes.find(&RouteRequest::new(
        routed_as(&task, &kwargs),
        &args,
        &kwargs,
    ));
    let (exchange, routing_key) = address(&mut options, route.as_ref(), around.config);
    let dates = Dates::of(&task, &options, around.now)?;
    let to_queue = exchange.is_empty();
    let may_wait = around.delays && to_queue && delay::can_wait_for(&routing_key);
    let wait = if may_wait { dates.due().wait(around.now) } else { None };
    let expires_there = || to_queue && wait.is_none() && around.config.dead_letters(&routing_key);
    let expiration_ms = dates.expiration_ms(around.now).filter(|_| expires_there());
    let call = message(&task, &task_id, args, kwargs, (options, dates), route.as_ref(), around);
    let message = TaskMessage { expiration_ms, ..call }
        .into_message()
        .map_err(|source| SendError::Encode { task: task.to_string(), source })?;
    let publish = match wait {
        Some(seconds) => delays::or_straight(delays::delayed(seconds, &routing_key, message)),
        None => Publish::new(exchange, routing_key, message),
    };
    Ok(Composed { task, task_id, wants_result, lock, publish })
}

/// `celery.map` and `celery.starmap` go where the task goes that they call.
fn routed_as<'a>(task: &'a str, kwargs: &'a Map) -> &'a str {
    if !matches!(task, "celery.map" | "celery.starmap") {
        return task;
    }
    let inner = kwargs.get("task").and_then(Value::as_map).and_then(|inner| inner.get("task"));
    inner.and_then(Value::as_str).unwrap_or(task)
}

/// Options of the call win over the route, the route over the default queue.
///
/// A queue is reached through the default exchange, whose routing keys are the queue names. An
/// exchange without a routing key gets the queue's name as the key.
fn address(
    options: &mut CallOptions,
    route: Option<&Route>,
    config: &Config,
) -> (Cow<'static, str>, String) {
    let (exchange, key, queue) =
        (options.exchange.take(), options.routing_key.take(), options.queue.take());
    if exchange.is_some() || key.is_some() || queue.is_some() {
        let key = key.or(queue).unwrap_or_else(|| config.task_default_queue.clone());
        return (exchange.unwrap_or_default().into(), key);
    }
    let Some(route) = route else { return ("".into(), config.task_default_queue.clone()) };
    let key = route.routing_key.as_ref().or(route.queue.as_ref());
    let key = key.unwrap_or(&config.task_default_queue).clone();
    (route.exchange.clone().unwrap_or_default().into(), key)
}

fn message(
    task: &str,
    task_id: &Arc<str>,
    args: Vec<Value>,
    kwargs: Map,
    (options, dates): (CallOptions, Dates),
    route: Option<&Route>,
    around: Surroundings<'_>,
) -> TaskMessage {
    let config = around.config;
    let ignore_result = options.ignore_result.unwrap_or(config.task_ignore_result);
    let priority = options
        .priority
        .or_else(|| route.and_then(|route| route.priority))
        .or(around.inherited_priority)
        .or(config.task_default_priority);
    let reply_to = options.reply_to.or_else(|| around.reply_to.map(str::to_owned));
    let seconds = |limit: std::time::Duration| limit.as_secs_f64();
    let headers = TaskHeaders {
        lang: "rust".to_owned(),
        task: task.to_owned(),
        id: task_id.to_string(),
        shadow: options.shadow,
        eta: dates.eta.map(Date::from),
        expires: dates.expires.map(Date::from),
        group: options.group_id,
        group_index: options.group_index,
        retries: options.retries.unwrap_or(0),
        timelimit: TimeLimit {
            hard: options.time_limit.map(seconds),
            soft: options.soft_time_limit.map(seconds),
        },
        root_id: options
            .root_id
            .or_else(|| around.lineage.map(|lineage| lineage.root_id.to_string()))
            .or_else(|| Some(task_id.to_string())),
        parent_id: options
            .parent_id
            .or_else(|| around.lineage.map(|lineage| lineage.task_id.to_string())),
        argsrepr: repr::args(&args),
        kwargsrepr: repr::kwargs(&kwargs),
        origin: around.origin.to_owned(),
        ignore_result: Some(ignore_result),
        replaced_task_nesting: options.replaced_task_nesting.unwrap_or(0),
        stamped_headers: options.stamped_headers,
        stamps: options.stamps,
        compression: None,
        extra: options.headers,
    };
    let embed = Embed {
        callbacks: some_if_any(options.link),
        errbacks: some_if_any(options.link_error),
        chain: options.chain,
        chord: options.chord,
        ..Embed::default()
    };
    TaskMessage {
        headers,
        body: TaskBody { args, kwargs, embed },
        serializer: options.serializer.unwrap_or(config.task_serializer),
        compression: options.compression.or(config.task_compression),
        priority: Some(priority.unwrap_or(0)),
        reply_to: if ignore_result { None } else { reply_to },
        correlation_id: Some(task_id.to_string()),
        expiration_ms: None,
        persistent: true,
    }
}

fn some_if_any<T>(items: Vec<T>) -> Option<Vec<T>> {
    if items.is_empty() { None } else { Some(items) }
}

/// The points in time of a call.
#[derive(Clone, Copy, Debug, Default)]
struct Dates {
    eta: Option<Timestamp>,
    expires: Option<Timestamp>,
}

impl Dates {
    fn of(task: &str, options: &CallOptions, now: Timestamp) -> Result<Self, SendError> {
        let invalid =
            |reason: &str| SendError::Option { task: task.to_owned(), reason: reason.to_owned() };
        let after = |delay: std::time::Duration, name: &str| {
            SignedDuration::try_from(delay)
                .and_then(|delay| now.checked_add(delay))
                .map_err(|_| invalid(&format!("{name} lies too far in the future")))
        };
        let eta = match (options.eta, options.countdown) {
            (Some(_), Some(_)) => return Err(invalid("give eta or countdown, not both")),
            (Some(eta), None) => Some(eta),
            (None, Some(countdown)) if countdown.is_zero() => None,
            (None, Some(countdown)) => Some(after(countdown, "countdown")?),
            (None, None) => None,
        };
        let expires = match options.expires {
            None => None,
            Some(Expires::At(at)) => Some(at),
            Some(Expires::In(delay)) => Some(after(delay, "expires")?),
        };
        Ok(Self { eta, expires })
    }

    /// The time until the broker drops the message. A date in the past expires at once: Celery
    /// sends "0".
    fn expiration_ms(self, now: Timestamp) -> Option<u64> {
        let left = self.expires?.duration_since(now).as_millis();
        Some(u64::try_from(left).unwrap_or(0))
    }

    fn due(self) -> Due {
        Due { eta: self.eta, expires: self.expires }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::client::config::QueueSetting;
    use crate::protocol::Message;

    fn composed(change: impl FnOnce(Signature<()>) -> Signature<()>, delays: bool) -> Publish {
        let task_queues = vec![QueueSetting::named("known")];
        let config = Config { task_queues, ..Config::default() };
        let around = Surroundings {
            config: &config,
            origin: "gen1@host",
            reply_to: None,
            lineage: None,
            inherited_priority: None,
            now: Timestamp::from_second(1_900_000_000).unwrap(),
            delays,
        };
        compose(change(Signature::new("t")), around).unwrap().publish
    }

    fn address(publish: &Publish) -> (&str, &str) {
        (&publish.exchange, delay::strip(&publish.routing_key))
    }

    fn expiration(message: &Message) -> Option<&str> {
        message.properties.expiration.as_deref()
    }

    #[test]
    fn a_call_for_later_goes_to_the_delay_queues_and_one_for_soon_does_not() {
        let later = |call: Signature<()>| call.countdown(Duration::from_millis(9900));
        let publish = composed(later, true);
        assert_eq!(address(&publish), ("celery_delayed_3", "celeriac"));
        assert_eq!(publish.routing_key, delay::routing_key(9, "celeriac"));
        assert_eq!(publish.message.header("eta"), Some(&"2030-03-17T17:46:49.900000+00:00".into()));
        assert_eq!(address(&composed(later, false)), ("", "celeriac"));
        let soon = composed(|call| call.countdown(Duration::from_secs(2)), true);
        assert_eq!(address(&soon), ("", "celeriac"));
        assert!(soon.message.header("eta").is_some(), "the worker holds it");
        let own = composed(|call| later(call).exchange("own").routing_key("k"), true);
        assert_eq!(address(&own), ("own", "k"));
        let odd = composed(|call| later(call).queue("a.#"), true);
        assert_eq!(address(&odd), ("", "a.#"));
    }

    #[test]
    fn only_a_queue_that_tells_of_what_it_drops_is_asked_to_drop_what_expires() {
        let expires = |call: Signature<()>| call.expires(Expires::In(Duration::from_secs(60)));
        let set = |change: fn(Signature<()>) -> Signature<()>| {
            let publish = composed(|call| change(expires(call)), true);
            assert!(publish.message.header("expires").is_some());
            expiration(&publish.message).map(str::to_owned)
        };
        assert_eq!(set(|call| call).as_deref(), Some("60000"));
        assert_eq!(set(|call| call.queue("known")).as_deref(), Some("60000"));
        assert_eq!(set(|call| call.queue("celery")), None, "a classic queue");
        assert_eq!(set(|call| call.queue("unknown")), None);
        assert_eq!(set(|call| call.exchange("own")), None);
        assert_eq!(set(|call| call.countdown(Duration::from_secs(30))), None);
    }
}
