//! The protocol's own map keys, so that decoding a message does not allocate for them.

use std::borrow::Cow;

macro_rules! known_keys {
    ($text:expr; $($key:literal)*) => {
        match $text {
            $($key => Cow::Borrowed($key),)*
            other => Cow::Owned(other.to_owned()),
        }
    };
}

/// The map key `text`, borrowed if it is one that Celery itself writes.
pub(super) fn intern(text: &str) -> Cow<'static, str> {
    known_keys! { text;
        "callbacks" "errbacks" "chain" "chord"
        "task" "args" "kwargs" "options" "subtask_type" "immutable"
        "status" "result" "traceback" "children" "date_done" "task_id" "parent_id" "group_id"
        "exc_type" "exc_message" "exc_module"
        "reply_to" "group_index" "root_id" "tasks" "header" "body"
    }
}
