//! Calls of which only one is sent within a time.
//!
//! The lock is a queue that the broker makes for one call only: its name says which calls are the
//! same, and one of its arguments holds the id of the call that came first. Whoever declares it
//! again with the same id finds it as it is, and with another id is told the first one. To make a
//! queue is atomic in the broker, also between the nodes of a cluster; nothing is read and then
//! written. The queue takes no messages, and goes away when the time is over, because a refused
//! declaration is no use of it.
//!
//! Does not know when tasks end: the time alone counts. **Invariant:** of calls that are the same,
//! at most one id is sent within the time; a lock is given up early only by a call that surely was
//! not sent.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use uuid::Uuid;

use crate::amqp::{self, Connection, QueueSpec, topology};
use crate::protocol::{Error, Map, Value, msgpack};

/// The longest time; the broker takes no longer one for its queues.
const WINDOW_MAX: Duration = Duration::from_millis(u32::MAX as u64);

/// The argument that holds the first id: of those that the broker compares, one that takes any
/// text and has no meaning for a queue without messages.
const HOLDER: &str = "x-dead-letter-exchange";

/// How often a lock that just went away is tried again.
const TRIES_MAX: u32 = 4;

/// That a call is to be the only one of its kind for a time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Unique {
    /// The time, from the sending on; `None` if only a key is known yet.
    pub(crate) window: Option<Duration>,
    /// What makes calls the same, instead of their arguments.
    pub(crate) key: Option<String>,
    /// Whether a second call stands for the first one, instead of being refused.
    pub(crate) joins_first: bool,
    /// Whether the task says so, and not the call.
    pub(crate) by_task: bool,
}

/// The lock of a call that is about to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Lock {
    /// The name of its queue.
    pub(super) queue: String,
    pub(super) window: Duration,
    pub(super) joins_first: bool,
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Claim {
    /// This call is the first.
    First,
    /// Another one was; its id, unless the broker's words are too long to hold it.
    Taken(Option<String>),
}

impl Unique {
    /// The lock of a call, or why there can be none.
    pub(super) fn lock(&self, task: &str, args: &[Value], kwargs: &Map) -> Result<Lock, String> {
        let window = self.window()?;
        let queue = self.name(task, args, kwargs).map_err(|failed| failed.to_string())?;
        Ok(Lock { queue, window, joins_first: self.joins_first })
    }

    fn window(&self) -> Result<Duration, String> {
        match self.window {
            None => Err("unique_key needs a time: say unique as well".to_owned()),
            Some(window) if window.as_millis() == 0 || window > WINDOW_MAX => Err(format!(
                "unique must be between 1 ms and {} days",
                WINDOW_MAX.as_secs() / 86_400
            )),
            Some(window) => Ok(window),
        }
    }

    fn name(&self, task: &str, args: &[Value], kwargs: &Map) -> Result<String, Error> {
        let what = match &self.key {
            Some(key) => Value::from(key.as_str()),
            None => Value::Array(vec![Value::Array(args.to_vec()), Value::Map(kwargs.clone())]),
        };
        let mut bytes = Vec::new();
        msgpack::encode(&Value::Array(vec![task.into(), what]).sorted(), &mut bytes)?;
        let hash = Uuid::new_v5(&Uuid::NAMESPACE_OID, &bytes);
        Ok(topology::unique_queue(&URL_SAFE_NO_PAD.encode(hash.as_bytes())))
    }
}

/// Claims `lock` for the call `id`. Claiming it again for the same id, after a connection was
/// lost for example, succeeds, and begins its time anew.
pub(super) async fn claim(
    connection: &Connection,
    lock: &Lock,
    id: &str,
) -> Result<Claim, amqp::Error> {
    let Lock { queue: lock, window, .. } = lock;
    let window = *window;
    for _ in 0..TRIES_MAX {
        let refusal = match connection.declare_exactly(&spec(lock, window, &holder(id))).await {
            Ok(_) => return Ok(Claim::First),
            Err(amqp::Error::Refused { code: 406, text }) => text,
            Err(error) => return Err(error),
        };
        if let Some(first) = current(&refusal, HOLDER) {
            return Ok(Claim::Taken(Some(id_of(&first))));
        }
        // It was made for another time, which is told instead, or the words were cut off behind
        // two long ids. So the broker is asked again, in few words.
        let other = current(&refusal, "x-expires").and_then(|ms| ms.parse().ok());
        let other = other.map_or(window, Duration::from_millis);
        match connection.declare_exactly(&spec(lock, other, "-")).await {
            Err(amqp::Error::Refused { code: 406, text }) => {
                return Ok(Claim::Taken(current(&text, HOLDER).map(|first| id_of(&first))));
            }
            Err(error) => return Err(error),
            // Its time was over just now: what was made is nobody's.
            Ok(_) => connection.delete_queue(lock).await?,
        }
    }
    Ok(Claim::Taken(None))
}

