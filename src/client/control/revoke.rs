//! Revoking: a command to the workers that run, and a record in the broker's stream, which those
//! that start later read.
//!
//! **Invariant:** when a revocation for all workers returns, the broker has it; or the workers
//! that run have it, and a warning says that those that start later will not.

use std::sync::Weak;

use futures::FutureExt;
use futures::future::BoxFuture;
use tracing::warn;

use super::{Control, ControlError, NodeReply, replies};
use crate::amqp::{Publish, PublishError, Topology, layout, topology};
use crate::client::Client;
use crate::client::client::Shared;
use crate::protocol::control::{Mark, Record, Revocation};
use crate::protocol::{Map, Value};
use crate::results::{RevokeError, Revokes};

/// Marks in one record of the stream, and in one command.
const MARKS_MAX: usize = 1000;

impl Control {
    /// Revokes tasks by their ids: they are not run any more, and their callers get `REVOKED`.
    /// With `terminate`, those that run are ended as well.
    ///
    /// Unless it is for some workers only, a revocation is kept in the broker for as long as
    /// `worker_revoke_expires` says, for workers that start later. One that is for some workers
    /// has reached those that reply, and nobody else. Ids that nobody knows do no harm.
    ///
    /// # Errors
    /// When the broker does not keep it and no worker has replied; of a revocation for some workers
    /// only, when the command cannot be sent.
    pub async fn revoke(
        &self,
        ids: impl IntoIterator<Item = impl Into<String>>,
        terminate: bool,
    ) -> Result<Vec<NodeReply>, ControlError> {
        let marks = ids.into_iter().map(|id| Mark::Task(id.into()));
        self.revoke_marked(Revocation { terminate, ..Revocation::now(marks) }).await
    }

    /// Revokes whatever can be revoked: tasks, workflows, groups and stamps.
    ///
    /// Workers of Celery know tasks and stamps.
    ///
    /// # Errors
    /// As [`revoke`](Self::revoke).
    pub async fn revoke_marked(
        &self,
        revocation: Revocation,
    ) -> Result<Vec<NodeReply>, ControlError> {
        check(&revocation)?;
        let (mut kept, mut replies, mut told) = (None, Vec::new(), Ok(true));
        for (method, arguments) in commands(&revocation) {
            let request = self.request(method, arguments);
            // The command comes first: workers answer what it has done.
            let keep = async {
                if kept.is_none() {
                    kept = Some(self.keep(&revocation).await);
                }
            };
            let heard = replies::ask(self, request, keep).await.map(|more| {
                let is_heard = !more.is_empty();
                replies.extend(more);
                is_heard
            });
            told = both(told, heard);
        }
        concluded(kept.flatten(), told)?;
        Ok(replies)
    }

    /// The same, without waiting for replies.
    async fn revoke_marked_quietly(&self, revocation: Revocation) -> Result<(), ControlError> {
        check(&revocation)?;
        let mut told = Ok(true);
        for (method, arguments) in commands(&revocation) {
            told = both(told, self.publish(&self.request(method, arguments)).await);
        }
        concluded(self.keep(&revocation).await, told)
    }

    /// Appends it to the stream; `None` if it is not for everybody.
    async fn keep(&self, revocation: &Revocation) -> Option<Result<(), ControlError>> {
        if !self.request("revoke", Map::new()).is_for_all() {
            return None;
        }
        for marks in revocation.marks.chunks(MARKS_MAX) {
            let signal = revocation.signal.clone();
            let part = Revocation { marks: marks.to_vec(), signal, ..*revocation };
            if let Err(error) = self.append(part).await {
                return Some(Err(error));
            }
        }
        Some(Ok(()))
    }

