//! What exists in the broker: the names that are ours, and declarations as plain data.
//!
//! Does not talk to the broker (see `declare.rs`). **Invariant:** no other file spells the name
//! of a queue or exchange of ours.

use std::time::Duration;

use crate::protocol::Map;

/// The queue that tasks go to unless something else is said.
pub fn default_queue() -> &'static str {
    "celeriac"
}

/// The direct exchange on which results travel by the caller's reply id.
pub fn results_exchange() -> &'static str {
    "celeriac.results"
}

/// The fanout exchange to which queues of ours dead-letter.
pub fn dead_exchange() -> &'static str {
    "celeriac.dead"
}

/// The queue behind [`dead_exchange`], which workers watch. It has a name of its own, because
/// `celeriac.dead` is where the messages of the queue `celeriac` are parked.
pub fn dead_queue() -> &'static str {
    "celeriac.dead-letters"
}

/// Where people find the messages of `queue` that could not be processed.
pub fn parking_queue(queue: &str) -> String {
    format!("{queue}.dead")
}

/// The queue on which the caller `id` receives its results.
pub fn reply_queue(id: &str) -> String {
    format!("celeriac.reply.{id}")
}

/// The queue that is the log of the join shard `shard`.
pub fn join_queue(shard: u32) -> String {
    format!("celeriac.join.{shard}")
}

/// The queue that every worker consumes that joins chords, so that they can be counted. It holds
/// nothing.
pub fn joiners_queue() -> &'static str {
    "celeriac.joiners"
}

/// The fanout exchange of remote control; `name` is Celery's `control_exchange`.
pub fn control_exchange(name: &str) -> String {
    format!("{name}.pidbox")
}

/// The queue on which the node `hostname` takes commands.
pub fn control_queue(name: &str, hostname: &str) -> String {
    format!("{hostname}.{name}.pidbox")
}

/// The direct exchange of the replies to commands.
pub fn control_reply_exchange(name: &str) -> String {
    format!("reply.{name}.pidbox")
}

/// The queue on which the caller `id` gets replies.
pub fn control_reply_queue(name: &str, id: &str) -> String {
    format!("{id}.reply.{name}.pidbox")
}

/// The queue on which the monitor `id` receives events.
pub fn event_queue(id: &str) -> String {
    format!("celeryev.{id}")
}

/// The stream of what was revoked, which every worker reads.
pub fn revocation_stream() -> &'static str {
    "celeriac.revoked"
}

/// The stream of chords that are over, and need nothing more of their parts.
pub fn rest_stream() -> &'static str {
    "celeriac.revoked.rest"
}

/// The exchange of one level of native delayed delivery, under Celery's name.
pub fn delay_exchange(level: u32) -> String {
    format!("celery_delayed_{level}")
}

/// The queue in which messages wait at one level.
pub fn delay_queue(level: u32) -> String {
    delay_exchange(level)
}

/// Whether an exchange is one of those levels.
pub fn is_delay_exchange(name: &str) -> bool {
    let level = name.strip_prefix("celery_delayed_");
    level.is_some_and(|level| level.parse::<u8>().is_ok())
}

/// The exchange to which messages come after their delay.
pub fn delay_delivery_exchange() -> &'static str {
    "celery_delayed_delivery"
}

/// The queue that locks the calls which have the hash `hash` in common.
pub fn unique_queue(hash: &str) -> String {
    format!("celeriac.unique.{hash}")
}

/// The queue that is permit number `number` of what has the name `limited`.
pub fn permit_queue(limited: &str, number: u32) -> String {
    format!("celeriac.permits.{limited}.{number}")
}

/// The queue of the starts of what has the name `limited`: `count` within `period`.
pub fn starts_queue(limited: &str, count: u32, period: Duration) -> String {
    format!("celeriac.starts.{limited}.{count}.{}", period.as_millis())
}

/// The queue that holds the large values of the parts of `chord`, until its body has ended.
pub fn park_queue(chord: &str) -> String {
    format!("celeriac.park.{chord}")
}

/// The queue that says for a while that the body of `chord` has ended. It holds nothing.
pub fn park_end_queue(chord: &str) -> String {
    format!("celeriac.park-end.{chord}")
}

