//! What events tell, type by type.

use super::event::{integer, needed, number, push_some, text};
use crate::protocol::fields;
use crate::protocol::{Error, Map, Value, weight};

/// What has happened. Tasks are named by their id, `uuid`; what they are is told when they are
/// sent or received, and never again.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum EventKind {
    /// A client has sent a call; only with the setting `task_send_sent_event`.
    TaskSent(Box<TaskSent>),
    /// A worker has taken a call.
    TaskReceived(Box<TaskInfo>),
    /// A task has begun to run.
    TaskStarted {
        /// The call.
        uuid: String,
    },
    /// A task has returned.
    TaskSucceeded {
        /// The call.
        uuid: String,
        /// What it has returned, as Python shows it.
        result: Option<String>,
        /// How long it has run, in seconds.
        runtime: Option<f64>,
    },
    /// A task has failed for good.
    TaskFailed {
        /// The call.
        uuid: String,
        /// With what, as Python shows it.
        exception: Option<String>,
        /// Where. Not of tasks that nobody knows.
        traceback: Option<String>,
    },
    /// A task has failed and is tried again.
    TaskRetried {
        /// The call.
        uuid: String,
        /// With what it has failed, as Python shows it.
        exception: Option<String>,
        /// Where.
        traceback: Option<String>,
    },
    /// A task has given its message back.
    TaskRejected {
        /// The call.
        uuid: String,
        /// Whether it goes back to its queue.
        requeue: bool,
    },
    /// A task is not run, or not to its end, on purpose.
    TaskRevoked {
        /// The call.
        uuid: String,
        /// Whether it was stopped while it ran.
        terminated: bool,
        /// The number of the signal that has stopped it.
        signum: Option<i64>,
        /// Whether its time had passed before it started.
        expired: bool,
    },
    /// A worker has started.
    WorkerOnline(WorkerFacts),
    /// A worker is there still.
    WorkerHeartbeat(WorkerFacts),
    /// A worker stops.
    WorkerOffline(WorkerFacts),
    /// Anything else, such as what a task sends by itself.
    Custom {
        /// Its type.
        name: String,
        /// All else that it tells.
        fields: Map,
    },
}

/// What a call is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TaskInfo {
    /// Id of the call.
    pub uuid: String,
    /// The task's name, or the one to show instead.
    pub name: Option<String>,
    /// Positional arguments, as Python shows them.
    pub args: Option<String>,
    /// Keyword arguments, as Python shows them.
    pub kwargs: Option<String>,
    /// Id of the first call of the workflow.
    pub root_id: Option<String>,
    /// Id of the call that has sent this one.
    pub parent_id: Option<String>,
    /// How often it was retried before.
    pub retries: i64,
    /// Not to be run before; ISO 8601.
    pub eta: Option<String>,
    /// Not to be started after; ISO 8601.
    pub expires: Option<String>,
}

/// A call that was sent, and where to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TaskSent {
    /// What it is.
    pub task: TaskInfo,
    /// The queue, if there is one of that name.
    pub queue: Option<String>,
    /// The exchange.
    pub exchange: Option<String>,
    /// The routing key there.
    pub routing_key: Option<String>,
}

/// How a worker is. A heartbeat that was asked for tells the software only.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WorkerFacts {
    /// Seconds from one heartbeat to the next.
    pub freq: Option<f64>,
    /// How many tasks run.
    pub active: Option<i64>,
    /// How many have been started since the worker was.
    pub processed: Option<i64>,
    /// The machine's load over 1, 5 and 15 minutes.
    pub loadavg: Option<[f64; 3]>,
    /// Name of the software.
    pub sw_ident: Option<String>,
    /// Its version.
    pub sw_ver: Option<String>,
    /// The operating system.
    pub sw_sys: Option<String>,
}

impl EventKind {
    /// The word for it on the wire.
    pub fn name(&self) -> &str {
        match self {
            Self::Custom { name, .. } => name,
            known => known.known_name().unwrap_or_default(),
        }
    }

