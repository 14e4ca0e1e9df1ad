//! Writes the calls that follow from tasks, with what this worker knows about the tasks called.
//!
//! Publishes nothing.

use super::running::Crew;
use crate::amqp::{Publish, fits_frame};
use crate::client::{Composer, Config, SendError};
use crate::protocol::canvas::JoinDefaults;
use crate::protocol::{Properties, Serializer, Signature, Value};
use crate::task::Registry;

/// What planning needs to know of the worker.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scribe<'a> {
    composer: Composer<'a>,
    registry: &'a Registry,
    /// The largest frame of the connection, in bytes.
    frame_max: usize,
}

impl<'a> Scribe<'a> {
    pub(super) fn of(crew: &'a Crew) -> Self {
        Self {
            composer: crew.client.composer(),
            registry: &crew.registry,
            frame_max: crew.client.connection().frame_max(),
        }
    }

    #[cfg(test)]
    pub(super) fn for_test(composer: Composer<'a>, registry: &'a Registry) -> Self {
        Self { composer, registry, frame_max: usize::MAX }
    }

    /// The settings.
    pub(super) fn config(&self) -> &'a Config {
        self.composer.config()
    }

    /// Whether a message with these properties fits into the frames of the connection.
    pub(super) fn carries(&self, properties: &Properties) -> bool {
        fits_frame(properties, self.frame_max)
    }

    /// The tasks that this worker knows.
    pub(super) fn registry(&self) -> &'a Registry {
        self.registry
    }

    /// How chords are joined that are made now.
    pub(super) fn join(&self) -> JoinDefaults {
        self.composer.join()
    }

    /// The message of a call with complete options. What it does not say is as the task's
    /// definition says, if this worker has one; else it is written in `serializer`. The last
    /// resort for its priority is `inherited_priority`, that of the task before it.
    pub(super) fn compose(
        &self,
        mut call: Signature,
        serializer: Serializer,
        inherited_priority: Option<u8>,
    ) -> Result<Publish, SendError> {
        let inner = call.kwargs.get("task").and_then(Value::as_map);
        let inner = inner.and_then(|task| task.get("task")).and_then(Value::as_str);
        // A map goes where the task that it maps goes.
        let named = inner.filter(|_| call.subtask_type.is_some()).unwrap_or(&call.task);
        let own = self.registry.task(named).map(|task| task.options);
        if let Some(own) = &own {
            own.complete(&mut call.options);
        }
        let serializer = own.and_then(|own| own.serializer).unwrap_or(serializer);
        self.composer.compose(call, serializer, inherited_priority)
    }
}
