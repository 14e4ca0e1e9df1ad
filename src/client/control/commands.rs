//! The commands by name. Celery's workers know all of them.

use std::time::Duration;

use super::{Control, ControlError, NodeReply};
use crate::protocol::{Map, Value};

type Replies = Result<Vec<NodeReply>, ControlError>;

macro_rules! questions {
    ($($(#[$doc:meta])* $name:ident)*) => {$(
        $(#[$doc])*
        ///
        /// # Errors
        /// As [`Control::command`].
        pub async fn $name(&self) -> Replies {
            self.command(stringify!($name), Map::new()).await
        }
    )*};
}

fn list(items: impl IntoIterator<Item = impl Into<String>>) -> Value {
    Value::Array(items.into_iter().map(|item| Value::from(item.into())).collect())
}

impl Control {
    questions! {
        /// Who is there? Each answers `{"ok": "pong"}`.
        ping
        /// What runs now: a list of tasks.
        active
        /// What waits for a slot: a list of tasks.
        reserved
        /// What waits for its date: a list of `{eta, priority, request}`.
        scheduled
        /// Ids of revoked tasks.
        revoked
        /// The queues that are consumed.
        active_queues
        /// Figures of the worker.
        stats
        /// The settings, without secrets.
        conf
        /// The worker described in some lines.
        report
        /// The logical clock.
        clock
        /// Send events of tasks from now on; see [`Client::events`](crate::Client::events).
        enable_events
        /// Send none any more. Workers that run with `--task-events` do all the same.
        disable_events
    }

    /// Names of the tasks, with those of their attributes that are asked for.
    ///
    /// # Errors
    /// As [`Control::command`].
    pub async fn registered(
        &self,
        attributes: impl IntoIterator<Item = impl Into<String>>,
    ) -> Replies {
        let arguments = Map::from_iter([("taskinfoitems", list(attributes))]);
        self.command("registered", arguments).await
    }

    /// Where tasks are: `{id: [state, task]}` of those that a worker holds.
    ///
    /// # Errors
    /// As [`Control::command`].
    pub async fn query_task(&self, ids: impl IntoIterator<Item = impl Into<String>>) -> Replies {
        self.command("query_task", Map::from_iter([("ids", list(ids))])).await
    }

    /// How often a task may start in each worker, such as `10/s` or `100/m`; `None` for no limit.
    ///
    /// # Errors
    /// As [`Control::command`].
    pub async fn rate_limit(&self, task: &str, limit: Option<&str>) -> Replies {
        let arguments = [("task_name", Value::from(task)), ("rate_limit", Value::from(limit))];
        self.command("rate_limit", Map::from_iter(arguments)).await
    }

    /// How long a task may run, from the next call on.
    ///
    /// # Errors
    /// As [`Control::command`].
    pub async fn time_limit(
        &self,
        task: &str,
        soft: Option<Duration>,
        hard: Option<Duration>,
    ) -> Replies {
        let seconds = |limit: Option<Duration>| Value::from(limit.map(|it| it.as_secs_f64()));
        let arguments =
            [("task_name", Value::from(task)), ("hard", seconds(hard)), ("soft", seconds(soft))];
        self.command("time_limit", Map::from_iter(arguments)).await
    }

    /// More slots.
    ///
    /// # Errors
    /// As [`Control::command`].
    pub async fn pool_grow(&self, by: u32) -> Replies {
        self.command("pool_grow", Map::from_iter([("n", by)])).await
    }

    /// Fewer slots; what runs is not disturbed.
    ///
    /// # Errors
    /// As [`Control::command`].
    pub async fn pool_shrink(&self, by: u32) -> Replies {
        self.command("pool_shrink", Map::from_iter([("n", by)])).await
    }

    /// Other bounds for workers that scale by themselves.
    ///
    /// # Errors
    /// As [`Control::command`].
    pub async fn autoscale(&self, max: u32, min: u32) -> Replies {
        self.command("autoscale", Map::from_iter([("max", max), ("min", min)])).await
    }

    /// Consume one queue more. It is declared if it does not exist.
    ///
    /// # Errors
    /// As [`Control::command`].
    pub async fn add_consumer(&self, queue: &str) -> Replies {
        let mut arguments = Map::from_iter([("queue", Value::from(queue))]);
        arguments.push("exchange", Value::Null);
        arguments.push("exchange_type", "direct");
        arguments.push("routing_key", Value::Null);
        self.command("add_consumer", arguments).await
    }

    /// Consume a queue no more.
    ///
    /// # Errors
    /// As [`Control::command`].
    pub async fn cancel_consumer(&self, queue: &str) -> Replies {
        self.command("cancel_consumer", Map::from_iter([("queue", queue)])).await
    }

    /// Warm shutdown. Nobody replies to it.
    ///
    /// # Errors
    /// As [`Control::cast`].
    pub async fn shutdown(&self) -> Result<(), ControlError> {
        self.cast("shutdown", Map::new()).await
    }
}
