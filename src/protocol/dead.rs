//! Headers of dead letters: the broker's trace of a message's death, and the ones with which a
//! message is parked in `<queue>.dead`.
//!
//! The names that begin with `x-` are RabbitMQ's, see <https://www.rabbitmq.com/docs/dlx>.
//! **Invariant:** a message from which [`strip`] took the traces is routed like a new one: the
//! broker drops what it sees going in circles.

use super::{Map, Value};

/// Why it was parked: a short word for filters.
pub const REASON: &str = "dead_reason";
/// Why it was parked: the whole story.
pub const ERROR: &str = "dead_error";
/// The queue that it was taken from.
pub const QUEUE: &str = "dead_queue";
/// The exchange that it was sent to first.
pub const EXCHANGE: &str = "dead_exchange";
/// The routing key that it was sent with.
pub const ROUTING_KEY: &str = "dead_routing_key";
/// The worker that parked it.
pub const WORKER: &str = "dead_worker";
/// How often it had been delivered, as far as that is known.
pub const ATTEMPTS: &str = "dead_attempts";
/// When it was parked, as RFC 3339.
pub const TIME: &str = "dead_time";
/// The `expiration` that it was sent with.
pub const EXPIRATION: &str = "dead_expiration";
/// The `user_id` that it was sent with.
pub const USER_ID: &str = "dead_user_id";

/// The [`REASON`] of a task whose workers were lost too often.
pub const DELIVERY_LIMIT: &str = "delivery-limit";
/// The [`REASON`] of a message in the log of a join shard that is no record.
pub const JOIN_RECORD: &str = "join-record";
/// The same of an `open` that cannot be used, until those who wait for the chord were told.
pub const JOIN_OPEN: &str = "join-open";

/// How often workers have taken a message from a classic queue and not settled it. Written by
/// workers of celeriac; quorum queues count for themselves.
pub const DELIVERIES: &str = "x-celeriac-deliveries";
/// How often workers have sent a message on as another one. Written by workers of celeriac, and
/// never taken off: by this they tell the two, also after one of them was parked.
pub const HAND_ONS: &str = "x-celeriac-hand-ons";
/// The same as [`DELIVERIES`], told by quorum queues with each delivery.
pub const DELIVERY_COUNT: &str = "x-delivery-count";
/// How often a quorum queue of RabbitMQ 4 has handed a message out before, however it came back.
pub const ACQUIRED_COUNT: &str = "x-acquired-count";

/// What [`park`ing](REASON) adds.
const STORY: [&str; 10] =
    [REASON, ERROR, QUEUE, EXCHANGE, ROUTING_KEY, WORKER, ATTEMPTS, TIME, EXPIRATION, USER_ID];

/// What brokers add when a message dies or is delivered again.
const TRACES: [&str; 10] = [
    "x-death",
    "x-first-death-exchange",
    "x-first-death-queue",
    "x-first-death-reason",
    "x-last-death-exchange",
    "x-last-death-queue",
    "x-last-death-reason",
    ACQUIRED_COUNT,
    DELIVERY_COUNT,
    DELIVERIES,
];

/// Takes off what the broker, and workers that count for it, have written of earlier deliveries.
pub fn strip(headers: &mut Map) {
    for trace in TRACES {
        headers.remove(trace);
    }
}

/// Takes off what parking has added as well, so that the message is as it was sent.
pub fn revive(headers: &mut Map) {
    strip(headers);
    for name in STORY {
        headers.remove(name);
    }
}

/// How often a message was delivered before this time and not settled, as far as its headers
/// tell: by the counts of a quorum queue, else by ours.
pub fn deliveries(headers: &Map) -> Option<u64> {
    let count = |name| headers.get(name).and_then(Value::as_i64);
    let counts = [DELIVERY_COUNT, ACQUIRED_COUNT, DELIVERIES].map(count);
    u64::try_from(counts.into_iter().flatten().max()?).ok()
}