    async fn append(&self, revocation: Revocation) -> Result<(), ControlError> {
        let encoded = Record::Revoke(revocation).encode();
        let method = "revoke".to_owned();
        let message = encoded.map_err(|source| ControlError::Arguments { method, source })?;
        let publish = std::sync::Arc::new(Publish::new("", topology::revocation_stream(), message));
        let publisher = self.client.publisher();
        let sent = publisher.publish_all(vec![std::sync::Arc::clone(&publish)]).await.pop();
        let Some(Err(PublishError::Returned { .. })) = sent else {
            return outcome(sent);
        };
        // Nobody has revoked anything yet.
        let queues = vec![layout::revocations()];
        let stream = Topology { queues, ..Topology::default() };
        let declared = self.client.connection().declare_for_now(&stream).await;
        declared.map_err(ControlError::declare)?;
        outcome(publisher.publish_all(vec![publish]).await.pop())
    }
}

/// What two commands in a row came to: whether workers have heard both.
fn both(
    first: Result<bool, ControlError>,
    second: Result<bool, ControlError>,
) -> Result<bool, ControlError> {
    Ok(first? && second?)
}

/// What a revocation comes to. `kept` is `None` if the stream is not for it; `told` says whether
/// workers have heard the commands.
fn concluded(
    kept: Option<Result<(), ControlError>>,
    told: Result<bool, ControlError>,
) -> Result<(), ControlError> {
    match (kept, told) {
        // Those whom it is for are known, and their replies tell.
        (None, told) => told.map(|_| ()),
        (Some(Ok(())), Ok(_)) => Ok(()),
        // Who runs reads the stream as well.
        (Some(Ok(())), Err(error)) => {
            warn!(%error, "workers hear of a revocation by the stream");
            Ok(())
        }
        (Some(Err(error)), Ok(true)) => {
            let error: &dyn std::error::Error = &error;
            warn!(error, "a revocation is not kept in the broker, only workers that run know");
            Ok(())
        }
        (Some(Err(error)), Ok(false)) => Err(ControlError::NotKept(Box::new(error))),
        (Some(Err(_)), Err(error)) => Err(error),
    }
}

/// Whether all marks are such as workers remember.
fn check(revocation: &Revocation) -> Result<(), ControlError> {
    let checked = revocation.marks.iter().try_for_each(Mark::check);
    let method = "revoke".to_owned();
    checked.map_err(|source| ControlError::Arguments { method, source })
}

fn outcome(sent: Option<Result<(), PublishError>>) -> Result<(), ControlError> {
    let sent = sent.unwrap_or(Err(PublishError::Closed));
    sent.map_err(|error| ControlError::Publish(Box::new(error)))
}

/// The commands that say the same. Celery's workers pass over arguments that they do not know.
fn commands(revocation: &Revocation) -> Vec<(&'static str, Map)> {
    let mut commands = Vec::new();
    for marks in revocation.marks.chunks(MARKS_MAX) {
        let (mut tasks, mut roots, mut groups) = (Vec::new(), Vec::new(), Vec::new());
        let mut stamps = Map::new();
        for mark in marks {
            match mark {
                Mark::Task(id) => tasks.push(Value::from(id.as_str())),
                Mark::Root(id) => roots.push(Value::from(id.as_str())),
                Mark::Group(id) | Mark::Rest(id) => groups.push(Value::from(id.as_str())),
                Mark::Stamp { name, value } => match stamps.get_mut(name) {
                    Some(Value::Array(values)) => values.push(value.clone()),
                    _ => stamps.push(name.clone(), vec![value.clone()]),
                },
            }
        }
        let how = |mut arguments: Map| {
            arguments.push("terminate", revocation.terminate);
            arguments.push("signal", revocation.signal.as_deref().unwrap_or("SIGTERM"));
            arguments
        };
        if !(tasks.is_empty() && roots.is_empty() && groups.is_empty()) {
            let mut arguments = Map::from_iter([("task_id", tasks)]);
            for (key, ids) in [("root_id", roots), ("group_id", groups)] {
                if !ids.is_empty() {
                    arguments.push(key, ids);
                }
            }
            commands.push(("revoke", how(arguments)));
        }
        if !stamps.is_empty() {
            let arguments = Map::from_iter([("headers", Value::Map(stamps))]);
            commands.push(("revoke_by_stamped_headers", how(arguments)));
        }
    }
    commands
}