    /// The same; `None` for those that are free to choose theirs.
    pub(super) fn known_name(&self) -> Option<&'static str> {
        Some(match self {
            Self::TaskSent(_) => "task-sent",
            Self::TaskReceived(_) => "task-received",
            Self::TaskStarted { .. } => "task-started",
            Self::TaskSucceeded { .. } => "task-succeeded",
            Self::TaskFailed { .. } => "task-failed",
            Self::TaskRetried { .. } => "task-retried",
            Self::TaskRejected { .. } => "task-rejected",
            Self::TaskRevoked { .. } => "task-revoked",
            Self::WorkerOnline(_) => "worker-online",
            Self::WorkerHeartbeat(_) => "worker-heartbeat",
            Self::WorkerOffline(_) => "worker-offline",
            Self::Custom { .. } => return None,
        })
    }

    /// Whether it tells of a task.
    pub fn is_of_task(&self) -> bool {
        self.name().starts_with("task-")
    }

    /// Whether it tells of a worker.
    pub fn is_of_worker(&self) -> bool {
        self.name().starts_with("worker-")
    }

    /// Whether it may travel in a list with others. What a task tells by itself does not: monitors
    /// may listen for its type alone.
    pub(crate) fn is_listed(&self) -> bool {
        self.is_of_task() && !matches!(self, Self::Custom { .. })
    }

    /// Whether events of the type `name` are those of workers and clients, and no custom ones.
    pub(crate) fn is_reserved(name: &str) -> bool {
        const OF_TASKS: [&str; 8] = [
            "task-sent",
            "task-received",
            "task-started",
            "task-succeeded",
            "task-failed",
            "task-retried",
            "task-rejected",
            "task-revoked",
        ];
        name.starts_with("worker-") || OF_TASKS.contains(&name)
    }

    /// The call that it tells of.
    pub fn uuid(&self) -> Option<&str> {
        match self {
            Self::TaskSent(sent) => Some(&sent.task.uuid),
            Self::TaskReceived(task) => Some(&task.uuid),
            Self::TaskStarted { uuid }
            | Self::TaskSucceeded { uuid, .. }
            | Self::TaskFailed { uuid, .. }
            | Self::TaskRetried { uuid, .. }
            | Self::TaskRejected { uuid, .. }
            | Self::TaskRevoked { uuid, .. } => Some(uuid),
            Self::WorkerOnline(_) | Self::WorkerHeartbeat(_) | Self::WorkerOffline(_) => None,
            Self::Custom { fields, .. } => fields.get("uuid")?.as_str(),
        }
    }

    /// What the call is, in the events that say it.
    pub fn task(&self) -> Option<&TaskInfo> {
        match self {
            Self::TaskSent(sent) => Some(&sent.task),
            Self::TaskReceived(task) => Some(task),
            _ => None,
        }
    }

    /// Cuts texts that are longer than `max` bytes, and gives how long all of them are then. Ids,
    /// addresses and the fields of a custom event are counted, but not cut.
    pub(crate) fn shorten(&mut self, max: usize) -> usize {
        let mut sum = self.uuid().map_or(0, str::len);
        let mut cut = |text: &mut String| {
            shorten(text, max);
            sum += text.len();
        };
        match self {
            Self::TaskSent(sent) => {
                let TaskSent { task, queue, exchange, routing_key } = &mut **sent;
                task.texts().for_each(cut);
                let address = [queue, exchange, routing_key].into_iter().flatten();
                sum += task.ids() + address.map(|it| it.len()).sum::<usize>();
            }
            Self::TaskReceived(task) => {
                task.texts().for_each(cut);
                sum += task.ids();
            }
            Self::TaskSucceeded { result, .. } => result.iter_mut().for_each(cut),
            Self::TaskFailed { exception, traceback, .. }
            | Self::TaskRetried { exception, traceback, .. } => {
                [exception, traceback].into_iter().flatten().for_each(&mut cut);
            }
            Self::TaskStarted { .. }
            | Self::TaskRejected { .. }
            | Self::TaskRevoked { .. }
            | Self::WorkerOnline(_)
            | Self::WorkerHeartbeat(_)
            | Self::WorkerOffline(_) => {}
            // Its id is one of them.
            Self::Custom { name, fields } => sum = name.len() + weight::size_of_map(fields),
        }
        sum
    }

    /// Reads what an event of the type `name` has beside who has sent it.
    pub(super) fn from_map(name: String, mut map: Map) -> Result<Self, Error> {
        let map = &mut map;
        Ok(match &*name {
            "task-sent" => Self::TaskSent(Box::new(TaskSent {
                task: TaskInfo::take(map)?,
                queue: text(map, "queue"),
                exchange: text(map, "exchange"),
                routing_key: text(map, "routing_key"),
            })),
            "task-received" => Self::TaskReceived(Box::new(TaskInfo::take(map)?)),
            "task-started" => Self::TaskStarted { uuid: needed(map, "uuid")? },
            "task-succeeded" => Self::TaskSucceeded {
                uuid: needed(map, "uuid")?,
                result: text(map, "result"),
                runtime: number(map, "runtime"),
            },
            "task-failed" => Self::TaskFailed {
                uuid: needed(map, "uuid")?,
                exception: text(map, "exception"),
                traceback: text(map, "traceback"),
            },
            "task-retried" => Self::TaskRetried {
                uuid: needed(map, "uuid")?,
                exception: text(map, "exception"),
                traceback: text(map, "traceback"),
            },
            "task-rejected" => {
                Self::TaskRejected { uuid: needed(map, "uuid")?, requeue: flag(map, "requeue") }
            }
            "task-revoked" => Self::TaskRevoked {
                uuid: needed(map, "uuid")?,
                terminated: flag(map, "terminated"),
                signum: signum(map),
                expired: flag(map, "expired"),
            },
            "worker-online" => Self::WorkerOnline(WorkerFacts::take(map)),
            "worker-heartbeat" => Self::WorkerHeartbeat(WorkerFacts::take(map)),
            "worker-offline" => Self::WorkerOffline(WorkerFacts::take(map)),
            _ => Self::Custom { name, fields: std::mem::take(map) },
        })
    }

    pub(super) fn push_into(self, map: &mut Map) {
        match self {
            Self::TaskSent(sent) => sent.push_into(map),
            Self::TaskReceived(task) => task.push_into(map),
            Self::TaskStarted { uuid } => map.push("uuid", uuid),
            Self::TaskSucceeded { uuid, result, runtime } => {
                map.push("uuid", uuid);
                map.push("result", result);
                map.push("runtime", runtime);
            }
            Self::TaskFailed { uuid, exception, traceback }
            | Self::TaskRetried { uuid, exception, traceback } => {
                map.push("uuid", uuid);
                map.push("exception", exception);
                push_some(map, "traceback", traceback);
            }
            Self::TaskRejected { uuid, requeue } => {
                map.push("uuid", uuid);
                map.push("requeue", requeue);
            }
            Self::TaskRevoked { uuid, terminated, signum, expired } => {
                map.push("uuid", uuid);
                map.push("terminated", terminated);
                map.push("signum", signum);
                map.push("expired", expired);
            }
            Self::WorkerOnline(facts)
            | Self::WorkerHeartbeat(facts)
            | Self::WorkerOffline(facts) => facts.push_into(map),
            Self::Custom { fields, .. } => {
                for (key, value) in fields {
                    map.push(key, value);
                }
            }
        }
    }
}