/// How a message came from a queue to its dead-letter exchange the last time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Death {
    /// The queue in which it died.
    pub queue: String,
    /// RabbitMQ's word: `delivery_limit`, `expired`, `maxlen` or `rejected`.
    pub reason: String,
    /// The exchange through which it had come to that queue.
    pub exchange: String,
    /// The routing key with which it had come.
    pub routing_key: String,
    /// The message's own time to live, in milliseconds, if it had one.
    pub expiration: Option<String>,
}

impl Death {
    /// The latest death that the headers tell of. A message that has passed delay queues has died
    /// there, too, so the first one says nothing.
    pub fn last(headers: &Map) -> Option<Self> {
        let text = |map: &Map, key: &str| Some(map.get(key)?.as_str()?.to_owned());
        let newest = headers.get("x-death").and_then(Value::as_array).and_then(<[_]>::first);
        if let Some(death) = newest.and_then(Value::as_map) {
            let keys = death.get("routing-keys").and_then(Value::as_array);
            let key = keys.and_then(<[_]>::first).and_then(Value::as_str);
            return Some(Self {
                queue: text(death, "queue")?,
                reason: text(death, "reason")?,
                exchange: text(death, "exchange").unwrap_or_default(),
                routing_key: key.unwrap_or_default().to_owned(),
                expiration: text(death, "original-expiration"),
            });
        }
        ["last", "first"].into_iter().find_map(|which| {
            let of = |what: &str| text(headers, &format!("x-{which}-death-{what}"));
            Some(Self {
                queue: of("queue")?,
                reason: of("reason")?,
                exchange: of("exchange").unwrap_or_default(),
                ..Self::default()
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn death(queue: &str, reason: &str) -> Value {
        let keys = Value::Array(vec!["key".into(), "other".into()]);
        let mut death = Map::from_iter([("queue", queue), ("reason", reason), ("exchange", "e")]);
        death.insert("routing-keys", keys);
        death.into()
    }

    #[test]
    fn the_newest_death_is_told_first() {
        let deaths = vec![death("tasks", "delivery_limit"), death("delay", "expired")];
        let mut headers = Map::from_iter([("x-first-death-queue", "delay")]);
        headers.insert("x-death", deaths);
        let last = Death::last(&headers).unwrap();
        assert_eq!((&*last.queue, &*last.reason), ("tasks", "delivery_limit"));
        assert_eq!((&*last.exchange, &*last.routing_key), ("e", "key"));
    }

    #[test]
    fn a_trace_that_was_shortened_is_read_as_far_as_it_goes() {
        let pairs = [("x-first-death-queue", "q"), ("x-first-death-reason", "rejected")];
        let last = Death::last(&Map::from_iter(pairs)).unwrap();
        assert_eq!((&*last.queue, &*last.reason), ("q", "rejected"));
        for odd in [Value::Null, Value::Array(vec![]), Value::Array(vec![1.into()]), "x".into()] {
            assert_eq!(Death::last(&Map::from_iter([("x-death", odd)])), None);
        }
    }

    #[test]
    fn what_is_revived_has_only_the_headers_of_its_sender() {
        let names = TRACES.into_iter().chain(STORY).chain(["id", "tenant"]);
        let mut headers: Map = names.map(|name| (name, "x")).collect();
        revive(&mut headers);
        assert_eq!(headers.iter().map(|(name, _)| name).collect::<Vec<_>>(), ["id", "tenant"]);
    }

    #[test]
    fn whoever_counted_further_is_believed() {
        assert_eq!(deliveries(&Map::new()), None);
        assert_eq!(deliveries(&Map::from_iter([(DELIVERIES, 3)])), Some(3));
        assert_eq!(deliveries(&Map::from_iter([(DELIVERIES, 3), (DELIVERY_COUNT, 0)])), Some(3));
        let given_back = Map::from_iter([(ACQUIRED_COUNT, 4), (DELIVERY_COUNT, 1)]);
        assert_eq!(deliveries(&given_back), Some(4));
        assert_eq!(deliveries(&Map::from_iter([(DELIVERY_COUNT, -1)])), None);
    }
}