/// Whether `queue` is the log of a join shard.
pub fn is_join_queue(queue: &str) -> bool {
    let number = queue.strip_prefix("celeriac.join.");
    number.is_some_and(|number| number.parse::<u32>().is_ok())
}

/// A set of declarations. Declaring it twice changes nothing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Topology {
    /// Declared first.
    pub exchanges: Vec<ExchangeSpec>,
    /// Declared second.
    pub queues: Vec<QueueSpec>,
    /// Bound last.
    pub bindings: Vec<Binding>,
}

impl Topology {
    /// Adds `other`; what has the same name is replaced.
    pub fn merge(&mut self, other: &Self) {
        for exchange in &other.exchanges {
            replace(&mut self.exchanges, exchange, |it| it.name == exchange.name);
        }
        for queue in &other.queues {
            replace(&mut self.queues, queue, |it| it.name == queue.name);
        }
        for binding in &other.bindings {
            replace(&mut self.bindings, binding, |it| it == binding);
        }
    }

    /// Forgets the queue `name` and its bindings.
    pub(super) fn forget_queue(&mut self, name: &str) {
        self.queues.retain(|queue| queue.name != name);
        self.bindings
            .retain(|binding| !matches!(&binding.to, Destination::Queue(to) if to == name));
    }

    /// The queue `name` and its bindings alone.
    pub(super) fn of_queue(&self, name: &str) -> Self {
        let bound =
            |binding: &&Binding| matches!(&binding.to, Destination::Queue(to) if to == name);
        Self {
            exchanges: Vec::new(),
            queues: self.queues.iter().filter(|queue| queue.name == name).cloned().collect(),
            bindings: self.bindings.iter().filter(bound).cloned().collect(),
        }
    }
}

fn replace<T: Clone>(items: &mut Vec<T>, item: &T, same: impl Fn(&T) -> bool) {
    match items.iter_mut().find(|it| same(it)) {
        Some(old) => old.clone_from(item),
        None => items.push(item.clone()),
    }
}

/// What to do about an exchange or queue that does not exist.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Declare {
    /// Create it. If it exists with other arguments it is used as it is, with a warning.
    #[default]
    Create,
    /// Never create it; its absence is an error.
    UseExisting,
}

/// How an exchange routes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ExchangeKind {
    /// By equal routing key.
    #[default]
    Direct,
    /// To every binding.
    Fanout,
    /// By routing key patterns.
    Topic,
    /// By headers.
    Headers,
}

/// One exchange.
#[derive(Clone, Debug, PartialEq)]
pub struct ExchangeSpec {
    /// Its name.
    pub name: String,
    /// How it routes.
    pub kind: ExchangeKind,
    /// Whether it survives a restart of the broker.
    pub durable: bool,
    /// Whether it goes away with its last binding.
    pub auto_delete: bool,
    /// Further arguments.
    pub arguments: Map,
    /// What to do if it does not exist.
    pub declare: Declare,
}

impl ExchangeSpec {
    /// A durable exchange, created if it is missing.
    pub fn durable(name: impl Into<String>, kind: ExchangeKind) -> Self {
        Self {
            name: name.into(),
            kind,
            durable: true,
            auto_delete: false,
            arguments: Map::new(),
            declare: Declare::Create,
        }
    }
}

/// How a queue stores.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum QueueKind {
    /// Replicated, written before it is delivered.
    #[default]
    Quorum,
    /// Celery's default; declared without `x-queue-type`.
    Classic,
}

/// One queue.
#[derive(Clone, Debug, PartialEq)]
pub struct QueueSpec {
    /// Its name.
    pub name: String,
    /// How it stores.
    pub kind: QueueKind,
    /// Whether it survives a restart of the broker. Quorum queues must be durable.
    pub durable: bool,
    /// Whether only the declaring connection may use it; it goes away with the connection.
    pub exclusive: bool,
    /// Whether it goes away with its last consumer.
    pub auto_delete: bool,
    /// Unused for so long, it goes away. Publishing is not use.
    pub expires: Option<Duration>,
    /// Number of priorities; classic queues only.
    pub max_priority: Option<u8>,
    /// Further arguments; they win over the ones above.
    pub arguments: Map,
    /// What to do if it does not exist.
    pub declare: Declare,
}

