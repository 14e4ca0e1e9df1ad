//! The queues that settings name, as declarations.

use super::Config;
use crate::amqp::layout::{self, CELERY_QUEUE};
use crate::amqp::{QueueKind, QueueSpec};

impl Config {
    /// How the queue `name` is declared if it does not exist: as `task_queues` says; else, for
    /// Celery's own default queue, as Celery declares it; else as `task_default_queue_type` says.
    pub(crate) fn queue(&self, name: &str) -> QueueSpec {
        let setting = self.task_queues.iter().find(|setting| setting.name == name);
        let fallback =
            if name == CELERY_QUEUE { QueueKind::Classic } else { self.task_default_queue_type };
        let kind = setting.and_then(|setting| setting.queue_type).unwrap_or(fallback);
        layout::task_queue(name, kind, setting.and_then(|setting| setting.max_priority))
    }

    /// Whether what the broker drops from the queue `name` is dead-lettered, and so not lost: true
    /// for quorum queues that this program declares itself.
    pub(crate) fn dead_letters(&self, name: &str) -> bool {
        let is_known = || {
            name == self.task_default_queue
                || self.task_queues.iter().any(|setting| setting.name == name)
                || self.task_routes.queues().any(|queue| queue == name)
        };
        self.queue(name).kind == QueueKind::Quorum && is_known()
    }

    /// The queues that the settings name: the default queue, those of `task_queues`, and those
    /// that routes lead to.
    pub(crate) fn known_queues(&self) -> Vec<QueueSpec> {
        let mut names = vec![self.task_default_queue.as_str()];
        names.extend(self.task_queues.iter().map(|setting| setting.name.as_str()));
        names.extend(self.task_routes.queues());
        names.sort_unstable();
        names.dedup();
        names.into_iter().map(|name| self.queue(name)).collect()
    }
}
