//! `task-sent`: what a program has called, told by the one who calls.

use crate::amqp::Publish;
use crate::client::{Client, delays};
use crate::protocol::event::{EventKind, TaskInfo, TaskSent};
use crate::protocol::{Value, delay};

impl Client {
    /// What is to be told of a call once it is sent; `None` if the settings want nothing.
    pub(crate) fn sent_event(&self, publish: &Publish) -> Option<EventKind> {
        self.dispatcher().map(|_| EventKind::TaskSent(Box::new(sent(publish))))
    }

    /// Tells of a call that was sent.
    pub(crate) fn tell_sent(&self, event: Option<EventKind>) {
        if let (Some(dispatcher), Some(event)) = (self.dispatcher(), event) {
            dispatcher.send(event);
        }
    }
}

/// The call as its own message shows it.
fn sent(publish: &Publish) -> TaskSent {
    let header = |name| publish.message.header(name);
    let text = |name| header(name).and_then(Value::as_str).map(str::to_owned);
    let queue = match &*publish.exchange {
        "" => Some(publish.routing_key.clone()),
        _ if delays::is_delayed(publish) => Some(delay::strip(&publish.routing_key).to_owned()),
        _ => None,
    };
    TaskSent {
        task: TaskInfo {
            uuid: text("id").unwrap_or_default(),
            name: text("task"),
            args: text("argsrepr"),
            kwargs: text("kwargsrepr"),
            root_id: text("root_id"),
            parent_id: text("parent_id"),
            retries: header("retries").and_then(Value::as_i64).unwrap_or(0),
            eta: text("eta"),
            expires: text("expires"),
        },
        queue,
        exchange: Some(publish.exchange.to_string()),
        routing_key: Some(publish.routing_key.clone()),
    }
}