impl QueueSpec {
    /// A durable quorum queue, created if it is missing.
    pub fn quorum(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            kind: QueueKind::Quorum,
            durable: true,
            exclusive: false,
            auto_delete: false,
            expires: None,
            max_priority: None,
            arguments: Map::new(),
            declare: Declare::Create,
        }
    }

    /// A durable classic queue, created if it is missing: what Celery declares.
    pub fn classic(name: impl Into<String>) -> Self {
        Self { kind: QueueKind::Classic, ..Self::quorum(name) }
    }

    /// A queue that must exist, whatever its arguments are.
    pub fn existing(name: impl Into<String>) -> Self {
        Self { declare: Declare::UseExisting, ..Self::classic(name) }
    }

    /// The arguments of the declaration, with everything that the fields imply.
    pub fn declared_arguments(&self) -> Map {
        let mut arguments = Map::new();
        if self.kind == QueueKind::Quorum {
            arguments.insert("x-queue-type", "quorum");
        }
        if let Some(expires) = self.expires {
            let expires_ms = i64::try_from(expires.as_millis()).unwrap_or(i64::MAX);
            arguments.insert("x-expires", expires_ms);
        }
        if let Some(max_priority) = self.max_priority {
            arguments.insert("x-max-priority", i64::from(max_priority));
        }
        for (key, value) in self.arguments.iter() {
            arguments.insert(key.to_owned(), value.clone());
        }
        arguments
    }
}

/// Where a binding leads.
#[derive(Clone, Debug, PartialEq)]
pub enum Destination {
    /// To a queue.
    Queue(String),
    /// To another exchange.
    Exchange(String),
}

/// One binding.
#[derive(Clone, Debug, PartialEq)]
pub struct Binding {
    /// The exchange whose messages are taken.
    pub from: String,
    /// Where they go.
    pub to: Destination,
    /// Key or pattern.
    pub routing_key: String,
    /// Arguments, for example of a headers exchange.
    pub arguments: Map,
}

impl Binding {
    /// Binds `queue` to `exchange` by `routing_key`.
    pub fn queue(
        queue: impl Into<String>,
        exchange: impl Into<String>,
        routing_key: impl Into<String>,
    ) -> Self {
        Self {
            from: exchange.into(),
            to: Destination::Queue(queue.into()),
            routing_key: routing_key.into(),
            arguments: Map::new(),
        }
    }

    /// Binds the exchange `to` to the exchange `from` by `routing_key`.
    pub fn exchange(
        to: impl Into<String>,
        from: impl Into<String>,
        routing_key: impl Into<String>,
    ) -> Self {
        Self { to: Destination::Exchange(to.into()), ..Self::queue("", from, routing_key) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Value;

    #[test]
    fn a_queue_declares_what_its_fields_imply() {
        let mut queue = QueueSpec::quorum("q");
        queue.expires = Some(Duration::from_secs(2));
        queue.arguments.insert("x-delivery-limit", 20_i64);
        let arguments = queue.declared_arguments();
        assert_eq!(arguments.get("x-queue-type").and_then(Value::as_str), Some("quorum"));
        assert_eq!(arguments.get("x-expires").and_then(Value::as_i64), Some(2000));
        assert_eq!(arguments.get("x-delivery-limit").and_then(Value::as_i64), Some(20));
        assert!(QueueSpec::classic("q").declared_arguments().is_empty());
    }

    #[test]
    fn merging_replaces_by_name_and_keeps_bindings_once() {
        let one = Topology {
            exchanges: vec![ExchangeSpec::durable("e", ExchangeKind::Direct)],
            queues: vec![QueueSpec::classic("q")],
            bindings: vec![Binding::queue("q", "e", "k")],
        };
        let mut all = one.clone();
        all.merge(&Topology { queues: vec![QueueSpec::quorum("q")], ..one.clone() });
        assert_eq!((all.exchanges.len(), all.queues.len(), all.bindings.len()), (1, 1, 1));
        assert_eq!(all.queues.first().map(|queue| queue.kind), Some(QueueKind::Quorum));
        assert_eq!(all.of_queue("q").bindings, one.bindings);
        all.forget_queue("q");
        assert_eq!((all.exchanges.len(), all.queues.len(), all.bindings.len()), (1, 0, 0));
    }
}