impl TaskInfo {
    /// Those that the sender may make as long as it likes.
    fn texts(&mut self) -> impl Iterator<Item = &mut String> {
        let Self { name, args, kwargs, .. } = self;
        [name, args, kwargs].into_iter().flatten()
    }

    /// How long the ids of other calls are together, and the dates.
    fn ids(&self) -> usize {
        let ids = [&self.root_id, &self.parent_id, &self.eta, &self.expires];
        ids.into_iter().flatten().map(String::len).sum()
    }

    fn take(map: &mut Map) -> Result<Self, Error> {
        Ok(Self {
            uuid: needed(map, "uuid")?,
            name: text(map, "name"),
            args: text(map, "args"),
            kwargs: text(map, "kwargs"),
            root_id: text(map, "root_id"),
            parent_id: text(map, "parent_id"),
            retries: integer(map, "retries").unwrap_or(0),
            eta: text(map, "eta"),
            expires: text(map, "expires"),
        })
    }

    fn push_into(self, map: &mut Map) {
        map.push("uuid", self.uuid);
        map.push("name", self.name);
        map.push("args", self.args);
        map.push("kwargs", self.kwargs);
        map.push("root_id", self.root_id);
        map.push("parent_id", self.parent_id);
        map.push("retries", self.retries);
        map.push("eta", self.eta);
        map.push("expires", self.expires);
    }
}