impl Client {
    /// Revokes a whole workflow by the id of its first task: whatever of it has not started yet
    /// does not run any more. With `terminate`, what runs is ended as well. Returns when the
    /// broker has it; workers of Celery do not know this.
    ///
    /// # Errors
    /// As [`Control::revoke`].
    pub async fn revoke_root(
        &self,
        root_id: impl Into<String>,
        terminate: bool,
    ) -> Result<(), ControlError> {
        let revocation = Revocation::now([Mark::Root(root_id.into())]);
        self.control().revoke_marked_quietly(Revocation { terminate, ..revocation }).await
    }

    /// Revokes the tasks of a group, or of the header of a chord, by its id; as
    /// [`revoke_root`](Self::revoke_root).
    ///
    /// # Errors
    /// As [`Control::revoke`].
    pub async fn revoke_group(
        &self,
        group_id: impl Into<String>,
        terminate: bool,
    ) -> Result<(), ControlError> {
        let revocation = Revocation::now([Mark::Group(group_id.into())]);
        self.control().revoke_marked_quietly(Revocation { terminate, ..revocation }).await
    }
}

/// Revokes for the results of one client, for as long as the client lives.
#[derive(Debug)]
pub(in crate::client) struct Revoker(pub(in crate::client) Weak<Shared>);

impl Revokes for Revoker {
    fn revoke(
        &self,
        task_id: &str,
        terminate: bool,
    ) -> BoxFuture<'static, Result<(), RevokeError>> {
        let (shared, task_id) = (self.0.upgrade(), task_id.to_owned());
        let revoking = async move {
            let Some(shared) = shared else { return Err(RevokeError::Closed { task_id }) };
            let control = Client { shared, lineage: None }.control();
            let revocation = Revocation::now([Mark::Task(task_id.clone())]);
            let revoked = control.revoke_marked_quietly(Revocation { terminate, ..revocation });
            revoked.await.map_err(|source| RevokeError::Failed { task_id, source: source.into() })
        };
        revoking.boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A revocation that nobody has must not look like one that is done.
    #[test]
    fn a_revocation_is_done_when_the_broker_or_a_worker_has_it() {
        let error = || ControlError::Timeout { after: std::time::Duration::ZERO };
        let is_done = |kept: Option<bool>, told: Option<bool>| {
            let kept = kept.map(|it| if it { Ok(()) } else { Err(error()) });
            concluded(kept, told.ok_or_else(error)).is_ok()
        };
        for told in [None, Some(false), Some(true)] {
            assert!(is_done(Some(true), told), "it is kept");
        }
        assert!(is_done(Some(false), Some(true)), "who runs knows");
        assert!(!is_done(Some(false), Some(false)), "nobody knows");
        assert!(!is_done(Some(false), None));
        assert!(is_done(None, Some(true)) && is_done(None, Some(false)), "replies tell");
        assert!(!is_done(None, None));
        assert_eq!(both(Ok(true), Ok(false)).ok(), Some(false), "a part is not all");
        assert!(both(Ok(true), Err(error())).is_err());
    }

    #[test]
    fn many_marks_are_spread_over_commands_that_every_worker_reads() {
        let ids = (0..2500).map(|n: u32| Mark::Task(n.to_string()));
        let stamp = |value: i64| Mark::Stamp { name: "s".to_owned(), value: value.into() };
        let others = [Mark::Root("r".to_owned()), stamp(1), stamp(2)];
        let commands = commands(&Revocation::now(ids.chain(others)));
        let methods: Vec<_> = commands.iter().map(|(method, _)| *method).collect();
        assert_eq!(methods, ["revoke", "revoke", "revoke", "revoke_by_stamped_headers"]);
        let count = |(_, arguments): &(&str, Map)| {
            arguments.get("task_id").and_then(Value::as_array).map(<[Value]>::len)
        };
        let counts: Vec<_> = commands.iter().map(count).collect();
        assert_eq!(counts, [Some(1000), Some(1000), Some(500), None]);
        assert!(commands[2].1.contains_key("root_id") && !commands[2].1.contains_key("group_id"));
        let stamps = commands[3].1.get("headers").cloned();
        let expected = Map::from_iter([("s", vec![Value::Int(1), Value::Int(2)])]);
        assert_eq!(stamps, Some(Value::Map(expected)));
    }
}