fn spec(lock: &str, window: Duration, holder: &str) -> QueueSpec {
    let mut spec = QueueSpec { expires: Some(window), ..QueueSpec::classic(lock) };
    spec.arguments.insert(HOLDER, holder);
    spec
}

/// How an id is written: short, because the broker tells it in a text of 255 bytes.
fn holder(id: &str) -> String {
    match Uuid::parse_str(id) {
        Ok(uuid) if uuid.hyphenated().to_string() == id => {
            format!("u{}", URL_SAFE_NO_PAD.encode(uuid.as_bytes()))
        }
        _ => format!("i{id}"),
    }
}

fn id_of(holder: &str) -> String {
    let short = holder.strip_prefix('u').and_then(|text| URL_SAFE_NO_PAD.decode(text).ok());
    match short.and_then(|bytes| Uuid::from_slice(&bytes).ok()) {
        Some(uuid) => uuid.hyphenated().to_string(),
        None => holder.strip_prefix('i').unwrap_or(holder).to_owned(),
    }
}

/// The value of `argument` in the broker's words for a refused declaration:
/// `… inequivalent arg 'x' for queue … but current is 'value'`, from RabbitMQ 4 on
/// `… but current is the value 'value' of type 'longstr'`. `None` if they are about another one,
/// or cut off.
fn current(text: &str, argument: &str) -> Option<String> {
    let (_, about) = text.split_once("inequivalent arg '")?;
    let about = about.strip_prefix(argument)?.strip_prefix('\'')?;
    let (_, value) = about.rsplit_once("but current is ")?;
    let value = value.strip_prefix("the value ").unwrap_or(value).strip_prefix('\'')?;
    let value =
        value.split_once("' of type").map_or_else(|| value.strip_suffix('\''), |it| Some(it.0));
    value.map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lock(unique: &Unique, task: &str, args: &[Value], kwargs: &[(&'static str, i64)]) -> String {
        unique.name(task, args, &kwargs.iter().copied().collect()).unwrap()
    }

    #[test]
    fn the_same_calls_have_the_same_lock() {
        let any = Unique::default();
        let one = lock(&any, "add", &[1.into()], &[("x", 1), ("y", 2)]);
        assert_eq!(one, lock(&any, "add", &[1.into()], &[("y", 2), ("x", 1)]));
        assert!(one.starts_with("celeriac.unique.") && one.len() == 38, "{one}");
        assert_ne!(one, lock(&any, "sub", &[1.into()], &[("x", 1), ("y", 2)]));
        assert_ne!(one, lock(&any, "add", &[2.into()], &[("x", 1), ("y", 2)]));
        assert_ne!(one, lock(&any, "add", &[1.into()], &[("x", 1), ("y", 3)]));
        let by_key = Unique { key: Some("k".into()), ..Unique::default() };
        assert_eq!(lock(&by_key, "add", &[1.into()], &[]), lock(&by_key, "add", &[], &[("x", 3)]));
    }

    #[test]
    fn ids_survive_being_shortened() {
        for id in [
            "0d6ad1c6-4a0c-4d3a-9c5c-0a5c2ab6a2f1",
            "0D6AD1C6-4A0C-4D3A-9C5C-0A5C2AB6A2F1",
            "it's",
            "",
            "u",
        ] {
            assert_eq!(id_of(&holder(id)), id);
        }
        assert_eq!(holder("0d6ad1c6-4a0c-4d3a-9c5c-0a5c2ab6a2f1").len(), 23);
    }

    #[test]
    fn the_broker_s_words_are_understood() {
        let begin = "PRECONDITION_FAILED - inequivalent arg 'x-dead-letter-exchange' for queue \
                     'q' in vhost '/': received 'ib' but current is ";
        let read = |end: &str| current(&format!("{begin}{end}"), HOLDER);
        assert_eq!(read("'ia'").as_deref(), Some("ia"));
        assert_eq!(read("'it's'").as_deref(), Some("it's"));
        assert_eq!(read("the value 'ia' of type 'longstr'").as_deref(), Some("ia"));
        for cut in ["", "'", "'ia", "the value 'ia", "none"] {
            assert_eq!(read(cut), None, "{cut}");
        }
        assert_eq!(current(begin, "x-expires"), None);
        assert_eq!(current("something else", HOLDER), None);
    }

    #[test]
    fn times_that_the_broker_does_not_take_are_refused() {
        let of = |window| Unique { window, ..Unique::default() }.window();
        assert!(of(Some(Duration::from_secs(600))).is_ok());
        for wrong in [None, Some(Duration::ZERO), Some(Duration::from_secs(50 * 86_400))] {
            assert!(of(wrong).is_err());
        }
    }
}
