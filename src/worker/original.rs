//! A message as it arrived, kept small until its delivery is settled.
//!
//! Its texts live in the request already, which most of the memory of a waiting task would
//! otherwise be spent on twice. **Invariant:** together with its request it gives back exactly the
//! message that arrived.

use super::gather;
use crate::protocol::{Date, Map, Message, Remains, TaskHeaders, TimeLimit, Value, dead};
use crate::task::Request;

/// A message without what its request has of it.
#[derive(Debug)]
pub(super) struct Original {
    message: Message,
    /// What is left of the headers, if they could be read.
    headers: Option<Box<Rest>>,
}

/// The headers that a request does not have, or not as they were written.
#[derive(Debug)]
struct Rest {
    lang: String,
    eta: Option<Date>,
    expires: Option<Date>,
    timelimit: TimeLimit,
    retries: i64,
    group_index: Option<i64>,
    ignore_result: Option<bool>,
    replaced_task_nesting: i64,
    stamped_headers: Option<Vec<Value>>,
    compression: Option<String>,
    remains: Remains,
}

impl Original {
    /// A message from which nothing was taken but the addresses.
    pub(super) fn untouched(message: Message) -> Self {
        Self { message, headers: None }
    }

    /// A message from which `headers` were taken; the request has the rest of them.
    pub(super) fn without(message: Message, headers: TaskHeaders, remains: Remains) -> Self {
        let rest = || Rest {
            lang: headers.lang,
            eta: headers.eta,
            expires: headers.expires,
            timelimit: headers.timelimit,
            retries: headers.retries,
            group_index: headers.group_index,
            ignore_result: headers.ignore_result,
            replaced_task_nesting: headers.replaced_task_nesting,
            stamped_headers: headers.stamped_headers,
            compression: headers.compression,
            remains,
        };
        // Headers that are still there were not read: the message has another protocol.
        let headers = message.properties.headers.is_none().then(|| Box::new(rest()));
        Self { message, headers }
    }

    /// How often the message had been delivered before, as far as its headers tell.
    pub(super) fn deliveries(&self, request: &Request) -> u64 {
        let rest = self.headers.as_ref().map(|rest| rest.remains.odd());
        let own = rest.or(self.message.properties.headers.as_ref());
        let (theirs, ours) = (own.and_then(dead::deliveries), dead::deliveries(&request.headers));
        theirs.max(ours).unwrap_or(0)
    }

    /// The message as it arrived.
    pub(super) fn restore(self, request: &Request) -> Message {
        let Self { mut message, headers } = self;
        let properties = &mut message.properties;
        properties.reply_to.clone_from(&request.reply_to);
        properties.correlation_id.clone_from(&request.correlation_id);
        if let Some(rest) = headers {
            properties.headers = Some(rest.restore(request));
        }
        message
    }
}

impl Rest {
    fn restore(self, request: &Request) -> Map {
        self.remains.restore(TaskHeaders {
            lang: self.lang,
            eta: self.eta,
            expires: self.expires,
            timelimit: self.timelimit,
            retries: self.retries,
            group_index: self.group_index,
            ignore_result: self.ignore_result,
            replaced_task_nesting: self.replaced_task_nesting,
            stamped_headers: self.stamped_headers,
            compression: self.compression,
            id: request.id.clone(),
            task: gather::name_on_wire(request),
            shadow: request.shadow.clone(),
            argsrepr: request.argsrepr.clone(),
            kwargsrepr: request.kwargsrepr.clone(),
            root_id: request.root_id.clone(),
            parent_id: request.parent_id.clone(),
            group: request.group.clone(),
            origin: request.origin.clone().unwrap_or_default(),
            stamps: request.stamps.clone(),
            extra: request.headers.clone(),
        })
    }
}