impl TaskSent {
    fn push_into(self, map: &mut Map) {
        let task = self.task;
        map.push("uuid", task.uuid);
        map.push("root_id", task.root_id);
        map.push("parent_id", task.parent_id);
        map.push("name", task.name);
        map.push("args", task.args);
        map.push("kwargs", task.kwargs);
        map.push("retries", task.retries);
        map.push("eta", task.eta);
        map.push("expires", task.expires);
        map.push("queue", self.queue);
        map.push("exchange", self.exchange);
        map.push("routing_key", self.routing_key);
    }
}

impl WorkerFacts {
    fn take(map: &mut Map) -> Self {
        Self {
            freq: number(map, "freq"),
            active: integer(map, "active"),
            processed: integer(map, "processed"),
            loadavg: load(map),
            sw_ident: text(map, "sw_ident"),
            sw_ver: text(map, "sw_ver"),
            sw_sys: text(map, "sw_sys"),
        }
    }

    fn push_into(self, map: &mut Map) {
        let load = |load: [f64; 3]| Value::Array(load.map(Value::Float).to_vec());
        push_some(map, "freq", self.freq);
        push_some(map, "active", self.active);
        push_some(map, "processed", self.processed);
        push_some(map, "loadavg", self.loadavg.map(load));
        push_some(map, "sw_ident", self.sw_ident);
        push_some(map, "sw_ver", self.sw_ver);
        push_some(map, "sw_sys", self.sw_sys);
    }
}

fn shorten(text: &mut String, max: usize) {
    const DOTS: &str = "...";
    if text.len() <= max {
        return;
    }
    let mut end = max.saturating_sub(DOTS.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    text.push_str(DOTS);
    // What was cut off would stay in memory as long as the event waits.
    text.shrink_to_fit();
}

fn flag(map: &mut Map, field: &'static str) -> bool {
    let value = map.remove(field).unwrap_or_default();
    fields::flag(field, &value).ok().flatten().unwrap_or(false)
}

/// The number of a signal: a text where a child of Python's pool was killed by somebody else.
fn signum(map: &mut Map) -> Option<i64> {
    match map.remove("signum")? {
        Value::String(text) => text.parse().ok(),
        other => fields::integer("signum", &other).ok()?,
    }
}

/// Three numbers; Python has been seen to send more or fewer on systems without a load.
fn load(map: &mut Map) -> Option<[f64; 3]> {
    let items = fields::array("loadavg", map.remove("loadavg")?).ok()??;
    let mut load = [0.0; 3];
    for (place, item) in load.iter_mut().zip(&items) {
        *place = fields::number("loadavg", item).ok()?.unwrap_or(0.0);
    }
    Some(load)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_does_not_choose_the_words_of_workers_and_clients() {
        let known = |name: &str| {
            let fields = Map::from_iter([("uuid", "1")]);
            !matches!(EventKind::from_map(name.to_owned(), fields), Ok(EventKind::Custom { .. }))
        };
        for name in ["task-sent", "task-started", "task-rejected", "worker-online"] {
            assert!(known(name) && EventKind::is_reserved(name), "{name}");
        }
        for name in ["task-progress", "task", "order-paid", ""] {
            assert!(!known(name) && !EventKind::is_reserved(name), "{name}");
        }
        assert!(EventKind::is_reserved("worker-elect-ack"), "they have more words than we read");
    }

    #[test]
    fn long_texts_are_cut_between_letters() {
        let failed = |text: &str| EventKind::TaskFailed {
            uuid: "1".to_owned(),
            exception: Some(text.to_owned()),
            traceback: Some("here".to_owned()),
        };
        let mut event = failed("short");
        assert_eq!(event.shorten(5), 1 + 9);
        assert_eq!(event, failed("short"));
        let mut event = failed("\u{fc}ber alles lang");
        assert_eq!(event.shorten(4), 1 + 3 + 4, "a letter is not cut in two");
        assert_eq!(event, failed("..."));
    }
}
